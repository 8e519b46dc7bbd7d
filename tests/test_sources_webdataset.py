"""WebDataset: shards and samples from the headers alone, chunks in one request, and no sample that shifts another."""

import io
import json
import os
import pickle
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import soundfile
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from tests.elsewhere import Elsewhere, serve
from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats import tar_samples, webdataset
from whisper_ft.data.formats.webdataset import open_webdataset
from whisper_ft.runtime.errors import DataError, RunError, UsageError

File = tuple[str, bytes]


def audio(kind: str = "FLAC", seconds: float = 0.1) -> bytes:
    held = io.BytesIO()
    soundfile.write(held, np.sin(np.arange(int(seconds * 16000)) * 0.2) * 0.3, 16000, format=kind)
    return held.getvalue()


FLAC, MP3 = audio(), audio("MP3")


def shard(path: Path, *files: File) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def spoken(*keys: str, text: str = "сказ") -> list[File]:
    return [part for key in keys for part in ((f"{key}.flac", FLAC), (f"{key}.txt", f"{text} {key}\n".encode()))]


def as_json(**described: Any) -> bytes:
    return json.dumps(described, ensure_ascii=False).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shard(tmp_path / "set" / "a-000.tar", *spoken(*(f"{i:03}" for i in range(70))))
    shard(tmp_path / "set" / "a-001.tar", *spoken("x", "y"))
    shard(tmp_path / "set" / "deep" / "b.tar", *spoken("z"))
    return tmp_path / "set"


def opened(path: Path | str, cache: Path | None = None, **settings: str) -> webdataset.WebDataset:
    return open_webdataset(SourceConfig(path=str(path), **settings), cache)


def rows_of(path: Path, **settings: str) -> list[Any]:
    source = opened(path, **settings)
    rows = [row for chunk in range(len(source.rows)) for row in source.read(chunk)]
    assert [row.id for row in rows] == [
        source.row_id(chunk, row) for chunk, size in enumerate(source.rows) for row in range(size)
    ]
    return rows


def refused(path: Path | str, **settings: str) -> RunError:
    with pytest.raises(RunError) as error:
        opened(path, **settings)
    assert "\n" not in str(error.value)
    return error.value


def test_chunks_are_runs_of_samples_of_one_shard(folder: Path):
    source = opened(folder)
    assert source.rows == [32, 32, 6, 2, 1]
    assert (source.row_id(1, 0), source.row_id(3, 1), source.row_id(4, 0)) == (
        *("a-000.tar#032", "a-001.tar#y", "deep/b.tar#z"),
    )
    row = source.read(1)[5]
    assert (row.id, row.text, row.audio, row.problem) == ("a-000.tar#037", "сказ 037", FLAC, None)
    rows_of(folder)


@pytest.mark.parametrize(
    ("path", "shards"),
    [
        ("a-001.tar", ["a-001.tar"]),
        ("a-*.tar", ["a-000.tar", "a-001.tar"]),
        ("a-{000..001}.tar", ["a-000.tar", "a-001.tar"]),
        ("a-{001,000,001}.tar", ["a-001.tar", "a-000.tar"]),
        ("a-00{0..1}.tar", ["a-000.tar", "a-001.tar"]),
        ("{deep/b,a-{000..000}}.tar", ["deep/b.tar", "a-000.tar"]),
        ("{a-00?,deep/*}.tar", ["a-000.tar", "a-001.tar", "deep/b.tar"]),
        ("**/*.tar", ["a-000.tar", "a-001.tar", "deep/b.tar"]),
        (".", ["a-000.tar", "a-001.tar", "deep/b.tar"]),
    ],
)
@pytest.mark.parametrize("remote", [False, True])
def test_a_path_a_glob_and_braces_name_shards_here_and_far_away(
    folder: Path, path: str, shards: list[str], remote: bool
):
    where = f"{folder}/{path}" if path != "." else str(folder)
    if remote:
        memory = fsspec.filesystem("memory")
        memory.put(str(folder), f"/wds{folder}", recursive=True)
        where = f"memory://wds{where}"
    source = opened(where)
    ids = [source.row_id(chunk, row) for chunk, size in enumerate(source.rows) for row in range(size)]
    assert list(dict.fromkeys(name.split("#")[0] for name in ids)) == shards
    assert [row.audio for row in source.read(0)] == [FLAC] * source.rows[0]


