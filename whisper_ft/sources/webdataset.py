"""WebDataset: tar shards in which the files of a sample lie side by side; a chunk is a run of samples of one shard.

The format: https://github.com/webdataset/webdataset. The headers are the index, so any sample can be read at any time,
and a chunk is one ranged request.
"""

import json
import posixpath
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from whisper_ft import config
from whisper_ft.failure import DataError, UsageError
from whisper_ft.sources import fingerprint
from whisper_ft.sources.archive import Member, members
from whisper_ft.sources.columns import TEXT_COLUMNS
from whisper_ft.sources.listed import data_errors
from whisper_ft.sources.row import Row
from whisper_ft.sources.shelf import MAX_BYTES

AUDIO_TYPES = ("wav", "flac", "ogg", "opus", "mp3", "m4a")  # of several in a sample the first of these
TYPES = (*AUDIO_TYPES, "txt", "json")
SPEAKERS = ("speaker", "speaker_id", "client_id")
CHUNK_ROWS = 32
CHUNK_BYTES = 2**24  # a chunk of long recordings has fewer rows
GAP = 2**20  # bytes of other files that are rather read along than left out with a request more
MAX_TEXT = 2**20  # bytes of a .txt or .json
TOO_LONG = ("bad_label", f"the .txt or .json has over {MAX_TEXT} bytes")
READERS = 16  # threads that index shards
MAX_SHARDS = 1_000_000
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")

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


def open_webdataset(where: config.Source) -> "WebDataset":
    """The shards that a path names: a .tar, a folder of them, a glob, or numbers in braces (`train-{000..012}.tar`).

    Shards are in the order of their names, those of braces in the order of the braces. A sample is a run of files whose
    names agree up to the first dot: audio (.wav, .flac, .ogg, .opus, .mp3, .m4a), with its text in .txt, or in .json,
    which may also hold language, task, and speaker or client_id. `where.text_column` names the key of the text.
    """
    if where.split:
        raise UsageError(
            f"--data.split {where.split}: tar shards have no splits; choose them by name, as in --data.path train-*.tar"
        )
    with data_errors(where.path):
        shards = _shards(where.path)
        if not shards:
            raise UsageError(f"{where.path}: holds no .tar file")
        with ThreadPoolExecutor(READERS) as pool:
            indexed = list(pool.map(_index, shards))
        return WebDataset(shards, indexed, where)


def _shards(path: str) -> list[str]:
    """Addresses of the shards. What is there is meant literally, also where its name could be a pattern."""
    file_system, stripped = fsspec.core.url_to_fs(path)
    if stripped.endswith(".tar") and file_system.isfile(stripped):
        return [path]
    if file_system.isdir(stripped):
        found = sorted(name for name in file_system.find(stripped) if name.endswith(".tar"))
        return [_address(file_system, path, name) for name in found]
    shards = []
    for name in _expanded(path):
        if any(sign in name for sign in "*?["):
            matched = sorted(file_system.glob(file_system._strip_protocol(name)))
            shards += [_address(file_system, path, one) for one in matched if one.endswith(".tar")]
        else:
            shards.append(name)
    return list(dict.fromkeys(shards))


def _address(file_system: Any, path: str, name: str) -> str:
    """A file as `path` is written: with the protocol where that has one."""
    return str(file_system.unstrip_protocol(name)) if "://" in path else name


def _expanded(path: str) -> list[str]:
    """`a{00..02}b` as three, `a{x,y}b` as two; digits keep their number."""
    names = [path]
    while (found := BRACES.search(names[0])) is not None:
        if numbers := RANGE.fullmatch(found[1]):
            first, last = int(numbers[1]), int(numbers[2])
            count = last - first + 1
            values: Iterable[str] = (str(number).zfill(len(numbers[1])) for number in range(first, last + 1))
        else:
            values = parts = found[1].split(",")
            count = len(parts)
        if not 0 < count * len(names) <= MAX_SHARDS:
            raise UsageError(f"{path}: {{{found[1]}}} should be numbers that go up, or names, of {MAX_SHARDS} at most")
        filled = list(values)
        names = [BRACES.sub(lambda _, value=value: value, name, count=1) for name in names for value in filled]  # type: ignore[misc]
    return names


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


