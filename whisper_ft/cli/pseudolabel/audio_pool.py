"""Pool of audio without text: rows of a data set or audio files, divided into parts that processes share."""

import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from whisper_ft.cli.prepare.json_list import open_any
from whisper_ft.cli.transcribe.audio_files import EXTENSIONS, AudioFile, find_audio
from whisper_ft.config.data import SourceConfig
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.decode import decode_beginning
from whisper_ft.data.formats.detect import format_of
from whisper_ft.data.formats.honoured import given_of
from whisper_ft.data.labelled import LabelledSource
from whisper_ft.data.types import RejectedError, Row
from whisper_ft.decoding.long_form import MAX_RECORDING_SECONDS, split_at_silence
from whisper_ft.decoding.recording_windows import RecordingPieces
from whisper_ft.runtime.errors import UsageError
from whisper_ft.scoring.unicode_text import encodable

PART_ROWS = 32
"""Most rows or files of a part. Its windows are decoded together, so that a batch is filled with short clips, too."""
PART_BYTES = 16_000_000
"""Bytes of the files of a part, unless one file is larger: some 16 minutes of 16 kHz FLAC."""
FORMATS_OF_FILES = ("pairs", "librispeech", "subtitles")
"""Formats in which texts lie beside audio files. Here the files are read as if nothing lay beside them."""
SETTINGS_OF_FILES = ("path", "language", "task")
"""Settings of the data that have an effect on audio files."""


class PoolItem(NamedTuple):
    """Row or file of the pool."""

    row: Row
    audio: Path | bytes
    """Path of a file, or the content of a row."""

    @property
    def is_segment(self) -> bool:
        """True if only a part of the audio belongs to the item."""
        return self.row.offset != 0.0 or self.row.duration is not None


class Piece(NamedTuple):
    """Samples of a window of an item."""

    number: int
    begin: float
    """Seconds from the begin of the item."""
    waveform: Waveform
    is_whole: bool
    """True if the item has no other window, and is read to its end."""


class AudioPool(Protocol):
    """Audio in parts, each with several items. The parts are the same at each start."""

    @property
    def weights(self) -> Sequence[int]:
        """Size of each part, in any unit, by which processes share the parts."""

    def items(self, part: int) -> Sequence[PoolItem]:
        """Return the items of a part."""

    def fingerprint(self) -> dict[str, Any]:
        """JSON summary of the pool, by which a changed one is noticed."""

    @property
    def notes(self) -> Sequence[str]:
        """Lines for the user about the reading."""

    @property
    def has_languages(self) -> bool:
        """True if the items may name their language."""


class RowPool:
    """Pool of the rows of a data set."""

    def __init__(self, source: LabelledSource) -> None:
        self._source, self._read = source, (-1, list[Row]())
        self._parts = [
            (chunk, first, min(PART_ROWS, rows - first))
            for chunk, rows in enumerate(source.rows)
            for first in range(0, rows, PART_ROWS)
        ]
        self.weights = [rows for _, _, rows in self._parts]
        self.notes, self.has_languages = source.notes, source.used.language is not None

    def items(self, part: int) -> list[PoolItem]:
        """Return the rows of a part. Parts in a row that are of one chunk read it once."""
        chunk, first, rows = self._parts[part]
        if self._read[0] != chunk:
            self._read = chunk, [*self._source.read(chunk)]
        return [PoolItem(row, row.audio) for row in self._read[1][first : first + rows]]

    def fingerprint(self) -> dict[str, Any]:
        """Fingerprint of the source."""
        return self._source.fingerprint()


class FilePool:
    """Pool of audio files, each of any length. The id of a file is its path below the folder that all share."""

    def __init__(self, files: Sequence[AudioFile], where: SourceConfig) -> None:
        self._where, self.notes, self.has_languages = where, list[str](), False
        top = os.path.commonpath([file.path.absolute().parent for file in files])
        sizes = [_size(file.path) for file in files]
        self._files = [(encodable(os.path.relpath(file.path.absolute(), top)), file.path) for file in files]
        self._sizes, self._parts = sizes, [*_parts(sizes)]
        self.weights = [sum(sizes[first:last]) for first, last in self._parts]

    def items(self, part: int) -> list[PoolItem]:
        """Return the files of a part, which are not read here."""
        first, last = self._parts[part]
        language, task = self._where.language, self._where.task
        return [
            PoolItem(Row(name, b"", "", language=language, task=task, recording=name), path)
            for name, path in self._files[first:last]
        ]

    def fingerprint(self) -> dict[str, Any]:
        """Fingerprint of the names and sizes of the files."""
        names = [name for name, _ in self._files]
        digest = hashlib.sha256(repr([*zip(names, self._sizes, strict=True)]).encode("utf-8", "surrogateescape"))
        return {"files": len(names), "digest": digest.hexdigest()[:16]}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it is listed as unreadable when its turn comes
        return 0