def test_a_name_that_is_there_is_meant_literally(tmp_path: Path):
    assert len(rows_of(shard(tmp_path / "br{1,2}[3]" / "a{0..5}*.tar", *spoken("x", "y")))) == 2
    assert len(rows_of(tmp_path / "br{1,2}[3]")) == 2


def test_a_chunk_is_one_request_of_what_it_needs_and_far_parts_of_a_shard_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    video = [("b.mp4", bytes(3 * 2**20))]
    path = shard(tmp_path / "a.tar", *spoken("a"), *video, *spoken("b", "c"))
    memory = fsspec.filesystem("memory")
    memory.pipe("/one.tar", shard(tmp_path / "one.tar", *spoken("a", "b", "c")).read_bytes())
    memory.pipe("/gap.tar", path.read_bytes())
    read = list[int]()
    cat_file = MemoryFileSystem.cat_file

    def counted(self: MemoryFileSystem, path: str, start: int, end: int) -> bytes:
        read.append(end - start)
        return bytes(cat_file(self, path, start, end))

    monkeypatch.setattr(MemoryFileSystem, "cat_file", counted)
    assert [row.text for row in opened("memory://one.tar").read(0)] == ["сказ a", "сказ b", "сказ c"]
    assert len(read) == 1
    assert [row.audio for row in opened("memory://gap.tar").read(0)] == [FLAC] * 3
    assert len(read) == 3
    assert sum(read) < 2**17


def test_long_recordings_make_short_chunks(tmp_path: Path):
    files = [(f"{i}.{kind}", bytes(size)) for i in range(5) for kind, size in (("wav", 6 * 2**20), ("txt", 3))]
    assert opened(shard(tmp_path / "a.tar", *files)).rows == [2, 2, 1]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([("a.mp3", MP3), ("a.txt", "\ufeff так \r\n".encode())], {"audio": MP3, "text": "так"}),
        ([("a.json", as_json(sentence="так")), ("a.FLAC", FLAC)], {"audio": FLAC, "text": "так"}),
        ([("a.b/1.48k.flac", FLAC), ("a.b/1.cls", b"0"), ("a.b/1.txt", b"x")], {"text": "x"}),
        ([("./a.mp3", MP3), ("./a.wav", FLAC), ("./a.txt", b"x")], {"audio": FLAC}),
        (
            [("a.flac", FLAC), ("a.json", as_json(text="x", language="be", task="translate", client_id=7))],
            {"language": "be", "task": "translate", "speaker": "7"},
        ),
        (
            [("a.flac", FLAC), ("a.txt", b"x"), ("a.json", as_json(text="y", lang="be"))],
            {"text": "x", "language": None},
        ),
    ],
)
def test_audio_text_and_what_is_said_of_them_are_found_by_type(
    tmp_path: Path, files: Sequence[File], expected: dict[str, Any]
):
    (row,) = rows_of(shard(tmp_path / "a.tar", *files))
    assert {name: getattr(row, name) for name in expected} == expected
    assert row.problem is None


def test_the_column_that_is_set_is_the_text_also_where_there_is_another(tmp_path: Path):
    path = shard(tmp_path / "a.tar", ("a.flac", FLAC), ("a.txt", b"x"), ("a.json", as_json(text="y", raw="z")))
    assert [row.text for row in rows_of(path, text_column="raw")] == ["z"]


