"""WebDataset: tar shards in which the files of a sample lie side by side. A chunk is a run of samples of one shard.

The headers of the tar are the index, so any sample can be read at any time, and a chunk is one ranged request.
Format: https://github.com/webdataset/webdataset
"""

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.columns import TEXT_COLUMNS, ExtraColumns, require_columns, speaker_of
from whisper_ft.data.formats.file_table import CHUNK_ROWS
from whisper_ft.data.formats.fingerprint import of_files
from whisper_ft.data.formats.label_columns import FOUND, LANGUAGE, TASK, candidates
from whisper_ft.data.formats.shard_names import names_of, shards_of
from whisper_ft.data.formats.tar_samples import samples_of
from whisper_ft.data.storage import content
from whisper_ft.data.storage.ranges import IO_THREADS, FetchedRanges, Range, is_local, learn_versions
from whisper_ft.data.storage.read_errors import data_errors
from whisper_ft.data.types import Labels, Row, UnhonouredError, UsedParts
from whisper_ft.runtime.errors import DataError, UsageError, one_line
from whisper_ft.runtime.redaction import redacted_query

MAX_CHUNK_BYTES = 2**24
"""Most bytes of a chunk with several rows. So a chunk of long recordings has fewer rows than CHUNK_ROWS."""
MAX_TEXT_BYTES = 2**20
"""Size of the largest .txt or .json that is read, in bytes."""
MIN_SEARCHED_SAMPLES = 1000
"""Number of samples whose .json is searched for an extra column before the column is refused as missing."""

KINDS = ("audio", "txt", "json")
"""Files of a sample."""

Problem = tuple[str, str]
"""Problem with a row: reason code, and explanation for the user."""
TOO_LONG: Problem = ("bad_label", f"the .txt or .json has over {MAX_TEXT_BYTES} bytes")


