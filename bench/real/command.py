"""Command lines of the comparisons on real weights: the folder of results, the extent, and the end after an error."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from bench.real.arms import ArmError, Extent
from bench.real.inputs import InputError, Inputs, inputs_of

T = TypeVar("T")


def parser_of(program: str, doc: str | None, out: str) -> argparse.ArgumentParser:
    """Return the parser of a program with its option --out, whose default is `out`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {program}",
        description=doc,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path(out), metavar="DIR", help="folder (%(default)s)")
    return parser


def add_extent(parser: argparse.ArgumentParser) -> None:
    """Add the options of `measured` that a comparison lets its user choose: --batch and --english."""
    parser.add_argument("--batch", type=int, default=8, help="utterances per update (%(default)s)")
    parser.add_argument("--english", type=int, default=40, metavar="N", help="English utterances (%(default)s)")


def measured(
    measure: Callable[[Inputs, Extent, Path], T], out: Path, *, batch: int = 8, passes: int = 2, english: int = 40
) -> T:
    """Measure for REAL_MINUTES (15), and return the results; the numbers are those of `Extent`.

    Ends the program in one line, with code 2 for inputs that cannot be used and 1 for a failure.
    """
    minutes = float(os.environ.get("REAL_MINUTES", "15"))
    try:
        return measure(inputs_of(), Extent(minutes, batch, passes, english, os.cpu_count() or 1), out)
    except (InputError, ArmError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, InputError) else 1) from None


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]], out: Path) -> None:
    """Print a table as Markdown, and write it to OUT/results.md."""
    table = "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
    (out / "results.md").write_text(table + "\n", encoding="utf-8")
    print(table)
