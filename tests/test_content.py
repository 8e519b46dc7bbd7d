"""Content of data files: audio and transcripts that were replaced behind an unchanged list are noticed."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import Trainer
from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.fingerprint import changed, with_content
from whisper_ft.data.sources import open_source
from whisper_ft.data.storage.content import SAMPLED, sampled
from whisper_ft.data.storage.tar import TarArchive

SIZES, SAMPLE, VERSIONS = "other sizes", "other bytes", "other versions"


def clip(number: int, size: int = 20_000) -> bytes:
    """Bytes in place of a clip, since nothing is decoded here."""
    return np.random.default_rng(number).bytes(size)


def manifest(folder: Path, texts: list[str], clips: list[bytes]) -> str:
    for number, audio in enumerate(clips):
        (folder / f"{number}.wav").write_bytes(audio)
    rows = [{"audio": f"{number}.wav", "text": text} for number, text in enumerate(texts)]
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "m.jsonl")


def shards(folder: Path, texts: list[str], clips: list[bytes]) -> str:
    with tarfile.open(folder / "a.tar", "w") as archive:
        for number, (text, audio) in enumerate(zip(texts, clips, strict=True)):
            for kind, content in (("wav", audio), ("txt", text.encode())):
                header = tarfile.TarInfo(f"{number}.{kind}")
                header.size = len(content)
                archive.addfile(header, io.BytesIO(content))
    return str(folder)


def rows_of(texts: list[str], clips: list[bytes]) -> list[dict[str, Any]]:
    pairs = enumerate(zip(texts, clips, strict=True))
    return [{"audio": {"bytes": audio, "path": f"{n}.wav"}, "sentence": text} for n, (text, audio) in pairs]


def parquet(folder: Path, texts: list[str], clips: list[bytes]) -> str:
    pq.write_table(pa.Table.from_pylist(rows_of(texts, clips)), folder / "a.parquet", row_group_size=4)
    return str(folder)


def saved(folder: Path, texts: list[str], clips: list[bytes]) -> str:
    datasets.Dataset.from_list(rows_of(texts, clips)).save_to_disk(folder / "saved")
    return str(folder / "saved")


def fingerprint(path: str) -> dict[str, Any]:
    source = open_source(SourceConfig(path=path))
    return dict(json.loads(json.dumps(with_content(source.fingerprint(), source.content()))))


TEXTS = ["адзін", "двадз", "трыыы", "чатыр", "пяцьь"]
FORMATS = [manifest, shards, parquet, saved]


@pytest.mark.parametrize("write", FORMATS)
def test_other_audio_of_equal_sizes_is_noticed_and_a_copy_is_the_same(write: Callable[..., str], tmp_path: Path):
    clips = [clip(number) for number in range(5)]
    for name in ("then", "copy", "swapped", "other"):
        (tmp_path / name).mkdir()
    then, copy = (fingerprint(write(tmp_path / name, TEXTS, clips)) for name in ("then", "copy"))
    assert changed(then, copy) == ""
    for name, others in (("swapped", [clips[1], clips[0], *clips[2:]]), ("other", [*clips[:4], clip(9)])):
        now = fingerprint(write(tmp_path / name, TEXTS, others))
        assert now["rows"] == then["rows"]
        assert now["digest"] == then["digest"], "the index is the same"
        assert SAMPLE in changed(then, now)
    before = {key: value for key, value in then.items() if key not in ("sizes", "sample")}
    assert changed(before, now) == "", "a run of before knew the index alone"


def test_other_transcripts_of_equal_sizes_in_a_tar_are_noticed(tmp_path: Path):
    clips = [clip(number) for number in range(5)]
    for name in ("then", "now"):
        (tmp_path / name).mkdir()
    then = fingerprint(shards(tmp_path / "then", TEXTS, clips))
    now = fingerprint(shards(tmp_path / "now", [TEXTS[1], TEXTS[0], *TEXTS[2:]], clips))
    assert now["digest"] == then["digest"]
    assert SAMPLE in changed(then, now)


def test_every_size_counts_and_so_does_a_missing_file(tmp_path: Path):
    """More files than are sampled: the swapped ones are none of them."""
    count = 2 * SAMPLED + 2
    clips = [clip(number, 1000 + number) for number in range(count)]
    path = manifest(tmp_path, ["так"] * count, clips)
    then = fingerprint(path)
    outside = [number for number in range(count) if number not in sampled(count)][:2]
    first, second = (tmp_path / f"{number}.wav" for number in outside)
    first.write_bytes(clips[outside[1]])
    second.write_bytes(clips[outside[0]])
    assert changed(then, fingerprint(path)) == "files have other sizes, or are missing"
    first.write_bytes(clips[outside[0]])
    second.write_bytes(clips[outside[1]])
    assert changed(then, fingerprint(path)) == ""
    second.unlink()
    assert SIZES in changed(then, fingerprint(path))


def test_a_sample_is_spread_evenly():
    assert sampled(0) == []
    assert sampled(3) == [0, 1, 2]
    assert len(sampled(100_000)) == len(set(sampled(100_000))) == SAMPLED
    assert sampled(100_000)[-1] > 99_000


def test_an_archive_has_the_content_of_its_folder(tmp_path: Path):
    clips = [clip(number, 3000 * number) for number in range(5)]
    (tmp_path / "data").mkdir()
    manifest(tmp_path / "data", TEXTS, clips)
    with tarfile.open(tmp_path / "data.tar", "w") as archive:
        archive.add(tmp_path / "data", "data")
    names = [*(f"{number}.wav" for number in range(5)), "gone.wav"]
    folder = open_source(SourceConfig(path=str(tmp_path / "data/m.jsonl"))).source._store  # type: ignore[attr-defined]
    assert TarArchive.open(str(tmp_path / "data.tar")).below("data").content(names) == folder.content(names)


def test_remote_files_have_versions_which_another_address_does_not_share(tmp_path: Path):
    clips = [clip(number) for number in range(5)]
    (tmp_path / "a").mkdir()
    path = manifest(tmp_path / "a", TEXTS, clips)
    memory = fsspec.filesystem("memory")
    for file in (tmp_path / "a").iterdir():
        memory.pipe(f"/content/{file.name}", file.read_bytes())
    then = fingerprint("memory://content/m.jsonl")
    assert changed(then, fingerprint("memory://content/m.jsonl")) == ""
    assert changed(then, fingerprint(path)) == "", "a local copy"
    memory.pipe("/content/1.wav", clip(1, 20_001))
    assert VERSIONS in changed(then, fingerprint("memory://content/m.jsonl"))
    memory.rm("/content/1.wav")
    assert VERSIONS in changed(then, fingerprint("memory://content/m.jsonl"))


def test_of_several_sources_the_one_that_changed_is_named():
    index = {"sources": [{"rows": 1, "digest": "a"}, {"rows": 2, "digest": "b"}]}
    then = with_content(index, {"sources": [{"sizes": "a"}, {"sizes": "b"}]})
    assert changed(then, with_content(index, {"sources": [{"sizes": "a"}, {"sizes": "c"}]})).startswith("source 1: ")
    assert changed(index, then) == ""
    assert with_content(index, {}) == index


@pytest.mark.long
def test_a_run_whose_audio_was_swapped_is_not_resumed(train: Trainer, corpus: Path, tmp_path: Path):
    rows = pq.read_table(corpus / "train").slice(0, 12).to_pylist()
    data = tmp_path / "data"
    data.mkdir()
    path = manifest(data, [row["sentence"] for row in rows], [row["audio"]["bytes"] for row in rows])
    settings = {"data__path": path, "eval__every": 0, "allow_change": "[steps]"}
    train("run", **settings, steps=1)
    shutil.copy(data / "0.wav", data / "aside.wav")
    shutil.copy(data / "1.wav", data / "0.wav")
    shutil.copy(data / "aside.wav", data / "1.wav")
    ended = train.end("run", **settings, steps=2)
    assert ended.code == 2, ended.out + ended.err
    assert SIZES in ended.err or SAMPLE in ended.err
    shutil.copy(data / "0.wav", data / "1.wav")
    shutil.copy(data / "aside.wav", data / "0.wav")
    train("run", **settings, steps=2)