def open_webdataset(where: SourceConfig, cache: Path | None = None, columns: Sequence[str] = ()) -> "WebDataset":
    """Open the shards that a path names: a .tar, a folder, a glob, or numbers in braces (`train-{000..012}.tar`).

    Shards are sorted by name, except that names in braces keep their order. A sample is a run of files whose names
    agree up to the first dot: audio (AUDIO_TYPES in `tar_samples`) with its text in .txt or .json. The .json may also
    hold language, task and speaker. `where.text_column` names the key of the text in the .json. The index of each shard
    is cached in the folder `cache` until the shard changes.

    Raises UsageError for a split, a path without .tar, and a named or extra column that no .json of the first samples
    has. A shard that cannot be read, and shards without speech, raise DataError.
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
        with ThreadPoolExecutor(IO_THREADS) as pool:
            indexed = list(pool.map(lambda shard: samples_of(shard, cache), shards))
        source = WebDataset(shards, indexed, where, columns)
        source.require(columns)
        source.require_named()
        return source


class WebDataset:
    """Source over the samples of several shards.

    Parameters
        indexed: table of the samples of each shard, with the schema `tar_samples.SAMPLES`
        columns: extra columns to carry along

    Raises DataError if no sample has audio with a .txt or .json.
    """

    def __init__(
        self, shards: Sequence[str], indexed: Sequence[pa.Table], where: SourceConfig, columns: Sequence[str] = ()
    ) -> None:
        self._shards, self._where, self._extra = list(shards), where, ExtraColumns(columns)
        self._samples = pa.concat_tables(indexed).combine_chunks()
        _check(self._samples, where)
        chunks = [_chunk_sizes(samples) for samples in indexed]
        self.rows: list[int] = [rows for of_shard in chunks for rows in of_shard]
        self._first_row = [0, *accumulate(self.rows)]  # [chunks + 1]
        self._first_chunk = [0, *accumulate(len(of_shard) for of_shard in chunks)]  # [shards + 1]
        self._names = names_of(shards)
        if where.reading > 1:
            self._names = [redacted_query(name) for name in self._names]
        self.used = UsedParts(
            text=where.text_column,
            language=candidates(where, LANGUAGE)[0],
            task=candidates(where, TASK)[0],
        )
        self._groups = [[(samples.num_rows, sum(_sample_bytes(samples)))] for samples in indexed]

    @property
    def largest_chunk(self) -> int:
        """Approximate bytes of the largest chunk: MAX_CHUNK_BYTES, or those of the largest shard if it is smaller."""
        return min(MAX_CHUNK_BYTES, max(size for of_shard in self._groups for _, size in of_shard))

    def read(self, chunk: int) -> Sequence[Row]:
        """Read the rows of one chunk with one request, or with several if its files lie far apart.

        A sample that cannot be used is a row with a problem. Raises DataError if the shard cannot be read.
        """
        records, fetched = self._fetch(chunk, KINDS)
        return [self._row(self.row_id(chunk, row), record, fetched) for row, record in enumerate(records)]

    def require(self, columns: Sequence[str]) -> None:
        """Raise UsageError for a column that no .json of the first chunks has. Later chunks are not searched."""
        present, searched = self._present(columns)
        place = f"{self._where.path}, the .json of its first {searched} samples"
        require_columns(present, columns, place, self._where)

    def require_named(self) -> None:
        """Raise UnhonouredError for a column that a setting names and no .json of the first chunks has."""
        if self._where.language_column == FOUND:
            return  # the first rules ignored such a setting
        named = {f"{kind}_column": getattr(self._where, f"{kind}_column") for kind in ("text", LANGUAGE, TASK)}
        given = {setting: name for setting, name in named.items() if name is not None}
        present, searched = self._present([*given.values()])
        for setting, name in given.items():
            if name not in present:
                raise UnhonouredError(
                    setting,
                    f"{self._where.path}: no .json of its first {searched} samples has {name!r}; set --data.{setting} "
                    f"to one of {', '.join(present)}, or leave it out",
                )

    def _present(self, wanted: Sequence[str]) -> tuple[dict[str, None], int]:
        """Return the keys in the .json of the first samples, and their number; it ends when all wanted are found."""
        present: dict[str, None] = {}
        searched = 0
        for chunk, rows in enumerate(self.rows):
            if searched >= MIN_SEARCHED_SAMPLES or set(wanted) <= present.keys():
                break
            records, fetched = self._fetch(chunk, ("json",))
            for record in records:
                present.update(dict.fromkeys(_read_json(_file(fetched, record, "json"), record["json"])[0]))
            searched += rows
        return present, searched

    def _fetch(self, chunk: int, kinds: Sequence[str]) -> tuple[list[dict[str, Any]], FetchedRanges]:
        """Return the samples of a chunk as rows of `SAMPLES`, and fetch their files of some kinds."""
        records = self._samples.slice(self._first_row[chunk], self.rows[chunk]).to_pylist()
        shard = self._shards[self._shard(chunk)]
        with data_errors(shard):
            file_system, path = fsspec.core.url_to_fs(shard)
            ranges = [_range(record, kind) for record in records for kind in kinds]
            return records, FetchedRanges(file_system, path, filter(None, ranges))

    def labels(self, chunk: int) -> Sequence[Labels]:
        """Language and task of the samples of one chunk, by their .json; None for each that it does not give."""
        records, content = self._fetch(chunk, ("json",))
        return [self._labels(_read_json(_file(content, record, "json"), record["json"])[0]) for record in records]

    def _labels(self, described: Mapping[str, object]) -> tuple[str | None, str | None]:
        language, task = self.used.language or LANGUAGE, self.used.task or TASK
        return _optional_text(described.get(language)), _optional_text(described.get(task))

    def row_id(self, chunk: int, row: int) -> str:
        """Id `shard.tar#key`. A key that repeats in a shard is followed by `#2`, `#3`, ..."""
        return f"{self._names[self._shard(chunk)]}#{self._samples['key'][self._first_row[chunk] + row].as_py()}"

    def fingerprint(self) -> dict[str, Any]:
        """Fingerprint of the shards' names, with the number of samples and the bytes of their files for each shard."""
        return of_files(self._names, self._groups)

    def content(self) -> content.Content:
        """Digests of the sizes of all files, and of the sampled samples with their texts or of the shards' versions."""
        columns = [self._samples[kind].to_pylist() for kind in KINDS]
        sizes = content.digest([place and place["size"] for place in column] for column in columns)
        file_system, _ = fsspec.core.url_to_fs(self._shards[0])
        if not is_local(file_system):
            paths = [file_system._strip_protocol(shard) for shard in self._shards]
            return content.of_files(file_system, paths) | {"sizes": sizes}
        chosen = content.sampled(self._samples.num_rows)
        return {"sizes": sizes, "sample": content.digest(content.in_threads(self._sampled, chosen))}

    def _sampled(self, number: int) -> str:
        """Digest of pieces of the files of one sample."""
        record, chunk = self._samples.slice(number, 1).to_pylist()[0], bisect_right(self._first_row, number) - 1
        file_system, path = fsspec.core.url_to_fs(self._shards[self._shard(chunk)])
        places = [place for kind in KINDS if (place := record[kind]) is not None]
        starts = [(place, start) for place in places for start in content.piece_starts(place["size"])]
        with data_errors(path), file_system.open(path, "rb") as file:
            return content.digest(_piece(file, place, start) for place, start in starts)

    def _shard(self, chunk: int) -> int:
        return bisect_right(self._first_chunk, chunk) - 1

    def _row(self, name: str, record: Mapping[str, Any], fetched: FetchedRanges) -> Row:
        reason, _, detail = (record["problem"] or "").partition(": ")
        described, problem = _read_json(_file(fetched, record, "json"), record["json"])
        language, task = self._labels(described)
        text, no_text = self._text(_file(fetched, record, "txt"), record["txt"], described)
        return Row(
            id=name,
            audio=_file(fetched, record, "audio") or b"",
            text=text,
            language=language,
            task=task,
            speaker=speaker_of(described),
            problem=(reason, detail) if reason else problem or (no_text if self._where.NEEDS_TEXT else None),
            columns=self._extra.of(described),
        )

    def _text(self, txt: bytes | None, place: object, described: Mapping[str, object]) -> tuple[str, Problem | None]:
        """Return the transcript of a sample from its .txt or .json, and the problem if it cannot be used."""
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


