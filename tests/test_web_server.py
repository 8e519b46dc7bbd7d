"""The web server: the texts of transcribe for any upload, each new best at once, bounded uploads, no other site."""

import io
import json
import shutil
import socket
import time
import wave
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain, pairwise
from pathlib import Path

import httpx2
import numpy as np
import psutil
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from tests.conftest import START_SECONDS, Trainer, digest
from tests.learnt_speech import sentences
from tests.serving import Serving, events_in, paused, serving
from tests.test_adapter_resume import NF4
from tests.test_average_and_patience import AVERAGED
from tests.test_containers import written
from whisper_ft.checkpoint.state import Best
from whisper_ft.decoding.transcript_options import TranscriptOptions, decoding_of
from whisper_ft.models.export.hf import config_files, export
from whisper_ft.models.whisper import load_whisper
from whisper_ft.runtime.lock import lock_folder
from whisper_ft.web import request_guard
from whisper_ft.web.models_of_run import ServedModels

MB = 1_000_000
FILES = {"a.flac": "a.flac", "a.mp3": "a.mp3", "deep/b.m4a": "deep/b", "phone.wav": "phone", "long.wav": "long"}


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


def publish(run: Path, step: int, model: Path, value: float = 0.5) -> None:
    """Publish another model as the best, as a run does."""
    loaded = load_whisper(str(model))
    readme = f"# Best model\n\nBest wer of its run: {value:.6f}, at step {step}.\n"
    export(loaded.model, config_files(*loaded), run / "best", readme)
    (run / "best.json").write_text(json.dumps(asdict(Best(step, "wer", value)) | {"model": "whole"}))


@pytest.mark.parametrize("name", FILES)
def test_the_text_is_that_of_transcribe(served: Serving, sounds: Path, transcribed: Path, name: str):
    events = served.events(sounds / name, words="false")
    assert [kind for kind, _ in events if kind not in ("window", "loading")] == ["queued", "started", "done"]
    expected = json.loads((transcribed / f"{FILES[name]}.json").read_text())
    windows, done = [data for kind, data in events if kind == "window"], events[-1][1]
    assert done["text"] == expected["text"] == " ".join(filter(None, (window["text"] for window in windows)))
    assert (done["language"], done["problem"]) == ("be", None)
    assert [window["number"] for window in windows] == list(range(len(windows)))
    assert sum(window["seconds"] for window in windows) == pytest.approx(expected["duration"], abs=0.01)
    texts = [segment["text"] for window in windows for segment in window["segments"]]
    assert texts == [segment["text"] for segment in expected["segments"]]


@pytest.mark.parametrize("kind", ["webm", "mp4"])
def test_a_recording_of_a_browser_and_a_video_are_transcribed(served: Serving, tmp_path: Path, sounds: Path, kind: str):
    samples, rate = soundfile.read(sounds / "a.flac", dtype="float32")
    (tmp_path / f"a.{kind}").write_bytes(
        written(kind, samples.repeat(3)[:, None], 3 * rate, pictures=20 * (kind == "mp4"))
    )
    done = served.transcribe(tmp_path / f"a.{kind}")
    assert done["text"]
    assert done["seconds"] == pytest.approx(len(samples) / rate, abs=0.2)


@pytest.mark.long
def test_files_of_a_transcript_are_those_of_the_command(served: Serving, sounds: Path, transcribed: Path):
    done = served.transcribe(sounds / "long.wav", words="false")
    for form in ("txt", "srt", "vtt", "tsv"):
        answer = served.get(f"/api/transcripts/{done['id']}.{form}")
        assert answer.text == (transcribed / f"long.{form}").read_text(encoding="utf-8")
        assert f"long.{form}" in answer.headers["content-disposition"]
    expected = json.loads((transcribed / "long.json").read_text(encoding="utf-8"))
    assert served.get(f"/api/transcripts/{done['id']}.json").json()["segments"] == expected["segments"]


def test_words_have_times_and_probabilities(served: Serving, sounds: Path):
    windows = [data for kind, data in served.events(sounds / "long.wav") if kind == "window"]
    words = [word for window in windows for segment in window["segments"] for word in segment["words"]]
    assert words
    assert all(0 <= word["probability"] <= 1 and word["start"] <= word["end"] for word in words)
    assert all(before["start"] <= after["start"] for before, after in pairwise(words))


