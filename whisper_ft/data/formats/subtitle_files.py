"""Recordings with subtitles: `talk.mp3` beside `talk.srt`, `talk.vtt` or `talk.TextGrid`. Each timed text is a row.

The folder and all folders below are read. The name of subtitles may have a language, as `talk.be.vtt`.
"""

import posixpath
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.audiofolder import split_of
from whisper_ft.data.formats.columns import require_columns
from whisper_ft.data.formats.cues import TimedSpeech, read_cues
from whisper_ft.data.formats.file_naming import is_audio
from whisper_ft.data.formats.file_table import FileTable, table_of
from whisper_ft.data.formats.text_grid import Tier, read_tiers
from whisper_ft.data.formats.transcript_files import files_below, in_splits
from whisper_ft.data.formats.transcript_texts import TranscriptTexts
from whisper_ft.data.labels.languages import is_same_language, whisper_language
from whisper_ft.data.storage.files import FolderStore
from whisper_ft.data.storage.ranges import IO_THREADS
from whisper_ft.data.storage.read_errors import data_errors
from whisper_ft.data.types import RejectedError, UnhonouredError, UsedParts
from whisper_ft.runtime.errors import UsageError

TEXT_GRID = ".textgrid"
SUFFIXES = (TEXT_GRID, ".srt", ".vtt")
"""Ends of names in lower case. The first is read if a recording has several, because people make TextGrids by hand."""
KINDS = "a .srt, .vtt or .TextGrid of the same name"
MAX_TEXT_BYTES = 2**25
"""Size of the largest file of subtitles, in bytes. Ten hours of words and sounds in a TextGrid have about 10 MB."""


class Subtitles(NamedTuple):
    """File of subtitles, and the language in its name; "" for a name without one."""

    name: str
    language: str


def open_subtitles(where: SourceConfig, columns: Sequence[str] = ()) -> FileTable:
    """Open the texts of all recordings below a folder. A split is a folder such as train.

    `where.text_column` is the tier of a TextGrid; it may be left out if there is only one. A recording becomes a row
    with the problem bad_label if its subtitles are missing, cannot be read, or are written by `transcribe`. The problem
    names the line. A text that ends before it begins has the problem bad_segment. Subtitles without a recording are
    noted.

    Raises UsageError if no recording has subtitles, if a tier or a split must be chosen, if a split is missing, and for
    any extra `columns`. UnhonouredError is raised if no TextGrid has the tier.
    """
    with data_errors(where.path):
        require_columns((), columns, where.path, where)
        root, files = files_below(where.path)
        store, found = FolderStore(root, where.allowed_folders), subtitles_of(files)
        if not found:
            raise UsageError(f"{where.path}: holds no recording with {KINDS} beside it")
        wanted = where.split.split("+") if where.split else []
        clips = in_splits({name: split_of(name, wanted) for name in files if is_audio(name)}, wanted, where)
        with ThreadPoolExecutor(IO_THREADS) as pool:
            texts = TranscriptTexts(store, files)
            read = list(pool.map(lambda clip: _content(found.get(clip, ()), texts, where), clips))
        _require_tier(read, where)
        rows = [row for clip, transcript in zip(clips, read, strict=True) for row in _rows(clip, transcript, where)]
        taken = {subtitles.name for several in found.values() for subtitles in several}
        alone = [name for name in files if name.lower().endswith(SUFFIXES) and name not in taken]
        notes = [f"{where.path}: {len(alone)} subtitles without audio beside it: {alone[0]}, ..."] if alone else []
        return FileTable(table_of(rows), store, where, notes, UsedParts(where.split, text=where.text_column))


def subtitles_of(names: Iterable[str]) -> dict[str, list[Subtitles]]:
    """Return the subtitles beside each recording that has some, in the order of SUFFIXES.

    Those without a language in their names come first.
    """
    names = sorted(names)
    clips: dict[str, list[str]] = {}
    for clip in filter(is_audio, names):
        for stem in (posixpath.splitext(clip)[0], clip):
            clips.setdefault(stem, []).append(clip)
    found: dict[str, list[Subtitles]] = {}
    for suffix in SUFFIXES:
        for name in names:
            if not name.lower().endswith(suffix):
                continue
            base = name[: -len(suffix)]
            stem, _, language = base.rpartition(".")
            tagged = clips.get(stem, ()) if _is_language(language) else ()
            for clip in clips.get(base) or tagged:
                found.setdefault(clip, []).append(Subtitles(name, "" if base in clips else language))
    return {clip: sorted(several, key=lambda subtitles: subtitles.language != "") for clip, several in found.items()}


