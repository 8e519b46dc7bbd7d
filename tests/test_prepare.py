"""Preparing: any source becomes shards that are the same source, whatever stopped it on the way."""

import fcntl
import gzip
import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from datasets import Dataset

from tests.conftest import ROOT, START_SECONDS, Trainer, environment
from tests.elsewhere import serve
from tests.preparing import Prepare, arguments
from whisper_ft.cli.prepare.ahead import ReadAhead
from whisper_ft.cli.prepare.shards import ShardPass
from whisper_ft.config.data import SourceConfig
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.sources import open_source
from whisper_ft.data.types import Row
from whisper_ft.runtime.errors import DataError

RATE = 22_050  # not the model's
WHOLE = 4.0  # seconds of the recording


def rows_of(path: Path) -> list[Row]:
    source = open_source(SourceConfig(path=str(path)))
    return [row for chunk in range(len(source.rows)) for row in source.read(chunk)]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A folder with a recording of two channels, a short 48 kHz MP3, and a file that is no audio."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (round(WHOLE * RATE), 2))
    soundfile.write(folder / "long.wav", noise, RATE, subtype="PCM_16")
    soundfile.write(folder / "one.wav", noise[:, 0], RATE, subtype="PCM_16")
    soundfile.write(folder / "short.mp3", np.zeros(48_000), 48_000)
    (folder / "noise.wav").write_bytes(b"no audio at all")
    return folder


