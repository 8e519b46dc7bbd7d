"""Rows, looked at one by one."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from whisper_ft.cli.doctor.spelling import shown, suspicions
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.decode import decode, decode_beginning
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.leakage import Keys, Kind, keys_of
from whisper_ft.data.types import RejectedError, Row
from whisper_ft.runtime.signals import interrupt_held

SHOWN = 5  # examples of each finding


@dataclass
class Tally:
    """How many rows something is true of, and the first few of them."""

    rows: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)  # id, and what is said of it

    def add(self, row_id: str, said: str) -> None:
        """One row more."""
        self.rows += 1
        if len(self.examples) < SHOWN:
            self.examples.append((row_id, said))


@dataclass
class Checkup:
    """What is known of the rows seen so far: figures, hashes and a few examples, never audio."""

    rows: int = 0
    seconds: float = 0.0  # of the rows that can be used
    tenths: Counter[int] = field(default_factory=Counter)  # durations in 0.1 s, of all that could be decoded
    tokens: Counter[int] = field(default_factory=Counter)  # label tokens, of all labels that fit
    unusable: dict[str, Tally] = field(default_factory=dict)  # by reason code, the first of a row as in training
    also: Counter[str] = field(default_factory=Counter)  # second reasons: a bad label whose audio is bad, too
    characters: Counter[str] = field(default_factory=Counter)
    suspicious: dict[str, Tally] = field(default_factory=dict)
    languages: Counter[str] = field(default_factory=Counter)
    same_audio: Tally = field(default_factory=Tally)
    same_text: Tally = field(default_factory=Tally)
    seen: dict[Kind, dict[bytes, int]] = field(default_factory=lambda: {"audio": {}, "sentence": {}})  # first row

    @property
    def bad_rows(self) -> int:
        """Rows that leave their slot empty in training."""
        return sum(tally.rows for tally in self.unusable.values())


class DataCheck:
    """Looks at rows, one by one. `row_id` gives the id of the n-th row, for duplicates."""

    def __init__(self, encode: LabelEncoder, log_mel: LogMel, row_id: Callable[[int], str]) -> None:
        self._encode, self._log_mel, self._row_id = encode, log_mel, row_id
        self.found = Checkup()

    def look(self, row: Row) -> tuple[Keys, Waveform | None]:
        """Note all there is to know of a row; gives its hashes and its sound, where it has one."""
        found = self.found
        problems, seconds = [], 0.0
        try:
            found.tokens[len(self._encode(row.text, row.language, row.task)) - 1] += 1
        except RejectedError as unusable:
            problems.append(unusable)
        waveform = None
        try:
            waveform, seconds = self._hear(row)
        except RejectedError as unusable:
            # Training looks for a row without audio first, then at the label, then at the sound.
            problems.insert(0 if row.problem else len(problems), unusable)
        if problems:
            first, *others = problems
            found.unusable.setdefault(first.reason, Tally()).add(row.id, shown(first.detail, 200))
            found.also.update(problem.reason for problem in others)
        else:
            found.seconds += seconds
        keys = keys_of(row)
        self._compare(row, keys)
        self._read(row)
        language = row.language or self._encode.language or "en"
        found.languages[f"{language} {row.task}" if row.task else language] += 1
        found.rows += 1
        return keys, waveform

    def decode(self, row: Row) -> Waveform:
        """The sound of a row; UnusableError as in training."""
        if row.problem:
            raise RejectedError(*row.problem)
        with interrupt_held():
            return decode(row.audio, self._log_mel.sample_rate, self._log_mel.window_seconds, row.offset, row.duration)

    def _hear(self, row: Row) -> tuple[Waveform, float]:
        """Sound and seconds of a row; UnusableError as in training, the length of what is too long noted."""
        rate, window = self._log_mel.sample_rate, self._log_mel.window_seconds
        try:
            waveform = self.decode(row)
        except RejectedError as unusable:
            if unusable.reason == "too_long" and not row.problem:
                with suppress(RejectedError), interrupt_held():  # a header that lies has no length to note
                    self._measure(decode_beginning(row.audio, rate, window, row.offset, row.duration)[1])
            raise
        self._measure(len(waveform) / rate)
        if not waveform.any():
            raise RejectedError("silent", "every sample is zero, but there is a transcript")
        return waveform, len(waveform) / rate

    def _measure(self, seconds: float) -> None:
        self.found.tenths[int(seconds * 10)] += 1

    def _compare(self, row: Row, keys: Keys) -> None:
        tallies: dict[Kind, Tally] = {"audio": self.found.same_audio, "sentence": self.found.same_text}
        for kind, tally in tallies.items():
            key = keys.get(kind)
            if key is None:
                continue
            first = self.found.seen[kind].setdefault(key[:16], self.found.rows)
            if first != self.found.rows:
                tally.add(row.id, self._row_id(first))

    def _read(self, row: Row) -> None:
        if not isinstance(row.text, str):
            return
        self.found.characters.update(row.text)
        for what, where in suspicions(row.text):
            self.found.suspicious.setdefault(what, Tally()).add(row.id, shown(where))