@pytest.mark.long
def test_models_of_a_run_can_be_chosen(served: Serving, sounds: Path, micro_whisper: Path):
    state = served.get("/api/models").json()
    by_id = {choice["id"]: choice for choice in state["choices"]}
    assert {"latest", "best", "final", "step-00000040", "start"} == set(by_id)
    assert (state["default"], state["compare"], by_id["latest"]["follows"]) == ("latest", "start", "best")
    assert [by_id[name]["step"] for name in ("latest", "best", "final", "step-00000040", "start")] == [
        40,
        40,
        40,
        40,
        0,
    ]
    assert by_id["best"]["metric"] in ("wer", "cer")
    assert 0 < by_id["best"]["value"] == by_id["step-00000040"]["value"]
    assert [by_id["step-00000040"]["kind"], by_id["final"]["kind"]] == ["checkpoint", "whole"]
    texts = {name: served.transcribe(sounds / "a.flac", model=name)["text"] for name in by_id}
    assert len({texts[name] for name in by_id if name != "start"}) == 1, "all are the weights after step 40"
    assert texts["start"] != texts["best"]
    languages = served.get("/api/languages", params={"model": "step-00000040"}).json()
    assert languages["own"] == "be"
    assert {"code": "be", "name": "belarusian"} in languages["languages"]


def test_a_folder_of_a_model_or_a_checkpoint_is_a_single_model(trained: Path, monkeypatch: pytest.MonkeyPatch):
    for place, kind, step in (("best", "whole", 40), ("checkpoints/step-00000040", "checkpoint", None)):
        (choice,) = ServedModels(str(trained / place)).choices()
        assert (choice.id, choice.kind, choice.step) == ("model", kind, step)
    monkeypatch.chdir(trained)
    assert ServedModels(".").choices()[0].run == trained.name, "a run has the name of its folder"


@pytest.mark.long
def test_the_average_of_a_run_is_served_and_another_model_beside_it(
    train: Trainer, learnt: Path, corpus: Path, tmp_path: Path
):
    sentence = sentences(corpus / "validation")[0]
    (tmp_path / "clip").write_bytes(sentence.audio)
    run = train.reference(**AVERAGED)
    with serving(run, compare=str(learnt)) as served:
        state = served.get("/api/models").json()
        by_id = {choice["id"]: choice for choice in state["choices"]}
        assert {"final", "average", "compare"} < set(by_id)
        assert (state["compare"], by_id["compare"]["name"]) == ("compare", learnt.name)
        events = {name: dict(served.events(tmp_path / "clip", model=name)) for name in ("average", "compare")}
        assert events["average"]["started"]["model"]["kind"] == "whole"
        assert events["compare"]["done"]["text"] == sentence.text != events["average"]["done"]["text"]
        with served.server.models.use(served.server.models.find("average")) as held:
            weights = load_file(run / "average/model.safetensors")
            states = held.model.model.state_dict()
            assert all(torch.equal(states[name], value) for name, value in weights.items())


def test_the_second_model_is_any_of_the_run_or_the_latest_of_another(trained: Path, tmp_path: Path):
    run = str(trained)
    other = Path(shutil.copytree(trained, tmp_path / "other"))
    for given, id, place in (
        ("final", "final", trained / "final"), (str(other), "compare", other / "best"),
        (str(other / "final"), "compare", other / "final"),
    ):  # fmt: skip
        models = ServedModels(run, given)
        assert models.compare_id(models.choices()) == id
        found = models.find(id)
        assert found is not None
        assert Path(found.place) == place


@pytest.mark.long
def test_adapters_and_their_checkpoints_are_served(train: Trainer, sounds: Path):
    with serving(train.reference(**NF4)) as served:
        state = served.get("/api/models").json()
        by_id = {choice["id"]: choice for choice in state["choices"]}
        assert (by_id["latest"]["follows"], by_id["best-adapter"]["kind"]) == ("best-adapter", "adapter")
        checkpoint = f"step-{by_id['latest']['step']:08d}"
        texts = {name: served.transcribe(sounds / "a.flac", model=name)["text"] for name in ("latest", checkpoint)}
        assert texts["latest"] == texts[checkpoint], "both on the base as it was quantised"
        assert served.get("/api/languages", params={"model": "best-adapter"}).json()["is_multilingual"]
        assert len(served.server.models.loaded) <= 2


@pytest.mark.long
def test_a_new_best_is_used_between_requests(trained: Path, micro_whisper: Path, sounds: Path, tmp_path: Path):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    with serving(run) as served:
        before = served.events(sounds / "a.flac")
        publish(run, 50, micro_whisper)
        state = served.get("/api/models").json()
        assert [(c["id"], c["step"], c["is_loaded"]) for c in state["choices"][:2]] == [
            ("latest", 50, False),
            ("best", 50, False),
        ]
        after = served.events(sounds / "a.flac")
        assert [dict(events)["started"]["model"]["step"] for events in (before, after)] == [40, 50]
        assert (
            before[-1][1]["text"] != after[-1][1]["text"] == served.transcribe(sounds / "a.flac", model="start")["text"]
        )
        assert "loading" in dict(after)
        assert "loading" not in dict(served.events(sounds / "a.flac"))


