"""Folders written by `save_to_disk` of datasets: a Dataset, or a DatasetDict with a folder for each split."""

import io
import json
import posixpath
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import fsspec
import pyarrow as pa
import soundfile
from fsspec import AbstractFileSystem

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.arrow_stream import ArrowStream, index_stream
from whisper_ft.data.formats.columns import (
    AUDIO_COLUMNS,
    LANGUAGE_COLUMNS,
    ExtraColumns,
    column_of,
    is_binary,
    is_list,
    is_text,
    speaker_columns,
    speaker_of,
    text_column_of,
)
from whisper_ft.data.formats.file_table import CHUNK_ROWS
from whisper_ft.data.formats.fingerprint import of_files
from whisper_ft.data.formats.label_columns import LabelColumns, used_parts
from whisper_ft.data.storage import content
from whisper_ft.data.storage.files import FolderStore
from whisper_ft.data.storage.ranges import IO_THREADS, is_local
from whisper_ft.data.storage.read_errors import data_errors
from whisper_ft.data.types import Labels, RejectedError, Row
from whisper_ft.runtime.errors import DataError, UsageError

Problem = tuple[str, str]
"""Problem with a row: reason code, and explanation for the user."""


def open_saved_dataset(where: SourceConfig, columns: Sequence[str] = ()) -> "SavedDataset":
    """Open the rows of a saved Dataset, or of one or several splits of a DatasetDict (`train+validation`).

    Raises UsageError if a split must be chosen or is missing, or for a missing or unusable column, one of the extra
    `columns` included. A folder that cannot be read or holds no row raises DataError.
    """
    with data_errors(where.path):
        file_system, path = fsspec.core.url_to_fs(where.path)
        root = path.rstrip("/")
        splits = _split_folders(file_system, root, where)
        names = [
            posixpath.join(folder, name)
            for folder in splits
            for name in _arrow_files(file_system, f"{root}/{folder}".rstrip("/"))
        ]
        with ThreadPoolExecutor(IO_THREADS) as pool:
            streams = list(pool.map(lambda name: index_stream(file_system, f"{root}/{name}"), names))
        return SavedDataset(names, streams, where, columns, "+".join(splits) or None)


def _split_folders(file_system: AbstractFileSystem, root: str, where: SourceConfig) -> list[str]:
    """Find the folders of the chosen splits. A Dataset has no splits, so its only folder is "".

    Raises UsageError if a split must be chosen or is missing, or if the folder is not a saved data set.
    """
    wanted = where.split.split("+") if where.split else []
    if file_system.isfile(f"{root}/dataset_dict.json"):
        splits = _file_names(_json_object(file_system, f"{root}/dataset_dict.json").get("splits"), root)
        if not set(wanted) <= set(splits) or (not wanted and len(splits) != 1):
            missing = f", but not {', '.join(sorted(set(wanted) - set(splits)))}" if wanted else ""
            raise UsageError(
                f"{where.path}: has the splits {', '.join(splits)}{missing}; "
                "set --data.split to one of them, or several with +"
            )
        return list(dict.fromkeys(wanted)) or splits
    if not file_system.isfile(f"{root}/state.json") or not file_system.isfile(f"{root}/dataset_info.json"):
        raise UsageError(
            f"{where.path}: not written by save_to_disk of datasets: "
            "it holds neither dataset_dict.json nor state.json and dataset_info.json"
        )
    saved = _json_object(file_system, f"{root}/state.json").get("_split")
    if wanted and wanted != [saved]:
        raise UsageError(f"{where.path}: is one Dataset of split {saved}, not {where.split}; leave --data.split out")
    return [""]


def _arrow_files(file_system: AbstractFileSystem, folder: str) -> list[str]:
    """Names of the .arrow files in a folder, in the order of their rows."""
    state = _json_object(file_system, f"{folder}/state.json")
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise UsageError(
            f"{folder}: its rows are in the order of an index file, as datasets 1 saved them; "
            "load it with load_from_disk and save it again after flatten_indices()"
        )
    files = state.get("_data_files")
    is_list_of_objects = isinstance(files, list) and all(isinstance(file, dict) for file in files)
    return _file_names([file.get("filename") for file in files or []] if is_list_of_objects else files, folder)


def _file_names(names: object, folder: str) -> list[str]:
    """Return the value if it is a list of names directly in a folder.

    Raises DataError for any other value, because it could lead out of the folder.
    """
    if not isinstance(names, list) or not all(
        isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0") for name in names
    ):
        raise DataError(f"{folder}: dataset_dict.json or state.json does not list names of files in it: {names!r:.100}")
    return names


