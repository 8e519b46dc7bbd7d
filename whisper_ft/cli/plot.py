"""Draw the curves of runs, also while they train: `python -m whisper_ft plot RUN [RUN ...] [--out DIR]`."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from whisper_ft.reports.curves.curves_page import facts_of, page_of
from whisper_ft.reports.curves.history import History, read_history
from whisper_ft.reports.curves.panel import panels_of
from whisper_ft.reports.curves.plot import png_of
from whisper_ft.runtime import atomic
from whisper_ft.runtime.command import Parser, exit_code_of
from whisper_ft.runtime.errors import UsageError, one_line


def main(argv: Sequence[str] | None = None) -> int:
    """Write curves.png and curves.html. Exit codes as those of a run; 130 after Ctrl-C."""

    def program() -> None:
        from whisper_ft.cli.plot import plot

        plot(sys.argv[1:] if argv is None else argv)

    return exit_code_of(program)


if __name__ == "__main__":
    sys.exit(main())


"""What is asked of the plots, and what is said in return."""


PICTURE, PAGE = "curves.png", "curves.html"
SMOOTHING = 0.015


def arguments_of(argv: Sequence[str]) -> argparse.Namespace:
    """What is asked for. UsageError for what cannot be."""
    parser = Parser(
        prog="python -m whisper_ft plot",
        description="Draw loss, error rates, learning rate, gradient norm, loss scale and throughput of runs, also "
        "while they train.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"where to write {PICTURE} and {PAGE}; RUN/plots")
    parser.add_argument(
        "--smoothing",
        type=float,
        default=SMOOTHING,
        metavar="SHARE",
        help="standard deviation of the smoothing as a share of the run; 0 for none (%(default)s)",
    )
    asked = parser.parse_args(argv)
    if not 0 <= asked.smoothing <= 0.5:
        raise UsageError(f"--smoothing must be from 0 to 0.5, got {asked.smoothing}")
    if asked.out is not None and asked.out.exists() and not asked.out.is_dir():
        raise UsageError(f"--out {asked.out}: is a file, a folder is needed")
    if asked.out is None and len(asked.runs) > 1:
        raise UsageError("--out is missing: which folder to write the curves of several runs to")
    return asked


def plot(argv: Sequence[str]) -> None:
    """Write the picture and the page, with a line for each run. UsageError where there is nothing to draw."""
    asked = arguments_of(argv)
    runs = {}
    for name, path in zip(names_of(asked.runs), asked.runs, strict=True):
        history = read_history(path)
        print(one_line(f"{path}: {told_of(history)}"), flush=True)
        if panels_of([history]):
            runs[name] = history
    if not runs:
        raise UsageError("nothing was logged yet, so there is nothing to draw; the first line comes after log.every")
    folder = asked.out or asked.runs[0] / "plots"
    with atomic.disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f"{atomic.ASIDE}{PICTURE}"
        aside.write_bytes(png_of(runs, asked.smoothing, next(iter(runs))))
        aside.replace(folder / PICTURE)
    title = f"{'Run' if len(runs) == 1 else 'Runs'} {', '.join(runs)}"
    atomic.write_text(folder / PAGE, page_of(runs, title, asked.smoothing))
    print(f"written: {folder / PICTURE}", f"written: {folder / PAGE}", sep="\n")


def names_of(paths: Sequence[Path]) -> list[str]:
    """What to call each run: the name of its folder, with those above it where two have the same."""
    parts = [path.resolve().parts for path in paths]
    names = [one_line(name[-1]) for name in parts]
    for depth in range(2, max(map(len, parts)) + 1):
        taken = Counter(names)
        names = [
            one_line("/".join(part[-depth:])) if taken[name] > 1 else name
            for part, name in zip(parts, names, strict=True)
        ]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(f"{twice[0]}: is given twice")
    return names


def told_of(run: History) -> str:
    """A run in one line."""
    facts = facts_of(run)
    if not run:
        return f"{run.state}, nothing logged yet"
    told = [run.state, f"step {facts['step']}", f"loss {facts['loss']}"]
    rate = run.headline.upper()
    told.append(f"{rate} {facts[rate]} at step {facts['at step']}" if run.lowest else "no evaluation")
    if run.resumed:
        given_up = sum(bool(branch) for branch in run.logged.given_up)
        told.append(
            f"resumed at {', '.join(map(str, run.resumed))}" + (", drawn faint what it gave up" * bool(given_up))
        )
    if run.cut_lines:
        told.append(f"cut lines of metrics.jsonl that are passed over: {run.cut_lines}")
    return ", ".join(told)
