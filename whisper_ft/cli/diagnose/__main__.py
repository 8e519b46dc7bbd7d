"""Tell what is likely wrong with a run, and what to change: `python -m whisper_ft diagnose RUN`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from whisper_ft.runtime.command import Parser, exit_code_of
from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.exit_codes import OVER_LIMIT
from whisper_ft.runtime.printable import json_text, say

if TYPE_CHECKING:
    from whisper_ft.reports.diagnosis.diagnosis import Diagnosis

ROWS = 2000  # training rows, and held-out rows, that are read again; most small sets are then read whole


def main(argv: Sequence[str] | None = None) -> int:
    """Print the diagnosis, and return the exit code: 8 with a serious finding, 0 without one.

    The other codes are those of `runtime.exit_codes`.
    """
    serious: list[bool] = []
    code = exit_code_of(lambda: serious.append(report(parse_arguments(sys.argv[1:] if argv is None else argv))))
    return OVER_LIMIT if code == 0 and any(serious) else code


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Raises UsageError for a value that cannot work."""
    parser = Parser(
        prog="python -m whisper_ft diagnose",
        description="Tell what is likely wrong with a run, with the evidence, and what to change. The run may still "
        "train, or have failed. Exit code 8 if there is a serious finding, 0 if not.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")
    parser.add_argument(
        "--data.path", dest="data_path", metavar="PATH", help="training data, if it is not where the run read it"
    )
    parser.add_argument(
        "--rows",
        type=int,
        default=ROWS,
        metavar="N",
        help="training rows and held-out rows to read again, for labels and leakage; 0 reads none (%(default)s)",
    )
    parser.add_argument(
        "--listen",
        type=int,
        default=0,
        metavar="N",
        help="also load the start model, and let it detect the language of N held-out clips; for OpenAI's multilingual "
        "models",
    )
    args = parser.parse_args(argv)
    for name in ("rows", "listen"):
        if (value := getattr(args, name)) < 0:
            raise UsageError(f"--{name} must be at least 0, got {value}")
    if args.data_path is not None and not args.rows and not args.listen:
        raise UsageError(
            f"--data.path {args.data_path}: has no effect with --rows 0, which reads no data; leave one of the two out"
        )
    return args


def report(args: argparse.Namespace) -> bool:
    """Diagnose the run and print the result. Returns True if there is a serious finding."""
    from whisper_ft.cli.diagnose.run_examination import examine

    diagnosis = examine(args.run, args.data_path, args.rows, args.listen)
    if args.json:
        say(json_text(diagnosis.to_json()))
    else:
        say(*lines_of(diagnosis))
    return diagnosis.is_serious


def lines_of(diagnosis: "Diagnosis") -> list[str]:
    """Return the diagnosis as lines for a terminal."""
    from whisper_ft.cli.plot import summary_line

    facts = diagnosis.facts
    lines = [f"{facts.run}: {summary_line(facts.history)}"]
    for number, finding in enumerate(diagnosis.findings, 1):
        lines += ["", f"{number}. {finding.kind} ({finding.severity}): {finding.summary}"]
        lines += [f"   - {line}" for line in finding.evidence]
        lines += [f"   change: {line}" for line in finding.remedy]
    if not diagnosis.findings:
        lines += ["", "nothing wrong was found"]
    lines += ["", *(f"looked at: {line}" for line in diagnosis.looked_at)]
    return lines + [f"not looked at: {line}" for line in facts.missing]


if __name__ == "__main__":
    sys.exit(main())