def _json_object(file_system: AbstractFileSystem, path: str) -> dict[str, Any]:
    value = json.loads(file_system.cat_file(path).decode("utf-8-sig"))
    if not isinstance(value, dict):
        raise DataError(f"{path}: not a JSON object")
    return value


class SavedColumns(NamedTuple):
    """Names of the columns to read from one file; `speakers` are all columns that may hold the speaker, maybe none."""

    audio: str
    text: str | None
    labels: LabelColumns
    speakers: list[str]

    @property
    def texts(self) -> list[str]:
        """Names of all columns but the audio."""
        return [*([] if self.text is None else [self.text]), *self.labels.names, *self.speakers]


class ChunkPlace(NamedTuple):
    """Place of a chunk: rows [start, stop) of a record batch. Row `start` is row `first` of the file."""

    file: int
    batch: int
    start: int
    stop: int
    first: int


class SavedDataset:
    """Source over the record batches of several files, in chunks of up to CHUNK_ROWS rows.

    `names` are the files relative to the data set, `streams` their indexes in the same order. Raises UsageError for a
    missing or unusable column, and DataError if there is no row.
    """

    def __init__(
        self,
        names: Sequence[str],
        streams: Sequence[ArrowStream],
        where: SourceConfig,
        columns: Sequence[str] = (),
        split: str | None = None,
    ) -> None:
        self._names, self._streams = list(names), list(streams)
        self._columns = [_columns(stream, where) for stream in streams]
        self.used = used_parts([(c.audio, c.text, c.labels) for c in self._columns], split)
        self._extra = [ExtraColumns.in_schema(stream.schema, columns, stream.path, where) for stream in streams]
        self._places = [place for file, stream in enumerate(streams) for place in _chunk_places(file, stream)]
        self._store = FolderStore(where.audio_root or where.path, where.allowed_folders)
        self.rows: list[int] = [place.stop - place.start for place in self._places]
        if not self.rows:
            raise DataError(f"{where.path}: holds no row")

    @property
    def largest_chunk(self) -> int:
        """Approximate bytes of the largest chunk. Audio files that the rows only name are not counted."""
        batches = [(place, self._streams[place.file].batches[place.batch]) for place in self._places]
        return max(batch.body_bytes * (place.stop - place.start) // batch.rows for place, batch in batches)

    def read(self, chunk: int) -> list[Row]:
        """Read the rows of one chunk. Raises DataError if it cannot be read.

        A row whose own audio file or samples cannot be used has a problem, and no audio.
        """
        file, batch, start, stop, _ = self._places[chunk]
        stream, columns, extra = self._streams[file], self._columns[file], self._extra[file]
        names = list(dict.fromkeys([columns.audio, *columns.texts, *extra.names]))
        with data_errors(stream.path):
            part = stream.read(batch, start, stop, names)
            records = part.select(list(dict.fromkeys([*columns.texts, *extra.names]))).to_pylist()
        with ThreadPoolExecutor(IO_THREADS) as pool:
            clips = list(pool.map(self._audio, part.column(columns.audio)))
        return [
            Row(
                id=self.row_id(chunk, row),
                audio=audio,
                text=record.get(columns.text or "") or "",
                **columns.labels.of(record),
                speaker=speaker_of({name: record[name] for name in columns.speakers}),
                problem=problem,
                columns=extra.of(record),
            )
            for row, ((audio, problem), record) in enumerate(zip(clips, records, strict=True))
        ]

    def labels(self, chunk: int) -> list[Labels]:
        """Language and task of the rows of one chunk, by their columns."""
        file, batch, start, stop, _ = self._places[chunk]
        stream, labels = self._streams[file], self._columns[file].labels
        if not labels.names:
            return [(None, None)] * self.rows[chunk]
        with data_errors(stream.path):
            return [labels.pair(record) for record in stream.read(batch, start, stop, labels.names).to_pylist()]

    def row_id(self, chunk: int, row: int) -> str:
        """Id `split/data-00000-of-00001.arrow#row`, where rows are counted from the start of the file."""
        place = self._places[chunk]
        return f"{self._names[place.file]}#{place.first + row}"

    def fingerprint(self) -> dict[str, Any]:
        """Fingerprint of the files' names, and of the rows and bytes of their record batches."""
        groups = [[(batch.rows, batch.body_bytes) for batch in stream.batches] for stream in self._streams]
        return of_files(self._names, groups)

    def content(self) -> content.Content:
        """Digests of the files' sizes, and of a sample of their bytes or of their versions.

        Local rows may name audio files outside; the audio of the sampled rows is in the sample.
        """
        file_system = self._streams[0].file_system
        found = content.of_files(file_system, [stream.path for stream in self._streams])
        if not is_local(file_system):
            return found
        heard = content.in_threads(self._sampled_audio, content.sampled(len(self._places)))
        return found | {"sample": content.digest([found["sample"], *heard])}

    def _sampled_audio(self, chunk: int) -> str:
        """Digest of the audio in the first row of a chunk, or of the problem with it."""
        file, batch, start, _, _ = self._places[chunk]
        name = self._columns[file].audio
        with data_errors(self._streams[file].path):
            part = self._streams[file].read(batch, start, start + 1, [name])
        return content.digest(self._audio(part.column(name)[0]))

    def _audio(self, stored: pa.Scalar) -> tuple[bytes, Problem | None]:
        """Return the encoded audio of a row, or the problem with it."""
        try:
            if not stored.is_valid:
                return b"", None
            if not pa.types.is_struct(stored.type):
                return self._store.read(stored.as_py()), None
            fields = {stored.type.field(number).name: value for number, value in enumerate(stored.values())}
            if "bytes" in fields and fields["bytes"].is_valid:
                return fields["bytes"].as_py(), None
            if "array" in fields and fields["array"].is_valid:
                return _wav(fields["array"].values, fields["sampling_rate"].as_py()), None
            path = fields["path"].as_py() if "path" in fields else None
            return self._store.read(path) if path else b"", None
        except RejectedError as rejected:
            return b"", (rejected.reason, rejected.detail)


def _chunk_places(file: int, stream: ArrowStream) -> list[ChunkPlace]:
    """Chunks of a file: runs of CHUNK_ROWS rows, counted from the beginning of each record batch."""
    places, first = [], 0
    for number, batch in enumerate(stream.batches):
        for start in range(0, batch.rows, CHUNK_ROWS):
            places.append(ChunkPlace(file, number, start, min(start + CHUNK_ROWS, batch.rows), first + start))
        first += batch.rows
    return places


def _wav(values: pa.Array, rate: int | None) -> bytes:
    """Encode samples as a WAV file: 16-bit integers if the samples are integers, else 32-bit floats."""
    if rate is None or values.null_count:
        raise RejectedError("decode_error", "samples or the sampling rate are missing")
    samples, file = values.to_numpy(zero_copy_only=False), io.BytesIO()
    is_integer = pa.types.is_integer(values.type)
    try:
        written = samples if is_integer else samples.astype("float32")
        soundfile.write(file, written, rate, format="WAV", subtype="PCM_16" if is_integer else "FLOAT")
    except (soundfile.SoundFileError, OverflowError, TypeError, ValueError) as error:
        raise RejectedError("decode_error", f"{len(samples)} samples at {rate} Hz: {error}") from error
    return file.getvalue()


def _columns(stream: ArrowStream, where: SourceConfig) -> SavedColumns:
    """Names of the columns to read from a file.

    Raises UsageError if a needed column is missing, or a column has an unusable type.
    """
    schema, path = stream.schema, stream.path
    audio = column_of(schema.names, where.audio_column, AUDIO_COLUMNS, "audio_column", path)
    text = text_column_of(schema.names, where, path)
    if text and not where.NEEDS_TEXT and not is_text(schema.field(text).type):
        text = None
    if not _is_audio(schema.field(audio).type):
        raise UsageError(
            f"{path}: column {audio!r} should have bytes, samples as floats or 16-bit integers with their "
            f"sampling_rate, or the path of a file; it is {schema.field(audio).type}; set --data.audio_column"
        )
    if text and not (is_text(schema.field(text).type) or pa.types.is_null(schema.field(text).type)):
        raise UsageError(
            f"{path}: column {text!r} should be text, it is {schema.field(text).type}; set --data.text_column"
        )
    labels = LabelColumns.in_schema(schema, where, path, early_languages=LANGUAGE_COLUMNS)
    return SavedColumns(audio, text, labels, speaker_columns(schema))


def _is_audio(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return is_text(kind)
    fields = {field.name: field.type for field in kind}
    if "array" in fields and "sampling_rate" in fields:
        sample = fields["array"].value_type if is_list(fields["array"]) else pa.null()
        if (pa.types.is_floating(sample) or sample == pa.int16()) and pa.types.is_integer(fields["sampling_rate"]):
            return True
    return "bytes" in fields and is_binary(fields["bytes"])
