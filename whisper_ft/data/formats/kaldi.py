"""Kaldi data directories: text and wav.scp, optionally segments, utt2spk and utt2lang. Each line of `text` is a row.

Each line of a file is a key and its value (https://kaldi-asr.org/doc/data_prep.html). An extra column such as `gender`
is read from utt2gender, or else from spk2gender.
"""

import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any

import fsspec
from fsspec import AbstractFileSystem

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.columns import ExtraColumns, require_columns
from whisper_ft.data.formats.file_table import COLUMNS, FileTable, table_of
from whisper_ft.data.formats.label_columns import LANGUAGE, TASK, named_column
from whisper_ft.data.formats.segments import seconds_of
from whisper_ft.data.storage.files import FolderStore
from whisper_ft.data.storage.read_errors import data_errors
from whisper_ft.data.types import RejectedError, UnhonouredError, UsedParts
from whisper_ft.runtime.errors import UsageError

IN_ARCHIVE = re.compile(r"\.ark:\d+(\[.*\])?$")
TO_THE_END = "-1"
"""End of a segment that goes on to the end of its recording."""
MAX_SHOWN_CHARACTERS = 80


def open_kaldi(where: SourceConfig, columns: Sequence[str] = ()) -> FileTable:
    """Open the utterances of a data directory. Names of audio files are relative to it, or to `where.audio_root`.

    A pipe in wav.scp is a stranger's program, so it is never run and raises UsageError. An entry in an archive raises
    UsageError too, as does a directory without text or wav.scp, or without a file of one of the extra `columns`. An
    utterance that cannot be used becomes a row with a problem.
    """
    with data_errors(where.path):
        file_system, path = fsspec.core.url_to_fs(where.path)
        root = path.rstrip("/")
        files = {name: _read_pairs(file_system, f"{root}/{name}") for name in ("text", "wav.scp")}
        if missing := [name for name, pairs in files.items() if pairs is None]:
            raise UsageError(f"{where.path}: no Kaldi data directory, it holds no {' and no '.join(missing)}")
        recordings = dict(files["wav.scp"] or [])
        _check_recordings(recordings, where.path)
        pairs = _read_pairs(file_system, f"{root}/segments")
        segments = None if pairs is None else dict(pairs)
        speakers = dict(_read_pairs(file_system, f"{root}/utt2spk") or [])
        labels = {kind: _labels(file_system, root, where, kind) for kind in (LANGUAGE, TASK)}
        store = FolderStore(where.audio_root or where.path, where.allowed_folders)
        outside = store.survey(recordings.values())
        notes = [f"warning: {where.path}: {outside}"] if outside else []
        rows = [
            _entry(number, name, text, segments, recordings, store)
            | {"speaker": speakers.get(name)}
            | {
                kind: values.get(name if of == "id" else speakers.get(name, ""))
                for kind, (of, values) in labels.items()
            }
            for number, (name, text) in enumerate(files["text"] or [], 1)
        ]
        extra, tables = ExtraColumns(columns), _extra_tables(file_system, root, columns, where)
        for row in rows if columns else ():
            row[COLUMNS] = extra.of({name: values.get(row[key] or "") for name, (key, values) in tables.items()})
        names = {kind: named_column(where, kind) for kind in (LANGUAGE, TASK)}
        read = {kind: f"utt2{names[kind] or 'lang'}" if labels[kind][1] else None for kind in (LANGUAGE, TASK)}
        return FileTable(table_of(map(_storable, rows), columns), store, where, notes, UsedParts(**read))


def _labels(
    file_system: AbstractFileSystem, root: str, where: SourceConfig, kind: str
) -> tuple[str, Mapping[str, str]]:
    """Read the file of language or task: its key, `id` or `speaker`, and its values by that key.

    Unasked that is utt2lang. A column that the user names is the X of utt2X or spk2X. Raises UnhonouredError if there
    is no such file.
    """
    name = named_column(where, kind)
    if name is None:
        return "id", dict(_read_pairs(file_system, f"{root}/utt2lang") or []) if kind == LANGUAGE else {}
    try:
        return _extra_tables(file_system, root, [name], where)[name]
    except UsageError as error:
        raise UnhonouredError(f"{kind}_column", f"{root}: has no file utt2{name} or spk2{name}") from error


