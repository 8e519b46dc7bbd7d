"""Folders of audio files with metadata.csv, .jsonl or .parquet, as Hugging Face's audiofolder: the metadata lists rows.

Audio that the metadata does not name is not read. Splits are subfolders: train/metadata.csv, or one metadata.csv with
`train/a.wav` in it.
"""

import posixpath
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import fsspec
import pyarrow.parquet as pq

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.columns import AUDIO_COLUMNS, require_columns
from whisper_ft.data.formats.file_table import FileTable, data_errors, table_of
from whisper_ft.data.formats.manifest import ManifestLine, entries, noted, read_lines
from whisper_ft.data.storage.files import FolderStore
from whisper_ft.runtime.errors import UsageError

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_COLUMNS = ("file_name", "audio_file_name", *AUDIO_COLUMNS)
# What Hugging Face takes for a split by its name (SPLIT_KEYWORDS in datasets/data_files.py).
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}


def open_audiofolder(where: SourceConfig, columns: Sequence[str] = ()) -> FileTable:
    """The rows that the metadata of a folder lists: of one split, of several (`train+validation`), or of all.

    UsageError when there are several splits and `where.split` names none of them.
    """
    with data_errors(where.path):
        file_system, path = fsspec.core.url_to_fs(where.path)
        root = path.rstrip("/")
        folder = FolderStore(where.audio_root or where.path)
        wanted = [_split_name(name) for name in where.split.split("+")] if where.split else []
        by_split: dict[str | None, list[dict[str, Any]]] = {}
        there: dict[str, dict[str, None]] = {}  # columns of each metadata
        for place in _places(file_system, root, wanted, where.path):
            below = posixpath.dirname(place)
            with _lines(file_system, f"{root}/{place}") as lines:
                seen = noted(lines, there.setdefault(place, {})) if columns else lines
                for entry in entries(seen, place, where, folder, below, FILE_COLUMNS, columns):
                    split = _split_of(place, wanted) or _split_of(entry["file"], wanted)
                    by_split.setdefault(split, []).append(entry)
        chosen = _chosen(sorted(filter(None, by_split)), wanted, where)
        rows = [entry for split in chosen or by_split for entry in by_split[split]]
        if chosen:  # a line that names no file is of no split, and still has to be counted
            rows += [entry for entry in by_split.get(None, []) if not entry["file"]]
        for place, names in there.items():
            if names and (not chosen or _split_of(place, wanted) in (None, *chosen)):
                require_columns(names, columns, f"{root}/{place}")
        return FileTable(table_of(rows, columns), folder, where)


def _places(file_system: Any, root: str, wanted: list[str], path: str) -> list[str]:
    """Paths of the metadata in the folder: in itself, or in each of the subfolders that are splits."""
    inside = file_system.ls(root, detail=True)
    if any(found["name"].endswith("/data") for found in inside if found["type"] == "directory"):
        inside += file_system.ls(f"{root}/data", detail=True)
    folders = sorted(
        found["name"].rstrip("/").removeprefix(f"{root}/")
        for found in inside
        if found["type"] == "directory" and _split_of(found["name"].removeprefix(f"{root}/") + "/", wanted)
    )
    found = {
        below: [name for name in METADATA if file_system.isfile(posixpath.join(root, below, name))]
        for below in ["", *folders]
    }
    places = [posixpath.join(below, name) for below, names in found.items() for name in names]
    if not places:
        raise UsageError(f"{path}: holds none of {', '.join(METADATA)}, nor do subfolders such as train")
    if max(map(len, found.values())) > 1 or (found[""] and len(places) > 1):
        raise UsageError(f"{path}: {' and '.join(places)} may list the same files; keep either")
    return places


def _split_name(name: str) -> str:
    return SPLIT_NAMES.get(name.lower(), name)


def _split_of(file: str, wanted: list[str]) -> str | None:
    """The split that a path in the folder says: `train/a.wav` or `data/train/a.wav`; None if it says none."""
    first, slash, _ = file.removeprefix("data/").partition("/")
    split = _split_name(first)
    return split if slash and (split in SPLIT_NAMES or split in wanted) else None


def _chosen(there: list[str], wanted: list[str], where: SourceConfig) -> list[str | None]:
    """Splits to read, in the order they were asked for; none of them where there is nothing to choose."""
    missing = [name for name in wanted if name not in there]
    if missing or (len(there) > 1 and not wanted):
        has = f"has the splits {', '.join(there)}" if there else "has no splits"
        lacks = f", but not {', '.join(missing)}" if missing and there else ""
        way = "set --data.split to one of them, or several with +" if there else "leave --data.split out"
        raise UsageError(f"{where.path}: {has}{lacks}; {way}")
    return list(dict.fromkeys(wanted))


@contextmanager
def _lines(file_system: Any, path: str) -> Iterator[Iterator[ManifestLine]]:
    if not path.endswith(".parquet"):
        with read_lines(file_system, path) as lines:
            yield lines
        return
    with file_system.open(path, "rb") as file:
        yield iter(list(enumerate(pq.read_table(file).to_pylist(), 1)))
