"""Transcription of one upload: the thread of the queue decodes it, and the request gets its events."""

import asyncio
import secrets
import sys
import traceback
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from whisper_ft.config.memory_advice import with_decoding_advice
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.types import RejectedError
from whisper_ft.decoding.finished_window import FinishedWindow
from whisper_ft.decoding.long_form import AudioWindow
from whisper_ft.decoding.recording_windows import RecordingWindows, transcript_of
from whisper_ft.decoding.transcript_options import Decoding, TranscriptOptions, decoding_of, message_about_option
from whisper_ft.reports.transcript_formats import FORMATS, Transcript, segment_record
from whisper_ft.runtime.device_memory import memory_errors
from whisper_ft.runtime.errors import DecodingMemoryError, OutOfMemoryError, RunError, UsageError
from whisper_ft.web.api_error import ApiError
from whisper_ft.web.invention_signs import SILENT_PEAK, Sign, signs_of, silence_sign
from whisper_ft.web.loaded_models import LoadedModel, LoadedModels

LAST_EVENTS = ("done", "error")


@dataclass(frozen=True)
class TranscriptRequest:
    """Request for a transcript."""

    path: Path
    name: str
    """Name of the file, for people."""
    model: str
    """Id of a choice."""
    options: TranscriptOptions
    seconds: float | None
    """Length that the header of the file states."""


@dataclass(frozen=True)
class HeardWindow:
    """Window of a recording with its text."""

    begin: float
    """In seconds of the recording."""
    finished: FinishedWindow
    signs: list[Sign]
    is_speech: bool

    def record(self) -> dict[str, Any]:
        """Return the window as JSON values."""
        window = self.finished
        return {
            "number": window.number,
            "begin": round(self.begin, 3),
            "seconds": round(window.seconds, 3),
            "text": window.text,
            "language": window.language,
            "is_speech": self.is_speech,
            "signs": [sign.record() for sign in self.signs],
            "segments": [segment_record(number, segment) for number, segment in enumerate(window.segments)],
        }


@dataclass(frozen=True)
class Event:
    """Event of a transcription."""

    name: str
    data: dict[str, Any]


class TranscriptionJob:
    """Transcription of one upload. It is made in the event loop of the server.

    Attributes
        request: upload with its model and options
        transcript: None until it is complete
        error: reason for which there is none
        is_cancelled: set by the request once its client is gone
    """

    def __init__(self, models: LoadedModels, request: TranscriptRequest) -> None:
        self.id, self._models, self.request = secrets.token_urlsafe(12), models, request
        self.transcript: Transcript | None = None
        self.error: ApiError | None = None
        self.is_cancelled = False
        self._loop, self._events = asyncio.get_running_loop(), asyncio.Queue[Event]()

    async def events(self, pause: float | None = None) -> AsyncGenerator[Event | None]:
        """Yield the events, of which `done` or `error` is the last; None after each pause of so many seconds."""
        event: Event | None = None
        while event is None or event.name not in LAST_EVENTS:
            try:
                event = await asyncio.wait_for(self._events.get(), pause)
            except TimeoutError:
                event = None
            yield event

    def emit(self, name: str, **data: Any) -> None:
        """Send an event to the request, from any thread."""
        with suppress(RuntimeError):  # the server has ended
            self._loop.call_soon_threadsafe(self._events.put_nowait, Event(name, data))

    def fail(self, error: Exception) -> None:
        """Report an error as the last event. A bug is also printed."""
        if not isinstance(error, ApiError):
            error = _as_api_error(error)
        self.error = error
        self.emit("error", code=error.code, message=error.message)

    def cancel(self, error: ApiError) -> None:
        """End the transcription before its next step. The request gets the error."""
        self.is_cancelled = True
        self.fail(error)

    def steps(self) -> Iterator[None]:
        """Decode a few windows with each item."""
        choice = self._models.find(self.request.model)
        while not self._models.has_room(choice):
            yield  # other requests use as many models as there may be
            choice = self._models.find(self.request.model)
        if not self._models.is_loaded(choice):
            self.emit("loading", id=self.id, model=choice.record())
        with self._models.use(choice) as held:
            used = choice if choice.version == held.version else held.choice
            self.emit("started", id=self.id, model=used.record(), seconds=self.request.seconds)
            yield from self._decode(held, used.title)

    def _decode(self, held: LoadedModel, model: str) -> Iterator[None]:
        decoding = decoding_of(held.model, self.request.options)
        log_mel, read = LogMel(held.model.processor.feature_extractor), RecordingWindows(self.request.path)
        heard = list[HeardWindow]()
        with closing(read.read(log_mel)) as windows:
            for batch in _batches(windows, decoding.settings.batch_size):
                for window in _heard(batch, decoding, read):
                    heard.append(window)
                    self.emit("window", **window.record())
                yield
        if read.problem is not None and not read.is_heard:
            raise unreadable(self.request.name, read.problem)
        finished = [window.finished for window in heard]
        self.transcript = transcript_of(self.request.name, read, finished, model, decoding.language)
        self.emit("done", **self._summary(heard, self.transcript))

    def _summary(self, heard: list[HeardWindow], transcript: Transcript) -> dict[str, Any]:
        return {
            "id": self.id,
            "text": transcript.text,
            "language": transcript.language,
            "seconds": round(transcript.seconds, 3),
            "is_speech": any(window.is_speech for window in heard),
            "problem": transcript.problem,
            "signs": [sign.record() for window in heard for sign in window.signs],
            "formats": [*FORMATS],
        }