@pytest.mark.parametrize(
    ("bad", "reasons", "text"),
    [
        ([("b.txt", b"b")], ["missing_audio"], "b"),
        ([("b.flac", FLAC)], [None], ""),
        ([("b.png", b"b"), ("b.mkv", b"b")], ["missing_audio"], ""),
        ([("b.flac", FLAC), ("b.txt", b"\xff\xfe\x00")], ["bad_label"], ""),
        ([("b.flac", FLAC), ("b.txt", b"x" * (webdataset.MAX_TEXT_BYTES + 1))], ["bad_label"], ""),
        ([("b.flac", FLAC), ("b.json", b"{")], ["bad_json"], ""),
        ([("b.flac", FLAC), ("b.json", b"[" * 100_000)], ["bad_json"], ""),
        ([("b.flac", FLAC), ("b.json", b"[1]")], ["bad_json"], ""),
        ([("b.flac", FLAC), ("b.json", b"\xff")], ["bad_json"], ""),
        ([("b.flac", FLAC), ("b.json", b'{"text": 5}')], ["bad_label"], ""),
        ([("b.flac", FLAC), ("b.json", b'{"txt": "b"}')], [None], ""),
        ([("b.flac", b""), ("b.txt", b"b")], [None], "b"),
        (spoken("a", text="зноў"), ["duplicate_key"], "зноў a"),
        ([*spoken("b"), *spoken("b", text="зноў")], [None, "duplicate_key"], "сказ b"),
        ([("README", b"text"), ("._b.flac", b"macOS"), ("d/", b"")], [], None),
    ],
)
def test_a_bad_sample_has_a_problem_and_moves_no_other(
    tmp_path: Path, bad: Sequence[File], reasons: list[str | None], text: str | None
):
    rows = rows_of(shard(tmp_path / "a.tar", *spoken("a"), *bad, *spoken("c")))
    assert [row.problem and row.problem[0] for row in rows] == [None, *reasons, None]
    assert [rows[0].text, rows[-1].text] == ["сказ a", "сказ c"]
    assert len({row.id for row in rows}) == len(rows)
    assert text is None or rows[1].text == text


def test_of_a_hostile_shard_nothing_outside_is_read_and_nothing_large_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in {
            "../up.flac": tarfile.REGTYPE,
            "/etc/passwd.flac": tarfile.REGTYPE,
            "l.flac": tarfile.SYMTYPE,
            "d.flac": tarfile.CHRTYPE,
        }.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, "/etc/passwd", 4 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"data"))
        for name, content in [("l.txt", b"link"), ("d.txt", b"device"), *spoken("good"), ("e.wav", bytes(9000))]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    monkeypatch.setattr(tar_samples, "MAX_FILE_BYTES", 8000)
    rows = rows_of(path)
    assert [(row.id, row.problem and row.problem[0]) for row in rows] == [
        ("a.tar#l", "missing_audio"),
        ("a.tar#d", "missing_audio"),
        ("a.tar#good", None),
        ("a.tar#e", "file_too_large"),
    ]
    whole = bytearray(shard(path, *spoken("good")).read_bytes())
    whole[124:136] = b"\x80" + (10**12).to_bytes(11, "big")
    whole[148:156] = b" " * 8
    whole[148:156] = b"%06o\0 " % sum(whole[:512])
    path.write_bytes(whole)
    message = str(refused(path))
    assert message.startswith(f"{path}: ")
    assert "1000000000000 bytes" in message, "the size that is not believed"


def test_a_source_travels_to_other_processes(folder: Path):
    source = opened(folder)
    assert pickle.loads(pickle.dumps(source)).read(3) == source.read(3)


def test_ids_and_fingerprint_stay_when_the_data_moves_and_change_with_it(folder: Path, tmp_path: Path):
    before = opened(folder)
    moved = folder.rename(tmp_path / "elsewhere")
    after = opened(moved)
    assert after.fingerprint() == before.fingerprint()
    assert after.row_id(4, 0) == before.row_id(4, 0)
    shard(moved / "deep" / "b.tar", *spoken("z", text="зноў?"))
    assert opened(moved).fingerprint() != before.fingerprint()