def test_a_best_that_is_replaced_while_it_is_read_is_read_again(trained: Path, micro_whisper: Path, tmp_path: Path):
    import torch

    from whisper_ft.web.loaded_models import LoadedModels

    run = Path(shutil.copytree(trained, tmp_path / "run"))
    replaced = list[bool]()

    def replace_once(line: str) -> None:
        if not replaced:
            replaced.append(True)
            publish(run, 50, micro_whisper)

    models = LoadedModels(ServedModels(str(run)), torch.device("cpu"), "auto", replace_once)
    with models.use(models.find("latest")) as held:
        assert (held.choice.step, replaced) == (50, [True])
        assert held.version == models.find("latest").version


def test_half_written_folders_are_no_models(trained: Path, tmp_path: Path):

    run = Path(shutil.copytree(trained, tmp_path / "run"))
    whole = [choice.id for choice in ServedModels(str(run)).choices()]
    shutil.copytree(run / "best", run / ".tmp-average-1a2b3c4d")
    shutil.copytree(run / "checkpoints/step-00000040", run / "checkpoints/.tmp-step-00000080-1a2b3c4d")
    (run / "average").mkdir()
    assert [choice.id for choice in ServedModels(str(run)).choices()] == whole


def test_a_run_in_training_is_neither_locked_nor_written(trained: Path, sounds: Path, tmp_path: Path):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    lock = lock_folder(run, "run")
    (run / "status.json").write_text(json.dumps({"state": "running", "step": 40}))

    def files() -> dict[str, int]:
        return {str(path.relative_to(run)): path.stat().st_mtime_ns for path in run.rglob("*")}

    before = files()
    with serving(run) as served:
        assert served.transcribe(sounds / "a.flac")["text"]
        assert served.get("/api/models").json()["runs"] == [{"name": "run", "state": "running", "step": 40}]
    assert files() == before
    lock.close()
    lock_folder(run, "run").close()


@pytest.mark.long
def test_a_run_that_is_served_while_it_trains_ends_with_the_same_weights(train: Trainer, sounds: Path):
    run, started = train.folder / "run", train.start(train.arguments("run"), 1)
    deadline = time.monotonic() + START_SECONDS
    while not (run / "config.yaml").exists():
        assert started.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    steps = list[int | None]()
    with serving(run) as served:
        is_over = False
        while not is_over:
            is_over = started.poll() is not None
            events = dict(served.events(sounds / "phone.wav", words="false"))
            assert "done" in events, events["error"]
            steps.append(events["started"]["model"]["step"])
    assert started.wait(START_SECONDS) == 0
    assert steps == sorted(steps, key=lambda step: step or 0)
    assert steps[-1] == json.loads((run / "best.json").read_text())["step"]
    assert digest(run) == digest(train.reference())


def test_a_folder_of_runs_offers_all_of_them(trained: Path, sounds: Path, tmp_path: Path):
    for name in ("one", "two"):
        shutil.copytree(trained, tmp_path / name)
    newer = tmp_path / "two/best/config.json"
    newer.write_text(newer.read_text() + "\n")
    with serving(tmp_path) as served:
        ids = [choice["id"] for choice in served.get("/api/models").json()["choices"]]
        assert {"one/latest", "two/best", "one/step-00000040"} < set(ids)
        assert dict(served.events(sounds / "a.flac"))["started"]["model"]["id"] == ids[0] == "two/latest"
        (tmp_path / "three").mkdir()
        assert [run["name"] for run in served.get("/api/models").json()["runs"]] == ["one", "two"]


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
    wait_for_end(served)


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
        wait_for_end(served)
        assert served.transcribe(sounds / "a.flac")["text"]


def wait_for_end(served: Serving) -> None:
    deadline = time.monotonic() + 60
    while served.server.jobs or len(served.server.queue):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_client_that_leaves_cancels_its_request(served: Serving, lecture: bytes):
    with served.client() as client:
        form = {"files": {"file": ("lecture.flac", lecture)}}
        with client.stream("POST", "/api/transcribe", **form) as answer:
            lines = answer.iter_lines()
            assert next(lines) == "event: queued"
            id = json.loads(next(lines).removeprefix("data: "))["id"]
    wait_for_end(served)
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
    wait_for_end(served)
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
        wait_for_end(served)
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


