"""Folders that datasets' `save_to_disk` wrote: a Dataset, or a DatasetDict with a folder for each split."""

import io
import json
import posixpath
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import fsspec
import pyarrow as pa
import soundfile

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.arrow_stream import ArrowStream, index_stream
from whisper_ft.data.formats.columns import AUDIO_COLUMNS, TEXT_COLUMNS, ExtraColumns, column_of
from whisper_ft.data.formats.file_table import CHUNK_ROWS, data_errors
from whisper_ft.data.formats.fingerprint import of_files
from whisper_ft.data.formats.manifest import LANGUAGE_COLUMNS, SPEAKER_COLUMNS
from whisper_ft.data.storage.files import FolderStore
from whisper_ft.data.types import RejectedError, Row
from whisper_ft.runtime.errors import DataError, UsageError

READERS = 16  # threads that wait for files


def open_saved_dataset(where: SourceConfig, columns: Sequence[str] = ()) -> "SavedDataset":
    """The rows of a saved Dataset, or of a split of a DatasetDict (several: `train+validation`)."""
    with data_errors(where.path):
        file_system, path = fsspec.core.url_to_fs(where.path)
        root = path.rstrip("/")
        names = [
            posixpath.join(part, name)
            for part in _parts(file_system, root, where)
            for name in _arrow_files(file_system, f"{root}/{part}".rstrip("/"))
        ]
        with ThreadPoolExecutor(READERS) as pool:
            streams = list(pool.map(lambda name: index_stream(file_system, f"{root}/{name}"), names))
        return SavedDataset(names, streams, where, columns)


def _parts(file_system: Any, root: str, where: SourceConfig) -> list[str]:
    """Folders of the splits that are wanted, or [""] for a Dataset without."""
    wanted = where.split.split("+") if where.split else []
    if file_system.isfile(f"{root}/dataset_dict.json"):
        splits = _names(_object(file_system, f"{root}/dataset_dict.json").get("splits"), root)
        if not set(wanted) <= set(splits) or (not wanted and len(splits) != 1):
            lacks = f", but not {', '.join(sorted(set(wanted) - set(splits)))}" if wanted else ""
            raise UsageError(
                f"{where.path}: has the splits {', '.join(splits)}{lacks}; "
                "set --data.split to one of them, or several with +"
            )
        return list(dict.fromkeys(wanted)) or splits
    if not file_system.isfile(f"{root}/state.json") or not file_system.isfile(f"{root}/dataset_info.json"):
        raise UsageError(
            f"{where.path}: not written by save_to_disk of datasets: "
            "it holds neither dataset_dict.json nor state.json and dataset_info.json"
        )
    saved = _object(file_system, f"{root}/state.json").get("_split")
    if wanted and wanted != [saved]:
        raise UsageError(f"{where.path}: is one Dataset of split {saved}, not {where.split}; leave --data.split out")
    return [""]


def _arrow_files(file_system: Any, folder: str) -> list[str]:
    """Names of the files in their order."""
    state = _object(file_system, f"{folder}/state.json")
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise UsageError(
            f"{folder}: its rows are in the order of an index file, as datasets 1 saved them; "
            "load it with load_from_disk and save it again after flatten_indices()"
        )
    files = state.get("_data_files")
    is_list = isinstance(files, list) and all(isinstance(file, dict) for file in files)
    return _names([file.get("filename") for file in files or []] if is_list else files, folder)


def _names(found: Any, folder: str) -> list[str]:
    """Names of what is directly in a folder; DataError for anything that is not, as it would lead out of it."""
    if not isinstance(found, list) or not all(
        isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0") for name in found
    ):
        raise DataError(f"{folder}: dataset_dict.json or state.json does not list names of files in it: {found!r:.100}")
    return found


def _object(file_system: Any, path: str) -> dict[str, Any]:
    found = json.loads(file_system.cat_file(path).decode("utf-8-sig"))
    if not isinstance(found, dict):
        raise DataError(f"{path}: not a JSON object")
    return found


class SavedColumns(NamedTuple):
    """What the columns of one file are called; None where there is none."""

    audio: str
    text: str
    language: str | None
    task: str | None
    speaker: str | None


class BatchPlace(NamedTuple):
    """Where a chunk is: the rows [start, stop) of a record batch, of which the first is row `first` of the file."""

    file: int
    batch: int
    start: int
    stop: int
    first: int


