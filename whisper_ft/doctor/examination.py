"""The whole of the data looked through, and what people are told of it."""

import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any, Literal

from whisper_ft.audio import LogMel, Waveform
from whisper_ft.config import Config
from whisper_ft.doctor.batch import batch_lines
from whisper_ft.doctor.checkup import Checkup, Doctor, Tally
from whisper_ft.doctor.histogram import Bars, bar_lines, histogram, quantiles
from whisper_ft.doctor.spelling import NOTED, SUSPECT, named, shown
from whisper_ft.failure import as_usage_error
from whisper_ft.labels import LabelEncoder
from whisper_ft.leakage import Comparison, Leakage, keys_of
from whisper_ft.model import load_whisper
from whisper_ft.order import default_lanes
from whisper_ft.sources import Row, Source, open_mix, open_source
from whisper_ft.window import UnusableError

Depth = Literal["fast", "full", "none"]
SHOWN_LETTERS = 300  # Chinese has thousands


@dataclass(frozen=True)
class Examination:
    """What was found, to be shown."""

    sections: dict[str, list[str]]  # title -> lines
    bars: dict[str, Bars]  # title -> histogram, as in the sections
    findings: list[str]  # what should be mended or meant before a training


def examine(
    config: Config, max_rows: int | None, leakage: Depth, progress: Callable[[str, int, int], None]
) -> Examination:
    """Look at the rows of data.* (the first `max_rows`) and the held-out set; `progress(what, done, total)`.

    RunError as when a training starts: what cannot be opened at all is no finding.
    """
    source = open_mix(config.data)
    lanes = config.data.lanes or default_lanes(config.batch.size)
    with as_usage_error("data.sources"):
        order = source.order(seed=config.seed, lanes=lanes, window=config.data.window_chunks)
        mixed = source.realised(lanes)
    where = config.held_out if leakage != "none" else None
    heldout = open_source(where) if where else None

    model, processor = load_whisper(config.model.name)
    encode = LabelEncoder.of(model, processor.tokenizer, config.data.languages[0], config.data.task)
    del model  # three gigabytes of large-v3, of which only what the encoder knows is needed
    log_mel = LogMel(processor.feature_extractor)
    doctor = Doctor(encode, log_mel, _namer(source))

    comparison = None
    if heldout:
        rows = _told(_rows(heldout, None), "held-out rows", sum(heldout.rows), progress)
        comparison = Comparison(rows, _hear(doctor) if leakage == "full" else None)
    total = min(sum(source.rows), max_rows or sum(source.rows))
    for row in _told(_rows(source, total), "training rows", total, progress):
        keys, waveform = doctor.look(row)
        if comparison:
            comparison.add(row, keys | keys_of(row, waveform) if leakage == "full" else keys)

    found, compared = doctor.found, comparison.result() if comparison else None
    bars = {
        "durations, seconds": histogram(found.tenths, 0.1, log_mel.window_seconds),
        "label tokens": histogram(found.tokens, 1, encode.max_tokens),
    }
    sections = {"data": _data_lines(found, sum(source.rows), config)}
    sections |= {
        "durations, seconds": [quantiles(found.tenths, 0.1), *bar_lines(bars["durations, seconds"])],
        "label tokens": [
            f"{quantiles(found.tokens, 1)}; the decoder has {encode.max_tokens}",
            *bar_lines(bars["label tokens"]),
        ],
        "rows that cannot be used": _unusable_lines(found),
        "duplicates": [
            *_tally_lines("rows with the audio of an earlier one", found.same_audio),
            *_tally_lines("rows with the text of an earlier one", found.same_text),
        ],
        "alphabet": _alphabet_lines(found),
        "languages": [f"{shown(name)}: {rows:,} rows" for name, rows in found.languages.most_common()],
        "order": [mixed or "one source", *_step_lines(config, sum(source.rows))],
        "leakage": compared.lines() if compared else [_nothing_compared(leakage)],
        "one batch": batch_lines(config, source, order, encode, log_mel, processor.tokenizer),
    }
    return Examination(sections, bars, findings(found, compared))


def findings(found: Checkup, compared: Leakage | None) -> list[str]:
    """What stands in the way, a line each."""
    told = [
        f"{tally.rows:,} of {found.rows:,} rows cannot be used: {reason}, such as {tally.examples[0]}"
        for reason, tally in sorted(found.unusable.items())
    ]
    if found.same_audio.rows:
        told.append(f"{found.same_audio.rows:,} rows have the audio of an earlier one: {found.same_audio.examples[0]}")
    for what in SUSPECT:
        if tally := found.suspicious.get(what):
            told.append(f"{tally.rows:,} transcripts have a {what}, such as {tally.examples[0]}")
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


def _hear(doctor: Doctor) -> Callable[[Row], Waveform | None]:
    def hear(row: Row) -> Waveform | None:
        try:
            return doctor.decode(row)
        except UnusableError:
            return None

    return hear


def _data_lines(found: Checkup, rows: int, config: Config) -> list[str]:
    names = [source.path for source in config.data.sources] or [config.data.path]
    part = "" if found.rows == rows else f" (the first of {rows:,}; the figures below are of these)"
    return [
        f"from {', '.join(names)}",
        f"{found.rows:,} utterances{part}",
        f"{found.seconds / 3600:.2f} hours that can be used, in {found.rows - found.bad_rows:,} utterances",
    ]


def _unusable_lines(found: Checkup) -> list[str]:
    if not found.unusable:
        return ["none"]
    lines = [f"{found.bad_rows:,} of {found.rows:,} ({100 * found.bad_rows / found.rows:.2f} %)"]
    for reason, tally in sorted(found.unusable.items()):
        lines += _tally_lines(reason, tally)
    return [*lines, *(f"of these, also {reason}: {rows:,}" for reason, rows in sorted(found.also.items()))]


def _tally_lines(what: str, tally: Tally) -> list[str]:
    return [f"{what}: {tally.rows:,}", *(f"  {shown(example, 240)}" for example in tally.examples)]


def _alphabet_lines(found: Checkup) -> list[str]:
    letters = sorted(found.characters)
    told = [
        f"{_letter(character)} {rows:,}"
        for character, rows in ((letter, found.characters[letter]) for letter in letters[:SHOWN_LETTERS])
    ]
    lines = [f"{len(letters):,} different characters, with how often each is written"]
    lines += ["  " + "   ".join(told[i : i + 12]) for i in range(0, len(told), 12)]
    rare = [letter for letter in letters if found.characters[letter] == 1]
    if rare:
        lines.append(f"written once: {', '.join(named(letter) for letter in rare[:12])}")
    for what in (*SUSPECT, *NOTED):
        if tally := found.suspicious.get(what):
            lines += _tally_lines(f"transcripts: {what}", tally)
    return lines


def _letter(character: str) -> str:
    if not character.isprintable() or character.isspace():
        return named(character)
    return f"\u25cc{character}" if unicodedata.category(character).startswith("M") else character  # marks need a base


def _step_lines(config: Config, rows: int) -> list[str]:
    steps, per_epoch = config.steps_over(rows), rows / config.batch.size
    return [
        f"an epoch is {per_epoch:,.1f} steps of {config.batch.size} utterances",
        f"the run is {steps:,} steps, which is {steps / per_epoch:,.2f} epochs"
        + (f" (asked: {config.epochs:g} epochs)" if config.epochs is not None else ""),
    ]


def _nothing_compared(leakage: Depth) -> str:
    return "not compared (--leakage none)" if leakage == "none" else "no held-out set is named: nothing to compare with"
