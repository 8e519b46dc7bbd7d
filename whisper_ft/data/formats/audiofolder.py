"""Audiofolder of Hugging Face: folders of audio files with metadata.csv, .jsonl or .parquet, which lists the rows.

Audio that the metadata does not name is not read. A split is a subfolder such as train. It has its own metadata.csv, or
the metadata.csv of the folder above names its files as `train/a.wav`.
"""

import posixpath
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import fsspec
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.columns import FILE_COLUMNS, require_columns
from whisper_ft.data.formats.file_table import FileTable, table_of
from whisper_ft.data.formats.label_columns import FileColumns, used_parts
from whisper_ft.data.formats.manifest import entries
from whisper_ft.data.formats.manifest_lines import ManifestLine, noted, read_lines
from whisper_ft.data.formats.parquet_splits import KEYWORDS
from whisper_ft.data.storage.files import FolderStore
from whisper_ft.data.storage.read_errors import data_errors
from whisper_ft.runtime.errors import UsageError

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def open_audiofolder(where: SourceConfig, columns: Sequence[str] = ()) -> FileTable:
    """Open the rows of one split, of several (`train+validation`) or of all, as the metadata of a folder lists them.

    Several splits come in the order of the setting. `columns` are extra columns to carry along.

    Raises UsageError if there are several splits and `where.split` does not choose among them, or names a missing one.
    Missing or ambiguous metadata and missing columns raise it, too.
    """
    with data_errors(where.path):
        file_system, path = fsspec.core.url_to_fs(where.path)
        root = path.rstrip("/")
        store = FolderStore(where.audio_root or where.path, where.allowed_folders)
        wanted = [_split_name(name) for name in where.split.split("+")] if where.split else []
        by_split: dict[str | None, list[dict[str, Any]]] = {}
        notes: list[str] = []
        present: dict[str, dict[str, None]] = {}  # columns of each metadata file
        used: list[FileColumns] = []
        for file in _metadata_files(file_system, root, wanted, where.path):
            below = posixpath.dirname(file)
            with _lines(file_system, f"{root}/{file}", (where.audio_column, where.text_column)) as plain:
                lines = noted(plain, present.setdefault(file, {})) if columns else plain
                for entry in entries(lines, file, where, store, notes, below, FILE_COLUMNS, columns, used):
                    split = split_of(file, wanted) or split_of(entry["file"], wanted)
                    by_split.setdefault(split, []).append(entry)
        chosen = chosen_splits(sorted(filter(None, by_split)), wanted, where)
        rows = [entry for split in chosen or by_split for entry in by_split[split]]
        if chosen:  # a line without a file belongs to no split, and must be counted nevertheless
            rows += [entry for entry in by_split.get(None, []) if not entry["file"]]
        for file, names in present.items():
            if names and (not chosen or split_of(file, wanted) in (None, *chosen)):
                require_columns(names, columns, f"{root}/{file}", where)
        splits = "+".join(filter(None, chosen or by_split)) or None
        return FileTable(table_of(rows, columns), store, where, notes, used_parts(used, splits))


def _metadata_files(file_system: AbstractFileSystem, root: str, wanted: list[str], path: str) -> list[str]:
    """Find the metadata files, relative to the folder: one in the folder itself, or one in each split's subfolder.

    Raises UsageError if there is none, or if two may list the same files.
    """
    inside = [entry["name"] for entry in file_system.ls(root, detail=True) if entry["type"] == "directory"]
    if any(name.endswith("/data") for name in inside):
        data = file_system.ls(f"{root}/data", detail=True)
        inside += [entry["name"] for entry in data if entry["type"] == "directory"]
    relative = [name.rstrip("/").removeprefix(f"{root}/") for name in inside]
    folders = sorted(name for name in relative if split_of(f"{name}/", wanted))
    by_folder = {
        below: [name for name in METADATA if file_system.isfile(posixpath.join(root, below, name))]
        for below in ["", *folders]
    }
    files = [posixpath.join(below, name) for below, names in by_folder.items() for name in names]
    if not files:
        raise UsageError(f"{path}: holds none of {', '.join(METADATA)}, nor do subfolders such as train")
    if max(map(len, by_folder.values())) > 1 or (by_folder[""] and len(files) > 1):
        raise UsageError(f"{path}: {' and '.join(files)} may list the same files; keep either")
    return files


def _split_name(name: str) -> str:
    return KEYWORDS.get(name.lower(), name)


def split_of(file: str, wanted: list[str]) -> str | None:
    """Split of a path in the folder, as in `train/a.wav` or `data/train/a.wav`; None if the path lies in no split.

    A folder is a split if its name is a keyword or in `wanted`. A keyword gives its split: `dev/a.wav` is in
    validation.
    """
    first, slash, _ = file.removeprefix("data/").partition("/")
    split = _split_name(first)
    return split if slash and (split in KEYWORDS or split in wanted) else None


def chosen_splits(splits: list[str], wanted: list[str], where: SourceConfig) -> list[str | None]:
    """Return the splits to read, each once in the order of the setting; empty if the setting chooses no split.

    Raises UsageError if one of `wanted` is not in `splits`, or if there are several splits and none is wanted.
    """
    missing = [name for name in wanted if name not in splits]
    if missing or (len(splits) > 1 and not wanted):
        has = f"has the splits {', '.join(splits)}" if splits else "has no splits"
        lacks = f", but not {', '.join(missing)}" if missing and splits else ""
        way_out = "set --data.split to one of them, or several with +" if splits else "leave --data.split out"
        raise UsageError(f"{where.path}: {has}{lacks}; {way_out}")
    return list(dict.fromkeys(wanted))


@contextmanager
def _lines(file_system: AbstractFileSystem, path: str, named: Sequence[str | None]) -> Iterator[Iterator[ManifestLine]]:
    if not path.endswith(".parquet"):
        with read_lines(file_system, path, named) as lines:
            yield lines
        return
    with file_system.open(path, "rb") as file:
        yield iter(list(enumerate(pq.read_table(file).to_pylist(), 1)))
