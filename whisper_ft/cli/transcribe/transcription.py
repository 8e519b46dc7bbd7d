"""Transcription of recordings: windows of several files share batches, and a file is written once it is complete."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whisper_ft.cli.transcribe.audio_files import AudioFile
from whisper_ft.cli.transcribe.display import Display
from whisper_ft.cli.transcribe.recording_work import RecordingWork
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.decoding.finished_window import FinishedWindow
from whisper_ft.decoding.long_form import AudioWindow
from whisper_ft.decoding.transcribe import batches_of
from whisper_ft.decoding.transcriber import Transcriber
from whisper_ft.runtime.device_memory import memory_errors
from whisper_ft.runtime.errors import DecodingMemoryError, LockedError
from whisper_ft.runtime.prefetch import prefetch
from whisper_ft.tracking.console.eta import clock

AHEAD = 3
"""Batches of windows that are read ahead. A window's log-mel takes 1 MB, or 1.5 MB with 128 mel bins."""


@dataclass
class FileCounts:
    """Number of files by their fate, and the audio that was transcribed."""

    written: int = 0
    kept: int = 0
    in_use: int = 0
    damaged: int = 0
    """Files that could not be read, or not to their end."""
    seconds: float = 0.0
    """Length of the audio that this start transcribed."""

    def __add__(self, other: "FileCounts") -> "FileCounts":
        return FileCounts(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Task:
    """Everything about a transcription besides model and files.

    `job` is everything on which a transcript depends, as JSON values. `model` and `language` are named in JSON files.
    """

    formats: Sequence[str]
    overwrite: bool
    batch_size: int
    job: Mapping[str, Any]
    model: str
    language: str | None


class Transcription:
    """Transcription of the files of one process. Several processes may share a folder, because files are locked."""

    def __init__(
        self, transcriber: Transcriber, log_mel: LogMel, files: Iterable[AudioFile], task: Task, display: Display
    ) -> None:
        self._transcriber, self._log_mel = transcriber, log_mel
        self._files, self._task, self._display = files, task, display
        self._works: dict[int, RecordingWork] = {}  # by index of the file
        self.counts = FileCounts()

    def run(self) -> FileCounts:
        """Transcribe all files. Raises DiskError and OutOfMemoryError; the next start then continues."""
        most = AHEAD * self._task.batch_size
        told = memory_errors("while transcribing", DecodingMemoryError)
        try:
            with told, self._transcriber.inference(), closing(prefetch(self._read(), most)) as items:
                windows = self._windows_of(items)
                for batch in batches_of(windows, self._task.batch_size, self._transcriber.prompt, AHEAD):
                    self._transcribe(batch)
        finally:
            for work in [*self._works.values()]:
                work.release(keep=True)
        return self.counts

    def _read(self) -> Iterator[AudioWindow | RecordingWork]:
        """Yield the windows of each file, and then its work. It runs in a thread, which is ahead of the decoding."""
        for index, file in enumerate(self._files):
            try:
                work = self._begin(index, file)
            except LockedError:
                self.counts.in_use += 1
                self._display.say(f"{file.path}: left to another process, which transcribes it")
                continue
            if work is not None:
                yield from work.windows(self._log_mel)
                yield work

    def _begin(self, index: int, file: AudioFile) -> RecordingWork | None:
        """Lock a file; None if its transcripts exist. They are looked for again once it is locked."""
        while outputs := self._missing(file):
            work = RecordingWork(index, file, outputs, self._task.job)
            if self._missing(file) == outputs:
                self._works[index] = work
                return work
            work.release(keep=True)
        self.counts.kept += 1
        return None

    def _missing(self, file: AudioFile) -> dict[str, Path]:
        """Return the paths of the transcripts that are to be written."""
        outputs = file.outputs(self._task.formats)
        return {form: path for form, path in outputs.items() if self._task.overwrite or not path.exists()}

    def _windows_of(self, items: Iterable[AudioWindow | RecordingWork]) -> Iterator[AudioWindow]:
        for item in items:
            if isinstance(item, AudioWindow):
                yield item
            else:
                self._display.known(item.known_seconds)
                self._finish(item)

    def _transcribe(self, batch: list[AudioWindow]) -> None:
        transcripts = self._transcriber.generate(batch, self._transcriber.prompt(batch[0]))
        for window, transcript in zip(batch, transcripts, strict=True):
            work = self._works[window.index]
            work.add(FinishedWindow.of(window, transcript))
            self.counts.seconds += window.window_seconds
            self._display.advance(window.window_seconds, work.file.path.name)
            self._finish(work)

    def _finish(self, work: RecordingWork) -> None:
        """Write the transcripts of a file if it is complete, and say so."""
        if not work.is_complete or work.index not in self._works:
            return
        path, problem = work.file.path, work.problem
        if problem is not None:
            self.counts.damaged += 1
            until = f"only its first {clock(work.seconds)} could be read" if work.is_heard else "cannot be read"
            self._display.say(f"warning: {path}: {until}: {problem}")
        if work.is_heard:
            written = work.write(self._task.model, self._task.language)
            self.counts.written += 1
            self._display.say(f"{path} ({clock(work.seconds)}): {', '.join(map(str, written))}")
        del self._works[work.index]
        work.release(keep=False)
