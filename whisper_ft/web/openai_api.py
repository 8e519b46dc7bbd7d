"""Routes of OpenAI's transcription API, for programs that call it: `/v1/audio/transcriptions` and its neighbours.

The shapes are those of OpenAI's API reference, as its Python package `openai` reads them.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from whisper_ft.data.labels.languages import language_name
from whisper_ft.decoding.transcript_options import TranscriptOptions
from whisper_ft.reports.transcript_formats import Transcript, phrases_of, segment_record, written
from whisper_ft.runtime.printable import json_text
from whisper_ft.web.api_error import ApiError, json_answer
from whisper_ft.web.form_upload import Upload, upload_of
from whisper_ft.web.models_of_run import LATEST, Choice
from whisper_ft.web.server import Server, server_of
from whisper_ft.web.transcription_job import TranscriptionJob
from whisper_ft.web.transcription_routes import (
    ALIVE_SECONDS,
    bad_value,
    language_in,
    request_of,
    running,
    share,
    switch,
)

HOSTED = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")
"""OpenAI's own names, which programs send by default; they stand for the latest model."""
FORMATS = {"json": "application/json", "verbose_json": "application/json", "text": "text/plain", "srt": "text/plain",
           "vtt": "text/vtt"}  # fmt: skip
"""Media type of each `response_format`."""
TIMED = ("verbose_json", "srt", "vtt")
"""Formats with the times of phrases, which the words give for every model."""
STREAMED = ("json", "text")
"""Formats that a stream may have. Its events are the same for both."""
OWNER = "whisper-ft"


class Speech:
    """Route that transcribes an upload (`task` transcribe), or translates it into English (translate)."""

    def __init__(self, task: str) -> None:
        self._task = task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = Request(scope, receive)
        server = server_of(request)
        with server.queue.place():
            async with upload_of(request) as upload:
                form, is_stream = _format_of(upload.fields), switch(upload.fields, "stream", False)
                if is_stream:
                    _refuse_times(upload, form)
                model = upload.fields.get("model", "").strip()
                wanted = await request_of(
                    upload, LATEST if model in ("", *HOSTED) else model, self._options(upload, server)
                )
                await run_in_threadpool(server.models.find, wanted.model)
                with running(server, wanted) as job:
                    if is_stream:
                        answer: Response = StreamingResponse(_deltas(job), media_type="text/event-stream")
                    else:
                        transcript = await _result(job, receive)
                        answer = _answer(transcript, form, self._task, _granularities(upload) or {"segment"})
                    await answer(scope, receive, send)

    def _options(self, upload: Upload, server: Server) -> TranscriptOptions:
        fields = upload.fields
        if share(fields, "temperature"):
            raise bad_value("temperature", fields["temperature"], "0, because decoding is without randomness")
        if _granularities(upload) and _format_of(fields) != "verbose_json":
            raise bad_value("response_format", _format_of(fields), "verbose_json with timestamp_granularities")
        return TranscriptOptions(
            language=language_in(fields),
            task=self._task,
            prompt=fields.get("prompt", ""),
            words=_format_of(fields) in TIMED,
            batch_size=server.models.batch_size(server.settings.batch_size),
        )


def _format_of(fields: Mapping[str, str]) -> str:
    form = fields.get("response_format", "").strip() or "json"
    if form not in FORMATS:
        raise bad_value("response_format", form, f"one of {', '.join(FORMATS)}")
    return form


def _refuse_times(upload: Upload, form: str) -> None:
    """Raise ApiError if a stream should have times: its events are those of OpenAI, which have none."""
    if form not in STREAMED:
        raise bad_value(
            "response_format", form, f"{' or '.join(STREAMED)} with stream=true, whose events have no times"
        )
    if values := _granularities(upload):
        expected = "nothing with stream=true, whose events have no times"
        raise bad_value("timestamp_granularities", ", ".join(sorted(values)), expected)


