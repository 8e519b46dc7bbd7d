"""Examination of a run: its files, a sample of its data and the characters that its model may never write."""

from dataclasses import replace
from pathlib import Path

from whisper_ft.cli.diagnose.suppressed_characters import suppressed_characters
from whisper_ft.cli.diagnose.training_sample import training_sample
from whisper_ft.reports.diagnosis.diagnosis import Diagnosis, diagnose
from whisper_ft.reports.diagnosis.run_facts import read_run_facts, refuse_empty
from whisper_ft.runtime.errors import RunError


def examine(run: Path, data_path: str | None, rows: int) -> Diagnosis:
    """Diagnose a run. Raises UsageError if no run began there, or if `data_path` is given and cannot be read.

    Parameters
        data_path: training data; None for the path that the run recorded.
        rows: most training rows, and held-out rows, that are read again; 0 for none.
    """
    facts = read_run_facts(run)
    refuse_empty(facts)
    missing, sample = list(facts.missing), None
    try:
        sample = training_sample(facts, data_path, rows)
    except RunError as error:
        if data_path is not None:
            raise
        missing.append(f"training data: {error} (--data.path)")
    suppressed = suppressed_characters(run, facts.settings)
    if suppressed is None:
        missing.append("characters that the model may never write: no folder with its vocabulary can be read")
    return diagnose(replace(facts, sample=sample, suppressed=suppressed, missing=missing))