def test_what_is_no_set_of_shards_is_refused_in_one_line(folder: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", f"{folder}/c-*.tar"):
        error = refused(path)
        assert isinstance(error, UsageError)
        assert ".tar" in str(error).removeprefix(str(path))
    assert str(refused(f"{folder}/{{a,c}}-001.tar")).startswith(f"{folder}/c-001.tar: ")
    assert "{5..1}" in str(refused(f"{folder}/{{5..1}}.tar"))
    assert isinstance(refused(f"{folder}/{{0..9999999}}.tar"), UsageError)
    assert "--data.split train" in str(refused(folder, split="train"))
    apart = shard(tmp_path / "apart.tar", ("wav/1.flac", FLAC), ("txt/1.txt", b"x"))
    for path in (apart, shard(tmp_path / "none.tar")):
        error = refused(path)
        assert isinstance(error, DataError)
        assert str(error).startswith(f"{path}: ")
    path = folder / "a-000.tar"
    path.write_bytes(path.read_bytes()[:9000])
    error = refused(folder)
    assert isinstance(error, DataError)
    assert str(error).startswith(f"{path}: "), "the shard that is cut short"


def test_a_shard_that_became_shorter_after_it_was_indexed_is_a_data_error(folder: Path):
    source = opened(folder)
    path = folder / "a-000.tar"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"a-000\.tar: \d+ bytes"):
        source.read(0)
    path.unlink()
    with pytest.raises(DataError, match=r"a-000\.tar: "):
        source.read(0)


@pytest.fixture
def elsewhere(folder: Path) -> Iterator[Elsewhere]:
    with serve(folder) as where:
        yield where


def test_a_shard_behind_http_is_indexed_once_until_it_changes(elsewhere: Elsewhere, folder: Path, tmp_path: Path):
    address, index = f"{elsewhere.address}/files/a-000.tar", tmp_path / "run" / "index"
    first = opened(address, index)
    assert elsewhere.ranges
    elsewhere.forget()
    again = opened(address, index)
    assert elsewhere.ranges == []
    assert (again.rows, again.fingerprint()) == (first.rows, first.fingerprint())
    elsewhere.forget()
    assert [row.audio for row in again.read(1)] == [FLAC] * 32
    assert len(elsewhere.ranges) == 1
    shard(folder / "a-000.tar", *spoken("x", "y", "z"))
    assert opened(address, index).rows == [3]
    assert len(list(index.iterdir())) == 2


def test_shards_of_this_machine_are_indexed_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = opened(folder, tmp_path / "index")
    read = list[str]()
    local_open = LocalFileSystem.open

    def counted(self: LocalFileSystem, path: str, *more: Any, **options: Any) -> Any:
        read.append(path)
        return local_open(self, path, *more, **options)

    monkeypatch.setattr(LocalFileSystem, "open", counted)
    again = opened(folder, tmp_path / "index")
    assert read == []
    assert (again.rows, again.fingerprint()) == (first.rows, first.fingerprint())
    assert again.read(4) == first.read(4)


def test_a_shard_that_another_took_the_place_of_is_indexed_again_though_size_and_time_are_the_same(tmp_path: Path):
    path = shard(tmp_path / "a.tar", *spoken("x", "y"))
    then = path.stat()
    assert [row.id for row in opened(path, tmp_path / "index").read(0)] == ["a.tar#x", "a.tar#y"]
    shard(path, *spoken("1", "2"))
    os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert path.stat().st_size == then.st_size
    assert [row.id for row in opened(path, tmp_path / "index").read(0)] == ["a.tar#1", "a.tar#2"]


@pytest.mark.parametrize("damage", ["empty", "short", "bit"])
def test_a_damaged_index_is_made_again(tmp_path: Path, damage: str):
    path = shard(tmp_path / "a.tar", *spoken("x", "y"))
    before = opened(path, tmp_path / "index").fingerprint()
    (kept,) = (tmp_path / "index").iterdir()
    whole = kept.read_bytes()
    bit = whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]
    kept.write_bytes({"empty": b"", "short": whole[:-10], "bit": bit}[damage])
    assert opened(path, tmp_path / "index").fingerprint() == before
    assert kept.read_bytes() == whole


def test_an_index_made_by_other_rules_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = shard(tmp_path / "a.tar", *spoken("x"), ("y.spx", FLAC), ("y.txt", b"y"))
    assert opened(path, tmp_path / "index").read(0)[1].problem is not None
    monkeypatch.setattr(tar_samples, "AUDIO_TYPES", (*tar_samples.AUDIO_TYPES, "spx"))
    monkeypatch.setattr(tar_samples, "TYPES", (*tar_samples.TYPES, "spx"))
    assert opened(path, tmp_path / "index").read(0)[1].problem is None