def unreadable(name: str, error: RejectedError) -> ApiError:
    """Return the answer to an upload that is no readable recording."""
    code = "not_audio" if error.reason == "decode_error" else error.reason
    return ApiError(400, code, f"{name}: cannot be read as audio: {error.detail}", field="file")


def _as_api_error(error: Exception) -> ApiError:
    if isinstance(error, OutOfMemoryError):
        return ApiError(503, "out_of_memory", error)
    if isinstance(error, UsageError):  # an option that the model cannot serve, named as a setting of evaluate.py
        return ApiError(400, "bad_value", message_about_option(error, prefix=""))
    if isinstance(error, RunError):
        return ApiError(500, "model_error", error)
    traceback.print_exception(error, file=sys.stderr)
    return ApiError(500, "bug", f"the server has a bug, described on its console: {type(error).__name__}")


def _batches(windows: Iterator[AudioWindow], most: int) -> Iterator[list[AudioWindow]]:
    """Yield the windows in batches. The first ones are smaller, so that the first text comes soon."""
    size = 1
    while batch := list(islice(windows, size)):
        yield batch
        size = min(2 * size, most)


def _heard(batch: list[AudioWindow], decoding: Decoding, read: RecordingWindows) -> Iterator[HeardWindow]:
    """Decode a batch. A window without sound is not decoded, because Whisper would invent a text for it."""
    transcriber = decoding.transcriber
    loud = [window for window in batch if read.peaks[window.number] >= SILENT_PEAK]
    try:
        with memory_errors("while transcribing", DecodingMemoryError):
            found = transcriber.generate(loud, transcriber.prompt(loud[0])) if loud else []
    except OutOfMemoryError as error:
        raise with_decoding_advice(error, decoding.settings) from error
    by_number = {window.number: transcript for window, transcript in zip(loud, found, strict=True)}
    for window in batch:
        if transcript := by_number.get(window.number):
            finished = FinishedWindow.of(window, transcript)
            is_speech = transcript.is_speech and bool(transcript.text)
            yield HeardWindow(window.begin_seconds, finished, signs_of(window, transcript), is_speech)
        else:
            finished = FinishedWindow(window.number, window.window_seconds, "", None, ())
            yield HeardWindow(window.begin_seconds, finished, [silence_sign(window)], False)
