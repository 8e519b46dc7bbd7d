"""WebDataset: tar shards in which the files of a sample lie side by side; a chunk is a run of samples of one shard.

The format: https://github.com/webdataset/webdataset. The headers are the index, so any sample can be read at any time,
and a chunk is one ranged request.
"""

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats import fingerprint
from whisper_ft.data.formats.columns import TEXT_COLUMNS, ExtraColumns, require_columns
from whisper_ft.data.formats.file_table import data_errors
from whisper_ft.data.formats.shard_names import names_of, shards_of
from whisper_ft.data.formats.tar_samples import samples_of
from whisper_ft.data.storage.ranges import learn_versions
from whisper_ft.data.types import Row
from whisper_ft.runtime.errors import DataError, UsageError

SPEAKERS = ("speaker", "speaker_id", "client_id")
CHUNK_ROWS = 32
CHUNK_BYTES = 2**24  # a chunk of long recordings has fewer rows
GAP = 2**20  # bytes of other files that are rather read along than left out with a request more
MAX_TEXT = 2**20  # bytes of a .txt or .json
TOO_LONG = ("bad_label", f"the .txt or .json has over {MAX_TEXT} bytes")
READERS = 16  # threads that index shards
LOOKED = 1000  # samples, about, in whose .json a column is looked for before it is taken not to be there


def open_webdataset(where: SourceConfig, cache: Path | None = None, columns: Sequence[str] = ()) -> "WebDataset":
    """The shards that a path names: a .tar, a folder of them, a glob, or numbers in braces (`train-{000..012}.tar`).

    Shards are in the order of their names, those of braces in the order of the braces. A sample is a run of files whose
    names agree up to the first dot: audio (see `samples.AUDIO_TYPES`), with its text in .txt, or in .json,
    which may also hold language, task, and speaker or client_id. `where.text_column` names the key of the text.
    What the headers say is kept in the folder `cache`, and taken from there while the shards are what they were.
    """
    if where.split:
        raise UsageError(
            f"--data.split {where.split}: tar shards have no splits; choose them by name, as in --data.path train-*.tar"
        )
    with data_errors(where.path):
        shards = shards_of(where.path)
        if not shards:
            raise UsageError(f"{where.path}: holds no .tar file")
        file_system, _ = fsspec.core.url_to_fs(where.path)
        learn_versions(file_system, [file_system._strip_protocol(shard) for shard in shards])
        with ThreadPoolExecutor(READERS) as pool:
            indexed = list(pool.map(lambda shard: samples_of(shard, cache), shards))
        source = WebDataset(shards, indexed, where, columns)
        source.require(columns)
        return source


class WebDataset:
    """Runs of samples of several shards as one sequence of chunks."""

    def __init__(
        self, shards: Sequence[str], indexed: Sequence[pa.Table], where: SourceConfig, columns: Sequence[str] = ()
    ) -> None:
        self._shards, self._where, self._carried = list(shards), where, ExtraColumns(columns)
        self._samples = pa.concat_tables(indexed).combine_chunks()
        _check(self._samples, where.path)
        chunks = [_chunks(samples) for samples in indexed]
        self.rows: list[int] = [rows for of_shard in chunks for rows in of_shard]
        self._first_row = [0, *accumulate(self.rows)]  # [chunks + 1]
        self._first_chunk = [0, *accumulate(len(of_shard) for of_shard in chunks)]  # [shards + 1]
        self._names = names_of(shards)
        self._groups = [[(samples.num_rows, sum(_bytes(samples)))] for samples in indexed]

    @property
    def largest_chunk(self) -> int:
        """Bytes of the files of the largest chunk, about: those of the largest shard where it has one chunk only."""
        return min(CHUNK_BYTES, max(size for of_shard in self._groups for _, size in of_shard))

    def read(self, chunk: int) -> Sequence[Row]:
        """The rows of one chunk; its files are fetched in one request, in more where much else lies between them."""
        records, content = self._fetched(chunk, ("audio", "txt", "json"))
        return [self._row(self.row_id(chunk, row), record, content) for row, record in enumerate(records)]

    def require(self, columns: Sequence[str]) -> None:
        """UsageError for a column that is in no .json of the first chunks; those after the last one are not read."""
        there: dict[str, None] = {}
        looked = 0
        for chunk, rows in enumerate(self.rows):
            if looked >= LOOKED or set(columns) <= there.keys():
                break
            records, content = self._fetched(chunk, ("json",))
            for record in records:
                there.update(dict.fromkeys(_described(content.of(record, "json"), record["json"])[0]))
            looked += rows
        require_columns(there, columns, f"{self._where.path}, the .json of its first {looked} samples")

    def _fetched(self, chunk: int, kinds: Sequence[str]) -> tuple[list[dict[str, Any]], "_Content"]:
        """The samples of a chunk, as `SAMPLES` has them, and their files of these kinds."""
        records = self._samples.slice(self._first_row[chunk], self.rows[chunk]).to_pylist()
        places = [place for record in records for kind in kinds if (place := _wanted(record, kind))]
        shard = self._shards[self._shard(chunk)]
        with data_errors(shard):
            return records, _Content(shard, places)

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
            columns=self._carried.of(described),
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
        self._parts = [bytes(file_system.cat_file(path, start=start, end=end)) for start, end in joined]
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
