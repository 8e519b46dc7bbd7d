"""A local server that accepts uploads of models as the Hub does: repositories, LFS, commits."""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from tests import loopback

TOKEN = "hf_of_the_test"
LFS = (".safetensors", ".png")
KINDS = ("repos/create", "validate-yaml", "preupload", "objects/batch", "verify", "commit", "lfs", "models")


@dataclass
class Hub:
    """Repositories in memory. `failing` has, for a kind of request, how many more times it fails and the status."""

    port: int = 0
    private: dict[str, bool] = field(default_factory=dict)  # by repository
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)  # of LFS, by sha256
    cards: list[str] = field(default_factory=list)  # cards sent to be checked
    requests: Counter[str] = field(default_factory=Counter)
    failing: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, path: str, token: str, body: bytes) -> tuple[int, Any]:
        """Status and body of the answer."""
        kind = next((kind for kind in KINDS if kind in path), None)
        if kind is None:
            return 404, {}
        self.requests[kind] += 1
        times, status = self.failing.get(kind, (0, 0))
        if times:
            self.failing[kind] = (times - 1, status)
            return status, b"<html>Bad gateway</html>"
        if kind == "lfs":  # signed addresses need no token
            self.objects[path.rpartition("/")[2]] = body
            return 200, {}
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid username or password."}
        return getattr(self, kind.replace("/", "_").replace("-", "_"))(path, body)

    def repos_create(self, _: str, body: bytes) -> tuple[int, Any]:
        settings = json.loads(body)
        name = f"{settings['organization'] or 'anna'}/{settings['name']}"
        if name.startswith("others/"):
            return 403, {"error": "You don't have the rights to create a model under this namespace"}
        known = name in self.private
        self.private.setdefault(name, settings.get("visibility") == "private")
        self.files.setdefault(name, {})
        return 409 if known else 200, {"url": f"{self.address}/{name}", "name": name}

    def models(self, path: str, _: bytes) -> tuple[int, Any]:
        name = "/".join(path.split("/")[3:5])
        if name not in self.private:
            return 404, {}
        return 200, {"id": name, "private": self.private[name], "sha": f"{len(self.commits):040}", "tags": []}

    def validate_yaml(self, _: str, body: bytes) -> tuple[int, Any]:
        self.cards.append(json.loads(body)["content"])
        return 200, {"warnings": []}

    def preupload(self, path: str, body: bytes) -> tuple[int, Any]:
        files = self.files["/".join(path.split("/")[3:5])]

        def answer(name: str) -> dict[str, Any]:
            known, is_large = files.get(name), name.endswith(LFS)
            oid = known and (hashlib.sha256(known) if is_large else _git(known)).hexdigest()
            return {"path": name, "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False, "oid": oid}

        return 200, {"files": [answer(file["path"]) for file in json.loads(body)["files"]]}

    def objects_batch(self, _: str, body: bytes) -> tuple[int, Any]:
        def answer(item: dict[str, Any]) -> dict[str, Any]:
            if item["oid"] in self.objects:
                return item
            where = {"upload": "lfs", "verify": "verify"}
            return item | {"actions": {k: {"href": f"{self.address}/{v}/{item['oid']}"} for k, v in where.items()}}

        return 200, {"transfer": "basic", "objects": [answer(item) for item in json.loads(body)["objects"]]}

    def verify(self, path: str, body: bytes) -> tuple[int, Any]:
        content = self.objects[path.rpartition("/")[2]]
        return (200 if hashlib.sha256(content).hexdigest() == json.loads(body)["oid"] else 400), {}

    def commit(self, path: str, body: bytes) -> tuple[int, Any]:
        name = "/".join(path.split("/")[3:5])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.commits.append(value["summary"])
            elif line["key"] == "file":
                self.files[name][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[name][value["path"]] = self.objects[value["oid"]]
        number = f"{len(self.commits):040}"
        return 200, {"commitUrl": f"{self.address}/{name}/commit/{number}", "commitOid": number, "hookOutput": ""}


def _git(content: bytes) -> Any:
    return hashlib.sha1(b"blob %d\0" % len(content) + content)


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, token = urlsplit(self.path).path, self.headers.get("Authorization", "")
        status, answer = self.hub.answer(path, token, body)
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self.do_POST()

    def do_PUT(self) -> None:
        self.do_POST()


@contextmanager
def serve() -> Iterator[Hub]:
    """A Hub without repositories."""
    hub = Hub()
    with loopback.served(Handler, hub=hub) as hub.port:
        yield hub
