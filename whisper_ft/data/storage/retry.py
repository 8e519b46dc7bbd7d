"""Retries of requests that a busy server refused for now, with status 429 (too many requests) or 503 (unavailable).

Plain http is retried request by request, because fsspec takes some refusals for a missing file. Requests to the Hub are
retried when a data set is opened; later ones are retried by huggingface_hub.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import fsspec

from whisper_ft.runtime.errors import RunError
from whisper_ft.runtime.printable import say

T = TypeVar("T")

BUSY = (429, 503)
"""Statuses of a server that may answer later."""
TRIES = 5
FIRST_WAIT_SECONDS = 1.0
"""Wait before the second try. Each further wait is twice as long, unless the server states a time."""
MAX_WAIT_SECONDS = 60.0
"""Longest wait that a server may ask for, because a run that waits longer seems to hang."""


def retry_busy_servers() -> None:
    """Let fsspec retry http requests. Settings of the user in fsspec's own configuration are kept."""
    for protocol in ("http", "https"):
        client = fsspec.config.conf.setdefault(protocol, {}).setdefault("client_kwargs", {})
        client.setdefault("middlewares", (_retried,))


def patiently(action: Callable[[], T]) -> T:
    """Return the result of opening a data set, and try again while the server is busy.

    After TRIES tries the error is raised; any other error is raised at once. Each wait is told on stderr.
    """
    for number in range(TRIES - 1):
        try:
            return action()
        except RunError as error:
            response = _refusal(error)
            if response is None:
                raise
            wait = _wait_seconds(number, response.headers)
            say(f"a server is busy ({_status(response)}); next try in {wait:g} s", file=sys.stderr)
        time.sleep(wait)
    return action()


async def _retried(request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
    """Middleware of aiohttp that sends a request again while the server is busy."""
    for number in range(TRIES - 1):
        response = await handler(request)
        if response.status not in BUSY:
            return response
        wait = _wait_seconds(number, response.headers)
        response.release()
        await asyncio.sleep(wait)
    return await handler(request)


def _wait_seconds(number: int, headers: Any) -> float:
    """Seconds to wait after try `number`, counted from 0. `Retry-After` may hold seconds or a date."""
    stated = (headers or {}).get("Retry-After", "")
    wait = float(stated) if stated.isdecimal() else FIRST_WAIT_SECONDS * 2**number
    return min(wait, MAX_WAIT_SECONDS)


def _refusal(error: BaseException) -> Any:
    """Response of a busy server among the causes of an error; None if there is none."""
    link: BaseException | None = error
    while link is not None:
        response = getattr(link, "response", None)
        if _status(response) in BUSY:
            return response
        link = link.__cause__ or link.__context__
    return None


def _status(response: Any) -> int | None:
    return getattr(response, "status_code", None)
