"""Overview of runs: a page with the state, curves and results of each, live while one trains, and their reports."""

from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from whisper_ft.web.api_error import ApiError, json_answer
from whisper_ft.web.models_of_run import ServedModels
from whisper_ft.web.run_pages import POLICY, RunPage, page_file, pages_in
from whisper_ft.web.run_state import run_state

OVERVIEW = Path(__file__).parent / "static" / "runs.html"


def overview_routes(served: ServedModels) -> list[BaseRoute]:
    """Return the routes of the overview of the served runs."""
    answers = _Answers(served)
    return [
        Route("/runs", overview_page),
        Route("/api/runs", answers.runs),
        Route("/runs/page/{path:path}", answers.page),
    ]


async def overview_page(request: Request) -> Response:
    """Answer with the page."""
    return FileResponse(OVERVIEW)


class _Answers:
    """Handlers of the routes. Files are read in threads, so that other requests go on."""

    def __init__(self, served: ServedModels) -> None:
        self._served = served

    async def runs(self, request: Request) -> Response:
        return json_answer(await run_in_threadpool(lambda: overview(self._served)))

    async def page(self, request: Request) -> Response:
        file = await run_in_threadpool(page_file, Path(self._served.served), request.path_params["path"])
        if file is None or not self._served.runs:
            raise ApiError(404, "no_page", "there is no such page")
        return FileResponse(file, media_type="text/html", headers={"Content-Security-Policy": POLICY})


def overview(served: ServedModels) -> dict[str, Any]:
    """Return the runs with their pages as JSON values, and pages in the folder that belong to no run."""
    runs, folder = served.present_runs(), Path(served.served)
    left = pages_in(folder) if runs else []
    records = []
    for run in runs:
        place = run.relative_to(folder) if served.is_folder_of_runs else Path()
        own = [page for page in left if page.path.is_relative_to(place)]
        left = [page for page in left if page not in own]
        records.append(run_state(run) | {"pages": _records(own, place)})
    return {"served": served.served, "runs": records, "pages": _records(left, Path())}


def _records(pages: list[RunPage], place: Path) -> list[dict[str, Any]]:
    return [page.record(place) for page in pages]
