"""What is asked of the doctor, and what is said in return."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID

from whisper_ft.cli.doctor.doctor_page import write_page
from whisper_ft.cli.doctor.examination import Examination, examine
from whisper_ft.cli.doctor.spelling import shown, visible
from whisper_ft.config.parse import load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.labels.rewrite import LabelNormalizer
from whisper_ft.models.whisper import quiet_libraries
from whisper_ft.runtime.errors import DataError, UsageError, as_usage_error
from whisper_ft.scoring.normalizer import NormalizerFactory
from whisper_ft.training.preflight import refuse_missing, refuse_missing_data, refuse_missing_model

CLEAR = "nothing stands in the way"


def arguments_of(argv: Sequence[str]) -> tuple[argparse.Namespace, TrainingConfig]:
    """What is asked of the doctor, and the configuration that train.py would be given. UsageError for neither."""
    parser = argparse.ArgumentParser(
        prog="python -m whisper_ft.doctor",
        description="Look through the data before any GPU time. All other arguments are settings of a run, as for "
        "train.py.",
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument("--max_rows", type=int, metavar="N", help="look at the first N training rows only")
    parser.add_argument(
        "--leakage",
        choices=("fast", "full", "none"),
        default="fast",
        help="what to compare with the held-out set: names, bytes, sentences, speakers; full: the decoded sound too",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write DIR/doctor.html")
    parser.add_argument("--fail", action="store_true", help="exit code 4 if anything stands in the way")
    try:
        own, settings = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise UsageError(f"--{(error.argument_name or '').lstrip('-')}: {error.message}") from error
    if own.max_rows is not None and own.max_rows < 1:
        raise UsageError(f"--max_rows must be at least 1, got {own.max_rows}")
    if own.out is not None and own.out.exists() and not own.out.is_dir():
        raise UsageError(f"--out {own.out}: is a file, a folder is needed")
    config = load_config(TrainingConfig, settings, "python -m whisper_ft.doctor")
    refuse_missing_data(config.data)
    if config.eval.path:
        refuse_missing("eval.path", config.eval.path)
    refuse_missing_model("model.name", config.model.name)
    return own, config


def check_data(own: argparse.Namespace, config: TrainingConfig, rewrite: LabelNormalizer | None) -> Examination:
    """Look through the data with a bar on the screen."""
    console, tasks = Console(stderr=True), dict[str, TaskID]()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done)

        return examine(config, own.max_rows, own.leakage, show, rewrite)


def main_check(argv: Sequence[str], get_normalizer: NormalizerFactory) -> None:
    """Print what was found, and write the page. DataError for findings, with --fail; RunError as a run would end."""
    own, config = arguments_of(argv)
    quiet_libraries()
    with as_usage_error("data.normalizer"):
        rewrite = LabelNormalizer.named(config.data.normalizer, get_normalizer)
    told = check_data(own, config, rewrite)
    end = told.findings or [CLEAR]
    for title in told.sections:
        print(f"\n{title}", *(f"  {visible(line)}" for line in told.text(title)), sep="\n")
    if own.out:
        title = f"Data of {config.data.path or f'{len(config.data.sources)} sources'}"
        print(f"\nwritten: {write_page(own.out, shown(title), told)}")
    print("", *map(visible, end), sep="\n", flush=True)
    if own.fail and told.findings:
        count = "one finding stands" if len(told.findings) == 1 else f"{len(told.findings)} findings stand"
        raise DataError(f"{count} in the way, as --fail asks")
