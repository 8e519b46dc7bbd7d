"""Routes of the page besides transcription: its colours, differences, blind tests and kept corrections."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from whisper_ft.reports.html.palette import DARK, LIGHT
from whisper_ft.runtime.errors import DiskError, RunError, UsageError
from whisper_ft.runtime.regular_file import strict_json
from whisper_ft.web.api_error import ApiError, json_answer
from whisper_ft.web.blind_test import BlindTest
from whisper_ft.web.corrections import Corrections, Provenance, parts_of
from whisper_ft.web.differences import difference_summary
from whisper_ft.web.form_upload import Upload, upload_of
from whisper_ft.web.models_of_run import ServedModels

MAX_JSON_BYTES = 4_000_000
"""Most bytes of a JSON body. Two hours of speech have 100 kB of text."""


def page_routes(folder: Path, model_path: Callable[[str], str]) -> list[BaseRoute]:
    """Return the routes.

    Parameters
        folder: folder of corrections and of answers of blind tests; it is made when the first one is kept
        model_path: function that returns the folder or name of a model, by its id in `/api/models`
    """
    corrections, blind_test = Corrections(folder), BlindTest(folder)
    answers = _Answers(corrections, blind_test, model_path)
    return [
        Route("/static/palette.css", _palette),
        Route("/api/differences", answers.differences, methods=["POST"]),
        Route("/api/blind_test", answers.vote, methods=["POST"]),
        Route("/api/blind_test", answers.tally),
        Route("/api/corrections", answers.keep, methods=["POST"]),
        Route("/api/corrections", answers.kept),
        Route("/api/corrections/{name}.wav", answers.sound),
        Route("/api/corrections/{name}", answers.delete, methods=["DELETE"]),
    ]


def training_model(served: ServedModels, wanted: str) -> str:
    """Return the folder or name of a model to train: the wanted one, or the first whole one of its run.

    Raises ApiError if there is no such model.
    """
    if (choice := served.find(wanted)) is None:
        raise ApiError(404, "no_model", f"model {wanted!r} is not there")
    whole = [other for other in served.choices() if other.kind == "whole" and other.run == choice.run]
    return choice.place if choice.kind == "whole" or not whole else whole[0].place


class _Answers:
    """Handlers of the routes. Files are read and written in threads, so that other requests go on."""

    def __init__(self, corrections: Corrections, blind_test: BlindTest, model_path: Callable[[str], str]) -> None:
        self._corrections, self._blind_test, self._model_path = corrections, blind_test, model_path

    async def differences(self, request: Request) -> Response:
        body = await _json(request, "first", "second")
        return await _answer(lambda: difference_summary(body["first"], body["second"]))

    async def vote(self, request: Request) -> Response:
        body = await _json(request, "first", "second", "better")
        texts: Any = body.get("texts")
        if not (isinstance(texts, list) and len(texts) == 2 and all(isinstance(text, str) for text in texts)):
            raise ApiError(400, "bad_request", "texts: is no list of the two texts")
        if not isinstance(pair := body.get("pair", ""), str):
            raise ApiError(400, "bad_request", "pair: is no text")
        answer = body["first"], body["second"], body["better"], (texts[0], texts[1]), pair
        return await _answer(lambda: self._blind_test.add(*answer).summary())

    async def tally(self, request: Request) -> Response:
        first, second = (request.query_params.get(name, "") for name in ("first", "second"))
        return await _answer(lambda: self._blind_test.tally(first, second).summary())

    async def kept(self, request: Request) -> Response:
        model = request.query_params.get("model", "")

        def answer() -> dict[str, Any]:
            rows = self._corrections.rows()
            return {
                "folder": str(self._corrections.folder),
                "rows": rows,
                "seconds": sum(row.get("duration", 0.0) for row in rows),
                "command": self._corrections.training_command(self._model_path(model)) if model else "",
            }

        return await _answer(answer)

    async def keep(self, request: Request) -> Response:
        async with upload_of(request) as upload:
            return await _answer(lambda: self._keep(upload))

    def _keep(self, upload: Upload) -> dict[str, Any]:
        fields = upload.fields
        origin = Provenance(
            speaker=fields.get("speaker", ""),
            consent=fields.get("consent", ""),
            language=fields.get("language"),
            task=fields.get("task") or "transcribe",
            model=fields.get("model", ""),
        )
        names = self._corrections.add(upload.path, parts_of(fields.get("parts", "")), origin)
        return {"ids": names, "folder": str(self._corrections.folder)}

    async def sound(self, request: Request) -> Response:
        path = await run_in_threadpool(self._corrections.audio_of, request.path_params["name"])
        if path is None:
            raise _missing()
        return FileResponse(path, media_type="audio/wav")

    async def delete(self, request: Request) -> Response:
        with _refusals():
            if not await run_in_threadpool(self._corrections.delete, request.path_params["name"]):
                raise _missing()
        return Response(status_code=204)


async def _answer(value: Callable[[], dict[str, Any]]) -> Response:
    with _refusals():
        return json_answer(await run_in_threadpool(value))


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn errors that the user can act on into ApiError."""
    try:
        yield
    except DiskError as error:
        raise ApiError(507, "disk_full", error) from error
    except RunError as error:
        raise ApiError(400, "bad_value" if isinstance(error, UsageError) else "not_audio", error) from error


async def _json(request: Request, *names: str) -> dict[str, Any]:
    """Read the body as a JSON object with these texts. Raises ApiError for anything else."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_JSON_BYTES:
            raise ApiError(413, "too_large", f"the text has more than {MAX_JSON_BYTES / 1e6:.0f} MB")
    try:
        value = strict_json(body)
    except ValueError as error:
        raise ApiError(400, "bad_request", f"the body is no JSON: {error}") from error
    if not isinstance(value, dict) or not all(isinstance(value.get(name), str) for name in names):
        raise ApiError(400, "bad_request", f"the body is no JSON object with the texts {', '.join(names)}")
    return value


def _missing() -> ApiError:
    return ApiError(404, "no_correction", "no correction has this id; it may have been deleted")


async def _palette(_: Request) -> Response:
    """Return the colours of all pages as custom properties, for light and for dark mode."""
    text = (
        f":root {{ color-scheme: light dark; {LIGHT.css()} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {DARK.css()} }} }}\n"
    )
    return Response(text, media_type="text/css")
