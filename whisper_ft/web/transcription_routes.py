"""Routes of the page: models, languages, and the transcript of an upload as a stream of events (docs/web-api.md)."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from whisper_ft.data.audio.recording import stated_seconds
from whisper_ft.data.labels.languages import whisper_language
from whisper_ft.data.types import RejectedError
from whisper_ft.decoding.transcript_options import AUTO, TranscriptOptions
from whisper_ft.reports.transcript_formats import written
from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.printable import json_text
from whisper_ft.web.api_error import ApiError, json_answer
from whisper_ft.web.form_upload import Upload, upload_of
from whisper_ft.web.loaded_models import languages_of
from whisper_ft.web.models_of_run import LATEST
from whisper_ft.web.server import Server, server_of
from whisper_ft.web.transcription_job import Event, TranscriptionJob, TranscriptRequest, unreadable

ALIVE_SECONDS = 15.0
MOST_BEAMS = 10
TASKS = ("transcribe", "translate")
MEDIA_TYPES = {
    "txt": "text/plain",
    "srt": "application/x-subrip",
    "vtt": "text/vtt",
    "tsv": "text/tab-separated-values",
    "json": "application/json",
}


async def models(request: Request) -> Response:
    """Answer with the models to choose from."""
    server = server_of(request)
    return json_answer(await run_in_threadpool(_state, server))


def _state(server: Server) -> dict[str, object]:
    served = server.models.served
    choices = served.choices()
    return {
        "served": served.served,
        "default": choices[0].id if choices else None,
        "compare": served.compare_id(choices),
        "device": server.models.device.type,
        "waiting": server.queue.waiting,
        "running": server.queue.running,
        "max_mb": server.settings.max_mb,
        "choices": [choice.record() | {"is_loaded": server.models.is_loaded(choice)} for choice in choices],
        "runs": served.run_records(),
    }


async def languages(request: Request) -> Response:
    """Answer with the languages of a model."""
    server, model = server_of(request), request.query_params.get("model", LATEST)
    found = await run_in_threadpool(lambda: languages_of(server.models.find(model), server.settings.base))
    return json_answer({"model": model, **found})


class Transcribe:
    """Route that answers an upload with a stream of events."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = Request(scope, receive)
        server = server_of(request)
        with server.queue.place():
            async with upload_of(request) as upload:
                model = upload.fields.get("model") or LATEST
                wanted = await request_of(upload, model, options_of(upload.fields, server))
                await run_in_threadpool(server.models.find, model)
                with running(server, wanted) as job:
                    stream = StreamingResponse(_lines(server, job), media_type="text/event-stream")
                    await stream(scope, receive, send)


@contextmanager
def running(server: Server, wanted: TranscriptRequest) -> Iterator[TranscriptionJob]:
    """Put a request into the queue during a block; a job that is not finished at its end is cancelled."""
    job = TranscriptionJob(server.models, wanted)
    server.jobs[job.id] = job
    try:
        job.emit("queued", id=job.id, ahead=server.queue.add(job))
        yield job
    finally:
        job.is_cancelled = True
        del server.jobs[job.id]


async def _lines(server: Server, job: TranscriptionJob) -> AsyncIterator[str]:
    """Yield the events of a job, and a comment now and then, without which a proxy would close the connection."""
    async for event in job.events(ALIVE_SECONDS):
        server.keep(job)
        yield ": alive\n\n" if event is None else as_line(event)


def as_line(event: Event) -> str:
    """Return a server-sent event."""
    return f"event: {event.name}\ndata: {json_text(event.data)}\n\n"


async def request_of(upload: Upload, model: str, options: TranscriptOptions) -> TranscriptRequest:
    """Return the request of an upload, after a look at the header of its file. Raises ApiError if it is no audio."""

    def seconds() -> float | None:
        try:
            return stated_seconds(upload.path)
        except RejectedError as error:
            raise unreadable(upload.name, error) from error

    return TranscriptRequest(upload.path, upload.name, model, options, await run_in_threadpool(seconds))


def options_of(fields: Mapping[str, str], server: Server) -> TranscriptOptions:
    """Read the options of a form. Raises ApiError for a value that is not possible."""
    task = fields.get("task") or "transcribe"
    if task not in TASKS:
        raise bad_value("task", task, "transcribe or translate")
    return TranscriptOptions(
        language=language_in(fields),
        task=task,
        timestamps=switch(fields, "timestamps", False),
        words=switch(fields, "words", True),
        prompt=fields.get("prompt", ""),
        num_beams=_count(fields, "num_beams", MOST_BEAMS),
        no_speech_threshold=share(fields, "no_speech_threshold"),
        temperature_fallback=switch(fields, "temperature_fallback", False),
        batch_size=server.models.batch_size(server.settings.batch_size),
    )


def bad_value(name: str, value: str, expected: str) -> ApiError:
    """Return the error about the value of a field."""
    return ApiError(400, "bad_value", f"{name} {value[:80]!r}: expected {expected}", field=name)


def language_in(fields: Mapping[str, str]) -> str | None:
    """Return the language of a form; None for the model's own. Raises ApiError if Whisper does not know it."""
    language = fields.get("language", "").strip()
    if language and language != AUTO:
        try:
            whisper_language(language)
        except UsageError as error:
            raise ApiError(400, "bad_value", error, field="language") from error
    return language or None


def share(fields: Mapping[str, str], name: str) -> float | None:
    """Return a number from 0 to 1 of a form; None if it is empty. Raises ApiError for any other value."""
    text = fields.get(name, "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise bad_value(name, text, "a number from 0 to 1")
    return value


def switch(fields: Mapping[str, str], name: str, default: bool) -> bool:
    """Return a truth value of a form. Raises ApiError for anything but true, false and nothing."""
    text = fields.get(name, "").strip().lower()
    if text not in ("", "true", "false"):
        raise bad_value(name, text, "true or false")
    return text == "true" if text else default


def _count(fields: Mapping[str, str], name: str, most: int) -> int:
    text = fields.get(name, "").strip() or "1"
    if not (text.isdecimal() and len(text) < 4 and 1 <= int(text) <= most):
        raise bad_value(name, text, f"a whole number from 1 to {most}")
    return int(text)


async def transcript_file(request: Request) -> Response:
    """Answer with a kept transcript as a file."""
    id, form = request.path_params["id"], request.path_params["format"]
    transcript = server_of(request).transcripts.get(id)
    if transcript is None or form not in MEDIA_TYPES:
        raise ApiError(404, "no_transcript", f"there is no transcript {id}.{form}; transcribe the recording again")
    text = await run_in_threadpool(lambda: "".join(written(transcript, form)))
    stem = transcript.file.rpartition(".")[0] or transcript.file
    disposition = f"attachment; filename*=UTF-8''{quote(f'{stem}.{form}', safe='')}"
    return Response(text, headers={"Content-Disposition": disposition}, media_type=MEDIA_TYPES[form])


async def forget(request: Request) -> Response:
    """Cancel a request, and forget its transcript."""
    server, id = server_of(request), request.path_params["id"]
    if job := server.jobs.get(id):
        job.cancel(ApiError(409, "cancelled", "the request was cancelled"))
    elif server.transcripts.pop(id, None) is None:
        raise ApiError(404, "no_transcript", f"there is no request {id}")
    return Response(status_code=204)


ROUTES = [
    Route("/api/models", models),
    Route("/api/languages", languages),
    Route("/api/transcribe", Transcribe(), methods=["POST"]),
    Route("/api/transcripts/{id}.{format}", transcript_file),
    Route("/api/transcripts/{id}", forget, methods=["DELETE"]),
]
