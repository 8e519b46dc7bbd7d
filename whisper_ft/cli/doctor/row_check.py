"""Check of single rows, and the statistics of all rows checked so far."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from whisper_ft.cli.doctor.levels import Levels
from whisper_ft.cli.doctor.spelling import shown, suspicions
from whisper_ft.cli.doctor.tally import Tally
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.decode import decode, decode_beginning
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.labels.usable_transcript import UsableTranscript
from whisper_ft.data.leakage import Keys, Kind, keys_of
from whisper_ft.data.stated_durations import StatedDurations
from whisper_ft.data.types import Overruled, RejectedError, Row
from whisper_ft.models.suppression import SuppressedCount, SuppressedTokens
from whisper_ft.runtime.signals import interrupt_held


@dataclass
class RowStatistics:
    """Figures, hashes and a few examples of the rows seen so far, but no audio."""

    rows: int = 0
    seconds: float = 0.0  # length of the audio in usable rows
    tenths: Counter[int] = field(default_factory=Counter)  # rows by duration in 0.1 s, of all that could be decoded
    tokens: Counter[int] = field(default_factory=Counter)  # rows by number of label tokens, of all labels that fit
    suppressed: SuppressedCount = field(default_factory=SuppressedCount)  # of all labels that fit
    unusable: dict[str, Tally] = field(
        default_factory=dict
    )  # by the code of the reason for which training leaves the row out
    second_reasons: Counter[str] = field(default_factory=Counter)  # further reasons of rows with several
    characters: Counter[str] = field(default_factory=Counter)
    suspicious: dict[str, Tally] = field(default_factory=dict)
    languages: Counter[str] = field(default_factory=Counter)
    durations: StatedDurations = field(default_factory=StatedDurations)
    levels: Levels = field(default_factory=Levels)
    overruled: Counter[Overruled] = field(default_factory=Counter)
    same_audio: Tally = field(default_factory=Tally)
    same_text: Tally = field(default_factory=Tally)
    # Number of the first row with a hash, to find duplicates.
    seen: dict[Kind, dict[bytes, int]] = field(default_factory=lambda: {"audio": {}, "sentence": {}})

    @property
    def unusable_rows(self) -> int:
        """Number of rows that cannot be used in training; their place in a batch stays empty."""
        return sum(tally.rows for tally in self.unusable.values())


class RowCheck:
    """Checks rows one by one: their use in training, duplicates, suspicious spelling. `statistics` has the results.

    The rows must come in the order of the source, from its first row on.

    Parameters
        row_id: returns the id of the row with a given number in that order, from 0. It names a row that another
            repeats.
        suppressed: text tokens that the model never writes.
    """

    def __init__(
        self, encode: LabelEncoder, log_mel: LogMel, row_id: Callable[[int], str], suppressed: SuppressedTokens
    ) -> None:
        self._encode, self._log_mel, self._row_id, self._suppressed = encode, log_mel, row_id, suppressed
        self.statistics = RowStatistics()

    def check(self, row: Row) -> tuple[Keys, Waveform | None]:
        """Add a row to the statistics, also if training cannot use it. Returns its hashes and its waveform.

        The waveform is None if the audio cannot be used or is silent.
        """
        statistics = self.statistics
        problems, seconds, transcript = [], 0.0, None
        try:
            transcript = UsableTranscript.of(row, self._encode)
            label = transcript.plain_label(row, self._encode)
            statistics.tokens[len(label) - 1] += 1
            statistics.suppressed.add(self._suppressed.among(self._encode.text_of(label)))
        except RejectedError as rejected:
            problems.append(rejected)
        waveform = None
        try:
            waveform, seconds = self._measured(row)
            if transcript is not None:  # refuses times after the end of the audio
                transcript.spoken(waveform, self._log_mel.sample_rate, 0, timestamps=False)
        except RejectedError as rejected:
            # Training checks first that a row has audio, then its label, then the waveform.
            problems.insert(0 if row.problem else len(problems), rejected)
        if problems:
            first, *others = problems
            statistics.unusable.setdefault(first.reason, Tally()).add(row.id, shown(first.detail, 200))
            statistics.second_reasons.update(problem.reason for problem in others)
        else:
            statistics.seconds += seconds
        keys = keys_of(row)
        self._count_duplicates(row, keys)
        self._count_characters(row)
        language = row.language or self._encode.language or ("none" if self._encode.is_multilingual else "en")
        statistics.languages[f"{language} {row.task}" if row.task else language] += 1
        statistics.overruled.update(row.overruled)
        statistics.rows += 1
        return keys, waveform

    def decode(self, row: Row) -> Waveform:
        """Decode the audio of a row. Raises RejectedError, as training does, if the audio cannot be used.

        A silent row is not refused here.
        """
        if row.problem:
            raise RejectedError(*row.problem)
        with interrupt_held():
            return decode(row.audio, self._log_mel.sample_rate, self._log_mel.window_seconds, row.offset, row.duration)

    def _measured(self, row: Row) -> tuple[Waveform, float]:
        """Decode a row, count its duration, and return its waveform and seconds.

        Raises RejectedError, with the same reason as in training, if the row is unusable. If the row is only too long
        or silent, its duration is counted before.
        """
        rate, window = self._log_mel.sample_rate, self._log_mel.window_seconds
        try:
            waveform = self.decode(row)
        except RejectedError as rejected:
            if rejected.reason == "too_long" and not row.problem:
                with suppress(RejectedError), interrupt_held():  # a wrong header gives no duration
                    self._count_duration(row, decode_beginning(row.audio, rate, window, row.offset, row.duration)[1])
            raise
        self._count_duration(row, len(waveform) / rate)
        if not waveform.any():
            raise RejectedError("silent", "every sample is zero, but there is a transcript")
        self.statistics.levels.add(row.id, waveform)
        return waveform, len(waveform) / rate

    def _count_duration(self, row: Row, seconds: float) -> None:
        self.statistics.tenths[int(seconds * 10)] += 1
        self.statistics.durations.add(row.id, row.stated, seconds)

    def _count_duplicates(self, row: Row, keys: Keys) -> None:
        tallies: dict[Kind, Tally] = {"audio": self.statistics.same_audio, "sentence": self.statistics.same_text}
        for kind, tally in tallies.items():
            key = keys.get(kind)
            if key is None:
                continue
            first = self.statistics.seen[kind].setdefault(key[:16], self.statistics.rows)
            if first != self.statistics.rows:
                tally.add(row.id, self._row_id(first))

    def _count_characters(self, row: Row) -> None:
        if not isinstance(row.text, str):
            return
        self.statistics.characters.update(row.text)
        for kind, example in suspicions(row.text):
            self.statistics.suspicious.setdefault(kind, Tally()).add(row.id, shown(example))
