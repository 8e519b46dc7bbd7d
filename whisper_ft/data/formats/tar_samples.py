"""Samples of a WebDataset shard: the files that belong to one utterance, and their places in the tar."""

import hashlib
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa

from whisper_ft.data.storage import index_cache
from whisper_ft.data.storage.files import MAX_FILE_BYTES
from whisper_ft.data.storage.read_errors import data_errors
from whisper_ft.data.storage.tar import TarMember, tar_members

AUDIO_TYPES = ("wav", "flac", "ogg", "opus", "mp3", "m4a", "aac", "webm")
"""Suffixes of audio files. If a sample has several audio files, the first of these types is read."""
TYPES = (*AUDIO_TYPES, "txt", "json")
INDEX_VERSION = 1
"""Version of the rules below. Increase it when they find other samples, so that cached indexes are made again."""

PLACE = [("offset", pa.int64()), ("size", pa.int64())]  # null if the sample has no such file
SAMPLES = pa.schema(
    [
        ("key", pa.string()),  # unique in its shard
        ("problem", pa.string()),
        ("audio", pa.struct(PLACE)),
        ("txt", pa.struct(PLACE)),
        ("json", pa.struct(PLACE)),
    ]
)


def samples_of(address: str, cache: Path | None = None) -> pa.Table:
    """Return the samples of a shard as a table of the schema SAMPLES. The index is cached in the folder `cache`.

    Raises DataError if the shard cannot be read. The index of a local shard is cached too. Reading 1,000 samples from
    the headers takes 62 ms, and from the cache 0.8 ms.
    """
    with data_errors(address):
        entry = None
        if cache is not None:
            file_system, path = fsspec.core.url_to_fs(address)
            entry = index_cache.entry_path(cache, index_cache.version_of(file_system, path), _entry_kind())
        cached = index_cache.load(entry)
        if cached is not None:
            return pa.ipc.open_stream(cached).read_all()
        samples = _index(address)
        content = pa.BufferOutputStream()
        with pa.ipc.new_stream(content, SAMPLES) as writer:
            writer.write_table(samples)
        index_cache.save(content.getvalue().to_pybytes(), entry)
        return samples


def _entry_kind() -> str:
    """Suffix of cache entries. It changes when the rules change by which a shard is indexed."""
    rules = repr((INDEX_VERSION, AUDIO_TYPES, MAX_FILE_BYTES, SAMPLES.to_string()))
    return f"samples-{hashlib.sha256(rules.encode()).hexdigest()[:8]}"


@dataclass
class _Sample:
    """Usable files of one sample: their names are equal up to the first dot, which is the sample's key."""

    key: str
    files: dict[str, TarMember] = field(default_factory=dict)  # by type

    def record(self, repeat: int) -> dict[str, Any]:
        """Return the sample as a row of SAMPLES. `repeat` counts the earlier samples of the same key."""
        audio = next((self.files[kind] for kind in AUDIO_TYPES if kind in self.files), None)
        problem = None
        if repeat:
            problem = "duplicate_key: the shard has a sample of this name before"
        elif audio is None:
            problem = f"missing_audio: the sample has none of .{', .'.join(AUDIO_TYPES)}"
        elif audio.size > MAX_FILE_BYTES:
            problem = f"file_too_large: {audio.name}: over {MAX_FILE_BYTES} bytes"
        return {
            "key": f"{self.key}#{repeat + 1}" if repeat else self.key,
            "problem": problem,
            "audio": None if problem else _place(audio),
            "txt": _place(self.files.get("txt")),
            "json": _place(self.files.get("json")),
        }


def _place(member: TarMember | None) -> dict[str, int] | None:
    return None if member is None else {"offset": member.offset, "size": member.size}


def _samples(files: Iterator[TarMember]) -> Iterator[_Sample]:
    """Yield the samples: each is a run of files of one key.

    A type that repeats begins another sample, as in a shard that was appended to itself.
    """
    sample: _Sample | None = None
    for member in files:
        folder, name = posixpath.split(member.name)
        stem, dot, extension = name.partition(".")
        if not dot or not stem:
            continue  # as webdataset does; macOS adds files such as ._x
        key = posixpath.join(folder, stem)
        kind = extension.rpartition(".")[2].lower()
        if sample is None or sample.key != key or kind in sample.files:
            if sample is not None:
                yield sample
            sample = _Sample(key)
        if kind in TYPES:
            sample.files[kind] = member
    if sample is not None:
        yield sample


def _index(address: str) -> pa.Table:
    repeats: dict[str, int] = {}
    records = []
    for sample in _samples(tar_members(address)):
        repeat = repeats.get(sample.key, 0)
        repeats[sample.key] = repeat + 1
        records.append(sample.record(repeat))
    return pa.Table.from_pylist(records, schema=SAMPLES)
