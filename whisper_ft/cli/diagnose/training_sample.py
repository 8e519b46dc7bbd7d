"""Sample of a run's training data: its first rows are read again, and compared with the held-out set."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from whisper_ft.config.data import is_hub_name
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.labels.languages import whisper_language
from whisper_ft.data.leakage import MEANING, LeakageComparison, keys_of, shared_by_index
from whisper_ft.data.sources import open_held_out, open_mixture
from whisper_ft.data.types import Row, Source
from whisper_ft.reports.diagnosis.data_sample import DataSample, SampledText
from whisper_ft.reports.diagnosis.run_facts import RunFacts
from whisper_ft.runtime.errors import RunError, UsageError
from whisper_ft.runtime.printable import counted

MAX_EXAMPLES = 2  # of each kind of overlap


class _HeldOut(NamedTuple):
    """Held-out rows to compare with."""

    rows: Sequence[Row]
    source: Source | None
    """The held-out set; None if `rows` are references of an evaluation."""
    missing: str = ""
    """Reason why the set itself is not compared."""

    @property
    def words(self) -> str:
        """The rows in words; "" without any."""
        if not self.rows:
            return ""
        if self.source is None:
            return f"{counted(len(self.rows), 'reference')} of the newest evaluation"
        return f"{counted(len(self.rows), 'row')} of the held-out set"


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
    _refuse_remote(facts, data_path)
    config = configuration(facts.run, data_path)
    source, held_out = open_mixture(config.data), _held_out(config, facts, rows)
    comparison, texts = LeakageComparison(held_out.rows), []
    for row in source.beginning(rows):
        comparison.add(row, keys_of(row))
        texts.append(SampledText(row.id, row.text if isinstance(row.text, str) else "", _code(row.language)))
    result = comparison.result()
    lines = [
        f"{MEANING[one.kind]}: {', '.join(f'{row} and {other}' for row, other in one.examples[:MAX_EXAMPLES])}"
        for one in result.leaks
    ]
    if held_out.source is not None and not lines and (shared := shared_by_index(source, held_out.source)):
        lines.append(shared)
    return DataSample(
        texts=texts,
        rows=sum(source.rows),
        leaks=lines,
        leaked_rows=max((one.heldout_rows for one in result.leaks), default=0),
        held_out_rows=result.heldout_rows if len({row.text for row in held_out.rows}) > 1 else 0,
        compared_with=held_out.words,
        not_compared=held_out.missing,
        shared_sentences=next((one.heldout_rows for one in result.overlaps if one.kind == "sentence"), 0),
    )


def _refuse_remote(facts: RunFacts, data_path: str | None) -> None:
    sources = facts.setting("data.sources")
    paths = [str(one.get("path")) for one in sources or [{"path": facts.setting("data.path", "")}]]
    if data_path is None and (remote := [path for path in paths if _is_remote(path)]):
        advice = "" if sources else f"; --data.path {remote[0]} reads it"
        raise UsageError(f"{remote[0]} is on a server, and is not read again{advice}")


def _is_remote(path: str) -> bool:
    return "://" in path or is_hub_name(path)


def _held_out(config: TrainingConfig, facts: RunFacts, rows: int) -> _HeldOut:
    """Return the first rows of the held-out set; without it, the references of the newest evaluation."""
    where, scores = config.held_out, facts.last_texts
    if where is None:
        missing = "the run has no held-out set (eval.path, eval.split)"
    elif _is_remote(where.path) and where.path != config.data.path:
        missing = f"the held-out set {where.path} is on a server, and is not read again"
    else:
        try:
            source = open_held_out(config, where)
            return _HeldOut(list(_first_rows(source, rows)), source)
        except RunError as error:
            missing = f"the held-out set cannot be read: {error}"
    references = [Row(row.prediction.id, b"", row.prediction.ref) for row in scores.rows] if scores else []
    return _HeldOut(references, None, missing)


def _first_rows(source: Source, rows: int) -> Iterator[Row]:
    chunks = (source.read(chunk) for chunk, size in enumerate(source.rows) if size)
    return islice((row for chunk in chunks for row in chunk), rows)


def _code(language: str | None) -> str | None:
    with suppress(UsageError):
        return whisper_language(language) if language else None
    return language