def _granularities(upload: Upload) -> set[str]:
    """Return the given values of `timestamp_granularities[]`."""
    values = {
        value
        for name in ("timestamp_granularities[]", "timestamp_granularities")
        for value in upload.form.getlist(name)
        if isinstance(value, str)
    }
    for value in values - {"word", "segment"}:
        raise bad_value("timestamp_granularities", value, "word or segment")
    return values


async def _result(job: TranscriptionJob, receive: Receive) -> Transcript:
    """Wait for the transcript of a job. Raises ApiError if there is none, also once the client is gone."""

    async def finished() -> None:
        async with aclosing(job.events()) as events:
            async for _ in events:
                pass

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.create_task(finished()), asyncio.create_task(gone())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    if job.transcript is None:
        raise job.error or ApiError(499, "cancelled", "the client is gone")
    return job.transcript


def _answer(transcript: Transcript, form: str, task: str, granularities: set[str]) -> Response:
    usage = {"type": "duration", "seconds": round(transcript.seconds)}
    if form == "json":
        return json_answer({"text": transcript.text, "usage": usage})
    if form == "verbose_json":
        return json_answer({**_verbose(transcript, task, granularities), "usage": usage})
    text = "".join(written(transcript, "txt" if form == "text" else form))
    return Response(text, media_type=FORMATS[form])


def _verbose(transcript: Transcript, task: str, granularities: set[str]) -> dict[str, Any]:
    value: dict[str, Any] = {
        "task": task,
        "language": language_name("en" if task == "translate" else transcript.language or "en"),
        "duration": round(transcript.seconds, 3),
        "text": transcript.text,
    }
    if "segment" in granularities:
        value["segments"] = [
            _segment(number, segment_record(number, item)) for number, item in enumerate(phrases_of(transcript))
        ]
    if "word" in granularities:
        value["words"] = [
            {"word": word.text.strip(), "start": round(word.start, 3), "end": round(word.end, 3)}
            for segment in transcript.segments
            for word in segment.words or ()
        ]
    return value


def _segment(number: int, record: dict[str, Any]) -> dict[str, Any]:
    """Return a segment with every field of OpenAI's. Tokens are not kept, and figures that are missing become 0."""
    kept = {name: value or 0.0 for name, value in record.items() if name != "text"}
    return {**kept, "id": number, "seek": round(100 * record["start"]), "text": record["text"], "tokens": []}


async def _deltas(job: TranscriptionJob) -> AsyncIterator[str]:
    """Yield OpenAI's events: the text of each window as it comes, and the whole text at the end."""
    is_first = True
    async for event in job.events(ALIVE_SECONDS):
        if event is None:
            yield ": alive\n\n"
        elif event.name == "window" and event.data["text"]:
            delta = event.data["text"] if is_first else f" {event.data['text']}"
            is_first = False
            yield _data({"type": "transcript.text.delta", "delta": delta})
        elif event.name == "done":
            yield _data({"type": "transcript.text.done", "text": event.data["text"]})
        elif event.name == "error":
            yield _data({"error": {**event.data, "type": "server_error", "param": None}})
    yield "data: [DONE]\n\n"


def _data(value: dict[str, Any]) -> str:
    return f"data: {json_text(value)}\n\n"


async def models(request: Request) -> Response:
    """Answer with the list of models."""
    choices = await run_in_threadpool(server_of(request).models.served.choices)
    return json_answer({"object": "list", "data": [_model(choice) for choice in choices]})


async def model(request: Request) -> Response:
    """Answer with one model."""
    wanted = request.path_params["id"]
    choice = await run_in_threadpool(server_of(request).models.find, LATEST if wanted in HOSTED else wanted)
    return json_answer(_model(choice) | {"id": wanted})


def _model(choice: Choice) -> dict[str, Any]:
    newest = max((item[2] for item in choice.version), default=0)
    return {"id": choice.id, "object": "model", "created": newest // 10**9, "owned_by": OWNER}


ROUTES = [
    Route("/v1/models", models),
    Route("/v1/models/{id:path}", model),
    Route("/v1/audio/transcriptions", Speech("transcribe"), methods=["POST"]),
    Route("/v1/audio/translations", Speech("translate"), methods=["POST"]),
]
