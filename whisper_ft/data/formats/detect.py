"""Detection of the format of a data set from the names of its files."""

import posixpath
import re
from collections.abc import Sequence
from fnmatch import fnmatch

import fsspec
from fsspec import AbstractFileSystem

from whisper_ft.config.data import Format, is_hub_name
from whisper_ft.data.formats.file_naming import is_audio
from whisper_ft.data.formats.subtitle_files import is_subtitled
from whisper_ft.data.formats.transcript_files import is_pairs
from whisper_ft.data.storage.read_errors import data_errors
from whisper_ft.runtime.errors import DataError, UsageError

# Formats by the end of a file's name. Common Voice is delivered as .tar.gz, and training shards are plain tars.
SUFFIXES: tuple[tuple[tuple[str, ...], Format], ...] = (
    ((".parquet",), "parquet"),
    ((".tar.gz", ".tgz"), "common_voice"),
    ((".tar",), "webdataset"),
    ((".jsonl", ".json", ".csv", ".tsv", ".jsonl.gz", ".json.gz", ".csv.gz", ".tsv.gz"), "manifest"),
)
# Formats by a name in a folder, or in a folder below it. The first pattern with a match decides.
CONTENTS: tuple[tuple[str, Format], ...] = (
    ("wav.scp", "kaldi"),
    ("dataset_dict.json", "saved_dataset"),
    ("state.json", "saved_dataset"),
    ("cv-corpus-*", "common_voice"),
    ("sps-corpus-*", "common_voice"),
    ("metadata.csv", "audiofolder"),
    ("metadata.jsonl", "audiofolder"),
    ("metadata.parquet", "audiofolder"),
    ("*.tar", "webdataset"),
    ("*.parquet", "parquet"),
)
DEEP_SUFFIXES: tuple[tuple[str, Format], ...] = ((".parquet", "parquet"), (".trans.txt", "librispeech"))
"""Formats by the end of a file's name, in a folder at any depth."""
KNOWN = (
    "parquet files, a data set on the Hub (owner/name), a Common Voice release (folder or .tar.gz), WebDataset .tar "
    "shards, a manifest (.jsonl .csv .tsv), a folder of audio with metadata.csv or .jsonl, a data set of save_to_disk, "
    "a Kaldi folder with wav.scp, LibriSpeech with *.trans.txt, a folder of pairs such as x.wav and x.txt, recordings "
    "with subtitles such as x.mp3 and x.srt"
)


def format_of(path: str) -> Format:
    """Detect the format of the data at a path by the names of its files.

    Raises UsageError, which lists the known formats, if no name matches, and DataError if the path cannot be read.
    """
    try:
        file_system, root = fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise DataError(f"{path}: {error}") from error
    for suffixes, name in SUFFIXES:
        if root.endswith(suffixes) and not (name == "webdataset" and re.match(r"(cv|sps)-corpus", _base_name(root))):
            return name
    if root.endswith(".tar"):
        return "common_voice"
    if is_hub_name(path):
        return "hub"
    with data_errors(path):  # for addresses; `_format_of_folder` explains a local path itself
        return _format_of_folder(file_system, root, path)


def _format_of_folder(file_system: AbstractFileSystem, root: str, path: str) -> Format:
    try:
        names = [_base_name(entry) for entry in file_system.ls(root, detail=False)]
        for depth in range(2):
            if {"clips", "audios"} & set(names) and any(name.endswith(".tsv") for name in names):
                return "common_voice"
            for pattern, format_name in CONTENTS:
                if any(fnmatch(name, pattern) for name in names):
                    return format_name
            if not depth:
                folders = [entry["name"] for entry in file_system.ls(root, detail=True) if entry["type"] == "directory"]
                names = [
                    _base_name(name) for folder in sorted(folders) for name in file_system.ls(folder, detail=False)
                ]
        files = file_system.find(root)
        if found := _format_of_files(files):
            return found
        if recordings := sorted(filter(is_audio, files)):
            first = _base_name(recordings[0])
            raise UsageError(
                f"{path}: audio without transcripts, such as {first}; put {posixpath.splitext(first)[0]}.txt with the "
                "text beside it, or give the CSV that lists the files with their texts as the path "
                "(docs/prepare-data.md)"
            )
    except (OSError, ValueError):
        if any(sign in path for sign in "*?[{"):
            return "parquet"  # a glob of another format ends in its suffix
        if "://" in path:
            raise
    raise UsageError(
        f"{path}: unknown data format. Supported: {KNOWN}. If one of these is there, name it with --data.format"
    )


def _format_of_files(names: Sequence[str]) -> Format | None:
    """Format by the names of all files in a folder and the folders below; None if no name shows a format."""
    for suffix, name in DEEP_SUFFIXES:
        if any(file.endswith(suffix) for file in names):
            return name
    if is_pairs(names):
        return "pairs"
    if is_subtitled(names):
        return "subtitles"
    return "common_voice" if any("/clips/" in file for file in names) else None


def _base_name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
