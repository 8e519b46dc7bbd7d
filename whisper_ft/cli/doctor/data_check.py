"""Check of the training data and the evaluated sets of a configuration."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Literal, NamedTuple

from whisper_ft.cli.doctor.augment_section import augment_section
from whisper_ft.cli.doctor.batch import first_batch
from whisper_ft.cli.doctor.blocks import Block
from whisper_ft.cli.doctor.data_report import (
    DataReport,
    leakage_section,
    problems_of,
    report_figures,
    report_sections,
    suppressed_section,
)
from whisper_ft.cli.doctor.listening import Listening
from whisper_ft.cli.doctor.packing_section import packing_section
from whisper_ft.cli.doctor.row_check import RowCheck, RowStatistics
from whisper_ft.cli.doctor.verdict import blocking_reasons
from whisper_ft.config.evaluation import HELD_OUT
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.formats.mixture import MixedSource
from whisper_ft.data.labelled import LabelledSource
from whisper_ft.data.labels.previous_text import refuse_without_previous
from whisper_ft.data.labels.rewrite import LabelNormalizer
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.leakage import Leakage, LeakageComparison, keys_of, row_of
from whisper_ft.data.sampling.order import default_lanes
from whisper_ft.data.sources import open_eval_set, open_held_out, open_mixture, open_source, refuse_beside_sources
from whisper_ft.data.types import CollatorFactory, RejectedError, Row, Source
from whisper_ft.data.used_settings import overruled_lines, used_line
from whisper_ft.decoding.long_form import utterances_of
from whisper_ft.models.suppression import SuppressedTokens
from whisper_ft.models.whisper import load_parts
from whisper_ft.runtime.printable import counted
from whisper_ft.runtime.redaction import redacted
from whisper_ft.training.step_preview import StepPreview, encoder_of
from whisper_ft.training.suppress_choice import released_by

Depth = Literal["fast", "full", "none"]
Progress = Callable[[str, int, int], None]  # name of the rows, number done, number of all


class ComparedSet(NamedTuple):
    """A set on which the run scores its model."""

    name: str
    source: LabelledSource
    rows: int
    """Number of rows that are compared with the training data."""

    @property
    def title(self) -> str:
        """Words for the set in a line."""
        return "held-out set" if self.name == HELD_OUT else f"set {self.name}"

    @property
    def size(self) -> str:
        """Number of rows in words."""
        return counted(sum(self.source.rows), "row") + (
            "" if self.rows == sum(self.source.rows) else f", {self.rows:,} scored"
        )


class RowsBeside(NamedTuple):
    """Rows that a run hears beside the training data, with their name and number."""

    name: str
    number: int
    rows: Iterator[Row]


def evaluated_sets(config: TrainingConfig) -> list[ComparedSet]:
    """Open the held-out set of a run and those of eval.sets. Raises the errors of a run for sets that cannot be opened.

    All rows of the held-out set count, and the scored rows of the others.
    """
    found = []
    if config.held_out:
        source = open_held_out(config, config.held_out)
        found.append(ComparedSet(HELD_OUT, source, sum(source.rows)))
    for one in config.eval.sets_beside(config.data):
        source = open_eval_set(one)
        found.append(ComparedSet(one.name, source, utterances_of(source, one.max_utterances)))
    return found


def check_data(
    config: TrainingConfig,
    max_rows: int | None,
    leakage: Depth,
    progress: Progress,
    collator: CollatorFactory,
    rewrite: LabelNormalizer | None = None,
) -> DataReport:
    """Check the training rows, compare them with the evaluated sets, decode the first batch, and return the report.

    Parameters
        max_rows: check only so many rows from the start of the data; None for all.
        leakage: comparison with the held-out set and those of eval.sets. full: the decoded sound, too; none: these sets
            are not opened.
        progress: called with the name of the rows, the number done and the number of all.
        rewrite: normaliser named by data.normalizer. Without it, labels are made from the transcripts as written, and
            the report says so.

    Raises the same RunError as a training run for data that cannot be opened.
    """
    source = _training_rows(config)
    lanes = config.data.lanes or default_lanes(config.batch.size)
    evaluated = [] if leakage == "none" else evaluated_sets(config)
    model = load_parts(config.model.name)
    tokenizer, encode = model.processor.tokenizer, encoder_of(config, model, source, rewrite)
    log_mel, as_written = LogMel(model.processor.feature_extractor), _as_written(config, rewrite)
    preview = StepPreview.of(config, source, encode, log_mel)
    suppressed = SuppressedTokens.of(model.generation_config, tokenizer)
    check = RowCheck(encode, log_mel, _row_ids(source), suppressed)
    total = min(sum(source.rows), max_rows or sum(source.rows))
    listening = Listening(total, log_mel.sample_rate)
    heard = heard_beside(config, preview.recordings)
    overlaps = _check_rows(check, source, total, evaluated, leakage, progress, heard, listening)
    statistics, shared = check.statistics, leakage_section(overlaps, is_compared=leakage != "none")
    sections = report_sections(statistics, shared, config, source, lanes, log_mel.window_seconds, encode.max_tokens)
    sections |= _sections_to_hear(config, listening, preview, encode, log_mel)
    sections["data"] += used_settings(config, source, evaluated, encode, statistics)
    sections["label tokens"] += as_written
    released = released_by(config, source, encode, suppressed, tokenizer)
    sections["suppressed tokens"] = suppressed_section(statistics.suppressed, tokenizer, released) + as_written
    sections["one batch"] = first_batch(config, preview, encode, log_mel, tokenizer, collator) + as_written
    figures = report_figures(statistics, config, sum(source.rows))
    held_out = overlaps.get(HELD_OUT)
    problems = problems_of(statistics, held_out, released)
    return DataReport(figures, sections, problems, blocking_reasons(statistics, held_out, config))


def _sections_to_hear(
    config: TrainingConfig, listening: Listening, preview: StepPreview, encode: LabelEncoder, log_mel: LogMel
) -> dict[str, list[Block]]:
    """Return the sections with utterances that the page plays: outliers, samples, and what a run makes of some."""
    sections = {"outliers": listening.outlier_section(), "samples": listening.sample_section()}
    sections |= {"packing": packing_section(preview, encode, log_mel)} if config.pack.enabled else {}
    return sections | ({"augmented sound": augment_section(preview, log_mel)} if config.augment.waveform else {})


def _training_rows(config: TrainingConfig) -> MixedSource:
    """Open the training data, and refuse settings that have no effect on it."""
    refuse_beside_sources(config)
    source = open_mixture(config.data)
    refuse_without_previous(config.labels, source.parts)
    return source


def _as_written(config: TrainingConfig, rewrite: LabelNormalizer | None) -> list[Block]:
    if rewrite is not None or config.data.normalizer == "keep":
        return []
    return [f"of the transcripts as written; a run applies data.normalizer {config.data.normalizer}"]


def used_settings(
    config: TrainingConfig,
    source: MixedSource,
    evaluated: Sequence[ComparedSet],
    encode: LabelEncoder,
    statistics: RowStatistics,
) -> list[Block]:
    """Return notes of the sources, and lines about what is read of each set and about columns that are not used."""
    names = ["read"] if len(source.parts) == 1 else [f"data.sources.{number}" for number in range(len(source.parts))]
    lines = [used_line(name, part, encode.language) for name, part in zip(names, source.parts, strict=True)]
    lines += [f"{used_line(one.title, one.source, encode.language)}; {one.size}" for one in evaluated]
    return [*map(redacted, source.notes), *lines, *overruled_lines(statistics.overruled, statistics.rows)]


def _check_rows(
    check: RowCheck,
    source: Source,
    total: int,
    evaluated: Sequence[ComparedSet],
    leakage: Depth,
    progress: Progress,
    beside: Sequence[RowsBeside],
    listening: Listening,
) -> dict[str, Leakage]:
    """Check the first `total` rows, and return their overlap with the rows of each evaluated set, by its name.

    The rows of `beside` are only compared, because a run hears them, too. `listening` gets each training row.
    """
    comparisons = {}
    for one in evaluated:
        title = "held-out rows" if one.name == HELD_OUT else f"rows of {one.name}"
        rows = _counted(first_rows(one.source, one.rows), title, one.rows, progress)
        comparisons[one.name] = LeakageComparison(rows, _decoder(check) if leakage == "full" else None)
    for row in _counted(first_rows(source, total), "training rows", total, progress):
        keys, waveform = check.check(row)
        listening.add(row, waveform)
        if leakage == "full" and comparisons:
            keys |= keys_of(row, waveform)
        for comparison in comparisons.values():
            comparison.add(row, keys)
    for name, number, others in beside if comparisons else ():
        for row in _counted(others, name, number, progress):
            keys = keys_of(row, _decoder(check)(row) if leakage == "full" else None)
            for comparison in comparisons.values():
                comparison.add(row, keys)
    return {name: comparison.result() for name, comparison in comparisons.items()}


def heard_beside(config: TrainingConfig, recordings: Sequence[Path]) -> list[RowsBeside]:
    """Return the rows that a run hears beside the training data: recordings of noise, and the audio of an anchor."""
    found = [RowsBeside("recordings of noise", len(recordings), map(row_of, recordings))] if recordings else []
    if where := config.anchor.source_beside(config.data):
        anchor = open_source(where)
        found.append(RowsBeside("anchor rows", sum(anchor.rows), first_rows(anchor, None)))
    return found


def first_rows(source: Source, most: int | None) -> Iterator[Row]:
    """Return an iterator over at most `most` rows (None: all), in the order of storage.

    One chunk at a time is in memory.
    """
    chunks = (source.read(chunk) for chunk, rows in enumerate(source.rows) if rows)
    return islice((row for rows in chunks for row in rows), most)


def _counted(rows: Iterator[Row], name: str, total: int, progress: Progress) -> Iterator[Row]:
    for done, row in enumerate(rows):
        progress(name, done, total)
        yield row
    progress(name, total, total)


def _row_ids(source: Source) -> Callable[[int], str]:
    """Return a function that returns the id of the row with a given number, from 0, in the order of storage."""
    ends = list(accumulate(source.rows))

    def row_id(number: int) -> str:
        chunk = bisect_right(ends, number)
        return source.row_id(chunk, number - (ends[chunk - 1] if chunk else 0))

    return row_id


def _decoder(check: RowCheck) -> Callable[[Row], Waveform | None]:
    def decoded(row: Row) -> Waveform | None:
        try:
            return check.decode(row)
        except RejectedError:
            return None

    return decoded