def _piece(file: BinaryIO, place: Mapping[str, int], start: int) -> bytes:
    """Read a piece of a file in an open shard, from an offset within the file."""
    file.seek(place["offset"] + start)
    return file.read(min(content.PIECE_BYTES, place["size"] - start))


def _check(samples: pa.Table, where: SourceConfig) -> None:
    """Raise DataError if no sample has audio, and a text if one is needed."""
    if not samples.num_rows:
        raise DataError(f"{where.path}: holds no row")
    usable = samples["audio"].is_valid()
    if where.NEEDS_TEXT:
        usable = pc.and_(usable, pc.or_(samples["txt"].is_valid(), samples["json"].is_valid()))
    if not pc.any(usable).as_py():
        beside = " next to a .txt or .json of the same name" if where.NEEDS_TEXT else ""
        raise DataError(f"{where.path}: no sample has audio{beside}: not a WebDataset of speech")


def _sample_bytes(samples: pa.Table) -> list[int]:
    """Total bytes of the files of each sample."""
    sizes = [pc.fill_null(pc.struct_field(samples[kind], "size"), 0).to_pylist() for kind in ("audio", "txt", "json")]
    return [sum(sample) for sample in zip(*sizes, strict=True)]


def _chunk_sizes(samples: pa.Table) -> list[int]:
    """Rows of each chunk of a shard."""
    chunks, rows, size = [], 0, 0
    for bytes_of_sample in _sample_bytes(samples):
        if rows == CHUNK_ROWS or (rows and size + bytes_of_sample > MAX_CHUNK_BYTES):
            chunks.append(rows)
            rows, size = 0, 0
        rows, size = rows + 1, size + bytes_of_sample
    return [*chunks, rows] if rows else chunks


def _range(record: Mapping[str, Any], kind: str) -> Range | None:
    """Byte range of a sample's file in its shard; None if the file is missing, or too large for a text."""
    place = record[kind]
    if place is None or (kind != "audio" and place["size"] > MAX_TEXT_BYTES):
        return None
    return place["offset"], place["offset"] + place["size"]


def _file(fetched: FetchedRanges, record: Mapping[str, Any], kind: str) -> bytes | None:
    """Content of a sample's file; None if it was not fetched."""
    place = _range(record, kind)
    if place is None:
        return None
    return fetched.get(*place) if place[0] < place[1] else b""


def _read_json(encoded: bytes | None, place: object) -> tuple[dict[str, object], Problem | None]:
    """Read the object in the .json of a sample; the second value is the problem if the .json cannot be read."""
    if encoded is None:
        return {}, None if place is None else TOO_LONG
    try:
        described = json.loads(encoded.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return {}, ("bad_json", f"the .json cannot be read: {one_line(error)}")
    if isinstance(described, dict):
        return described, None
    return {}, ("bad_json", f"the .json should be an object, it is {type(described).__name__}")


def _optional_text(value: object) -> str | None:
    """Text of a JSON value of any type; None for null."""
    return None if value is None else str(value)