def _read_pairs(file_system: AbstractFileSystem, path: str) -> list[tuple[str, str]] | None:
    """Read the key and value of each line; None if there is no such file."""
    if not file_system.isfile(path):
        return None
    # Bytes that are not UTF-8 are kept as lone surrogates, and `_storable` notices them.
    text = file_system.cat_file(path).decode("utf-8-sig", errors="surrogateescape")
    pairs = (line.strip().split(None, 1) for line in text.split("\n") if line.strip())
    return [(pair[0], pair[1] if len(pair) > 1 else "") for pair in pairs]


def _extra_tables(
    file_system: AbstractFileSystem, root: str, columns: Sequence[str], where: SourceConfig
) -> dict[str, tuple[str, dict[str, str]]]:
    """Read the file of each extra column. Returns the field of a row that is the file's key, and the file's values.

    Raises UsageError for a column without a file.
    """
    if not columns:
        return {}
    keys = {"spk2": "speaker", "utt2": "id"}  # a file of utterances wins over one of speakers
    names = sorted(posixpath.basename(path.rstrip("/")) for path in file_system.ls(root, detail=False))
    files = {name[4:]: name for prefix in keys for name in names if name.startswith(prefix) and name != "spk2utt"}
    require_columns(files, columns, f"{root}, by its files utt2... and spk2...", where)
    return {
        name: (keys[files[name][:4]], dict(_read_pairs(file_system, f"{root}/{files[name]}") or [])) for name in columns
    }


def _check_recordings(recordings: Mapping[str, str], path: str) -> None:
    """Raise UsageError if an entry of wav.scp is a command or a place in an archive, and not the name of a file."""
    for name, entry in recordings.items():
        cut = "" if len(entry) <= MAX_SHOWN_CHARACTERS else "..."
        text = ascii(entry[:MAX_SHOWN_CHARACTERS]) + cut
        if entry.startswith("|") or entry.endswith("|") or entry == "-":
            raise UsageError(
                f"{path}: {name} in wav.scp is a command, {text}, and commands are not run; "
                "write its output to wav or flac files, and name those in wav.scp"
            )
        if IN_ARCHIVE.search(entry):
            raise UsageError(
                f"{path}: {name} in wav.scp is in an archive, {text}; "
                "copy it to wav or flac files (Kaldi's wav-copy), and name those in wav.scp"
            )


def _entry(
    number: int,
    name: str,
    text: str,
    segments: Mapping[str, str] | None,
    recordings: Mapping[str, str],
    store: FolderStore,
) -> dict[str, Any]:
    """Make the row of `file_table.SCHEMA` for one utterance. `number` is its line in the file `text`."""
    entry: dict[str, Any] = {"id": name, "file": "", "text": text}
    try:
        recording = name
        if segments is not None:
            recording, entry["offset"], entry["duration"] = _segment(name, segments)
        if recording not in recordings:
            raise RejectedError("missing_file", f"{recording}: not in wav.scp")
        entry["file"] = recordings[recording]
        entry["file"] = store.relative(entry["file"])
    except RejectedError as rejected:
        entry["problem"] = f"{rejected.reason}: line {number} of text: {rejected.detail}"
    return entry


def _segment(name: str, segments: Mapping[str, str]) -> tuple[str, float, float | None]:
    """Return the recording of an utterance, and the utterance's offset and duration in seconds.

    Raises RejectedError(bad_segment) if the entry in `segments` is missing or wrong.
    """
    if name not in segments:
        raise RejectedError("bad_segment", f"{name} is not in segments")
    fields = segments[name].split()
    if len(fields) != 3:  # a fourth field would be the channel, but decoding mixes the channels
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
    """Return a row with escapes in place of bytes that are not UTF-8, and with a problem if it had such bytes."""
    broken = {}
    for key, value in entry.items():
        if isinstance(value, str) and not _is_utf8(value):
            broken[key] = value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if not broken:
        return entry
    reason = "bad_label" if "text" in broken else "bad_line"
    problem = f"{reason}: {' and '.join(broken)} of {broken.get('id', entry['id'])}: not UTF-8"
    return {**entry, **broken, "problem": problem}


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
