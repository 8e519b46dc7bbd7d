"""Draw the curves of runs, even while they train: `python -m whisper_ft plot RUN [RUN ...] [--out DIR]`."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from whisper_ft.runtime import atomic
from whisper_ft.runtime.command import Parser, exit_code_of
from whisper_ft.runtime.errors import UsageError, one_line
from whisper_ft.runtime.printable import say

if TYPE_CHECKING:
    from whisper_ft.reports.curves.history import History

PICTURE, PAGE = "curves.png", "curves.html"
SMOOTHING = 0.015  # standard deviation of the smoothing, as a share of the run


def main(argv: Sequence[str] | None = None) -> int:
    """Write curves.png and curves.html. Returns the exit codes of `runtime.exit_codes`; 130 after Ctrl-C."""
    return exit_code_of(lambda: plot(parse_arguments(sys.argv[1:] if argv is None else argv)))


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Raises UsageError for a value that cannot work."""
    parser = Parser(
        prog="python -m whisper_ft plot",
        description="Draw loss, error rates, learning rate, gradient norm, loss scale and throughput of runs, even "
        "while they train.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"folder for {PICTURE} and {PAGE} (RUN/plots)")
    parser.add_argument(
        "--smoothing",
        type=float,
        default=SMOOTHING,
        metavar="SHARE",
        help="standard deviation of the smoothing as a share of the run; 0 for none (%(default)s)",
    )
    args = parser.parse_args(argv)
    if not 0 <= args.smoothing <= 0.5:
        raise UsageError(f"--smoothing must be from 0 to 0.5, got {args.smoothing}")
    if args.out is not None and args.out.exists() and not args.out.is_dir():
        raise UsageError(f"--out {args.out}: is a file; name a folder")
    if args.out is None and len(args.runs) > 1:
        raise UsageError("--out is missing: name the folder for the curves of several runs")
    return args


def plot(args: argparse.Namespace) -> None:
    """Write the picture and the page to --out, or else to RUN/plots, and print a line for each run.

    A run without a logged step is left out of both. Raises UsageError if a run is given twice or cannot be read, or if
    no run has logged anything. Raises DiskError if a file cannot be written.
    """
    # matplotlib takes half a second to import, which --help and a wrong argument need not wait for.
    from whisper_ft.reports.curves.figure import curves_png
    from whisper_ft.reports.curves.history import read_history
    from whisper_ft.reports.curves.overview import curves_page
    from whisper_ft.reports.curves.panel import panels_of

    runs = {}
    for name, path in zip(run_names(args.runs), args.runs, strict=True):
        history = read_history(path)
        say(f"{path}: {summary_line(history)}")
        if panels_of([history]):
            runs[name] = history
    if not runs:
        raise UsageError("nothing was logged yet, so there is nothing to draw; the first line comes after log.every")
    folder = args.out or args.runs[0] / "plots"
    with atomic.disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f"{atomic.ASIDE}{PICTURE}"
        aside.write_bytes(curves_png(runs, args.smoothing, next(iter(runs))))
        aside.replace(folder / PICTURE)
    title = f"{'Run' if len(runs) == 1 else 'Runs'} {', '.join(runs)}"
    atomic.write_text(folder / PAGE, curves_page(runs, title, args.smoothing))
    say(f"written: {folder / PICTURE}", f"written: {folder / PAGE}")


def run_names(paths: Sequence[Path]) -> list[str]:
    """Return a name for each run, in order: the name of its folder, preceded by parent folders if two names are equal.

    Raises UsageError if a run is given twice.
    """
    parts = [path.resolve().parts for path in paths]
    names = [one_line(name[-1]) for name in parts]
    for depth in range(2, max(map(len, parts)) + 1):
        taken = Counter(names)
        names = [
            one_line("/".join(part[-depth:])) if taken[name] > 1 else name
            for part, name in zip(parts, names, strict=True)
        ]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(f"{twice[0]}: is given twice; name each run once")
    return names


def summary_line(run: "History") -> str:
    """Describe a run in one line: state, step, loss, lowest error rate, last rates of eval.sets, resumes."""
    from whisper_ft.reports.curves.overview import run_facts
    from whisper_ft.reports.text import percent

    if not run:
        return f"{run.state}, nothing logged yet"
    facts = run_facts(run)
    parts = [run.state, f"step {facts['step']}", f"loss {facts['loss']}"]
    rate = run.headline.upper()
    parts.append(f"{rate} {facts[rate]} at step {facts['at step']}" if run.lowest else "no evaluation")
    for name, curve in run.sets.items():
        if curve and isfinite(last := curve.values(curve.headline)[-1]):
            parts.append(f"{name} {curve.headline.upper()} {percent(last)} at step {curve.rows[-1]['step']:,}")
    if run.resumed:
        parts.append(f"resumed at {', '.join(map(str, run.resumed))}")
    if any(run.logged.abandoned):
        parts.append("abandoned steps drawn faint")
    if run.cut_lines:
        parts.append(f"cut lines of metrics.jsonl that were ignored: {run.cut_lines}")
    return ", ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
