"""The whole of the data looked through, and what people are told of it."""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any, Literal

from whisper_ft.cli.doctor.batch import first_batch
from whisper_ft.cli.doctor.block import Block, Finding, Letters, Level, Table, lines_of
from whisper_ft.cli.doctor.checkup import Checkup, DataCheck, Tally
from whisper_ft.cli.doctor.histogram import histogram, quantiles
from whisper_ft.cli.doctor.spelling import NOTED, SUSPECT, is_odd, shown
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.labels.rewrite import LabelNormalizer
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.leakage import LEAKS, MEANING, Leakage, LeakageComparison, keys_of
from whisper_ft.data.sampling.order import default_lanes, lanes_by_weight
from whisper_ft.data.sources import open_mixture, open_source
from whisper_ft.data.types import RejectedError, Row, Source
from whisper_ft.models.whisper import load_parts
from whisper_ft.runtime.errors import as_usage_error

Depth = Literal["fast", "full", "none"]
SHOWN_LETTERS = 300  # Chinese has thousands


@dataclass(frozen=True)
class Examination:
    """What was found, to be shown."""

    figures: dict[str, str]  # the first things that one asks
    sections: dict[str, list[Block]]  # by title
    findings: list[str]  # what should be mended or meant before a training

    def text(self, title: str) -> list[str]:
        """A section as lines."""
        return lines_of(self.sections[title])


def examine(
    config: TrainingConfig,
    max_rows: int | None,
    leakage: Depth,
    progress: Callable[[str, int, int], None],
    rewrite: LabelNormalizer | None = None,
) -> Examination:
    """Look at the rows of data.* (the first `max_rows`) and the held-out set; `progress(what, done, total)`.

    `rewrite` is what data.normalizer names; without it, labels are of the transcripts as written, and that is said.
    RunError as when a training starts: what cannot be opened at all is no finding.
    """
    source = open_mixture(config.data)
    lanes = config.data.lanes or default_lanes(config.batch.size)
    with as_usage_error("data.sources"):
        order = source.order(seed=config.seed, lanes=lanes, window=config.data.window_chunks)
    where = config.held_out if leakage != "none" else None
    heldout = open_source(where) if where else None

    model = load_parts(config.model.name)
    encode = LabelEncoder.of(model, model.processor.tokenizer, config.data.languages[0], config.data.task, rewrite)
    as_written: list[Block] = []
    if rewrite is None and config.data.normalizer != "keep":
        as_written.append(f"of the transcripts as written: a run applies data.normalizer {config.data.normalizer}")
    log_mel = LogMel(model.processor.feature_extractor)
    doctor = DataCheck(encode, log_mel, _namer(source))

    comparison = None
    if heldout:
        rows = _told(_rows(heldout, None), "held-out rows", sum(heldout.rows), progress)
        comparison = LeakageComparison(rows, _hear(doctor) if leakage == "full" else None)
    total = min(sum(source.rows), max_rows or sum(source.rows))
    for row in _told(_rows(source, total), "training rows", total, progress):
        keys, waveform = doctor.look(row)
        if comparison:
            comparison.add(row, keys | keys_of(row, waveform) if leakage == "full" else keys)

    found, compared = doctor.found, comparison.result() if comparison else None
    sections: dict[str, list[Block]] = {
        "data": _data_lines(found, sum(source.rows), config),
        "durations": [
            histogram("seconds", found.tenths, 0.1, log_mel.window_seconds, quantiles(found.tenths, 0.1)),
        ],
        "label tokens": [
            histogram("label tokens", found.tokens, 1, encode.max_tokens, quantiles(found.tokens, 1)),
            f"the decoder has {encode.max_tokens} positions",
            *as_written,
        ],
        "rows that cannot be used": _unusable(found),
        "duplicates": [
            _found("rows with the audio of an earlier one", found.same_audio, "poor", " = "),
            _found("rows with the text of an earlier one", found.same_text, "good", " = "),
        ],
        "alphabet": _alphabet(found),
        "languages": [_languages(found)],
        "order": [*_sources(config, source, lanes), *_step_lines(config, sum(source.rows))],
        "leakage": _leakage(compared) if compared else [_nothing_compared(leakage)],
        "one batch": [*first_batch(config, source, order, encode, log_mel, model.processor.tokenizer), *as_written],
    }
    return Examination(_figures(found, config, sum(source.rows)), sections, findings(found, compared))


def findings(found: Checkup, compared: Leakage | None) -> list[str]:
    """What stands in the way, a line each."""
    told = [
        f"{tally.rows:,} of {found.rows:,} rows cannot be used: {reason}, such as {': '.join(tally.examples[0])}"
        for reason, tally in sorted(found.unusable.items())
    ]
    if found.same_audio.rows:
        rows, first = found.same_audio.rows, " = ".join(found.same_audio.examples[0])
        told.append(f"{rows:,} rows have the audio of an earlier one: {first}")
    for what in SUSPECT:
        if tally := found.suspicious.get(what):
            told.append(f"{tally.rows:,} transcripts have a {what}, such as {': '.join(tally.examples[0])}")
    for leak in compared.leaks if compared else ():
        train, heldout = leak.examples[0]
        told.append(f"{leak.heldout_rows:,} held-out rows are trained on ({leak.kind}), such as {heldout} = {train}")
    return told


def _rows(source: Source, most: int | None) -> Iterator[Row]:
    """Rows in the order they are stored, one chunk in memory."""
    chunks = (source.read(chunk) for chunk, rows in enumerate(source.rows) if rows)
    return islice((row for rows in chunks for row in rows), most)


