"""Pictures of training curves: one PNG of all panels for documents, and one SVG for each panel of the HTML page."""

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
from whisper_ft.reports.curves.smoothing import Series, smoothed, thinned
from whisper_ft.reports.html import palette
from whisper_ft.reports.html.palette import Palette
from whisper_ft.reports.text import percent

MARKERS = "os^DvPX"  # a marker for each run, because colours cannot be told apart in grey print
ROUND = (1, 2, 2.5, 5, 10)  # ticks are multiples of one of these, times a power of ten
POWERS = 10  # an axis is logarithmic if the greatest value is this many times the least
DASHES = ((0, ()), (0, (4, 1.6)), (0, (1, 1.6)))  # lengths of lines and gaps, by the place of a field in its panel
DOTS_PER_INCH = 200  # 1,900 dots across: sharp in print


@dataclass(frozen=True)
class Theme:
    """Colours of a picture: those of the page, and one colour for each run."""

    palette: Palette
    runs: tuple[str, ...]


LIGHT = Theme(palette.LIGHT, tuple(light for light, _ in palette.CURVES))
DARK = Theme(palette.DARK, tuple(dark for _, dark in palette.CURVES))


def curves_png(runs: Mapping[str, History], width: float, title: str = "") -> bytes:
    """Draw all panels on white, as a PNG file.

    `width` is the standard deviation of the smoothing, as a share of the run. If there are several runs, a legend names
    them; `title` is the heading for a single run.
    """
    panels = panels_of(list(runs.values()))
    with _style(LIGHT, size=9):
        rows = -(-len(panels) // 2)
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.09, hspace=0.03, wspace=0.03)
        figure = Figure(figsize=(9.6, 2.55 * rows + 0.75), layout=layout)
        grid = figure.add_gridspec(rows, 2)
        for number, panel in enumerate(panels):
            is_last_alone = number == len(panels) - 1 and len(panels) % 2
            axes = figure.add_subplot(grid[number // 2, :] if is_last_alone else grid[number // 2, number % 2])
            _draw(axes, panel, runs, LIGHT, width)
            if number // 2 == rows - 1:
                _label_steps(axes)
        if len(runs) > 1:
            handles = [_line_of(number, LIGHT, lw=2, **_mark(number, True)) for number in range(len(runs))]
            figure.legend(handles, [_plain(name) for name in runs], loc="outside upper left", ncols=min(len(runs), 4))
        elif title:
            figure.suptitle(_plain(title), x=0.012, ha="left", weight="bold", size=12)
        figure.supxlabel(legend(runs, panels, width), x=0.5, size=8, color=LIGHT.palette.soft)
        return _written(figure, "png", dpi=DOTS_PER_INCH)


def panel_svg(panel: Panel, runs: Mapping[str, History], theme: Theme, width: float) -> bytes:
    """Draw one panel as an SVG file. Its text stays text, in the reader's own font.

    `width` is that of `curves_png`.
    """
    with _style(theme, size=9.5):
        figure = Figure(figsize=(5.2, 3.0), layout="constrained")
        axes = figure.add_subplot()
        _draw(axes, panel, runs, theme, width)
        _label_steps(axes)
        return _written(figure, "svg").replace(b"'DejaVu Sans'", b"system-ui, 'DejaVu Sans'")


def legend(runs: Mapping[str, History], panels: Sequence[Panel], width: float) -> str:
    """Explain the kinds of lines that the picture has, in one line of text; "" if no line needs it."""
    curves = [curve for run in runs.values() for curve in run.curves]
    meanings = []
    if width:
        meanings.append("thin: as logged, thick: smoothed")
    if any(panel.fields == ERRORS.fields for panel in panels):
        meanings.append("solid: WER, dashed: CER" + (", ringed: the lowest" if ERRORS in panels else ""))
    if any(panel.guard for panel in panels):
        meanings.append("guard: dashed is its limit, dotted the start model")
    if any(run.resumed for run in runs.values()):
        meanings.append("triangle: resumed")
    if any(curve.abandoned for curve in curves):
        meanings.append("faint and dotted: abandoned on a resume")
    return "   ·   ".join(meanings)


def _draw(axes: Axes, panel: Panel, runs: Mapping[str, History], theme: Theme, width: float) -> None:
    axes.set_title(panel.title, loc="left", weight="bold", pad=8)
    if panel.unit:
        axes.set_title(panel.unit, loc="right", size="small", color=theme.palette.soft, pad=8)
    for number, run in enumerate(runs.values()):
        for name in panel.fields if panel.has_values([run]) else ():
            _draw_run(axes, panel, name, run, number, theme, width, several=len(runs) > 1)
    for number, run in enumerate(runs.values()):
        if run.resumed:
            axes.plot(run.resumed, [0] * len(run.resumed), ls="", marker="^", ms=4.5, color=_colour(number, theme),
                      transform=axes.get_xaxis_transform(), clip_on=False, zorder=5)  # fmt: skip
    _scale(axes, panel, list(runs.values()), width)


def _draw_run(
    axes: Axes, panel: Panel, name: str, run: History, number: int, theme: Theme, width: float, several: bool
) -> None:
    """Draw one field of one run: abandoned branches, logged values, the smoothed curve, and the lowest rate."""
    curve, place = panel.curve(run), panel.fields.index(name)
    colour = _colour(number, theme)
    for branch in curve.abandoned:
        as_wide = width * len(curve.rows) / len(branch) if panel.is_noisy else 0  # as many steps as for the curve
        steps, values = smoothed(*_points(panel, name, run, branch), min(as_wide, 1))
        axes.plot(steps, values, color=colour, lw=1.1, ls=(0, (1.2, 1.6)), alpha=0.55, zorder=2)
    steps, values, weights = _points(panel, name, run, curve.rows)
    if panel.is_noisy and width:
        axes.plot(*thinned(steps, values), color=colour, lw=0.6, alpha=0.4, zorder=1.5)
        steps, values = smoothed(steps, values, weights, width)
    is_sparse = panel.of_evaluations or np.isfinite(values).sum() < 2  # a single point has no line
    every = 1 if is_sparse else max(len(steps) // 7, 1)
    is_bound = place and panel.guard is not None  # a limit has no values of its own to mark
    marks = {} if is_bound else _mark(number, several or is_sparse) | {"markevery": every, "ms": 3.2}
    style = {"ls": DASHES[place], "mfc": theme.palette.card} if place else {}
    (line,) = axes.plot(*thinned(steps, values), color=colour, lw=1.1 if place else 1.7, zorder=3, **marks)
    line.set(**style)
    if panel is ERRORS and name == run.headline and (lowest := run.lowest):
        _ring(axes, lowest["step"], lowest[name], panel.scale, colour, theme)


def _ring(axes: Axes, step: int, rate: float, scale: float, colour: str, theme: Theme) -> None:
    """Mark the lowest rate of the run with a ring and its value."""
    axes.plot(
        [step], [scale * rate], ls="", marker="o", ms=8.5, mfc="none", mec=colour, mew=1.3, zorder=4, clip_on=False
    )
    near_the_end = step > 0.8 * axes.dataLim.x1
    box = {"boxstyle": "round,pad=0.15", "fc": theme.palette.card, "ec": "none", "alpha": 0.8}
    axes.annotate(percent(rate), (step, scale * rate), (-7 if near_the_end else 7, 7), textcoords="offset points",
                  ha="right" if near_the_end else "left", color=theme.palette.ink, weight="bold", size="small",
                  zorder=6, bbox=box)  # fmt: skip


def _points(panel: Panel, name: str, run: History, rows: Sequence[Row]) -> tuple[Series, Series, Series]:
    """Return steps, values in the panel's unit, and weights of some rows."""
    curve = panel.curve(run)
    steps, values = curve.values("step", rows), panel.scale * curve.values(name, rows)
    weights = curve.values(panel.weight, rows) if panel.weight else np.ones_like(values)
    return steps, values, np.nan_to_num(weights, nan=1.0)


def _scale(axes: Axes, panel: Panel, runs: Sequence[History], width: float) -> None:
    """Set limits and ticks of the axes so that the curves fill them. A few peaks of a noisy series may lie outside."""
    lines, peaks = [], []
    for run in filter(lambda run: panel.has_values([run]), runs):
        for name in panel.fields:
            steps, values, weights = _points(panel, name, run, panel.curve(run).rows)
            lines.append(smoothed(steps, values, weights, width if panel.is_noisy else 0)[1])
            peaks.append(values)
    line, peak = (np.concatenate(parts) for parts in (lines, peaks))
    peak = peak[np.isfinite(peak)]
    line = line[np.isfinite(line)] if np.isfinite(line).any() else peak  # every row has weight 0
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


def _label_steps(axes: Axes) -> None:
    axes.set_xlabel("step", loc="right", labelpad=1, size="small")


def _number(value: float) -> str:
    """Format the number at a tick: 0, 250, 4k, 1.5M, 2e-5."""
    if value and abs(value) < 1e-2:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and math.isclose(value % (size / 10), 0)):
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _colour(number: int, theme: Theme) -> str:
    return theme.runs[number % len(theme.runs)]


def _mark(number: int, is_marked: bool) -> dict[str, Any]:
    return {"marker": MARKERS[number % len(MARKERS)]} if is_marked else {}


def _line_of(number: int, theme: Theme, **style: Any) -> Line2D:
    return Line2D([], [], color=_colour(number, theme), ms=5, **style)


def _plain(name: str) -> str:
    """Protect a name from matplotlib, which leaves names that begin with an underscore out of a legend."""
    return f"\u200b{name}" if name.startswith("_") else name


@contextmanager
def _style(theme: Theme, size: float) -> Iterator[None]:
    """Set the style for a block: plain axes in the colours of a theme, without the user's own matplotlib settings."""
    style: dict[Any, object] = {
        **dict.fromkeys(("figure.facecolor", "savefig.facecolor", "axes.facecolor"), theme.palette.card),
        **dict.fromkeys(("text.color", "axes.titlecolor"), theme.palette.ink),
        **dict.fromkeys(("axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), theme.palette.soft),
        **dict.fromkeys(("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), theme.palette.line),
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
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from font"
        )  # in a run's name; a box is drawn for it
        yield


def _written(figure: Figure, form: str, **settings: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=form, metadata={"Date": None} if form == "svg" else {"Software": None}, **settings)
    return file.getvalue()