def _parts(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first file of each part, and the one after its last."""
    first, held = 0, 0
    for number, size in enumerate(sizes):
        if number > first and (held + size > PART_BYTES or number - first == PART_ROWS):
            yield first, number
            first, held = number, 0
        held += size
    yield first, len(sizes)


def open_pool(where: SourceConfig) -> AudioPool:
    """Open the audio at `where.path`: audio files, or the rows of a data set.

    A file, a glob or a folder of audio files is read file by file, also if texts lie beside them. A data set is read by
    its rows: one that a file or a format names, such as a table or a list. Raises UsageError and DataError as
    `open_source` does.
    """
    files, lines = _audio_files(where)
    if files is None:
        return RowPool(open_any(where))
    for name in given_of(where):
        if name not in SETTINGS_OF_FILES:
            raise UsageError(f"--data.{name} {getattr(where, name)}: has no effect on audio files; leave it out")
    pool = FilePool(files, where)
    pool.notes = lines
    return pool


def _audio_files(where: SourceConfig) -> tuple[list[AudioFile] | None, list[str]]:
    """Return the audio files that a path names, and lines for the user; None for a data set."""
    path = os.path.expanduser(where.path)
    if where.format != "auto" or "://" in where.path:
        return None, []
    if os.path.isfile(path):
        return find_audio([where.path], None) if _is_audio(path) else (None, [])
    if os.path.isdir(path):
        try:
            return (None, []) if format_of(where.path) not in FORMATS_OF_FILES else find_audio([where.path], None)
        except UsageError as unknown:  # no format of a data set
            try:
                return find_audio([where.path], None)
            except UsageError:
                raise unknown from None
    is_glob = any(os.path.isdir(name) or _is_audio(name) for name in glob.iglob(path, recursive=True))
    return find_audio([where.path], None) if is_glob else (None, [])


def _is_audio(path: str) -> bool:
    return path.rpartition(".")[2].lower() in EXTENSIONS


class PieceReader:
    """Reader of the pieces of one item, which are cut where an evaluation cuts it. They can be read once.

    `problem` is the reason for which the item could not be read at all, or from the second `seconds` on.
    """

    def __init__(self, item: PoolItem) -> None:
        self._item, self.problem, self.seconds = item, item.row.problem, 0.0

    def pieces(self, window_samples: int, sample_rate: int) -> Iterator[Piece]:
        """Yield the pieces in order."""
        if self.problem is None:
            before: Piece | None = None
            for number, begin, waveform in self._waveforms(window_samples, sample_rate):
                if before is not None:
                    yield before._replace(is_whole=False)
                before, self.seconds = Piece(number, begin, waveform, True), begin + len(waveform) / sample_rate
            if before is not None:
                yield before._replace(is_whole=before.number == 0 and self.problem is None)

    def _waveforms(self, window_samples: int, sample_rate: int) -> Iterator[tuple[int, float, Waveform]]:
        row = self._item.row
        if not self._item.is_segment:
            read = RecordingPieces(self._item.audio)
            yield from read.pieces(window_samples, sample_rate)
            if read.problem is not None:
                self.problem = read.problem.reason, read.problem.detail
            return
        try:
            waveform, _ = decode_beginning(row.audio, sample_rate, MAX_RECORDING_SECONDS, row.offset, row.duration)
        except RejectedError as error:
            self.problem = error.reason, error.detail
            return
        pieces = split_at_silence(waveform, window_samples, sample_rate)
        begins = [0, *accumulate(map(len, pieces))]
        for number, (begin, piece) in enumerate(zip(begins, pieces, strict=False)):
            yield number, begin / sample_rate, piece
