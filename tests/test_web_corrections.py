"""Corrected recordings: kept atomically in a folder that is a source of training data, and deleted there."""

import io
import json
import os
import shlex
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("starlette", reason="needs the extra [web]")
from starlette.applications import Starlette
from starlette.testclient import TestClient

from whisper_ft.config.data import SourceConfig
from whisper_ft.config.parse import load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.formats.detect import format_of
from whisper_ft.data.sources import open_source
from whisper_ft.runtime.errors import DataError, RunError, UsageError
from whisper_ft.training.preflight import refuse_impossible
from whisper_ft.web.api_error import ApiError, answer_error
from whisper_ft.web.corrections import AUDIO, METADATA, CorrectedPart, Corrections, Provenance, parts_of
from whisper_ft.web.page_routes import page_routes

RATE = 16_000
ADA = Provenance("Ada", "my own voice", "be", "transcribe", "best, step 400")


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.3, 0.3, round(seconds * RATE)).astype(np.float32)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "talk.flac"
    soundfile.write(path, noise(6), RATE)
    return path


@pytest.fixture
def corrections(tmp_path: Path) -> Corrections:
    return Corrections(tmp_path / "kept")


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    routes = page_routes(tmp_path / "kept", lambda name: f"runs/mine/{name}")
    return TestClient(Starlette(routes=routes, exception_handlers={ApiError: answer_error}))


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {".lock"}


def test_the_folder_is_a_source_of_training_data_as_it_is(corrections: Corrections, recording: Path):
    corrections.add(recording, [CorrectedPart(0, 2.5, " Добры  дзень! "), CorrectedPart(2.5, 6, "Сябры")], ADA)
    assert format_of(str(corrections.folder)) == "audiofolder"
    source = open_source(SourceConfig(path=str(corrections.folder)))
    rows = [row for chunk in range(len(source.rows)) for row in source.read(chunk)]
    assert [(row.text, row.speaker, row.language, row.task) for row in rows] == [
        ("Добры дзень!", "Ada", "be", "transcribe"),
        ("Сябры", "Ada", "be", "transcribe"),
    ]
    kept = [decode(row.audio, RATE, 30) for row in rows]
    np.testing.assert_allclose(np.concatenate(kept), noise(6), atol=1e-4)  # 16 bits
    assert [row["consent"] for row in corrections.rows()] == ["my own voice"] * 2


def test_a_recording_of_another_rate_is_kept_as_whisper_hears_it(corrections: Corrections, tmp_path: Path):
    soundfile.write(tmp_path / "talk.wav", np.tile(noise(6)[:, None], (1, 2)), 48_000)
    (name,) = corrections.add(tmp_path / "talk.wav", [CorrectedPart(0.5, 2, "Сябры")], ADA)
    path = corrections.audio_of(name)
    assert path is not None
    kept = soundfile.info(path)
    assert (kept.samplerate, kept.channels, kept.frames) == (RATE, 1, 24_000)


@pytest.mark.parametrize(
    ("parts", "origin", "kind", "fact"),
    [
        ([CorrectedPart(0, 2, "one"), CorrectedPart(5, 9, "two")], ADA, DataError, "5 to 9"),
        ([], ADA, UsageError, "text"),
        ([CorrectedPart(0, 31, "one")], ADA, UsageError, "30"),
        ([CorrectedPart(0, float("nan"), "one")], ADA, UsageError, "nan"),
        ([CorrectedPart(-1, 2, "one")], ADA, UsageError, "-1"),
        ([CorrectedPart(0, 2, "one " * 1000)], ADA, UsageError, "text"),
        ([CorrectedPart(0, 2, "one")], Provenance("Ada", " "), UsageError, "consent"),
    ],
)
def test_of_what_cannot_be_kept_nothing_is_kept(
    corrections: Corrections,
    recording: Path,
    parts: list[CorrectedPart],
    origin: Provenance,
    kind: type[RunError],
    fact: str,
):
    with pytest.raises(kind) as error:
        corrections.add(recording, parts, origin)
    assert fact in str(error.value)
    assert not corrections.rows()
    assert not files_in(corrections.folder)


def test_no_audio_is_kept_of_a_text_file(corrections: Corrections, tmp_path: Path):
    (tmp_path / "notes.wav").write_text("no sound")
    with pytest.raises(DataError):
        corrections.add(tmp_path / "notes.wav", [CorrectedPart(0, 1, "one")], ADA)
    assert not files_in(corrections.folder)


def test_audio_that_a_killed_process_left_is_removed_and_other_files_stay(corrections: Corrections, recording: Path):
    (kept,) = corrections.add(recording, [CorrectedPart(0, 1, "one")], ADA)
    audio = corrections.folder / AUDIO
    for name in ("20260101-000000-0123abcd.wav", ".tmp-20260101-000000-0123abcd.wav", "mine.wav"):
        (audio / name).write_bytes(b"RIFF")
    (second,) = corrections.add(recording, [CorrectedPart(1, 2, "two")], ADA)
    assert {path.name for path in audio.iterdir()} == {f"{kept}.wav", f"{second}.wav", "mine.wav"}


