"""Folders of audio files whose transcripts lie beside them: pairs `x.wav` and `x.txt`, and LibriSpeech's *.trans.txt.

LibriSpeech has SUBSET/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt, with a line `ID TEXT` for each ID.flac
(https://www.openslr.org/12).
"""

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fsspec

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.audiofolder import chosen_splits, split_of
from whisper_ft.data.formats.columns import require_columns
from whisper_ft.data.formats.file_naming import is_audio
from whisper_ft.data.formats.file_table import FileTable, table_of
from whisper_ft.data.formats.text_lines import open_lines
from whisper_ft.data.formats.transcript_texts import TranscriptTexts
from whisper_ft.data.storage.files import FolderStore
from whisper_ft.data.storage.ranges import IO_THREADS
from whisper_ft.data.storage.read_errors import data_errors
from whisper_ft.data.types import RejectedError, UsedParts
from whisper_ft.runtime.errors import UsageError

LINES = ".trans.txt"
TEXT = ".txt"
TIMED = (".srt", ".vtt", ".textgrid")
"""Ends of the names of subtitles, which `subtitle_files` reads."""
MAX_TEXT_BYTES = 2**20
"""Size of the largest transcript of a pair, in bytes. A window holds far less, so a larger file is no transcript."""


def open_pairs(where: SourceConfig, columns: Sequence[str] = ()) -> FileTable:
    """Open pairs of an audio file and a text file of the same name, in a folder and the folders below.

    The lines of a text are joined by spaces. A split is a folder such as train. An audio file without a usable text
    becomes a row with the problem bad_label. So does one whose text `transcribe` wrote. A text without audio is left
    out, and noted.

    Raises UsageError if there is no pair, if a split must be chosen or is missing, and for any extra `columns`.
    """
    with data_errors(where.path):
        require_columns((), columns, where.path, where)
        root, files = files_below(where.path)
        store = FolderStore(root, where.allowed_folders)
        texts = {posixpath.splitext(name)[0]: name for name in files if name.endswith(TEXT)}
        clips = [name for name in files if is_audio(name)]
        if not any(posixpath.splitext(name)[0] in texts for name in clips):
            raise UsageError(f"{where.path}: holds no pairs of an audio file and a .txt of the same name")
        wanted = where.split.split("+") if where.split else []
        clips = in_splits({name: split_of(name, wanted) for name in clips}, wanted, where)
        with ThreadPoolExecutor(IO_THREADS) as pool:
            content = TranscriptTexts(store, files)
            rows = list(pool.map(lambda clip: _pair(clip, texts.get(posixpath.splitext(clip)[0]), content), clips))
        alone = sorted(set(texts) - {posixpath.splitext(name)[0] for name in files if is_audio(name)})
        notes = [f"{where.path}: {len(alone)} .txt without audio beside it: {alone[0]}.txt, ..."] if alone else []
        stems = {posixpath.splitext(clip)[0] for clip in clips}
        timed = [name for name in files if name.lower().endswith(TIMED) and posixpath.splitext(name)[0] in stems]
        if timed:
            notes.append(
                f"{where.path}: holds subtitles, such as {timed[0]}; --data.format subtitles reads their times"
            )
        return FileTable(table_of(rows), store, where, notes, UsedParts(where.split))


def open_librispeech(where: SourceConfig, columns: Sequence[str] = ()) -> FileTable:
    """Open the lines of all *.trans.txt below a folder. A split is the folder of a subset, such as dev-clean.

    A line without an audio file becomes a row with a problem. Raises UsageError if there is no such list, if a split
    must be chosen or is missing, and for any extra `columns`.
    """
    with data_errors(where.path):
        require_columns((), columns, where.path, where)
        root, files = files_below(where.path)
        lists = [name for name in files if name.endswith(LINES)]
        if not lists:
            raise UsageError(f"{where.path}: holds no *{LINES}, in it or in a folder below")
        wanted = where.split.split("+") if where.split else []
        lists = in_splits({name: _subset(name) for name in lists}, wanted, where)
        clips = {posixpath.splitext(name)[0]: name for name in files if is_audio(name)}
        rows = (row for name in lists for row in _lines(root, name, clips))
        return FileTable(table_of(rows), FolderStore(root, where.allowed_folders), where, used=UsedParts(where.split))


def files_below(path: str) -> tuple[str, list[str]]:
    """Return the address of a folder, and the sorted names of all files below it, relative to it."""
    file_system, root = fsspec.core.url_to_fs(path)
    root = root.rstrip("/")
    names = sorted(name.removeprefix(f"{root}/") for name in file_system.find(root))
    return str(file_system.unstrip_protocol(root)), names


def in_splits(splits: dict[str, str | None], wanted: list[str], where: SourceConfig) -> list[str]:
    """Return the names whose split is wanted, in the order of the setting.

    Raises UsageError as `chosen_splits` does.
    """
    chosen = chosen_splits(sorted({split for split in splits.values() if split}), wanted, where)
    return [name for split in chosen for name in splits if splits[name] == split] if chosen else list(splits)


def _subset(name: str) -> str | None:
    """Folder above the speaker and the chapter."""
    parts = name.split("/")
    return parts[-4] if len(parts) >= 4 else None


def _pair(clip: str, text: str | None, texts: TranscriptTexts) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": clip, "file": clip}
    if text is None:
        return entry | {"problem": f"bad_label: {clip}: no {TEXT} of the same name beside it"}
    try:
        return entry | {"text": " ".join(texts.read(text, MAX_TEXT_BYTES).split())}
    except RejectedError as rejected:
        return entry | {"problem": str(rejected)}


def _lines(root: str, name: str, clips: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of one list of transcripts. `clips` are the audio files by their names without extension."""
    file_system, path = fsspec.core.url_to_fs(root)
    with open_lines(file_system, f"{path}/{name}") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _line(line, f"{name}:{number}", posixpath.dirname(name), clips)


def _line(line: str, place: str, folder: str, clips: dict[str, str]) -> dict[str, Any]:
    key, _, text = line.strip().partition(" ")
    stem = posixpath.join(folder, key)
    file = clips.get(stem)
    entry = {"id": file or place, "file": file or "", "text": text.strip(), "speaker": key.partition("-")[0]}
    try:
        line.encode()
    except UnicodeEncodeError:
        return {"id": file or place, "file": file or "", "problem": f"bad_label: {place}: not UTF-8"}
    return entry if file else entry | {"problem": f"missing_file: {place}: no audio file {stem}.*"}


def is_pairs(names: Iterable[str]) -> bool:
    """True if some audio file among the names has a text of the same name beside it."""
    names = set(names)
    return any(is_audio(name) and posixpath.splitext(name)[0] + TEXT in names for name in names)
