"""An object store, played by moto: few requests, all kinds of data, and what goes wrong in one line.

To run what is skipped: `pip install s3fs "moto[server]"`, which the project does without.
"""

import importlib.util
import io
import json
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.conftest import ROOT
from tests.elsewhere import write
from whisper_ft.config.data import SourceConfig
from whisper_ft.data.sources import open_source
from whisper_ft.runtime.errors import DataError

HAS_CLIENT = importlib.util.find_spec("s3fs") is not None
HAS_STORE = HAS_CLIENT and importlib.util.find_spec("moto") is not None
with_store = pytest.mark.skipif(not HAS_STORE, reason='needs s3fs and "moto[server]"')


@dataclass
class Store:
    """A bucket named `bucket`, and what was asked of it: method, path with query, range."""

    asked: list[tuple[str, str, str]] = field(default_factory=list)

    def put(self, folder: Path, name: str) -> None:
        self.as_of_a_new_process().put(str(folder), f"bucket/{name}", recursive=True)
        self.as_of_a_new_process()

    def as_of_a_new_process(self) -> Any:
        """A file system that remembers nothing."""
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        self.asked.clear()
        return s3fs.S3FileSystem()


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    from moto.server import ThreadedMotoServer
    from werkzeug.serving import WSGIRequestHandler

    where, server = Store(), ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            WSGIRequestHandler,
            "log_request",
            lambda self, *_: where.asked.append((self.command, self.path, self.headers.get("Range", ""))),
        )
        server.start()
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "of the test")
        where.as_of_a_new_process().mkdir("bucket")
        yield where
        server.stop()


