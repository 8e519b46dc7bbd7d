"""The curves as pictures: one PNG of all panels, for documents, and SVGs of single ones, for the page."""

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from whisper_ft.reports.curves.history import History, Row
from whisper_ft.reports.curves.panel import ERRORS, Panel, panels_of
from whisper_ft.reports.curves.smoothing import smoothed, thinned

MARKERS = "os^DvPX"  # so that the curves can be told apart in grey, too
ROUND = (1, 2, 2.5, 5, 10)  # ticks are these times a power of ten
POWERS = 10  # greatest over least value from which on an axis is logarithmic
DOTS_PER_INCH = 200


@dataclass(frozen=True)
class Theme:
    """Colours of a picture: those of the runs are of Okabe and Ito, which colour-blind people can tell apart."""

    paper: str
    ink: str
    soft: str
    line: str
    runs: tuple[str, ...]


LIGHT = Theme(
    "#ffffff", "#1f1e1b", "#66635c", "#e3e0d9",
    ("#0072b2", "#d55e00", "#009e73", "#b0568c", "#b37b00", "#3a9ad9", "#1f1e1b"),
)  # fmt: skip
DARK = Theme(
    "#1f1f22", "#eceae5", "#a5a29a", "#36363b",
    ("#56a8e8", "#f08a4b", "#3cc79a", "#dd93bd", "#f0b840", "#8fd0f5", "#eceae5"),
)  # fmt: skip


def png_of(runs: Mapping[str, History], width: float, title: str = "") -> bytes:
    """All panels on white paper; `width` is that of the smoothing. The names of several runs stand above."""
    panels = panels_of(list(runs.values()))
    with _house_style(LIGHT, size=9):
        rows = -(-len(panels) // 2)
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.09, hspace=0.03, wspace=0.03)
        figure = Figure(figsize=(9.6, 2.55 * rows + 0.75), layout=layout)
        grid = figure.add_gridspec(rows, 2)
        for number, panel in enumerate(panels):
            is_last_alone = number == len(panels) - 1 and len(panels) % 2
            axes = figure.add_subplot(grid[number // 2, :] if is_last_alone else grid[number // 2, number % 2])
            _draw(axes, panel, runs, LIGHT, width)
            if number // 2 == rows - 1:
                _say_step(axes)
        if len(runs) > 1:
            handles = [_line_of(number, LIGHT, lw=2, **_mark(number, True)) for number in range(len(runs))]
            figure.legend(handles, [_plain(name) for name in runs], loc="outside upper left", ncols=min(len(runs), 4))
        elif title:
            figure.suptitle(_plain(title), x=0.012, ha="left", weight="bold", size=12)
        figure.supxlabel(key_of(runs, panels, width), x=0.5, size=8, color=LIGHT.soft)
        return _written(figure, "png", dpi=DOTS_PER_INCH)


def svg_of(panel: Panel, runs: Mapping[str, History], look: Theme, width: float) -> bytes:
    """One panel, with its title; text stays text, in the reader's own font."""
    with _house_style(look, size=9.5):
        figure = Figure(figsize=(5.2, 3.0), layout="constrained")
        axes = figure.add_subplot()
        _draw(axes, panel, runs, look, width)
        _say_step(axes)
        return _written(figure, "svg").replace(b"'DejaVu Sans'", b"system-ui, 'DejaVu Sans'")


def key_of(runs: Mapping[str, History], panels: Sequence[Panel], width: float) -> str:
    """For people: what the kinds of lines mean, of those that were drawn."""
    courses = [course for run in runs.values() for course in (run.logged, run.evaluated)]
    told = []
    if width:
        told.append("thin: as logged, thick: smoothed")
    if ERRORS in panels:
        told.append("solid: WER, dashed: CER, ringed: the lowest")
    if any(run.resumed for run in runs.values()):
        told.append("triangle: resumed")
    if any(course.given_up for course in courses):
        told.append("faint and dotted: given up on a resume")
    return "   ·   ".join(told)


def _draw(axes: Axes, panel: Panel, runs: Mapping[str, History], look: Theme, width: float) -> None:
    axes.set_title(panel.title, loc="left", weight="bold", pad=8)
    if panel.unit:
        axes.set_title(panel.unit, loc="right", size="small", color=look.soft, pad=8)
    for number, run in enumerate(runs.values()):
        for name in panel.fields if panel.has_something([run]) else ():
            _draw_run(axes, panel, name, run, number, look, width, several=len(runs) > 1)
    for number, run in enumerate(runs.values()):
        if run.resumed:
            axes.plot(run.resumed, [0] * len(run.resumed), ls="", marker="^", ms=4.5, color=_colour(number, look),
                      transform=axes.get_xaxis_transform(), clip_on=False, zorder=5)  # fmt: skip
    _scale(axes, panel, list(runs.values()), width)


def _draw_run(
    axes: Axes, panel: Panel, name: str, run: History, number: int, look: Theme, width: float, several: bool
) -> None:
    """One field of one run: what was given up, what was logged, what it comes to, and the lowest rate."""
    course, is_second = panel.course(run), name != panel.fields[0]
    colour = _colour(number, look)
    for branch in course.given_up:
        as_wide = width * len(course.rows) / len(branch) if panel.is_noisy else 0  # as that of the course, in steps
        steps, values = smoothed(*_points(panel, name, run, branch), min(as_wide, 1))
        axes.plot(steps, values, color=colour, lw=1.1, ls=(0, (1.2, 1.6)), alpha=0.55, zorder=2)
    steps, values, weights = _points(panel, name, run, course.rows)
    if panel.is_noisy and width:
        axes.plot(*thinned(steps, values), color=colour, lw=0.6, alpha=0.4, zorder=1.5)
        steps, values = smoothed(steps, values, weights, width)
    is_sparse = panel.of_evaluations or np.isfinite(values).sum() < 2  # a single point has no line
    every = 1 if is_sparse else max(len(steps) // 7, 1)
    marks = _mark(number, several or is_sparse) | {"markevery": every, "ms": 3.2}
    style = {"ls": (0, (4, 1.6)), "mfc": look.paper} if is_second else {}
    (line,) = axes.plot(*thinned(steps, values), color=colour, lw=1.1 if is_second else 1.7, zorder=3, **marks)
    line.set(**style)
    if panel.of_evaluations and name == run.headline and (lowest := run.lowest):
        _ring(axes, lowest["step"], panel.scale * lowest[name], colour, look)


def _ring(axes: Axes, step: int, value: float, colour: str, look: Theme) -> None:
    """Show where a rate is lowest, and what it is."""
    axes.plot([step], [value], ls="", marker="o", ms=8.5, mfc="none", mec=colour, mew=1.3, zorder=4, clip_on=False)
    near_the_end = step > 0.8 * axes.dataLim.x1
    axes.annotate(f"{value:.2f} %", (step, value), (-7 if near_the_end else 7, 7), textcoords="offset points",
                  ha="right" if near_the_end else "left", color=look.ink, weight="bold", size="small", zorder=6,
                  bbox={"boxstyle": "round,pad=0.15", "fc": look.paper, "ec": "none", "alpha": 0.8})  # fmt: skip


def _points(panel: Panel, name: str, run: History, rows: Sequence[Row]) -> tuple[Any, Any, Any]:
    """Steps, values in the panel's unit, and weights of rows."""
    course = panel.course(run)
    steps, values = course.values("step", rows), panel.scale * course.values(name, rows)
    weights = course.values(panel.weight, rows) if panel.weight else np.ones_like(values)
    return steps, values, np.nan_to_num(weights, nan=1.0)


def _scale(axes: Axes, panel: Panel, runs: Sequence[History], width: float) -> None:
    """Limits and ticks: what people compare fills the axes; a peak of a noisy series may leave them."""
    lines, peaks = [], []
    for run in filter(lambda run: panel.has_something([run]), runs):
        for name in panel.fields:
            steps, values, weights = _points(panel, name, run, panel.course(run).rows)
            lines.append(smoothed(steps, values, weights, width if panel.is_noisy else 0)[1])
            peaks.append(values)
    line, peak = (np.concatenate(parts) for parts in (lines, peaks))
    peak = peak[np.isfinite(peak)]
    line = line[np.isfinite(line)] if np.isfinite(line).any() else peak  # no row weighs anything
    least, greatest = line.min(), max(line.max(), float(np.quantile(peak, 0.995)))
    if panel.is_wide and least > 0 and greatest / least >= POWERS:
        axes.set_yscale("log")
        axes.set_ylim(min(least, float(np.quantile(peak, 0.005))) / 1.15, greatest * 1.15)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if greatest / least < 2000 else (1,)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0, greatest * 1.08 or 1)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=ROUND))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))
    axes.set_xlim(0, max(run.step for run in runs) * 1.02 or 1)


