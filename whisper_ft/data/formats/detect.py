"""What lies at a path, seen by the names of the files: the formats that `open_source` reads."""

import re
from fnmatch import fnmatch
from typing import Any

import fsspec

from whisper_ft.config.data import Format, is_hub_name
from whisper_ft.data.formats.file_table import data_errors
from whisper_ft.runtime.errors import DataError, UsageError

# By the end of a file's name. A Common Voice release is delivered as .tar.gz; training shards are plain tars.
SUFFIXES: tuple[tuple[tuple[str, ...], Format], ...] = (
    ((".parquet",), "parquet"),
    ((".tar.gz", ".tgz"), "common_voice"),
    ((".tar",), "webdataset"),
    ((".jsonl", ".json", ".csv", ".tsv", ".jsonl.gz", ".json.gz", ".csv.gz", ".tsv.gz"), "manifest"),
)
# By a name in a folder, or below a folder in it; the first that is there says it.
CONTENTS: tuple[tuple[str, Format], ...] = (
    ("wav.scp", "kaldi"),
    ("dataset_dict.json", "saved_dataset"),
    ("state.json", "saved_dataset"),
    ("clips", "common_voice"),
    ("audios", "common_voice"),
    ("cv-corpus-*", "common_voice"),
    ("sps-corpus-*", "common_voice"),
    ("metadata.csv", "audiofolder"),
    ("metadata.jsonl", "audiofolder"),
    ("metadata.parquet", "audiofolder"),
    ("*.tar", "webdataset"),
    ("*.parquet", "parquet"),
)
KNOWN = (
    "parquet files, a data set on the Hub (owner/name), a Common Voice release (folder or .tar.gz), WebDataset .tar "
    "shards, a manifest (.jsonl .csv .tsv), a folder of audio with metadata.csv or .jsonl, a data set of save_to_disk, "
    "a Kaldi folder with wav.scp"
)


def format_of(path: str) -> Format:
    """The format of what lies at a path. UsageError, with all that is known, where nothing tells."""
    try:
        file_system, root = fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise DataError(f"{path}: {error}") from error
    for suffixes, found in SUFFIXES:
        if root.endswith(suffixes) and not (found == "webdataset" and re.match(r"(cv|sps)-corpus", _name(root))):
            return found
    if root.endswith(".tar"):
        return "common_voice"
    if is_hub_name(path):
        return "hub"
    with data_errors(path):  # of a local path nothing: it was found to be there, or to be a glob
        return _of_folder(file_system, root, path)


def _of_folder(file_system: Any, root: str, path: str) -> Format:
    try:
        names = [_name(found) for found in file_system.ls(root, detail=False)]
        for depth in range(2):
            for pattern, found in CONTENTS:
                if any(fnmatch(name, pattern) for name in names):
                    return found
            if not depth:
                folders = [one["name"] for one in file_system.ls(root, detail=True) if one["type"] == "directory"]
                names = [_name(inner) for folder in sorted(folders) for inner in file_system.ls(folder, detail=False)]
        if any(name.endswith(".parquet") for name in file_system.find(root)):
            return "parquet"
    except (OSError, ValueError):
        if any(sign in path for sign in "*?[{"):
            return "parquet"  # a glob of something else says so by its end
        if "://" in path:
            raise
    raise UsageError(f"{path}: nothing there that is known, which is: {KNOWN}. --data.format names it where this errs")


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
