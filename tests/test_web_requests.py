"""Requests to the web server: a queue with a limit, bounded uploads, refusals in one line, and no other site."""

import io
import json
import shutil
import socket
import time
import wave
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import httpx2
import numpy as np
import psutil
import pytest
import soundfile

from tests.serving import Serving, events_in, serving
from whisper_ft.web import request_guard

MB = 1_000_000


@pytest.fixture(scope="module")
def served(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server of a run."""
    run = Path(shutil.copytree(trained, tmp_path_factory.mktemp("served") / "demo"))
    with serving(run, max_mb=50) as serving_:
        yield serving_


@pytest.fixture(scope="module")
def lecture(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A recording of 20 minutes, which takes many steps."""
    samples, rate = soundfile.read(sounds / "long.wav", dtype="float32")
    path = tmp_path_factory.mktemp("lecture") / "lecture.flac"
    soundfile.write(path, np.tile(samples, 1200 * rate // len(samples)), rate)
    return path.read_bytes()


@pytest.mark.long
def test_a_second_user_does_not_wait_for_a_long_recording(
    served: Serving, sounds: Path, transcribed: Path, lecture: bytes
):
    with (
        served.client() as client,
        client.stream("POST", "/api/transcribe", files={"file": ("lecture.flac", lecture)}) as long,
    ):
        lines = long.iter_lines()
        assert next(lines) == "event: queued"
        id = json.loads(next(lines).removeprefix("data: "))["id"]
        while next(lines) != "event: window":
            pass
        text = served.transcribe(sounds / "a.flac", words="false")["text"]
        assert text == (transcribed / "a.flac.txt").read_text(encoding="utf-8").strip()
        assert id in served.server.jobs, "the long one goes on"
    served.wait_for_end()


def test_each_request_gets_a_step_in_turn():
    from whisper_ft.web.job_queue import JobQueue

    order = list[str]()

    class Steps:
        is_cancelled = False

        def __init__(self, name: str, number: int) -> None:
            self._name, self._number = name, number

        def steps(self) -> Iterator[None]:
            for _ in range(self._number):
                order.append(self._name)
                yield

        def fail(self, error: Exception) -> None:
            order.append(f"{self._name}: {error}")

    queue = JobQueue(9)
    for name, number in (("long", 5), ("short", 1), ("middle", 2)):
        queue.add(Steps(name, number))
    queue.start()
    while len(queue):
        time.sleep(0.001)
    queue.stop()
    assert order == ["long", "short", "middle", "long", "middle", "long", "long", "long"]


@pytest.mark.long
def test_more_requests_than_allowed_are_told_to_come_back(trained: Path, sounds: Path, lecture: bytes):
    with serving(trained, queue=1) as served, served.client() as client:
        form = {"files": {"file": ("lecture.flac", lecture)}}
        with client.stream("POST", "/api/transcribe", **form) as first:
            lines = first.iter_lines()  # its end would close the connection
            assert next(lines) == "event: queued"
            refused = served.upload("/api/transcribe", "a.flac", sounds / "a.flac")
            assert refused.status_code == 429, refused.text
            assert refused.json()["error"]["code"] == "busy"
            assert int(refused.headers["retry-after"]) > 0
        served.wait_for_end()
        assert served.transcribe(sounds / "a.flac")["text"]


def test_a_client_that_leaves_cancels_its_request(served: Serving, lecture: bytes):
    with served.client() as client:
        form = {"files": {"file": ("lecture.flac", lecture)}}
        with client.stream("POST", "/api/transcribe", **form) as answer:
            lines = answer.iter_lines()
            assert next(lines) == "event: queued"
            id = json.loads(next(lines).removeprefix("data: "))["id"]
    served.wait_for_end()
    assert id not in served.server.transcripts


def test_a_request_can_be_cancelled_by_its_id(served: Serving, lecture: bytes):
    with served.client() as client:
        form = {"files": {"file": ("lecture.flac", lecture)}}
        with client.stream("POST", "/api/transcribe", **form) as answer:
            text = ""
            for part in answer.iter_text():
                text += part
                if text.startswith("event: queued") and text.count("\n\n") == 1:
                    id = events_in(text)[0][1]["id"]
                    assert served.server.jobs[id]
                    with served.client() as other:
                        assert other.delete(f"/api/transcripts/{id}").status_code == 204
    assert events_in(text)[-1][0] == "error"
    assert events_in(text)[-1][1]["code"] == "cancelled"
    served.wait_for_end()
    assert served.get(f"/api/transcripts/{id}.txt").status_code == 404


def zeros(megabytes: int) -> Iterator[bytes]:
    """A form with a file of zeros, which is sent in parts."""
    yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="big.wav"\r\n\r\n'
    for _ in range(megabytes):
        yield bytes(MB)
    yield b"\r\n--x--\r\n"


@pytest.mark.long
@pytest.mark.parametrize("is_stated", [True, False])
def test_an_upload_over_the_limit_is_refused(served: Serving, sounds: Path, is_stated: bool):
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    if is_stated:
        headers["Content-Length"] = str(sum(map(len, zeros(51))))
    with served.client() as client:
        answer = client.post("/api/transcribe", content=zeros(51), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert "50 MB" in answer.json()["error"]["message"]
    assert served.transcribe(sounds / "a.flac")["text"]


def test_an_upload_that_stalls_gives_its_place_to_others(trained: Path, sounds: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(request_guard, "IDLE_SECONDS", 0.2)
    with serving(trained, queue=1) as served:
        host, _, port = served.address.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            head = f"POST /api/transcribe HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n"
            connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n".encode())
            answer = connection.recv(65536).decode()
        assert answer.startswith("HTTP/1.1 408 ")
        assert served.transcribe(sounds / "a.flac")["text"]


def test_an_upload_that_is_cancelled_gives_its_place_back_without_a_word(
    trained: Path, sounds: Path, capfd: pytest.CaptureFixture[str]
):
    with serving(trained, queue=1) as served:
        host, _, port = served.address.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            head = f"POST /api/transcribe HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n"
            connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n".encode())
            time.sleep(0.2)  # the server waits for the rest
        for _ in range(100):
            answer = served.upload("/api/transcribe", "a.flac", sounds / "a.flac")
            if answer.status_code != 429:
                break
            time.sleep(0.05)
        assert answer.status_code == 200
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("megabytes", [120, pytest.param(500, marks=pytest.mark.long)])
def test_a_large_upload_takes_bounded_memory(trained: Path, megabytes: int):
    process, most = psutil.Process(), 0
    with serving(trained, max_mb=1000) as served, served.client() as client:
        while served.server.queue.running or served.server.queue.waiting:
            time.sleep(0.01)
        before = process.memory_info().rss

        def watched() -> Iterator[bytes]:
            nonlocal most
            for part in zeros(megabytes):
                most = max(most, process.memory_info().rss)
                yield part

        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = client.post("/api/transcribe", content=watched(), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "not_audio")
    assert most - before < 50 * MB


@pytest.mark.matrix
def test_a_recording_of_500_mb_is_transcribed_in_bounded_memory(trained: Path):
    """45 minutes of silence in stereo at 48 kHz, of which nothing is decoded."""
    header, form = io.BytesIO(), zeros(500)
    with wave.open(header, "wb") as file:
        file.setparams((2, 2, 48_000, 0, "NONE", ""))
        file.setnframes(500 * MB // 4)
        file.writeframesraw(b"")
    content = chain([next(form), header.getvalue()], form)
    process, most = psutil.Process(), 0
    with serving(trained, max_mb=600) as served, served.client() as client:
        served.wait_for_end()
        before = process.memory_info().rss
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        text = ""
        with client.stream("POST", "/api/transcribe", content=content, headers=headers) as answer:
            for part in answer.iter_text():
                most = max(most, process.memory_info().rss)
                text += part
    kind, done = events_in(text)[-1]
    assert (kind, done["text"], done["is_speech"]) == ("done", "", False)
    assert done["seconds"] == pytest.approx(500 * MB / 4 / 48_000, abs=0.1)
    assert {sign["code"] for sign in done["signs"]} == {"silence"}
    assert most - before < 100 * MB


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("notes.wav", b"a text, and no sound", "not_audio"),
        ("empty.mp3", b"", "not_audio"),
        ("page.webm", b"<!doctype html>" + bytes(1000), "not_audio"),
        ("click.wav", None, "too_short"),
    ],
)
def test_a_file_that_is_no_recording_is_refused_in_one_line(
    served: Serving, tmp_path: Path, name: str, content: bytes | None, code: str
):
    if content is None:
        soundfile.write(tmp_path / name, np.zeros(100), 16_000)
        content = (tmp_path / name).read_bytes()
    for path in ("/api/transcribe", "/v1/audio/transcriptions"):
        answer = served.upload(path, name, content)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, code)
        assert name in error["message"]
        assert "\n" not in error["message"]


@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        (b"{}", {"Content-Type": "application/json"}, "no_file"),
        (b"file=abc", {"Content-Type": "application/x-www-form-urlencoded"}, "no_file"),
        (b"", {}, "no_file"),
        (b"abc", {"Content-Type": "multipart/form-data"}, "bad_request"),
        (b"--y\r\nabc", {"Content-Type": "multipart/form-data; boundary=x"}, "bad_request"),
        (b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc\r\n--x--\r\n',
         {"Content-Type": "multipart/form-data; boundary=x"}, "no_file"),
    ],
)  # fmt: skip
def test_a_form_without_a_file_is_refused(served: Serving, body: bytes, headers: dict[str, str], code: str):
    for path in ("/api/transcribe", "/v1/audio/translations"):
        with served.client() as client:
            answer = client.post(path, content=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd.flac", "passwd.flac"),
        ("C:\\talks\\мова 1.flac", "мова 1.flac"),
        ('a"b;c\n\x1b[31m.flac', None),
        ("x" * 1000, "x" * 255),
    ],
)
def test_a_name_of_a_file_is_only_shown(served: Serving, sounds: Path, name: str, shown: str | None):
    events = events_in(served.upload("/api/transcribe", name, sounds / "a.flac").text)
    answer = served.get(f"/api/transcripts/{events[-1][1]['id']}.json")
    file, disposition = answer.json()["file"], answer.headers["content-disposition"]
    assert file == shown if shown else not set(file) & set("\n\x1b")
    assert "/" not in disposition
    assert disposition.isascii()