def _say_step(axes: Axes) -> None:
    axes.set_xlabel("step", loc="right", labelpad=1, size="small")


def _number(value: float) -> str:
    """A tick: 0, 250, 4k, 1.5M, 2e-5."""
    if value and abs(value) < 1e-2:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and math.isclose(value % (size / 10), 0)):
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _colour(number: int, look: Theme) -> str:
    return look.runs[number % len(look.runs)]


def _mark(number: int, is_marked: bool) -> dict[str, Any]:
    return {"marker": MARKERS[number % len(MARKERS)]} if is_marked else {}


def _line_of(number: int, look: Theme, **style: Any) -> Line2D:
    return Line2D([], [], color=_colour(number, look), ms=5, **style)


def _plain(name: str) -> str:
    """A name that a legend does not hide: one that begins with an underscore is private to matplotlib."""
    return f"\u200b{name}" if name.startswith("_") else name


@contextmanager
def _house_style(look: Theme, size: float) -> Iterator[None]:
    """Quiet axes in the colours of a look; nothing of the user's own matplotlib settings."""
    style: dict[Any, object] = {
        **dict.fromkeys(("figure.facecolor", "savefig.facecolor", "axes.facecolor"), look.paper),
        **dict.fromkeys(("text.color", "axes.titlecolor"), look.ink),
        **dict.fromkeys(("axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), look.soft),
        **dict.fromkeys(("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), look.line),
        **dict.fromkeys(("axes.spines.top", "axes.spines.right", "axes.spines.left", "legend.frameon"), False),
        **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
        **dict.fromkeys(("ytick.major.size", "ytick.minor.size"), 0),
        "axes.grid.axis": "y",
        "grid.linewidth": 0.7,
        "font.size": size,
        "axes.titlesize": size + 1.5,
        "legend.fontsize": size + 0.5,
        "lines.solid_capstyle": "round",
        "text.parse_math": False,  # a run may be called $x$
        "svg.fonttype": "none",
        "svg.hashsalt": "whisper-ft",  # the same run, the same bytes
    }
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style)
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # of a run's name; a box stands there
        yield


def _written(figure: Figure, form: str, **settings: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=form, metadata={"Date": None} if form == "svg" else {"Software": None}, **settings)
    return file.getvalue()