class WebDataset:
    """Runs of samples of several shards as one sequence of chunks."""

    def __init__(self, shards: Sequence[str], indexed: Sequence[pa.Table], where: config.Source) -> None:
        self._shards, self._where = list(shards), where
        self._samples = pa.concat_tables(indexed).combine_chunks()
        _check(self._samples, where.path)
        chunks = [_chunks(samples) for samples in indexed]
        self.rows: list[int] = [rows for of_shard in chunks for rows in of_shard]
        self._first_row = [0, *accumulate(self.rows)]  # [chunks + 1]
        self._first_chunk = [0, *accumulate(len(of_shard) for of_shard in chunks)]  # [shards + 1]
        self._names = _relative(shards)
        self._groups = [[(samples.num_rows, sum(_bytes(samples)))] for samples in indexed]

    def read(self, chunk: int) -> Sequence[Row]:
        """The rows of one chunk; its files are fetched in one request, in more where much else lies between them."""
        records = self._samples.slice(self._first_row[chunk], self.rows[chunk]).to_pylist()
        places = [place for record in records for kind in ("audio", "txt", "json") if (place := _wanted(record, kind))]
        shard = self._shards[self._shard(chunk)]
        with data_errors(shard):
            content = _Content(shard, places)
        return [self._row(self.row_id(chunk, row), record, content) for row, record in enumerate(records)]

    def row_id(self, chunk: int, row: int) -> str:
        """`shard.tar#key`; a key that comes again in a shard has `#2`, `#3`, ... after it."""
        return f"{self._names[self._shard(chunk)]}#{self._samples['key'][self._first_row[chunk] + row].as_py()}"

    def fingerprint(self) -> dict[str, Any]:
        """Names of the shards, and for each the number of samples and the bytes of their audio and text."""
        return fingerprint.of_files(self._names, self._groups)

    def _shard(self, chunk: int) -> int:
        return bisect_right(self._first_chunk, chunk) - 1

    def _row(self, name: str, record: Mapping[str, Any], content: "_Content") -> Row:
        reason, _, detail = (record["problem"] or "").partition(": ")
        described, problem = _described(content.of(record, "json"), record["json"])
        text, no_text = self._text(content.of(record, "txt"), record["txt"], described)
        audio = content.of(record, "audio")
        speaker = next((described[key] for key in SPEAKERS if described.get(key) is not None), None)
        return Row(
            id=name,
            audio=audio or b"",
            text=text,
            language=_word(described.get("language")),
            task=_word(described.get("task")),
            speaker=_word(speaker),
            problem=(reason, detail) if reason else problem or no_text,
        )

    def _text(
        self, txt: bytes | None, place: object, described: Mapping[str, Any]
    ) -> tuple[str, tuple[str, str] | None]:
        """What is said in a sample, and why that is not known."""
        if place is not None and self._where.text_column is None:
            if txt is None:
                return "", TOO_LONG
            try:
                return txt.decode("utf-8-sig").strip(), None
            except UnicodeDecodeError:
                return "", ("bad_label", "the .txt is not UTF-8")
        wanted = TEXT_COLUMNS if self._where.text_column is None else (self._where.text_column,)
        text = next((described[key] for key in wanted if key in described), "")
        if isinstance(text, str):
            return text.strip(), None
        return "", ("bad_label", f"the transcript in the .json is not a text but {type(text).__name__}")


def _check(samples: pa.Table, path: str) -> None:
    """DataError where nothing can be learned from any sample."""
    if not samples.num_rows:
        raise DataError(f"{path}: holds no row")
    has_audio = samples["audio"].is_valid()
    if not pc.any(pc.and_(has_audio, pc.or_(samples["txt"].is_valid(), samples["json"].is_valid()))).as_py():
        raise DataError(
            f"{path}: no sample has audio next to a .txt or .json of the same name: not a WebDataset of speech"
        )


def _bytes(samples: pa.Table) -> list[int]:
    """Bytes of the files of each sample."""
    sizes = [pc.fill_null(pc.struct_field(samples[kind], "size"), 0).to_pylist() for kind in ("audio", "txt", "json")]
    return [sum(sample) for sample in zip(*sizes, strict=True)]


def _chunks(samples: pa.Table) -> list[int]:
    """Rows of each chunk of a shard."""
    chunks, rows, size = [], 0, 0
    for of_sample in _bytes(samples):
        if rows == CHUNK_ROWS or (rows and size + of_sample > CHUNK_BYTES):
            chunks.append(rows)
            rows, size = 0, 0
        rows, size = rows + 1, size + of_sample
    return [*chunks, rows] if rows else chunks


def _relative(shards: Sequence[str]) -> list[str]:
    """Names of shards below the folder that all are in."""
    folders = [shard.split("/")[:-1] for shard in shards]
    shared = next((i for i, names in enumerate(zip(*folders, strict=False)) if len(set(names)) > 1), None)
    depth = min(map(len, folders)) if shared is None else shared
    return ["/".join(shard.split("/")[depth:]) for shard in shards]


def _wanted(record: Mapping[str, Any], kind: str) -> tuple[int, int] | None:
    """[start, end) of a file in its shard; None if there is none, or it is too large to be what it should be."""
    place = record[kind]
    if place is None or (kind != "audio" and place["size"] > MAX_TEXT):
        return None
    return place["offset"], place["offset"] + place["size"]


class _Content:
    """Parts of a shard, fetched together where little is between them."""

    def __init__(self, shard: str, places: Sequence[tuple[int, int]]) -> None:
        file_system, path = fsspec.core.url_to_fs(shard)
        joined = list[tuple[int, int]]()
        for start, end in sorted(place for place in places if place[0] < place[1]):
            if joined and start - joined[-1][1] <= GAP:
                joined[-1] = joined[-1][0], max(end, joined[-1][1])
            else:
                joined.append((start, end))
        self._starts = [start for start, _ in joined]
        self._parts = [bytes(file_system.cat_file(path, start, end)) for start, end in joined]
        for (start, end), part in zip(joined, self._parts, strict=True):
            if len(part) != end - start:
                raise DataError(f"{shard}: {len(part)} bytes came from byte {start} on, not {end - start}")

    def of(self, record: Mapping[str, Any], kind: str) -> bytes | None:
        """A file of a sample; None where it was not wanted."""
        place = _wanted(record, kind)
        if place is None or place[0] == place[1]:
            return None if place is None else b""
        part = bisect_right(self._starts, place[0]) - 1
        return self._parts[part][place[0] - self._starts[part] : place[1] - self._starts[part]]


def _described(content: bytes | None, place: object) -> tuple[dict[str, Any], tuple[str, str] | None]:
    """What the .json of a sample says, and why it says nothing."""
    if content is None:
        return {}, None if place is None else TOO_LONG
    try:
        described = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return {}, ("bad_json", f"the .json cannot be read: {' '.join(str(error).split())}")
    if isinstance(described, dict):
        return described, None
    return {}, ("bad_json", f"the .json should be an object, it is {type(described).__name__}")


def _word(value: object) -> str | None:
    """A language, task or name, as text whatever it is in the .json."""
    return None if value is None else str(value)