def _is_language(text: str) -> bool:
    try:
        return bool(text and whisper_language(text))
    except UsageError:
        return False


class _Transcript(NamedTuple):
    """Content of a file of subtitles."""

    name: str
    tiers: list[Tier]
    """Tiers of a TextGrid. Other subtitles are one tier without a name."""


def _content(several: Sequence[Subtitles], texts: TranscriptTexts, where: SourceConfig) -> _Transcript | RejectedError:
    """Read the subtitles of a recording."""
    name = ""
    try:
        name = _chosen(several, where)
        text = texts.read(name, MAX_TEXT_BYTES)
        if _is_grid(name):
            return _Transcript(name, read_tiers(text))
        return _Transcript(name, [Tier("", read_cues(text))])
    except RejectedError as rejected:
        named = rejected.detail.startswith(name)
        return RejectedError(rejected.reason, rejected.detail if named else f"{name}: {rejected.detail}")


def _chosen(several: Sequence[Subtitles], where: SourceConfig) -> str:
    """Choose among the subtitles of a recording by the language of the settings; of translations that is English."""
    if not several:
        raise RejectedError("bad_label", f"no {KINDS} beside it")
    wanted = "en" if where.task == "translate" else where.language
    fitting = [one for one in several if not (one.language and wanted) or is_same_language(one.language, wanted)]
    names = ", ".join(one.name for one in several)
    if not fitting:
        raise RejectedError("bad_label", f"{names}: in another language than {wanted}")
    if len({one.language for one in fitting}) > 1 and fitting[0].language:
        raise RejectedError("bad_label", f"{names}: set --data.language to the one to read")
    return fitting[0].name


def _require_tier(transcripts: Iterable[_Transcript | RejectedError], where: SourceConfig) -> None:
    """Raise UnhonouredError if no TextGrid has the tier of the settings."""
    read = [transcript for transcript in transcripts if isinstance(transcript, _Transcript)]
    tiers = [tier for transcript in read if _is_grid(transcript.name) for tier in transcript.tiers]
    if where.text_column is not None and not any(_is_named(tier, where.text_column) for tier in tiers):
        names = ", ".join(dict.fromkeys(tier.name for tier in tiers))
        message = f"{where.path}: no TextGrid has a tier {where.text_column!r}; "
        way_out = f"set --data.text_column to one of {names}" if names else "leave --data.text_column out"
        raise UnhonouredError("text_column", message + way_out)


def _is_grid(name: str) -> bool:
    return name.lower().endswith(TEXT_GRID)


def _is_named(tier: Tier, name: str) -> bool:
    return tier.name.casefold() == name.strip().casefold()


def _rows(clip: str, transcript: _Transcript | RejectedError, where: SourceConfig) -> list[dict[str, Any]]:
    """Return the rows of a recording, or one row with the problem. Raises UsageError if a tier must be chosen."""
    if isinstance(transcript, RejectedError):
        return [{"id": clip, "file": clip, "problem": f"{transcript.reason}: {clip}: {transcript.detail}"}]
    name, tiers = transcript
    fitting, names = tiers, ", ".join(tier.name for tier in tiers)
    if _is_grid(name) and where.text_column is not None:
        fitting = [tier for tier in tiers if _is_named(tier, where.text_column)][:1]
    if len(fitting) > 1:
        raise UsageError(f"{name}: has the tiers {names}; set --data.text_column to one of them")
    rows = [_row(clip, name, speech) for tier in fitting for speech in tier.intervals]
    lack = "holds no text" if fitting else f"lacks the tier of --data.text_column, it has {names or 'no tier'}"
    return rows or [{"id": clip, "file": clip, "problem": f"bad_label: {name}: {lack}"}]


def _row(clip: str, name: str, speech: TimedSpeech) -> dict[str, Any]:
    row: dict[str, Any] = {"id": f"{clip}@{speech.start:.12g}", "file": clip, "text": speech.text}
    row |= {"speaker": speech.speaker, "offset": speech.start, "duration": round(speech.end - speech.start, 6)}
    if not 0 <= speech.start < speech.end:
        times = f"begins at {speech.start:g} s and ends at {speech.end:g} s"
        row |= {"duration": None, "problem": f"bad_segment: {name}: line {speech.line}: {times}"}
    return row


def is_subtitled(names: Iterable[str]) -> bool:
    """True if some recording among the names has subtitles beside it."""
    return bool(subtitles_of(names))
