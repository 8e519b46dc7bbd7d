"""Sample of a run's training data: its first rows are read again, and compared with the held-out set."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

from whisper_ft.config.data import is_hub_name
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.labels.languages import whisper_language
from whisper_ft.data.leakage import MEANING, LeakageComparison, keys_of, shared_by_index
from whisper_ft.data.sources import open_held_out, open_mixture
from whisper_ft.data.types import Row, Source
from whisper_ft.reports.diagnosis.data_sample import DataSample, SampledText
from whisper_ft.reports.diagnosis.run_facts import RunFacts
from whisper_ft.runtime.errors import RunError, UsageError

MAX_EXAMPLES = 2  # of each kind of overlap


def training_sample(facts: RunFacts, data_path: str | None, rows: int) -> DataSample | None:
    """Read the first rows of the training data again, and compare them with the held-out set.

    If the held-out set cannot be read, the references of the newest evaluation take its place.

    Parameters
        data_path: path that takes the place of the recorded one; None keeps that.
        rows: number of rows to read. With 0 nothing is read, and the result is None.

    Raises RunError if the data cannot be read. Data on a server needs time and a network, so it is refused unless
    `data_path` names it.
    """
    from whisper_ft.cli.replay.step_rows import configuration

    if not rows:
        return None
    sources = facts.setting("data.sources") or [{"path": facts.setting("data.path", "")}]
    remote = [path for path in (str(one.get("path")) for one in sources) if _is_remote(path)]
    if data_path is None and remote:
        raise UsageError(f"{remote[0]} is on a server, and is not read again")
    config = configuration(facts.run, data_path)
    source = open_mixture(config.data)
    held_out = _held_out(config)
    scored = list(_first_rows(held_out, rows)) if held_out is not None else _stored(facts)
    comparison, texts = LeakageComparison(scored), []
    sentences = {row.text for row in scored}
    for row in source.beginning(rows):
        comparison.add(row, keys_of(row))
        texts.append(SampledText(row.id, row.text if isinstance(row.text, str) else "", _code(row.language)))
    result = comparison.result()
    lines = [
        f"{MEANING[one.kind]}: {', '.join(f'{row} and {other}' for row, other in one.examples[:MAX_EXAMPLES])}"
        for one in result.leaks
    ]
    if held_out is not None and not lines and (shared := shared_by_index(source, held_out)):
        lines.append(shared)
    shared_sentences = next((one.heldout_rows for one in result.overlaps if one.kind == "sentence"), 0)
    return DataSample(
        texts=texts,
        rows=sum(source.rows),
        leaks=lines,
        leaked_rows=max((one.heldout_rows for one in result.leaks), default=0),
        held_out_rows=result.heldout_rows if len(sentences) > 1 else 0,
        shared_sentences=shared_sentences,
    )


def _is_remote(path: str) -> bool:
    return "://" in path or is_hub_name(path)


def _held_out(config: TrainingConfig) -> Source | None:
    """Open the held-out set; None if the run has none, or it is not there any more."""
    where = config.held_out
    if where is None or _is_remote(where.path):
        return None
    with suppress(RunError):
        return open_held_out(config, where)
    return None


def _first_rows(source: Source, rows: int) -> Iterator[Row]:
    chunks = (source.read(chunk) for chunk, size in enumerate(source.rows) if size)
    return islice((row for chunk in chunks for row in chunk), rows)


def _stored(facts: RunFacts) -> list[Row]:
    """Return the references of the newest evaluation as rows without audio."""
    scores = facts.last_texts
    return [Row(row.prediction.id, b"", row.prediction.ref) for row in scores.rows] if scores else []


def _code(language: str | None) -> str | None:
    with suppress(UsageError):
        return whisper_language(language) if language else None
    return language