def test_a_recording_that_ends_early_gives_its_beginning(served: Serving, sounds: Path):
    whole = (sounds / "long.wav").read_bytes()
    events = events_in(served.upload("/api/transcribe", "cut.wav", whole[: len(whole) // 2]).text)
    done = events[-1][1]
    assert done["text"]
    assert "truncated" in done["problem"]


@pytest.mark.parametrize("peak", [0.0, 1e-4])
def test_silence_is_told_and_gets_no_text(served: Serving, tmp_path: Path, peak: float):
    noise = np.random.default_rng(0).uniform(-peak, peak, 16_000 * 12).astype(np.float32)
    soundfile.write(tmp_path / "silence.flac", noise, 16_000, subtype="PCM_24")
    done = served.transcribe(tmp_path / "silence.flac")
    assert (done["text"], done["is_speech"]) == ("", False)
    assert {sign["code"] for sign in done["signs"]} == {"silence"}
    assert sum(sign["end"] - sign["begin"] for sign in done["signs"]) == pytest.approx(12, abs=0.1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_beams", "0"),
        ("num_beams", "11"),
        ("num_beams", "many"),
        ("task", "sing"),
        ("language", "klingon"),
        ("words", "perhaps"),
        ("no_speech_threshold", "1.5"),
    ],
)
def test_impossible_options_are_named(served: Serving, sounds: Path, name: str, value: str):
    answer = served.upload("/api/transcribe", "a.flac", sounds / "a.flac", **{name: value})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "bad_value")
    assert value in error["message"]


def test_options_that_the_model_refuses_end_the_stream(served: Serving, sounds: Path):
    events = served.events(sounds / "a.flac", prompt="слова " * 400)
    assert events[-1][0] == "error"
    assert events[-1][1]["code"] == "bad_value"
    assert served.upload("/api/transcribe", "a.flac", sounds / "a.flac", model="worst").status_code == 404


def test_options_reach_the_decoder(served: Serving, sounds: Path):
    given = {
        "language": "ru", "task": "translate", "prompt": "слова", "num_beams": "2", "timestamps": "true",
        "words": "false", "temperature_fallback": "true", "no_speech_threshold": "0.5",
    }  # fmt: skip
    file = {"file": ("a.flac", (sounds / "a.flac").read_bytes())}
    with (
        paused(served.server),
        served.client() as client,
        client.stream("POST", "/api/transcribe", files=file, data=given) as answer,
    ):
        lines = answer.iter_lines()
        assert next(lines) == "event: queued"
        options = served.server.jobs[json.loads(next(lines).removeprefix("data: "))["id"]].request.options
    assert options == TranscriptOptions(
        "ru", "translate", timestamps=True, words=False, prompt="слова", num_beams=2, temperature_fallback=True,
        no_speech_threshold=0.5, batch_size=options.batch_size,
    )  # fmt: skip
    with served.server.models.use(served.server.models.find("latest")) as held:
        decoding = decoding_of(held.model, options)
    settings = decoding.settings
    assert (decoding.language, settings.prompt, settings.num_beams, settings.timestamps) == ("ru", "слова", 2, True)
    assert (settings.temperature_fallback, settings.no_speech_threshold) == (True, 0.5)
    wait_for_end(served)


def test_words_and_the_detected_language_are_in_the_events(served: Serving, sounds: Path):
    plain = served.events(sounds / "a.flac")
    timed = served.events(
        sounds / "a.flac", timestamps="true", num_beams="2", language="auto", temperature_fallback="true"
    )
    assert all(window["segments"][0]["words"] for kind, window in plain if kind == "window" and window["text"])
    assert [data["language"] for kind, data in timed if kind == "window"] != [None]


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


def test_signs_of_invented_text():
    from whisper_ft.data.types import NO_FEATURES, Row
    from whisper_ft.decoding.confidence import TranscriptConfidence
    from whisper_ft.decoding.long_form import AudioWindow
    from whisper_ft.decoding.window_transcript import WindowTranscript
    from whisper_ft.web.invention_signs import signs_of

    window = AudioWindow(0, Row("a", b"", ""), NO_FEATURES, 60.0, begin_seconds=20.0, window_seconds=10.0)

    def codes(text: str, logprob: float = -0.2, no_speech: float = 0.1, hit_limit: bool = False) -> list[str]:
        confidence = TranscriptConfidence(logprob, no_speech, 1.0, 0.0)
        found = signs_of(window, WindowTranscript(text, [1, 2], hit_limit, None, [], confidence))
        assert all((sign.begin, sign.end) == (20.0, 30.0) for sign in found)
        return [sign.code for sign in found]

    assert codes("a plain sentence") == []
    assert codes("да да да да") == ["loop"]
    assert codes("你好吗你好吗你好吗你好吗" * 3) == ["loop"]
    assert codes("thank you", logprob=-1.5, no_speech=0.9) == ["no_speech"]
    assert codes("thank you", logprob=-1.5) == ["unlikely"]
    assert codes("one two three", hit_limit=True) == ["token_limit"]
