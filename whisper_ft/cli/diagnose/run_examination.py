"""Examination of a run: its files, a sample of its data and the characters that its model may never write."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from whisper_ft.cli.diagnose.suppressed_characters import suppressed_characters
from whisper_ft.cli.diagnose.training_sample import training_sample
from whisper_ft.reports.diagnosis.diagnosis import Diagnosis, diagnose
from whisper_ft.reports.diagnosis.run_facts import read_run_facts, refuse_empty
from whisper_ft.runtime.errors import RunError


def examine(run: Path, data_path: str | None, rows: int, clips: int = 0) -> Diagnosis:
    """Diagnose a run. Raises UsageError if no run began there, or if something that was asked for cannot be read.

    Parameters
        data_path: training data; None for the path that the run recorded.
        rows: most training rows, and held-out rows, that are read again; 0 for none.
        clips: held-out clips whose language the start model detects; 0 for none, then no model is loaded.
    """
    facts = read_run_facts(run)
    refuse_empty(facts)
    missing, sample = list(facts.missing), None
    try:
        sample = training_sample(facts, data_path, rows)
    except RunError as error:
        if data_path is not None:
            raise
        missing.append(f"training data: {error}")
    if sample is not None and sample.not_compared:
        missing.append(f"recordings that training data and held-out set share: {sample.not_compared}")
    suppressed = suppressed_characters(run, facts.settings)
    if suppressed is None:
        missing.append("characters that the model may never write: no folder with its vocabulary can be read")
    heard = _heard(run, data_path, clips) if clips else Counter[str]()
    return diagnose(replace(facts, sample=sample, suppressed=suppressed, heard=heard, missing=missing))


def _heard(run: Path, data_path: str | None, clips: int) -> Counter[str]:
    from whisper_ft.cli.diagnose.spoken_language import spoken_languages  # here, because torch takes seconds
    from whisper_ft.cli.replay.step_rows import configuration

    return spoken_languages(configuration(run, data_path), clips)