OTHER = "http://elsewhere.example"


@pytest.mark.long
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Host": "elsewhere.example"}, "wrong_host"),
        ({"Host": "127.0.0.1.elsewhere.example:80"}, "wrong_host"),
        ({"Host": "192.168.1.2"}, "wrong_host"),
        ({"Host": "elsewhere.example@127.0.0.1"}, "wrong_host"),
        ({"Host": "[::1"}, "wrong_host"),
        ({"Origin": OTHER}, "wrong_origin"),
        ({"Origin": "null"}, "wrong_origin"),
        ({"Origin": "http://127.0.0.1:1"}, "wrong_origin"),
        ({"Origin": "http://[::1"}, "wrong_origin"),
        ({"Sec-Fetch-Site": "cross-site"}, "wrong_origin"),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, "wrong_origin"),
        ({"Host": "localhost:9000", "Origin": "http://localhost:9000"}, None),
        ({"Host": "[::1]:7860"}, None),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, None),
    ],
)
def test_a_page_of_another_site_does_not_reach_the_server(
    served: Serving, sounds: Path, headers: dict[str, str], code: str | None
):
    with served.client(headers=headers) as client:
        answers = [
            client.get("/api/models"),
            client.get("/healthz"),
            client.post("/api/transcribe", files={"file": ("a.flac", (sounds / "a.flac").read_bytes())}),
            client.post("/v1/audio/transcriptions", files={"file": ("a.flac", (sounds / "a.flac").read_bytes())}),
        ]
    expected = [200] * 4 if code is None else [403] * 4
    assert [answer.status_code for answer in answers] == expected
    if code is not None:
        assert {answer.json()["error"]["code"] for answer in answers} == {code}
        assert not any("access-control-allow-origin" in answer.headers for answer in answers)


