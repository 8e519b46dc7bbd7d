"""Work on one recording: its windows, its log, and at the end its transcripts."""

import glob
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from whisper_ft.cli.transcribe.audio_files import AudioFile
from whisper_ft.cli.transcribe.window_log import WindowLog
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.formats.transcript_texts import record_transcript
from whisper_ft.data.types import RejectedError
from whisper_ft.decoding.finished_window import FinishedWindow
from whisper_ft.decoding.long_form import AudioWindow
from whisper_ft.decoding.recording_windows import RecordingWindows, transcript_of
from whisper_ft.reports.transcript_formats import written
from whisper_ft.runtime import atomic


class RecordingWork:
    """One recording that this process transcribes. It is locked until `release`.

    Attributes
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
        self._read = RecordingWindows(file.path, index)

    def windows(self, log_mel: LogMel) -> Iterator[AudioWindow]:
        """Yield the windows that are not known yet."""
        return self._read.read(log_mel, self._log.known)

    def _remove_leftovers(self) -> None:
        """Remove the half of a transcript that an earlier start was writing when it was killed."""
        for path in self._outputs.values():
            for leftover in path.parent.glob(f"{atomic.ASIDE}{glob.escape(path.name)}-*"):
                leftover.unlink(missing_ok=True)

    @property
    def problem(self) -> RejectedError | None:
        """Reason for which the recording could not be read at all, or from some second on; None if it could."""
        return self._read.problem

    @property
    def seconds(self) -> float:
        """Length of the part that was read so far."""
        return self._read.seconds

    @property
    def is_heard(self) -> bool:
        """False if no part of the recording could be read."""
        return self._read.is_heard

    @property
    def is_complete(self) -> bool:
        """True once the recording is read, and all its windows are transcribed."""
        return self._read.count is not None and len(self._log.known) >= self._read.count

    def add(self, window: FinishedWindow) -> None:
        """Keep a finished window. Raises DiskError if the log cannot be written."""
        self._log.append(window)

    def write(self, model: str, language: str | None) -> list[Path]:
        """Write the transcripts, and return their paths. Raises DiskError if a file cannot be written.

        `language` is that of the prompt; it counts if none was detected.
        """
        windows = [self._log.known[number] for number in range(self._read.count or 0)]
        transcript = transcript_of(str(self.file.path), self._read, windows, model, language)
        for form, path in self._outputs.items():
            text = "".join(written(transcript, form))
            if path.parent == self.file.path.parent:  # beside the audio, where it could be taken for its label
                with atomic.disk_errors(path.parent):
                    record_transcript(path, text.encode(), model)
            atomic.write_text(path, text)
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
