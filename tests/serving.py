"""Web servers for tests: the real application behind uvicorn, in a thread of this process."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import torch

from whisper_ft.cli.serve import listener_of
from whisper_ft.web.app import create_app
from whisper_ft.web.http_server import HttpServer
from whisper_ft.web.serve_settings import ServeSettings
from whisper_ft.web.server import Server

SECONDS = 60  # a request that takes longer hangs


@dataclass(frozen=True)
class Serving:
    """A server that listens."""

    address: str
    server: Server
    said: list[str]
    """Lines for the user."""

    def client(self, **options: Any) -> httpx2.Client:
        """A client of this server."""
        return httpx2.Client(base_url=self.address, timeout=SECONDS, **options)

    def get(self, path: str, **options: Any) -> httpx2.Response:
        """The answer to a GET."""
        with self.client() as client:
            return client.get(path, **options)

    def upload(self, path: str, name: str, content: bytes | Path, **fields: str) -> httpx2.Response:
        """The answer to a form with a file."""
        content = content.read_bytes() if isinstance(content, Path) else content
        with self.client() as client:
            return client.post(path, files={"file": (name, content)}, data=fields)

    def transcribe(self, file: Path, **fields: str) -> dict[str, Any]:
        """The last event of a transcription."""
        return self.events(file, **fields)[-1][1]

    def events(self, file: Path, **fields: str) -> list[tuple[str, dict[str, Any]]]:
        """All events of a transcription."""
        answer = self.upload("/api/transcribe", file.name, file, **fields)
        assert answer.status_code == 200, answer.text
        return events_in(answer.text)

    def wait_for_end(self) -> None:
        """Wait until no request is left."""
        deadline = time.monotonic() + SECONDS
        while self.server.jobs or len(self.server.queue):
            assert time.monotonic() < deadline
            time.sleep(0.005)


def events_in(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Name and value of each server-sent event."""
    blocks = [block.split("\n") for block in text.split("\n\n") if block]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


class Pause:
    """Job that occupies the queue until it is over."""

    is_cancelled = False

    def __init__(self) -> None:
        self.over = threading.Event()

    def steps(self) -> Iterator[None]:
        assert self.over.wait(SECONDS)
        yield

    def fail(self, error: Exception) -> None:
        raise error


@contextmanager
def paused(server: Server) -> Iterator[None]:
    """A server whose requests wait, for the duration of a block."""
    server.queue.add(pause := Pause())
    try:
        yield
    finally:
        pause.over.set()


@contextmanager
def serving(served: Path, **settings: Any) -> Iterator[Serving]:
    """A server of a run or a model, for the duration of a block."""
    listener, said = listener_of("127.0.0.1", 0), list[str]()
    port = listener.getsockname()[1]
    values = replace(ServeSettings(str(served), port=port), **settings)
    app = create_app(values, torch.device("cpu"), said.append)
    server = HttpServer(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    try:
        yield Serving(f"http://127.0.0.1:{port}", app.state.server, said)
    finally:
        server.should_exit = True
        thread.join(SECONDS)
        listener.close()
