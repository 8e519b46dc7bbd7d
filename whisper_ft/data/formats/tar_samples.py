"""The samples of a shard: which files belong together, and where in the tar they are."""

import hashlib
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa

from whisper_ft.data.formats.file_table import data_errors
from whisper_ft.data.storage import index_cache
from whisper_ft.data.storage.files import MAX_BYTES
from whisper_ft.data.storage.tar_headers import Member, members

AUDIO_TYPES = ("wav", "flac", "ogg", "opus", "mp3", "m4a", "aac", "webm")  # of several in a sample the first of these
TYPES = (*AUDIO_TYPES, "txt", "json")
INDEX = 1  # to be raised when the code below begins to find other samples

PLACE = [("offset", pa.int64()), ("size", pa.int64())]  # null where the sample has no such file
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
    """The samples of a shard as `SAMPLES`, from the folder `cache` if they are kept there. DataError.

    Those of local shards are kept too: 1,000 samples take 24 ms from the headers, and 0.8 ms from the folder.
    """
    with data_errors(address):
        file_system, path = fsspec.core.url_to_fs(address)
        place = index_cache.place(cache, index_cache.version_of(file_system, path), _kind()) if cache else None
        found = index_cache.load(place)
        if found is not None:
            return pa.ipc.open_stream(found).read_all()
        samples = _index(address)
        if place is not None:
            held = pa.BufferOutputStream()
            with pa.ipc.new_stream(held, SAMPLES) as writer:
                writer.write_table(samples)
            index_cache.save(held.getvalue().to_pybytes(), place)
        return samples


def _kind() -> str:
    """Ending of what is kept: another one where the same shard would be indexed to something else."""
    rules = repr((INDEX, AUDIO_TYPES, MAX_BYTES, SAMPLES.to_string()))
    return f"samples-{hashlib.sha256(rules.encode()).hexdigest()[:8]}"


@dataclass
class _Sample:
    """The files of a sample that are of use."""

    key: str
    files: dict[str, Member] = field(default_factory=dict)  # by type

    def record(self, repeat: int) -> dict[str, Any]:
        """A row of `SAMPLES`."""
        audio = next((self.files[kind] for kind in AUDIO_TYPES if kind in self.files), None)
        problem = None
        if repeat:
            problem = "duplicate_key: the shard has a sample of this name before"
        elif audio is None:
            problem = f"missing_audio: the sample has none of .{', .'.join(AUDIO_TYPES)}"
        elif audio.size > MAX_BYTES:
            problem = f"file_too_large: {audio.name}: over {MAX_BYTES} bytes"
        return {
            "key": f"{self.key}#{repeat + 1}" if repeat else self.key,
            "problem": problem,
            "audio": None if problem else _place(audio),
            "txt": _place(self.files.get("txt")),
            "json": _place(self.files.get("json")),
        }


def _place(member: Member | None) -> dict[str, int] | None:
    return None if member is None else {"offset": member.offset, "size": member.size}


def _samples(files: Iterator[Member]) -> Iterator[_Sample]:
    """Runs of files of one key; a type that comes again begins another sample, as in a shard appended to itself."""
    sample: _Sample | None = None
    for member in files:
        folder, name = posixpath.split(member.name)
        stem, dot, extension = name.partition(".")
        if not dot or not stem:
            continue  # as webdataset does; ._x is what macOS adds
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
    """The samples of a shard."""
    repeats: dict[str, int] = {}
    records = []
    for sample in _samples(members(address)):
        repeat = repeats.get(sample.key, 0)
        repeats[sample.key] = repeat + 1
        records.append(sample.record(repeat))
    return pa.Table.from_pylist(records, schema=SAMPLES)
