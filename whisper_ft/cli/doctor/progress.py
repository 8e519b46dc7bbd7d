"""Check of the data with a progress bar."""

from rich.progress import Progress, TaskID

from whisper_ft.cli.doctor.data_check import Depth, check_data
from whisper_ft.cli.doctor.data_report import DataReport
from whisper_ft.cli.doctor.start_loss import start_loss
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.labels.rewrite import LabelNormalizer
from whisper_ft.data.types import CollatorFactory
from whisper_ft.reports.safe_console import SafeConsole


def check_with_progress(
    config: TrainingConfig,
    max_rows: int | None,
    leakage: Depth,
    collator: CollatorFactory,
    rewrite: LabelNormalizer | None,
    loss_rows: int = 0,
) -> DataReport:
    """Call `check_data` with a progress bar, which is drawn if standard error is a terminal.

    If `loss_rows` is not 0, the report also has the loss of the start model on so many first rows.
    """
    console, tasks = SafeConsole(stderr=True), dict[str, TaskID]()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:

        def update(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total)
            progress.update(tasks[name], completed=done)

        report = check_data(config, max_rows, leakage, update, collator, rewrite)
        if loss_rows:
            report.sections["loss of the start model"] = [start_loss(config, loss_rows, rewrite, update)]
        return report