def _told(rows: Iterator[Row], what: str, total: int, progress: Callable[[str, int, int], None]) -> Iterator[Row]:
    for done, row in enumerate(rows):
        progress(what, done, total)
        yield row
    progress(what, total, total)


def _namer(source: Any) -> Callable[[int], str]:
    """The id of the n-th row."""
    ends = list(accumulate(source.rows))

    def row_id(number: int) -> str:
        chunk = bisect_right(ends, number)
        return str(source.row_id(chunk, number - (ends[chunk - 1] if chunk else 0)))

    return row_id


def _hear(doctor: DataCheck) -> Callable[[Row], Waveform | None]:
    def hear(row: Row) -> Waveform | None:
        try:
            return doctor.decode(row)
        except RejectedError:
            return None

    return hear


def _figures(found: Checkup, config: TrainingConfig, rows: int) -> dict[str, str]:
    return {
        "Hours that can be used": f"{found.seconds / 3600:,.2f}",
        "Utterances": f"{found.rows:,}",
        "Cannot be used": f"{found.bad_rows:,} ({100 * found.bad_rows / found.rows:.2f} %)",
        "Steps per epoch": f"{rows / config.batch.size:,.1f}",
        "Epochs of the run": f"{_positions(config, rows) / rows:,.2f}",
    }


def _data_lines(found: Checkup, rows: int, config: TrainingConfig) -> list[Block]:
    names = [source.path for source in config.data.sources] or [config.data.path]
    part = "" if found.rows == rows else f" (the first of {rows:,}; the figures below are of these)"
    return [
        f"from {', '.join(names)}",
        f"{found.rows:,} utterances{part}",
        f"{found.seconds / 3600:.2f} hours that can be used, in {found.rows - found.bad_rows:,} utterances",
    ]


def _unusable(found: Checkup) -> list[Block]:
    if not found.unusable:
        return ["none"]
    return [
        _of(found.bad_rows, found.rows),
        *(_found(reason, tally, "poor") for reason, tally in sorted(found.unusable.items())),
        *(f"of these, also {reason}: {rows:,}" for reason, rows in sorted(found.also.items())),
    ]


def _of(rows: int, total: int) -> str:
    return f"{rows:,} of {total:,} ({100 * rows / total:.2f} %)"


def _found(what: str, tally: Tally, level: Level, joint: str = ": ") -> Finding:
    return Finding(what, f"{tally.rows:,}", level if tally.rows else "good", tally.examples, joint)


def _alphabet(found: Checkup) -> list[Block]:
    letters = sorted(found.characters)
    suspicious = frozenset(letter for letter in letters if is_odd(letter))
    counts = [(letter, found.characters[letter]) for letter in letters[:SHOWN_LETTERS]]
    return [
        Letters(counts, len(letters), suspicious),
        *(
            _found(f"transcripts: {what}", tally, "poor" if what in SUSPECT else "fair")
            for what in (*SUSPECT, *NOTED)
            if (tally := found.suspicious.get(what))
        ),
    ]


def _languages(found: Checkup) -> Table:
    counted = found.languages.most_common()
    rows = [(shown(name), f"{rows:,}", f"{100 * rows / found.rows:.1f} %") for name, rows in counted]
    return Table(("language", "rows", "share"), rows)


def _sources(config: TrainingConfig, source: Source, lanes: int) -> list[Block]:
    """What each source gives to the stream, and how often it is gone through: a small one with a large weight often."""
    if not config.data.sources:
        return ["one source"]
    whole = source.fingerprint()
    of_each = [part["rows"] for part in whole.get("sources", [whole])]
    weights = [one.weight for one in config.data.sources]
    positions = _positions(config, sum(source.rows))
    rows = [
        (
            f"{number}: {shown(one.path, 120)}",
            f"{rows:,}",
            f"{100 * one.weight / sum(weights):.1f} %",
            f"{100 * owned / lanes:.1f} %",
            f"{positions * owned / lanes / rows:,.2f}",
        )
        for number, (one, rows, owned) in enumerate(
            zip(config.data.sources, of_each, lanes_by_weight(weights, lanes), strict=True)
        )
    ]
    return [Table(("source", "rows", "share asked", "share realised", "epochs of it"), rows)]


def _positions(config: TrainingConfig, rows: int) -> int:
    """Utterances that the run goes through."""
    return config.end_of(rows) or config.steps_over(rows) * config.batch.size


def _leakage(compared: Leakage) -> list[Block]:
    """As `Leakage.lines`, to be drawn."""
    told: list[Block] = [f"{compared.train_rows:,} training rows against {compared.heldout_rows:,} held-out rows"]
    for shared in compared.overlaps:
        level: Level = "good" if not shared.train_rows else "poor" if shared.kind in LEAKS else "fair"
        rank = {"good": "", "fair": "warning: ", "poor": "LEAK: "}[level]
        share = 100 * shared.heldout_rows / max(compared.heldout_rows, 1)
        count = f"{shared.heldout_rows:,} held-out rows ({share:.1f} %), {shared.train_rows:,} training rows"
        told.append(Finding(f"{rank}{MEANING[shared.kind]}", count, level, shared.examples, " = "))
    return told


def _step_lines(config: TrainingConfig, rows: int) -> list[Block]:
    steps, per_epoch = config.steps_over(rows), rows / config.batch.size
    return [
        f"an epoch is {per_epoch:,.1f} steps of {config.batch.size} utterances",
        f"the run is {steps:,} steps, which is {steps / per_epoch:,.2f} epochs"
        + (f" (asked: {config.epochs:g} epochs)" if config.epochs is not None else ""),
    ]


def _nothing_compared(leakage: Depth) -> str:
    return "not compared (--leakage none)" if leakage == "none" else "no held-out set is named: nothing to compare with"