def test_every_answer_forbids_foreign_content(served: Serving):
    for path in ("/healthz", "/api/models", "/nowhere", "/v1/models", "/static/none.js"):
        headers = served.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    assert served.get("/nowhere").json()["error"]["code"] == "no_route"
    assert served.get("/static/../app.py").status_code == 404
    assert served.get("/static/%2e%2e/app.py").status_code == 404


@pytest.mark.long
def test_a_token_is_needed_where_there_is_one(trained: Path):
    with serving(trained, token="secret-1") as served:
        assert served.get("/healthz").status_code == 200
        for headers in (
            {},
            {"Authorization": "Bearer secret-2"},
            {"Authorization": "Basic secret-1"},
            {"Cookie": "a=secret-1"},
        ):
            answer = served.get("/api/models", headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "no_token")
        assert served.get("/?token=secret-2").status_code == 401
        assert served.get("/api/models", headers={"Authorization": "Bearer secret-1"}).status_code == 200
        with served.client() as client:
            entry = client.get("/try?token=secret-1&model=best")
            assert (entry.status_code, entry.headers["location"]) == (303, "/try?model=best")
            assert "HttpOnly" in entry.headers["set-cookie"]
            assert "samesite=strict" in entry.headers["set-cookie"].lower()
            assert client.get("/api/models").status_code == 200, "by the cookie"
        answer = httpx2.get(f"{served.address}//elsewhere.example/?token=secret-1")
        assert answer.headers["location"].startswith("/e"), "no way to another host"
