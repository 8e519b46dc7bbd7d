"""Kaldi data directories: text, wav.scp, and where they are segments, utt2spk, utt2lang; the rows are those of `text`.

A column to carry along, `gender`, is utt2gender or else spk2gender.

Each file has lines of a key and what belongs to it (https://kaldi-asr.org/doc/data_prep.html).
"""

import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any

import fsspec

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.columns import ExtraColumns, require_columns
from whisper_ft.data.formats.file_table import COLUMNS, FileTable, data_errors, table_of
from whisper_ft.data.formats.manifest import seconds_of
from whisper_ft.data.storage.files import FolderStore
from whisper_ft.data.types import RejectedError
from whisper_ft.runtime.errors import UsageError

IN_ARCHIVE = re.compile(r"\.ark:\d+(\[.*\])?$")
TO_THE_END = "-1"  # as the end of a segment


def open_kaldi(where: SourceConfig, columns: Sequence[str] = ()) -> FileTable:
    """The utterances of a data directory; audio is relative to it or to `where.audio_root`.

    A pipe in wav.scp is a stranger's program and never run: UsageError, as for an entry in an archive.
    """
    with data_errors(where.path):
        file_system, path = fsspec.core.url_to_fs(where.path)
        root = path.rstrip("/")
        files = {name: _keyed(file_system, f"{root}/{name}") for name in ("text", "wav.scp")}
        if missing := [name for name, lines in files.items() if lines is None]:
            raise UsageError(f"{where.path}: no Kaldi data directory, it holds no {' and no '.join(missing)}")
        recordings = dict(files["wav.scp"] or [])
        _check_recordings(recordings, where.path)
        segments = _keyed(file_system, f"{root}/segments")
        speakers, languages = (dict(_keyed(file_system, f"{root}/{name}") or []) for name in ("utt2spk", "utt2lang"))
        folder = FolderStore(where.audio_root or where.path)
        found = None if segments is None else dict(segments)
        rows = [
            _entry(number, name, text, found, recordings, folder)
            | {"speaker": speakers.get(name), "language": languages.get(name)}
            for number, (name, text) in enumerate(files["text"] or [], 1)
        ]
        carried, others = ExtraColumns(columns), _others(file_system, root, columns)
        for row in rows if columns else ():
            row[COLUMNS] = carried.of({name: said.get(row[key] or "") for name, (key, said) in others.items()})
        return FileTable(table_of(map(_storable, rows), columns), folder, where)


def _keyed(file_system: Any, path: str) -> list[tuple[str, str]] | None:
    """Keys and what follows them, of each line; None if there is no such file."""
    if not file_system.isfile(path):
        return None
    # What is not UTF-8 is kept as lone surrogates, and found where rows are made of it.
    text = file_system.cat_file(path).decode("utf-8-sig", errors="surrogateescape")
    pairs = (line.strip().split(None, 1) for line in text.split("\n") if line.strip())
    return [(pair[0], pair[1] if len(pair) > 1 else "") for pair in pairs]


def _others(file_system: Any, root: str, columns: Sequence[str]) -> dict[str, tuple[str, dict[str, str]]]:
    """Of each column the key of a row that its file goes by, and what the file says; UsageError for one without."""
    if not columns:
        return {}
    keys = {"spk2": "speaker", "utt2": "id"}  # what is said of an utterance wins
    names = sorted(posixpath.basename(found.rstrip("/")) for found in file_system.ls(root, detail=False))
    files = {name[4:]: name for prefix in keys for name in names if name.startswith(prefix) and name != "spk2utt"}
    require_columns(files, columns, f"{root}, by its files utt2... and spk2...")
    return {name: (keys[files[name][:4]], dict(_keyed(file_system, f"{root}/{files[name]}") or [])) for name in columns}


def _check_recordings(recordings: Mapping[str, str], path: str) -> None:
    """Every entry is the name of a file; UsageError if one is a command or a place in an archive."""
    for name, entry in recordings.items():
        shown = ascii(entry[:80]) if len(entry) <= 80 else ascii(entry[:80]) + "..."
        if entry.startswith("|") or entry.endswith("|") or entry == "-":
            raise UsageError(
                f"{path}: {name} in wav.scp is a command, {shown}, and commands are not run; "
                "write its output to wav or flac files, and name those in wav.scp"
            )
        if IN_ARCHIVE.search(entry):
            raise UsageError(
                f"{path}: {name} in wav.scp is in an archive, {shown}; "
                "copy it to wav or flac files (Kaldi's wav-copy), and name those in wav.scp"
            )


def _entry(
    number: int,
    name: str,
    text: str,
    segments: Mapping[str, str] | None,
    recordings: Mapping[str, str],
    folder: FolderStore,
) -> dict[str, Any]:
    """One utterance of `text`, as a row of `listed.SCHEMA`."""
    entry: dict[str, Any] = {"id": name, "file": "", "text": text}
    try:
        recording = name
        if segments is not None:
            recording, entry["offset"], entry["duration"] = _segment(name, segments)
        if recording not in recordings:
            raise RejectedError("missing_file", f"{recording}: not in wav.scp")
        entry["file"] = recordings[recording]
        entry["file"] = folder.relative(entry["file"])
    except RejectedError as wrong:
        entry["problem"] = f"{wrong.reason}: line {number} of text: {wrong.detail}"
    return entry


def _segment(name: str, segments: Mapping[str, str]) -> tuple[str, float, float | None]:
    """Recording, and seconds of offset and duration."""
    if name not in segments:
        raise RejectedError("bad_segment", f"{name} is not in segments")
    fields = segments[name].split()
    if len(fields) != 3:  # a fourth is the channel: decoding mixes the channels
        raise RejectedError("bad_segment", f"{name} in segments: {len(fields) + 1} fields, and 4 can be used")
    recording, start, end = fields
    offset = seconds_of(start, "start")
    if end == TO_THE_END:
        return recording, offset, None
    duration = seconds_of(end, "end") - offset
    if duration < 0:
        raise RejectedError("bad_segment", f"{name} in segments: ends at {end} s and begins at {start} s")
    return recording, offset, duration


def _storable(entry: dict[str, Any]) -> dict[str, Any]:
    """The row with what is not UTF-8 made visible, and then with a problem."""
    broken = {}
    for key, value in entry.items():
        if isinstance(value, str) and not _is_utf8(value):
            broken[key] = value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if not broken:
        return entry
    reason = "bad_label" if "text" in broken else "bad_line"
    return {
        **entry,
        **broken,
        "problem": f"{reason}: {' and '.join(broken)} of {broken.get('id', entry['id'])}: not UTF-8",
    }


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