def write_lines(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def files_of(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_what_is_prepared_is_the_same_source(corpus: Path, tmp_path: Path, prepare: Prepare):
    code, said = prepare(corpus / "train", tmp_path / "out", shard_mb=0.5, group_mb=0.1)
    shards = sorted((tmp_path / "out").glob("*.parquet"))
    assert (code, said) == (0, f"{tmp_path / 'out'}: 100 rows in {len(shards)} shards\n")
    assert [path.name for path in shards] == [f"train-{n:05d}-of-{len(shards):05d}.parquet" for n in range(len(shards))]
    assert len(shards) > 1
    before, after = rows_of(corpus / "train"), rows_of(tmp_path / "out")
    for name in ("audio", "text", "language", "task", "speaker"):
        assert [getattr(row, name) for row in before] == [getattr(row, name) for row in after]
    assert pq.read_table(shards[0])["audio"][0]["path"].as_py() == before[0].id
    assert not (tmp_path / "out" / "left-out.jsonl").exists()


def test_shards_and_row_groups_are_filled_up_to_their_sizes(corpus: Path, tmp_path: Path, prepare: Prepare):
    prepare(corpus / "train", tmp_path / "out", shard_mb=0.5, group_mb=0.1)
    shards = [open_source(SourceConfig(path=str(path))) for path in sorted((tmp_path / "out").glob("*.parquet"))]
    sizes = [
        [[len(row.audio) + len(row.text.encode()) for row in one.read(g)] for g in range(len(one.rows))]
        for one in shards
    ]
    for of_shard in sizes:
        assert sum(map(sum, of_shard)) <= 500_000
        for group, following in pairwise(of_shard):
            assert sum(group) <= 100_000 < sum(group) + following[0]
    assert all(sum(map(sum, of_shard)) > 400_000 for of_shard in sizes[:-1]), "no room for another group"


def test_a_row_that_is_larger_than_a_group_or_a_shard_has_its_own(corpus: Path, tmp_path: Path, prepare: Prepare):
    assert prepare(corpus / "test", tmp_path / "out", shard_mb=0.00001, group_mb=0.00001)[0] == 0
    assert [pq.read_metadata(path).num_rows for path in sorted((tmp_path / "out").glob("*.parquet"))] == [1] * 12


def test_a_segment_becomes_its_own_clip_at_the_rate_of_its_recording(recording: Path, prepare: Prepare, tmp_path: Path):
    segments = [(0.0, 1.5), (1.25, 1.0), (3.0, None), (0.0, 2.0)]
    names = ["long.wav", "long.wav", "long.wav", "one.wav"]
    lines = [
        {"audio": name, "text": f"сказ {n}", "offset": offset, "duration": duration}
        for n, (name, (offset, duration)) in enumerate(zip(names, segments, strict=True))
    ]
    assert prepare(write_lines(recording / "list.jsonl", *lines), tmp_path / "out")[0] == 0
    for row, name, (offset, duration) in zip(rows_of(tmp_path / "out"), names, segments, strict=True):
        heard = decode((recording / name).read_bytes(), RATE, 30.0, offset, duration)
        prepared = decode(row.audio, RATE, 30.0)
        assert row.audio.startswith(b"fLaC")
        assert len(heard) == len(prepared)
        # Half a step of 16 bits where two channels were averaged; of one nothing is lost.
        assert np.abs(heard - prepared).max() <= (0.0 if name == "one.wav" else 2.0**-16)


@pytest.mark.parametrize(("stated", "is_kept"), [(1.0, True), (0.95, True), (1.3, True), (0.8, False)])
def test_a_file_whose_whole_length_a_list_states_keeps_its_bytes(
    recording: Path, tmp_path: Path, prepare: Prepare, stated: float, is_kept: bool
):
    listed = write_lines(
        recording / "list.jsonl", {"audio": "short.mp3", "text": "сказ", "offset": 0, "duration": stated}
    )
    prepare(listed, tmp_path / "out")
    assert (rows_of(tmp_path / "out")[0].audio == (recording / "short.mp3").read_bytes()) == is_kept


def test_rows_that_cannot_be_used_are_left_out_and_named(recording: Path, tmp_path: Path, prepare: Prepare):
    lines = [
        {"audio": "gone.wav", "text": "a"},
        {"audio": "one.wav", "text": "добра", "lang": "be", "speaker": 7},
        {"audio": "one.wav", "text": "b", "offset": 60},
        {"audio": "noise.wav", "text": "c", "offset": 1},
        {"audio": "one.wav", "text": "d", "task": "translate"},
        {"audio": "one.wav", "text": 5, "id": "five"},
        {"audio": "odd.wav", "text": "e", "offset": 0.5},
    ]
    soundfile.write(recording / "odd.wav", np.zeros(100_000), 70_001)
    code, said = prepare(write_lines(recording / "list.jsonl", *lines), tmp_path / "out", data__language="sv")
    assert code == 0
    assert "2 rows in 1 shard; 5 rows left out (" in said
    left_out = [json.loads(x) for x in (tmp_path / "out/left-out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(x["id"], x["reason"]) for x in left_out] == [
        ("gone.wav", "missing_file"),
        ("one.wav@60", "segment_outside"),
        ("noise.wav@1", "decode_error"),
        ("five", "bad_label"),
        ("odd.wav@0.5", "decode_error"),  # FLAC has no such rate
    ]
    kept = [(row.text, row.language, row.task, row.speaker) for row in rows_of(tmp_path / "out")]
    assert kept == [("добра", "sv", None, "7"), ("d", "sv", "translate", None)]


def test_a_text_that_is_no_text_is_left_out(recording: Path, tmp_path: Path, prepare: Prepare):
    (recording / "wav.scp").write_text("a one.wav\nb one.wav\n", encoding="utf-8")
    (recording / "text").write_bytes("a добра\nb ".encode() + b"\xff\n")
    assert prepare(recording, tmp_path / "out")[1].endswith(
        f"1 row left out (bad_label 1): {tmp_path}/out/left-out.jsonl\n"
    )
    assert [row.text for row in rows_of(tmp_path / "out")] == ["добра"]


def test_where_no_row_can_be_used_there_is_no_source(recording: Path, tmp_path: Path, prepare: Prepare):
    listed = write_lines(recording / "list.jsonl", {"audio": "gone.wav", "text": "a"})
    for _ in range(2):
        code, said = prepare(listed, tmp_path / "out")
        assert code == 4
        assert "left-out.jsonl" in said
    assert not list((tmp_path / "out").glob("*.parquet"))


@pytest.mark.parametrize("name", ["list.json", "list.json.gz"])
@pytest.mark.parametrize("is_wrapped", [False, True])
def test_a_json_file_that_is_one_list_is_read(
    recording: Path, tmp_path: Path, prepare: Prepare, name: str, is_wrapped: bool
):
    items = [{"audio": "one.wav", "text": "адзін"}, "odd", {"audio": "short.mp3", "text": "два"}]
    content = json.dumps({"data": items} if is_wrapped else items, indent=2, ensure_ascii=False).encode("utf-8-sig")
    (recording / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    code, said = prepare(recording / name, tmp_path / "out")
    assert code == 0
    assert "1 row left out (bad_line 1)" in said
    rows = rows_of(tmp_path / "out")
    assert [row.text for row in rows] == ["адзін", "два"]
    assert rows[1].audio == (recording / "short.mp3").read_bytes()


@pytest.mark.long
def test_what_training_refuses_for_want_of_random_access_is_prepared_and_then_trained_on(
    train: Trainer, corpus: Path, tmp_path: Path, prepare: Prepare
):
    clips, listed = rows_of(corpus / "train")[:16], tmp_path / "list.json.gz"
    for number, clip in enumerate(clips):
        (tmp_path / f"{number}.audio").write_bytes(clip.audio)
    content = json.dumps([{"audio": f"{n}.audio", "text": clip.text} for n, clip in enumerate(clips)]).encode()
    listed.write_bytes(gzip.compress(content))
    refused = train.end("run", data__path=listed)
    assert refused.code == 2
    assert "`python -m whisper_ft prepare` writes it as parquet" in refused.err
    assert prepare(listed, tmp_path / "out")[0] == 0
    trained = train("run", data__path=tmp_path / "out", steps=2, eval__every=0)
    assert (trained / "final" / "model.safetensors").exists()


def test_what_a_python_generator_yields_is_prepared_by_way_of_save_to_disk(
    corpus: Path, tmp_path: Path, prepare: Prepare, capsys: pytest.CaptureFixture[str]
):
    """The way that --help names."""
    rows = rows_of(corpus / "test")

    def yielded() -> Iterator[dict[str, Any]]:
        for row in rows:
            yield {"audio": {"bytes": row.audio, "path": None}, "sentence": row.text}

    made = Dataset.from_generator(yielded, cache_dir=str(tmp_path / "cache"))
    made.save_to_disk(tmp_path / "saved")
    capsys.readouterr()  # its bars
    assert prepare(tmp_path / "saved", tmp_path / "out")[0] == 0
    assert [(row.audio, row.text) for row in rows_of(tmp_path / "out")] == [(row.audio, row.text) for row in rows]


def test_a_json_list_without_known_columns_is_refused_by_its_own_name(
    recording: Path, tmp_path: Path, prepare: Prepare
):
    (recording / "list.json").write_text('[{"sound": "one.wav", "text": "a"}]', encoding="utf-8")
    code, said = prepare(recording / "list.json", tmp_path / "out")
    assert code == 2
    assert said.startswith(f"error: {recording / 'list.json'}: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_killed_at_any_time_it_goes_on_to_the_same_bytes(
    corpus: Path, tmp_path: Path, recording: Path, prepare: Prepare
):
    clips = [row.audio for row in rows_of(corpus / "train")]
    for number, clip in enumerate(clips):
        (recording / f"{number}.audio").write_bytes(clip)
    lines = [{"audio": f"{n}{'' if n % 7 == 3 else '.audio'}", "text": f"сказ {n}"} for n in range(len(clips))]
    listed, sizes = write_lines(recording / "list.jsonl", *lines), {"shard_mb": 0.04, "group_mb": 0.02}
    prepare(listed, tmp_path / "whole", **sizes)
    whole, out = files_of(tmp_path / "whole"), tmp_path / "out"
    assert len(whole) > 40

    for target in ("shard-00003.part", ".tmp-shard", "shard-00021.part"):
        (out / target).unlink(missing_ok=True)  # of the process killed before
        command = [sys.executable, "-m", "whisper_ft.prepare", *arguments(listed, out, **sizes)]
        started = subprocess.Popen(command, cwd=ROOT, env=environment(1), stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while not (out / target).exists():
            assert started.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline, "it did not get that far"
            time.sleep(0.0005)
        started.send_signal(signal.SIGKILL)
        started.wait(START_SECONDS)
        assert not list(out.glob("*.parquet"))
    with (out / "left-out.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "half a li')  # of a process that was killed while it wrote
    code, said = prepare(out, tmp_path / "other")
    assert code == 2, f"half a data set is no source: {said}"
    assert prepare(listed, out, **sizes)[0] == 0
    assert files_of(out) == whole


@pytest.mark.long
@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("while it starts", marks=pytest.mark.matrix),
        pytest.param("while it writes", marks=pytest.mark.matrix),
        "while it cuts",
    ],
)
def test_ctrl_c_ends_it_in_one_line_and_the_same_command_goes_on(
    corpus: Path, recording: Path, tmp_path: Path, prepare: Prepare, moment: str
):
    out, sizes = tmp_path / "out", {"shard_mb": 0.2, "group_mb": 0.1}
    segments = [{"audio": "long.wav", "text": f"{n}", "offset": n / 1000, "duration": 3.0} for n in range(60)]
    data = write_lines(recording / "list.jsonl", *segments) if moment == "while it cuts" else corpus / "train"
    command = [sys.executable, "-m", "whisper_ft.prepare", *arguments(data, out, **sizes)]
    started = subprocess.Popen(
        command, cwd=ROOT, env=environment(1), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + START_SECONDS
    while not ("pyarrow" in maps(started.pid) if moment == "while it starts" else (out / "shard-00001.part").exists()):
        assert started.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=START_SECONDS)
    assert (started.returncode, err.count("\n")) == (75, 1)
    assert err.startswith("stopped")
    assert not list(out.glob("*.parquet"))
    assert prepare(data, out, **sizes)[0] == 0
    prepare(data, tmp_path / "whole", **sizes)
    assert files_of(out) == files_of(tmp_path / "whole")


OLD_STATE = ("chunk", "row", "shards", "rows", "left_out", "left_out_bytes", "is_finished")
"""Fields of the progress before there were windows, splits and an order by speaker."""


def test_a_folder_of_an_earlier_version_goes_on_to_the_same_bytes(
    corpus: Path, tmp_path: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
):
    out, sizes = tmp_path / "out", {"shard_mb": 0.2, "group_mb": 0.1}
    assert prepare(corpus / "train", tmp_path / "whole", **sizes)[0] == 0
    write = ShardPass._write_file

    def write_one(self: Any, *given: Any) -> None:
        write(self, *given)
        raise KeyboardInterrupt

    monkeypatch.setattr(ShardPass, "_write_file", write_one)
    assert prepare(corpus / "train", out, **sizes)[0] == 75
    monkeypatch.undo()
    record = json.loads((out / "prepared.json").read_text())
    record["state"] = {name: record["state"][name] for name in OLD_STATE}
    (out / "prepared.json").write_text(json.dumps(record))
    assert prepare(corpus / "train", out, **sizes)[0] == 0
    names = sorted(path.name for path in (tmp_path / "whole").glob("*.parquet"))
    assert len(names) > 2
    assert all((out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in names)


def maps(pid: int) -> str:
    """Memory maps of a process, with the libraries it has loaded."""
    return Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.long
def test_what_lies_elsewhere_becomes_the_same_bytes(corpus: Path, tmp_path: Path, prepare: Prepare):
    table = pa.concat_tables(map(pq.read_table, sorted((corpus / "train").glob("*.parquet"))))
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=7)
    prepare(tmp_path / "train.parquet", tmp_path / "near", shard_mb=0.5, group_mb=0.1)
    with serve(tmp_path) as elsewhere:
        code, _ = prepare(f"{elsewhere.address}/files/train.parquet", tmp_path / "far", shard_mb=0.5, group_mb=0.1)
    assert code == 0
    near, far = (
        {name: content for name, content in files_of(tmp_path / folder).items() if name.endswith(".parquet")}
        for folder in ("near", "far")
    )
    assert len(near) > 1
    assert near == far


class Chunks:
    """A source of chunks of one size, of one row each; number 3 cannot be read."""

    def __init__(self, size: int) -> None:
        self.rows = [1] * 20
        self.read_so_far: list[int] = []
        self._size = size

    def read(self, chunk: int) -> list[Row]:
        self.read_so_far.append(chunk)
        if chunk == 3:
            raise DataError("number 3")
        return [Row(str(chunk), bytes(self._size), "")]


@pytest.mark.parametrize(("megabytes", "ahead"), [(1, 4), (100, 2), (300, 0)])
def test_chunks_are_read_ahead_as_far_as_memory_is_bounded(megabytes: int, ahead: int):
    source: Any = Chunks(megabytes * 1_000_000)
    with ReadAhead(source) as chunks:
        assert [row.id for number in (0, 1, 2) for row in chunks.read(number)] == ["0", "1", "2"]
        with pytest.raises(DataError, match="number 3"):
            chunks.read(3)
        assert chunks.read(4)[0].id == "4"
        deadline = time.monotonic() + START_SECONDS
        while len(source.read_so_far) < 5 + ahead:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    assert sorted(source.read_so_far) == list(range(5 + ahead)), "each once"


def test_what_is_finished_is_left_as_it_is(corpus: Path, tmp_path: Path, prepare: Prepare):
    prepare(corpus / "test", tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    code, said = prepare(corpus / "test", tmp_path / "out")
    assert (code, said) == (0, f"nothing to do: {tmp_path / 'out'}: 12 rows in 1 shard\n")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} | {
        tmp_path / "out/.lock": 0
    } == before | {tmp_path / "out/.lock": 0}


@pytest.mark.parametrize(
    ("split", "settings", "told"),
    [
        ("validation", {}, "another source"),
        ("test", {"group_mb": 8}, "--group_mb was 16.0, is 8.0"),
        ("test", {"data__language": "be"}, "--data.language was None, is 'be'"),
    ],
)
def test_another_source_or_setting_is_refused(
    corpus: Path, tmp_path: Path, prepare: Prepare, split: str, settings: dict[str, Any], told: str
):
    prepare(corpus / "test", tmp_path / "out")
    before = files_of(tmp_path / "out")
    code, said = prepare(corpus / split, tmp_path / "out", **settings)
    assert code == 2
    assert told in said
    assert files_of(tmp_path / "out") == before


def test_a_split_that_others_know_names_the_files(corpus: Path, tmp_path: Path, prepare: Prepare):
    assert prepare(corpus / "test", tmp_path / "out", data__split="test")[0] == 0
    assert (tmp_path / "out" / "test-00000-of-00001.parquet").exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"data.path": "nowhere"}, "--data.path nowhere: there is no such file or folder"),
        ({"data.path": ""}, "--data.path is missing"),
        ({"out": "{corpus}/validation"}, "holds other files"),
        ({"out": "{corpus}/test"}, "--data.path {corpus}/test"),
        ({"out": "{corpus}/test/new/../out"}, "--data.path {corpus}/test"),
        ({"out": "{here}/link/out"}, "--data.path {corpus}/test"),
        ({"out": "{here}/file"}, "is a file, a folder is needed"),
        ({"group_mb": "0"}, "--group_mb must be above 0 and at most 1000"),
        ({"shard_mb": "-1"}, "--shard_mb must be above 0"),
        ({"group_md": "1"}, "did you mean 'group_mb'?"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    corpus: Path, tmp_path: Path, prepare: Prepare, settings: dict[str, str], told: str
):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(corpus / "test")
    before = sorted(corpus.rglob("*"))
    given = {name: value.format(corpus=corpus, here=tmp_path) for name, value in settings.items()}
    code, said = prepare(corpus / "test", tmp_path / "out", **given)
    assert code == 2
    assert told.format(corpus=corpus) in said
    assert not (tmp_path / "out").exists()
    assert sorted(corpus.rglob("*")) == before


def test_two_do_not_write_to_one_folder(corpus: Path, tmp_path: Path, prepare: Prepare):
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, said = prepare(corpus / "test", tmp_path / "out")
    assert code == 7
    assert str(tmp_path / "out") in said
    assert prepare(corpus / "test", tmp_path / "out")[0] == 0
