"""Check the data before any GPU time: `python -m whisper_ft doctor --config FILE [settings as for train.py]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from whisper_ft.config.parse import given_settings, load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.unevaluated import refuse_unevaluated
from whisper_ft.runtime.command import exit_code_of
from whisper_ft.runtime.errors import DataError, UsageError, as_usage_error
from whisper_ft.runtime.printable import say
from whisper_ft.runtime.redaction import redacted
from whisper_ft.training.preflight import refuse_missing, refuse_missing_data, refuse_missing_model

PROGRAM = "python -m whisper_ft doctor"


def main(argv: Sequence[str] | None = None) -> int:
    """Check the data, print the report, and return the exit code.

    The codes are those of a training run. With --fail, 4 also means that a problem was found; 130 means Ctrl-C.
    """
    return exit_code_of(lambda: report(*parse_arguments(sys.argv[1:] if argv is None else argv)))


def parse_arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, TrainingConfig]:
    """Parse the command's own arguments and the settings of the run. Raises UsageError for a value that cannot work.

    Missing data and a missing model are refused, too.
    """
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Check the data before any GPU time. All other arguments are settings of a run, as for train.py.",
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument("--max_rows", type=int, metavar="N", help="check only the first N training rows")
    parser.add_argument(
        "--leakage",
        choices=("fast", "full", "none"),
        default="fast",
        help="comparison with the held-out set and eval.sets: names, bytes, sentences and speakers; full: the decoded "
        "sound too",
    )
    parser.add_argument(
        "--loss",
        type=int,
        default=0,
        metavar="N",
        help="also load the model and compute its loss on the first N rows, with and without a leading space",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write DIR/doctor.html")
    parser.add_argument("--fail", action="store_true", help="exit code 4 if there is any problem")
    try:
        args, settings = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise UsageError(f"--{(error.argument_name or '').lstrip('-')}: {error.message}") from error
    if args.max_rows is not None and args.max_rows < 1:
        raise UsageError(f"--max_rows must be at least 1, got {args.max_rows}")
    if args.loss < 0:
        raise UsageError(f"--loss must be at least 0, got {args.loss}")
    if args.out is not None and args.out.exists() and not args.out.is_dir():
        raise UsageError(f"--out {args.out}: is a file; name a folder")
    config = load_config(TrainingConfig, settings, PROGRAM)
    refuse_missing_data(config.data)
    refuse_unevaluated(config, given_settings(TrainingConfig, settings))
    if config.eval.path:
        refuse_missing("eval.path", config.eval.path)
    refuse_missing_model("model.name", config.model.name)
    return args, config


def report(args: argparse.Namespace, config: TrainingConfig) -> None:
    """Check the data, print the report, and write the page if --out is given.

    Raises DataError if there are problems and --fail is given, and DiskError if the page cannot be written. Data that
    cannot be opened raises the same RunError as in a training run.

    torch is imported here, because it takes seconds that --help and a wrong argument need not wait for.
    """
    from collator import SpeechCollator
    from normalizers import get_normalizer
    from whisper_ft.cli.doctor.data_report import problem_count
    from whisper_ft.cli.doctor.progress import check_with_progress
    from whisper_ft.cli.doctor.report_page import write_page
    from whisper_ft.cli.doctor.spelling import shown
    from whisper_ft.data.labels.rewrite import LabelNormalizer
    from whisper_ft.models.whisper import quiet_libraries
    from whisper_ft.reports.text import spelled_out

    quiet_libraries()
    with as_usage_error("data.normalizer"):
        rewrite = LabelNormalizer.named(config.data.normalizer, get_normalizer)
    result = check_with_progress(config, args.max_rows, args.leakage, SpeechCollator, rewrite, args.loss)
    for title in result.sections:
        say("", title, *(f"  {spelled_out(line)}" for line in result.text(title)))
    if args.out:
        title = f"Data of {redacted(config.data.path) or f'{len(config.data.sources)} sources'}"
        say("", f"written: {write_page(args.out, shown(title), result)}")
    say("", *(spelled_out(f"warning: {line}") for line in result.warnings), spelled_out(result.verdict))
    say(*map(spelled_out, result.problems or [problem_count(result)]))
    if args.fail and result.problems:
        raise DataError(f"{problem_count(result)} (--fail)")


if __name__ == "__main__":
    sys.exit(main())
