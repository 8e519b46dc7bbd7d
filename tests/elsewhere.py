"""A local server that plays the Hub and plain http, and counts its requests and bytes."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Condition
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from tests import loopback
from tests.conftest import START_SECONDS

AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TOKEN = "hf_of_the_test"  # needed for the data set with `gated` in its name


def write(path: Path, rows: int, size: int = 200) -> None:
    """Write row groups of 10 like Common Voice: columns that nobody reads lie between those that are read."""
    name = path.name.encode()
    table = pa.table(
        {
            "client_id": [f"speaker {i}" for i in range(rows)],
            "path": [f"{i}-{'x' * size}" for i in range(rows)],
            "audio": pa.array([{"bytes": (name + b"%d" % i) * (size // 8), "path": None} for i in range(rows)], AUDIO),
            "more": [bytes([i]) * size for i in range(rows)],
            "sentence": [f"{path.name} {i}" for i in range(rows)],
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=10, compression="none", use_dictionary=False)


@dataclass
class Elsewhere:
    """A server over a folder: `/files/NAME` plainly, and the requests that `huggingface_hub` sends to the Hub.

    A data set is a folder `OWNER/NAME` with a folder for each commit and a file `refs.json` {revision: commit}.
    """

    folder: Path
    port: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)  # method and path
    ranges: list[str] = field(default_factory=list)
    sent: int = 0  # bytes
    refused: list[int] = field(default_factory=list)  # statuses of the next answers, of a server that is busy
    answering: int = 0  # requests
    answered: Condition = field(default_factory=Condition)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def forget(self) -> None:
        """Set all counts to zero, once the bytes of the answers so far are counted: a client has them earlier."""
        with self.answered:
            assert self.answered.wait_for(lambda: self.answering == 0, timeout=START_SECONDS)
            self.asked, self.ranges, self.sent = [], [], 0

    @contextmanager
    def request(self) -> Iterator[None]:
        with self.answered:
            self.answering += 1
        try:
            yield
        finally:
            with self.answered:
                self.answering -= 1
                self.answered.notify_all()

    def answer(self, path: str, query: str, headers: Any) -> tuple[int, dict[str, str], bytes]:
        """Status, headers, body."""
        kind, _, rest = path.strip("/").partition("/")
        if kind == "files":
            if not (self.folder / rest).is_file():
                return 404, {}, b""
            return self.file(self.folder / rest, headers)
        if kind == "datasets":
            name, _, tail = rest.partition("/resolve/")
            revision, _, inner = tail.partition("/")
        elif kind == "api" and rest.count("/") > 1:
            owner, name, *tail = rest.removeprefix("datasets/").split("/")
            name, what = f"{owner}/{name}", tail[0] if tail else "revision"
            revision, inner = tail[1] if len(tail) > 1 else "main", "/".join(tail[2:])
        else:
            return 404, {}, b""
        revision, inner = unquote(revision), unquote(inner)
        if not (self.folder / name).is_dir():
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        commit = json.loads((self.folder / name / "refs.json").read_text()).get(revision)
        if commit is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        top = self.folder / name / commit
        if kind == "datasets":
            if "gated" in name and headers.get("Authorization") != f"Bearer {TOKEN}":
                return 401, {"X-Error-Code": "GatedRepo"}, b""
            if not (top / inner).is_file():
                return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
            status, fields, body = self.file(top / inner, headers)
            return status, fields | {"X-Repo-Commit": commit}, body
        if what == "revision":
            return 200, {}, json.dumps({"id": name, "sha": commit, "private": False, "tags": []}).encode()
        paths = sorted((top / inner).rglob("*") if "recursive=true" in query else (top / inner).glob("*"))
        return 200, {}, json.dumps([self.entry(top, path) for path in paths]).encode()

    def entry(self, top: Path, path: Path) -> dict[str, Any]:
        name = path.relative_to(top).as_posix()
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": "", "size": 0}
        content = path.read_bytes()
        return {"type": "file", "path": name, "oid": hashlib.sha1(content).hexdigest(), "size": len(content)}

    def file(self, path: Path, headers: Any) -> tuple[int, dict[str, str], bytes]:
        content = path.read_bytes()
        fields = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        if "Range" not in headers:
            return 200, fields, content
        self.ranges.append(headers["Range"])
        first, _, last = headers["Range"].removeprefix("bytes=").partition("-")
        return 206, fields, content[int(first) : int(last) + 1]


class Handler(BaseHTTPRequestHandler):
    elsewhere: Elsewhere

    def do_GET(self) -> None:
        with self.elsewhere.request():
            self.respond(self.elsewhere)

    def respond(self, where: Elsewhere) -> None:
        where.asked.append((self.command, self.path))
        url = urlsplit(self.path)
        if where.refused:
            status, fields, body = where.refused.pop(0), {"Retry-After": "0"}, b""
        else:
            status, fields, body = where.answer(url.path, url.query, self.headers)
        self.send_response(status)
        for name, value in (fields | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            with suppress(OSError):  # a client that only wanted the header hangs up
                self.wfile.write(body)
                where.sent += len(body)

    def do_HEAD(self) -> None:
        self.do_GET()


@contextmanager
def serve(folder: Path) -> Iterator[Elsewhere]:
    """A server over a folder."""
    where = Elsewhere(folder)
    with loopback.served(Handler, elsewhere=where) as where.port:
        yield where
