"""What is asked of the doctor, and what is said in return."""

import argparse

from rich.console import Console
from rich.progress import Progress, TaskID

from whisper_ft.cli.doctor.doctor_page import write_page
from whisper_ft.cli.doctor.examination import Examination, examine
from whisper_ft.cli.doctor.spelling import shown, visible
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.labels.rewrite import LabelNormalizer
from whisper_ft.models.whisper import quiet_libraries
from whisper_ft.runtime.errors import DataError, as_usage_error
from whisper_ft.scoring.normalizer import NormalizerFactory

CLEAR = "nothing stands in the way"


def check_data(own: argparse.Namespace, config: TrainingConfig, rewrite: LabelNormalizer | None) -> Examination:
    """Look through the data with a bar on the screen."""
    console, tasks = Console(stderr=True), dict[str, TaskID]()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done)

        return examine(config, own.max_rows, own.leakage, show, rewrite)


def main_check(own: argparse.Namespace, config: TrainingConfig, get_normalizer: NormalizerFactory) -> None:
    """Print what was found, and write the page. DataError for findings, with --fail; RunError as a run would end."""
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
