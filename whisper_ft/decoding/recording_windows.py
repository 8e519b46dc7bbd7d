"""Windows of one recording on disk: it is read in blocks and cut where an evaluation cuts it."""

from collections.abc import Collection, Generator, Iterator, Sequence
from pathlib import Path

import numpy as np

from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.decode import MIN_SECONDS
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.audio.recording import Recording
from whisper_ft.data.types import RejectedError, Row
from whisper_ft.decoding.finished_window import FinishedWindow, language_of, text_of
from whisper_ft.decoding.long_form import AudioWindow, pieces_at_silence
from whisper_ft.reports.transcript_formats import Transcript
from whisper_ft.runtime.printable import printable


class RecordingPieces:
    """Reader of the samples of the windows of one recording. They can be read once.

    Parameters
        audio: file in any format that `decode` reads, or its content

    Attributes
        problem: reason for which the recording could not be read at all, or from some second on; None if it could
        seconds: length of the part that was read so far
        count: number of windows; None until the recording is read to its end
    """

    def __init__(self, audio: Path | bytes) -> None:
        self._audio = audio
        self.problem: RejectedError | None = None
        self.seconds = 0.0
        self.count: int | None = None

    @property
    def is_heard(self) -> bool:
        """False if no part of the recording could be read."""
        return self.seconds > 0

    def pieces(self, window_samples: int, sample_rate: int) -> Generator[tuple[int, float, Waveform]]:
        """Yield number, begin in seconds and samples of each window. The cuts are those of `split_at_silence`."""
        number = 0
        for piece in pieces_at_silence(self._blocks(sample_rate), window_samples, sample_rate):
            length = len(piece) / sample_rate
            if length < MIN_SECONDS and self.problem is not None:
                break
            yield number, self.seconds, piece
            number, self.seconds = number + 1, self.seconds + length
        self.count = number

    def _blocks(self, sample_rate: int) -> Iterator[Waveform]:
        """Yield the blocks of the recording that can be read; the problem of the next one is kept."""
        try:
            with Recording(self._audio, sample_rate) as recording:
                yield from recording.blocks()
        except RejectedError as error:
            self.problem = error


class RecordingWindows(RecordingPieces):
    """Reader of the windows of one recording, as the model gets them.

    Parameters
        path: file in any format that `decode` reads
        index: number of the recording, for its windows

    Attributes
        peaks: largest absolute sample of each window that was yielded, by its number; full scale is 1.0
    """

    def __init__(self, path: Path, index: int = 0) -> None:
        super().__init__(path)
        self._row, self._index = Row(str(path), b"", ""), index
        self.peaks: dict[int, float] = {}

    def read(self, log_mel: LogMel, known: Collection[int] = ()) -> Generator[AudioWindow]:
        """Yield the windows whose numbers are not in `known`."""
        rate = log_mel.sample_rate
        for number, begin, piece in self.pieces(log_mel.window_samples, rate):
            if number not in known:
                self.peaks[number] = float(np.abs(piece).max(initial=0.0))
                length = len(piece) / rate
                yield AudioWindow(self._index, self._row, log_mel(piece), length, None, number, 0, begin, length)


def transcript_of(
    name: str, read: RecordingWindows, windows: Sequence[FinishedWindow], model: str, language: str | None
) -> Transcript:
    """Join the finished windows of a recording, in their order, into its transcript.

    `language` is that of the prompt; it counts if none was detected. `name` is that of the recording.
    """
    return Transcript(
        file=name,
        seconds=read.seconds,
        model=model,
        language=language_of(windows) or language,
        text=text_of(windows),
        segments=[segment for window in windows for segment in window.segments],
        problem=None if read.problem is None else printable(read.problem),
    )
