"""Application: all routes behind the guard, with the queue that decodes."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import torch
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from whisper_ft.config.evaluation import Device
from whisper_ft.web import openai_api, transcription_routes
from whisper_ft.web.api_error import ApiError, answer_error, json_answer
from whisper_ft.web.job_queue import JobQueue
from whisper_ft.web.loaded_models import LoadedModels
from whisper_ft.web.models_of_run import LATEST, ServedModels
from whisper_ft.web.page_routes import page_routes, training_model
from whisper_ft.web.request_guard import RequestGuard
from whisper_ft.web.runs_overview import overview_page, overview_routes
from whisper_ft.web.serve_settings import ServeSettings
from whisper_ft.web.server import Server

STATIC = Path(__file__).parent / "static"


def create_app(settings: ServeSettings, device: torch.device, say: Callable[[str], object] = print) -> Starlette:
    """Make the application.

    Parameters
        device: on which the models decode
        say: called with a line for the user about a model that is loaded
    """
    served = ServedModels(settings.served, settings.compare, settings.hub_adapters)
    models = LoadedModels(served, device, settings.precision, say, settings.base)
    server = Server(settings, JobQueue(settings.queue), models)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        server.queue.start()
        server.queue.add(FirstLoad(models, say))
        yield
        server.queue.stop()

    routes = [
        Route("/healthz", health),
        Route("/", overview_page if served.is_folder_of_runs else page),
        Route("/try", page),
        *overview_routes(served),
        *page_routes(settings.corrections, partial(training_model, models.served)),
        Mount("/static", StaticFiles(directory=STATIC, check_dir=False)),
        *transcription_routes.ROUTES,
        *openai_api.ROUTES,
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(RequestGuard, settings=settings)],
        exception_handlers={ApiError: answer_error, 404: _not_found, 405: _not_found, Exception: _bug},
        lifespan=lifespan,
    )
    app.state.server = server
    return app


def device_of(wanted: Device, served: str) -> torch.device:
    """Return the device for a setting. `auto` is a GPU if there is one and no served run trains at present."""
    if wanted == "mps":
        return torch.device(wanted)
    is_free = torch.cuda.is_available() and not ServedModels(served).is_training
    return torch.device("cuda" if wanted == "cuda" or (wanted == "auto" and is_free) else "cpu")


class FirstLoad:
    """Job that loads the latest model at the start, so that the first request does not wait for it."""

    is_cancelled = False

    def __init__(self, models: LoadedModels, say: Callable[[str], object]) -> None:
        self._models, self._say = models, say

    def steps(self) -> Iterator[None]:
        """Load the model in one step."""
        with self._models.use(self._models.find(LATEST)):
            yield

    def fail(self, error: Exception) -> None:
        """Print the reason; a request gets it, too."""
        self._say(f"warning: {error}")


async def health(request: Request) -> Response:
    """Answer that the server is there."""
    return json_answer({"status": "ok"})


async def page(request: Request) -> Response:
    """Answer with the page."""
    return FileResponse(STATIC / "page.html")


async def _bug(request: Request, error: Exception) -> Response:
    """Answer to a request that met a bug, which uvicorn prints."""
    message = f"the server has a bug, described on its console: {type(error).__name__}"
    return ApiError(500, "bug", message).answer(request.url.path)


async def _not_found(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return ApiError(status, "no_route", f"{request.method} {request.url.path}: there is no such route").answer(
        request.url.path
    )