def read_elsewhere(source: Any, chunk: int, folder: Path) -> list[str]:
    """Texts of a chunk that another process reads, as a data worker does."""
    (folder / "source").write_bytes(pickle.dumps(source))
    program = (
        "import pickle, sys; rows = pickle.load(open(sys.argv[1], 'rb')).read(int(sys.argv[2]));"
        "print('\\n'.join(row.text for row in rows))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder / "source"), str(chunk)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@with_store
def test_a_row_group_of_a_bucket_is_one_request_and_footers_are_kept(store: Store, tmp_path: Path):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.parquet", 25, size=20_000)
    store.put(tmp_path, "train")
    where, index = SourceConfig(path="s3://bucket/train"), tmp_path / "index"
    source = open_source(where, index)
    assert source.rows == [10, 10, 5] * 2
    store.as_of_a_new_process()
    assert [row.text for row in source.read(4)] == [f"b.parquet {i}" for i in range(10, 20)]
    assert [method for method, *_ in store.asked] == ["GET"]
    assert read_elsewhere(source, 1, tmp_path) == [f"a.parquet {i}" for i in range(10, 20)]
    assert [method for method, *_ in store.asked] == ["GET", "GET"]
    store.as_of_a_new_process()
    assert open_source(where, index).fingerprint() == source.fingerprint()
    assert not [ranged for *_, ranged in store.asked if ranged], "no footer is fetched again"
    assert open_source(SourceConfig(path="s3://bucket/train/*.parquet"), index).rows == source.rows
    assert open_source(SourceConfig(path="s3://bucket/train/b.parquet"), index).rows == [10, 10, 5]


def flac() -> bytes:
    held = io.BytesIO()
    soundfile.write(held, np.sin(np.arange(1600) * 0.2) * 0.3, 16000, format="FLAC")
    return held.getvalue()


FLAC = flac()


@with_store
def test_a_manifest_of_a_bucket_has_its_clips_beside_it(store: Store, tmp_path: Path):
    lines = [{"audio": f"clips/{i}.flac", "text": f"text {i}"} for i in range(3)]
    (tmp_path / "man" / "clips").mkdir(parents=True)
    (tmp_path / "man" / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for i, content in enumerate((FLAC, b"")):
        (tmp_path / "man" / "clips" / f"{i}.flac").write_bytes(content)
    store.put(tmp_path / "man", "man")
    source = open_source(SourceConfig(path="s3://bucket/man/train.jsonl"))
    rows = source.read(0)
    assert [row.audio for row in rows] == [FLAC, b"", b""]
    assert [row.problem and row.problem[0] for row in rows] == [None, None, "missing_file"]
    assert sum(path.endswith("clips/0.flac") for _, path, _ in store.asked) == 2, "its size, and its bytes"
    assert read_elsewhere(source, 0, tmp_path) == ["text 0", "text 1", "text 2"]


@with_store
def test_the_shards_of_a_bucket_are_indexed_once_and_a_chunk_is_one_request(store: Store, tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / "wds").mkdir(exist_ok=True)
        with tarfile.open(tmp_path / "wds" / f"{name}.tar", "w") as tar:
            for i in range(40):
                for kind, content in (("flac", FLAC), ("txt", f"{name} {i}".encode())):
                    info = tarfile.TarInfo(f"{i}.{kind}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    store.put(tmp_path / "wds", "wds")
    index = tmp_path / "index"
    for path in ("s3://bucket/wds", "s3://bucket/wds/*.tar", "s3://bucket/wds/{a,b}.tar"):
        store.as_of_a_new_process()
        source = open_source(SourceConfig(path=path), index)
        fetched = [asked for asked in store.asked if asked[2]]
        assert len(fetched) == (2 if path == "s3://bucket/wds" else 0), "headers of the shards"
        assert source.rows == [32, 8, 32, 8]
    store.as_of_a_new_process()
    assert [row.text for row in source.read(3)] == [f"b {i}" for i in range(32, 40)]
    assert [method for method, *_ in store.asked] == ["GET"]
    assert read_elsewhere(source, 1, tmp_path) == [f"a {i}" for i in range(32, 40)]


@with_store
def test_many_shards_of_a_folder_are_not_asked_for_one_by_one(store: Store, tmp_path: Path):
    for i in range(20):
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as archive:
            for kind, content in (("flac", FLAC), ("txt", b"text")):
                info = tarfile.TarInfo(f"{i}.{kind}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        (tmp_path / "many").mkdir(exist_ok=True)
        (tmp_path / "many" / f"m-{i:02}.tar").write_bytes(tar.getvalue())
    store.put(tmp_path / "many", "many")
    for path in ("s3://bucket/many/m-{00..19}.tar", "s3://bucket/many/m-*.tar"):
        store.as_of_a_new_process()
        assert len(open_source(SourceConfig(path=path), tmp_path / "index").rows) == 20
        assert not [path for method, path, _ in store.asked if method == "HEAD" and "m-0" in path]
    assert len(store.asked) < 10, "all of the index was kept"


@with_store
@pytest.mark.parametrize("name", ["train", "train/a.parquet", "train.jsonl", "a.tar"])
def test_a_bucket_that_is_not_there_is_said_in_one_line(store: Store, name: str):
    store.as_of_a_new_process()
    with pytest.raises(DataError, match=rf"^s3://gone/{name}: there is no such file or folder") as error:
        open_source(SourceConfig(path=f"s3://gone/{name}"))
    assert "\n" not in str(error.value)


@with_store
@pytest.mark.parametrize("name", ["train", "train/a.parquet", "train/*.parquet", "train.jsonl", "a.tar"])
def test_missing_credentials_are_said_in_one_line(store: Store, name: str, monkeypatch: pytest.MonkeyPatch):
    store.as_of_a_new_process()
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    with pytest.raises(DataError) as error:
        open_source(SourceConfig(path=f"s3://bucket/{name}"))
    assert str(error.value) == f"s3://bucket/{name}: Unable to locate credentials"


@pytest.mark.skipif(HAS_CLIENT, reason="s3fs is installed")
@pytest.mark.parametrize("name", ["train", "train/a.parquet", "train.jsonl", "a.tar"])
@pytest.mark.parametrize("form", ["auto", "parquet", "manifest", "webdataset"])
def test_a_missing_client_is_named_in_one_line(name: str, form: str):
    with pytest.raises(DataError, match=rf"^s3://bucket/{name}: Install s3fs to access S3$"):
        open_source(SourceConfig(path=f"s3://bucket/{name}", format=form))