def test_a_kill_leaves_whole_corrections_only(corrections: Corrections, recording: Path):
    child = os.fork()
    if not child:
        try:
            while True:
                corrections.add(recording, [CorrectedPart(0, 1, "one"), CorrectedPart(1, 2, "two")], ADA)
        finally:
            os._exit(1)
    while len(corrections.rows()) < 8:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended by itself"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    rows = corrections.rows()
    assert [row["text"] for row in rows] == ["one", "two"] * (len(rows) // 2)
    assert all(soundfile.info(corrections.folder / row["file_name"]).frames == RATE for row in rows)
    corrections.add(recording, [CorrectedPart(0, 1, "three")], ADA)
    assert files_in(corrections.folder) == {METADATA, *(row["file_name"] for row in corrections.rows())}


def test_corrections_of_many_threads_are_all_kept(corrections: Corrections, recording: Path):
    def add(number: int) -> None:
        Corrections(corrections.folder).add(recording, [CorrectedPart(0, 0.5, f"text {number}")], ADA)

    threads = [threading.Thread(target=add, args=[number]) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = corrections.rows()
    assert {row["text"] for row in rows} == {f"text {number}" for number in range(12)}
    assert files_in(corrections.folder) == {METADATA, *(row["file_name"] for row in rows)}


def test_a_deleted_correction_leaves_neither_line_nor_audio(corrections: Corrections, recording: Path):
    first, second = corrections.add(recording, [CorrectedPart(0, 1, "one"), CorrectedPart(1, 2, "two")], ADA)
    assert corrections.delete(first)
    assert [row["text"] for row in corrections.rows()] == ["two"]
    assert files_in(corrections.folder) == {METADATA, f"{AUDIO}/{second}.wav"}
    assert first not in (corrections.folder / METADATA).read_text()
    assert not corrections.delete(first)


@pytest.mark.parametrize("name", ["../../talk", "", "..", "/etc/passwd", "20260101-000000-0123abcd/../x"])
def test_an_id_leads_to_no_other_file(corrections: Corrections, recording: Path, name: str):
    corrections.add(recording, [CorrectedPart(0, 1, "one")], ADA)
    assert corrections.audio_of(name) is None
    assert not corrections.delete(name)
    assert recording.exists()


def test_the_command_trains_on_the_corrections(corrections: Corrections, recording: Path, micro_whisper: Path):
    corrections.add(recording, [CorrectedPart(0, 1, "one")], ADA)
    program, *arguments = shlex.split(corrections.training_command(str(micro_whisper)))
    assert program == "./launch.sh"
    config = load_config(TrainingConfig, arguments)
    refuse_impossible(config)
    assert (config.data.path, config.data.language) == (str(corrections.folder), "be")


def test_parts_without_a_text_are_left_out():
    parts = parts_of(
        '[{"start": 0, "end": 1.5, "text": "one", "hypothesis": "won"}, {"start": 2, "end": 3, "text": " "}]'
    )
    assert parts == [CorrectedPart(0, 1.5, "one", "won")]


@pytest.mark.parametrize(
    "value", ["", "{}x", "3", '[{"start": 0}]', '[{"start": "a", "end": 1, "text": "b"}]', "[" * 9999]
)
def test_parts_that_are_none_are_refused(value: str):
    with pytest.raises(UsageError):
        parts_of(value)


def test_routes_keep_list_play_and_delete(client: TestClient, recording: Path, tmp_path: Path):
    parts = json.dumps([{"start": 0, "end": 2, "text": "Сябры", "hypothesis": "сябра"}])
    fields = {"parts": parts, "speaker": "Ada", "consent": "my own voice", "language": "be", "model": "best, step 400"}
    answer = client.post("/api/corrections", data=fields, files={"file": ("talk.flac", recording.read_bytes())})
    assert answer.status_code == 200, answer.text
    (name,) = answer.json()["ids"]

    kept = client.get("/api/corrections", params={"model": "latest"}).json()
    assert [(row["id"], row["text"], row["hypothesis"], row["model"]) for row in kept["rows"]] == [
        (name, "Сябры", "сябра", "best, step 400")
    ]
    assert kept["seconds"] == 2
    assert "runs/mine/latest" in shlex.split(kept["command"])
    sound = client.get(f"/api/corrections/{name}.wav")
    assert sound.headers["content-type"] == "audio/wav"
    assert soundfile.info(io.BytesIO(sound.content)).frames == 2 * RATE
    assert client.delete(f"/api/corrections/{name}").status_code == 204
    assert client.get(f"/api/corrections/{name}.wav").status_code == 404
    assert client.delete(f"/api/corrections/{name}").json()["error"]["code"] == "no_correction"
    assert files_in(tmp_path / "kept") == {METADATA}


def test_a_refused_correction_says_why(client: TestClient, recording: Path):
    fields = {"parts": json.dumps([{"start": 0, "end": 2, "text": "Сябры"}]), "consent": ""}
    file = {"file": ("talk.flac", recording.read_bytes())}
    answer = client.post("/api/corrections", data=fields, files=file)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_value")
    answer = client.post("/api/corrections", data=fields | {"consent": "mine"}, files={"file": ("a.wav", b"no sound")})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "not_audio")
    answer = client.post("/api/corrections", data=fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "no_file")