class SavedDataset:
    """Record batches of several files as one sequence of chunks of `CHUNK_ROWS` rows."""

    def __init__(
        self,
        names: Sequence[str],
        streams: Sequence[ArrowStream],
        where: SourceConfig,
        columns: Sequence[str] = (),
    ) -> None:
        self._names, self._streams = list(names), list(streams)
        self._columns = [_columns(stream, where) for stream in streams]
        self._carried = [ExtraColumns.in_schema(stream.schema, columns, stream.path) for stream in streams]
        self._places = [place for file, stream in enumerate(streams) for place in _places(file, stream)]
        self._shelf = FolderStore(where.audio_root or where.path)
        self.rows: list[int] = [place.stop - place.start for place in self._places]
        if not self.rows:
            raise DataError(f"{where.path}: holds no row")

    @property
    def largest_chunk(self) -> int:
        """Bytes of the largest chunk, less the files that it only names."""
        batches = [(place, self._streams[place.file].batches[place.batch]) for place in self._places]
        return max(batch.body_bytes * (place.stop - place.start) // batch.rows for place, batch in batches)

    def read(self, chunk: int) -> list[Row]:
        """The rows of one chunk."""
        file, batch, start, stop, _ = self._places[chunk]
        stream, columns, carried = self._streams[file], self._columns[file], self._carried[file]
        with data_errors(stream.path):
            part = stream.read(batch, start, stop, list(dict.fromkeys([*filter(None, columns), *carried.names])))
            said = [part.column(name).to_pylist() if name else [None] * len(part) for name in columns[1:]]
            others = [carried.of(row) for row in part.select(carried.names).to_pylist()] if carried.names else None
        with ThreadPoolExecutor(READERS) as pool:
            heard = pool.map(self._audio, part.column(columns.audio))
            return [
                Row(
                    id=self.row_id(chunk, row),
                    audio=audio,
                    text=text or "",
                    language=language,
                    task=task,
                    speaker=None if speaker is None else str(speaker),
                    problem=problem,
                    columns=others[row] if others else None,
                )
                for row, ((audio, problem), text, language, task, speaker) in enumerate(zip(heard, *said, strict=True))
            ]

    def row_id(self, chunk: int, row: int) -> str:
        """`split/data-00000-of-00001.arrow#row`, counted from the start of the file."""
        place = self._places[chunk]
        return f"{self._names[place.file]}#{place.first + row}"

    def fingerprint(self) -> dict[str, Any]:
        """Names of the files, and rows and bytes of their record batches."""
        groups = [[(batch.rows, batch.body_bytes) for batch in stream.batches] for stream in self._streams]
        return of_files(self._names, groups)

    def _audio(self, stored: pa.Scalar) -> tuple[bytes, tuple[str, str] | None]:
        """Encoded audio of a row, or what is wrong with it."""
        try:
            if not stored.is_valid:
                return b"", None
            if not pa.types.is_struct(stored.type):
                return self._shelf.read(stored.as_py()), None
            fields = {stored.type.field(number).name: value for number, value in enumerate(stored.values())}
            if "bytes" in fields and fields["bytes"].is_valid:
                return fields["bytes"].as_py(), None
            if "array" in fields and fields["array"].is_valid:
                return _wav(fields["array"].values, fields["sampling_rate"].as_py()), None
            path = fields["path"].as_py() if "path" in fields else None
            return self._shelf.read(path) if path else b"", None
        except RejectedError as unusable:
            return b"", (unusable.reason, unusable.detail)


def _places(file: int, stream: ArrowStream) -> list[BatchPlace]:
    """The chunks of a file: as many rows as a chunk has, from the beginning of each record batch."""
    places, first = [], 0
    for number, batch in enumerate(stream.batches):
        for start in range(0, batch.rows, CHUNK_ROWS):
            places.append(BatchPlace(file, number, start, min(start + CHUNK_ROWS, batch.rows), first + start))
        first += batch.rows
    return places


def _wav(values: pa.Array, rate: int | None) -> bytes:
    """The samples as a WAV file: of 32-bit floats, or as the 16-bit integers they are."""
    if rate is None or values.null_count:
        raise RejectedError("decode_error", "samples or the sampling rate are missing")
    samples, file = values.to_numpy(zero_copy_only=False), io.BytesIO()
    is_integer = pa.types.is_integer(values.type)
    try:
        kept = samples if is_integer else samples.astype("float32")
        soundfile.write(file, kept, rate, format="WAV", subtype="PCM_16" if is_integer else "FLOAT")
    except (soundfile.SoundFileError, OverflowError, TypeError, ValueError) as error:
        raise RejectedError("decode_error", f"{len(samples)} samples at {rate} Hz: {error}") from error
    return file.getvalue()


def _columns(stream: ArrowStream, where: SourceConfig) -> SavedColumns:
    """Columns of a file to read; UsageError when one is missing, or is not of a type that can be used."""
    schema, path = stream.schema, stream.path
    audio = column_of(schema.names, where.audio_column, AUDIO_COLUMNS, "audio_column", path)
    text = column_of(schema.names, where.text_column, TEXT_COLUMNS, "text_column", path)
    if not _is_audio(schema.field(audio).type):
        raise UsageError(
            f"{path}: column {audio!r} should have bytes, samples as floats or 16-bit integers with their "
            f"sampling_rate, or the path of a file; it is {schema.field(audio).type}"
        )
    language = next((name for name in LANGUAGE_COLUMNS if name in schema.names), None)
    task = "task" if "task" in schema.names else None
    for name, setting in ((text, "text_column"), (language, "language"), (task, "task")):
        if name and not (_is_text(schema.field(name).type) or pa.types.is_null(schema.field(name).type)):
            raise UsageError(
                f"{path}: column {name!r} should be text, it is {schema.field(name).type}; "
                f"rewrite it as text, or drop or rename it and set --data.{setting}"
            )
    return SavedColumns(
        audio, text, language, task, next((name for name in SPEAKER_COLUMNS if name in schema.names), None)
    )


def _is_audio(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return _is_text(kind)
    fields = {field.name: field.type for field in kind}
    if "array" in fields and "sampling_rate" in fields:
        of = fields["array"].value_type if _is_list(fields["array"]) else pa.null()
        if (pa.types.is_floating(of) or of == pa.int16()) and pa.types.is_integer(fields["sampling_rate"]):
            return True
    return fields.get("bytes") in (pa.binary(), pa.large_binary())


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    return kind in (pa.string(), pa.large_string())
