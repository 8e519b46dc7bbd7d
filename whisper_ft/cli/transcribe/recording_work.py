"""Work on one recording: its windows, its log, and at the end its transcripts."""

import glob
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from whisper_ft.cli.transcribe.audio_files import AudioFile
from whisper_ft.cli.transcribe.finished_window import FinishedWindow, language_of, text_of
from whisper_ft.cli.transcribe.window_log import WindowLog
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.decode import MIN_SECONDS
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.audio.recording import Recording
from whisper_ft.data.types import RejectedError, Row
from whisper_ft.decoding.long_form import AudioWindow, pieces_at_silence
from whisper_ft.reports.transcript_formats import Transcript, written
from whisper_ft.runtime import atomic
from whisper_ft.runtime.printable import printable


class RecordingWork:
    """One recording that this process transcribes. It is locked until `release`.

    Attributes
        problem: reason for which the recording could not be read at all, or from some second on; None if it could
        seconds: length of the part that was read so far
        known_seconds: length of the part that an earlier start transcribed

    Raises LockedError if another process transcribes the recording, and DiskError if its log cannot be written.
    """

    def __init__(self, index: int, file: AudioFile, outputs: Mapping[str, Path], job: Mapping[str, Any]) -> None:
        self.index, self.file, self._outputs = index, file, outputs
        with atomic.disk_errors(file.output.parent):
            file.output.parent.mkdir(parents=True, exist_ok=True)
        self._log = WindowLog(file.output.with_name(f".{file.output.name}.windows"), {**job, **_identity(file.path)})
        self.known_seconds = sum(window.seconds for window in self._log.known.values())
        if self._log.known:
            self._remove_leftovers()
        self.problem: RejectedError | None = None
        self.seconds = 0.0
        self._windows: int | None = None  # number of windows, once the recording is read to its end

    def windows(self, log_mel: LogMel) -> Iterator[AudioWindow]:
        """Yield the windows that are not known yet. The cuts are those of an evaluation (`split_at_silence`)."""
        row, number, rate = Row(str(self.file.path), b"", ""), 0, log_mel.sample_rate
        for piece in pieces_at_silence(self._blocks(rate), log_mel.window_samples, rate):
            length = len(piece) / rate
            if length < MIN_SECONDS and self.problem is not None:
                break
            if number not in self._log.known:
                yield AudioWindow(self.index, row, log_mel(piece), length, None, number, 0, self.seconds, length)
            number, self.seconds = number + 1, self.seconds + length
        self._windows = number

    def _blocks(self, sample_rate: int) -> Iterator[Waveform]:
        """Yield the blocks of the recording that can be read; the problem of the next one is kept."""
        try:
            with Recording(self.file.path, sample_rate) as recording:
                yield from recording.blocks()
        except RejectedError as error:
            self.problem = error

    def _remove_leftovers(self) -> None:
        """Remove the half of a transcript that an earlier start was writing when it was killed."""
        for path in self._outputs.values():
            for leftover in path.parent.glob(f"{atomic.ASIDE}{glob.escape(path.name)}-*"):
                leftover.unlink(missing_ok=True)

    @property
    def is_heard(self) -> bool:
        """False if no part of the recording could be read."""
        return self.seconds > 0

    @property
    def is_complete(self) -> bool:
        """True once the recording is read, and all its windows are transcribed."""
        return self._windows is not None and len(self._log.known) >= self._windows

    def add(self, window: FinishedWindow) -> None:
        """Keep a finished window. Raises DiskError if the log cannot be written."""
        self._log.append(window)

    def write(self, model: str, language: str | None) -> list[Path]:
        """Write the transcripts, and return their paths. Raises DiskError if a file cannot be written.

        `language` is that of the prompt; it counts if none was detected.
        """
        windows = [self._log.known[number] for number in range(self._windows or 0)]
        transcript = Transcript(
            file=str(self.file.path),
            seconds=self.seconds,
            model=model,
            language=language_of(windows) or language,
            text=text_of(windows),
            segments=[segment for window in windows for segment in window.segments],
            problem=None if self.problem is None else printable(self.problem),
        )
        for form, path in self._outputs.items():
            atomic.write_lines(path, written(transcript, form))
        return [*self._outputs.values()]

    def release(self, *, keep: bool) -> None:
        """Unlock the recording. Its log is removed, unless it is kept because windows are missing."""
        self._log.close(keep=keep and bool(self._log.known))


def _identity(path: Path) -> dict[str, Any]:
    """Return size and time of a file, by which a changed one is noticed. A missing file has none."""
    try:
        stat = path.stat()
    except OSError:
        return {}
    return {"bytes": stat.st_size, "modified": stat.st_mtime_ns}
