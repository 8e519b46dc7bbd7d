"""Guards of the run that a model is from, for the report of its evaluation."""

from pathlib import Path

from whisper_ft.checkpoint.state import read_best
from whisper_ft.reports.curves.guard_rows import guard_rows
from whisper_ft.reports.curves.history import read_history
from whisper_ft.reports.guard_text import GuardRow
from whisper_ft.runtime.errors import UsageError

METRICS = "metrics.jsonl"
BEFORE_STEP = "step-"  # prefix in the name of a checkpoint


def guards_of_model(model: str) -> list[GuardRow]:
    """Return the verdicts of the guards of a model's run, at the step of the model; [] if there are none.

    `model` is a run directory, one of its models, or a checkpoint. An average and a mixture have no step.
    """
    folder = Path(model)
    run = next((place for place in (folder, *folder.parents[:2]) if model and (place / METRICS).is_file()), None)
    if run is None or folder.name.startswith(("average", "interpolated")):
        return []
    try:
        history = read_history(run)
    except UsageError:
        return []
    best = read_best(run / "best.json")
    if folder.name.startswith(BEFORE_STEP):
        number = folder.name.removeprefix(BEFORE_STEP)
        return guard_rows(history, int(number)) if number.isdecimal() else []
    is_last = best is None or folder.name.startswith("final")
    return guard_rows(history, history.step if is_last or best is None else best.step)
