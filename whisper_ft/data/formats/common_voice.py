"""Common Voice as delivered by Mozilla, scripted and spontaneous: a folder, or the downloaded archive.

    cv-corpus-VERSION-DATE/LOCALE/{clips/*.mp3, train.tsv, dev.tsv, test.tsv, validated.tsv, other.tsv, ...}
    sps-corpus-VERSION-DATE-LOCALE/{audios/*.mp3, ss-corpus-LOCALE.tsv}

The layouts and columns are described in https://github.com/common-voice/cv-dataset (datasets/*/README.md).
"""

import posixpath
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.columns import SPEAKER_COLUMNS, ExtraColumns, column_of, require_columns
from whisper_ft.data.formats.file_table import BLOCK_ROWS, COLUMNS, FileTable, schema_with
from whisper_ft.data.formats.label_columns import FOUND, LANGUAGE, TASK, missing_column, named_column
from whisper_ft.data.leakage import folded_sentence
from whisper_ft.data.storage.files import FileStore, FolderStore
from whisper_ft.data.storage.gunzip import PART_BYTES
from whisper_ft.data.storage.read_errors import data_errors
from whisper_ft.data.storage.tar import TarArchive
from whisper_ft.data.types import UnhonouredError, UsedParts
from whisper_ft.runtime.errors import DataError, UsageError

LOCALE = "locale"
"""Column of the language, by the definition of the format."""
CLIPS, AUDIOS = "clips", "audios"
"""Names of the folder of recordings, in the scripted and in the spontaneous corpus."""
WITHOUT_TEST = "-without-test"
TRANSCRIBED = ("train", "dev", "test")
"""Splits of the spontaneous corpus that have a checked transcript."""
SPONTANEOUS = re.compile(r"ss-corpus-(?P<locale>[^/]+)")
TAG = re.compile(r"\[[^\[\]]{1,40}\]")
"""Event marked by transcribers of the spontaneous corpus: [disfluency], [noise], [laugh], [unclear], ..."""
MAX_LINE_BYTES = 2**24
"""Most bytes of a line. A line of a table has about 500, so a longer line shows that the file is no table."""
FIELDS = ("id", "file", "text", "language", "task", "speaker", "split", "problem")
"""Columns of the tables that this module makes, as in `file_table.SCHEMA`; `split` is dropped later."""


def open_common_voice(where: SourceConfig, cache: Path | None = None, columns: Sequence[str] = ()) -> FileTable:
    """Open the rows of one or several splits of a corpus, in the order of its tables.

    A row's id is the name of its clip. Its language is the `locale` column or `where.language_column`, or the name of
    the folder in releases before 5.0. The language is null if only `where.language` is set. That setting is the user's
    name for the language of the whole corpus, and Whisper does not know many of the locales.

    - `where.path`: a .tar.gz or .tar as delivered, the folder of one language, or a folder above it
    - `where.config_name`, or else `where.language`: the language, if there are several
    - `where.split`: name of a table, `train` if None; `dev+other` takes both tables, and each clip once
    - `cache`: folder to which a .tar.gz is unpacked once, see `gunzip`
    - `columns`: extra columns to carry along

    `validated-without-test` is `validated` without rows that share a speaker or a sentence with dev or test. It has
    about three times the rows of `train`, which has each sentence once. A spontaneous corpus has train, dev, test,
    unassigned (not transcribed, or not checked) and `validated`, which is the first three together.

    Raises UsageError if the corpus, a split or a column is not there, or if a language must be chosen. A broken line
    becomes a row with a problem.
    """
    with data_errors(where.path):
        tree = _open_tree(where.path, cache, where.allowed_folders)
        corpus = _choose(_corpora(tree.tables()), where)
        tables = _Tables(tree, corpus, where, columns)
        rows = tables.rows((where.split or "train").split("+"))
        return FileTable(rows, tree.store(posixpath.join(corpus.folder, corpus.recordings)), where, used=tables.used)


class _Tree(Protocol):
    """Folder or archive with a corpus. Names of files are relative to the folder or archive."""

    def tables(self) -> list[str]:
        """Names of the .tsv files, sorted."""

    def parts(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file, part by part."""

    def store(self, folder: str) -> FileStore:
        """File store of a folder."""


class _FolderTree:
    def __init__(self, root: str, allowed: Sequence[str]) -> None:
        self._allowed = allowed
        self._root = root.rstrip("/") or "/"
        self._file_system, self._path = fsspec.core.url_to_fs(self._root)

    def tables(self) -> list[str]:
        """Find the .tsv files down to two folders deep.

        Folders of recordings are not searched, because they may hold a million files.
        """
        files, folders = [], [self._path]
        for _ in range(3):
            entries = [entry for folder in folders for entry in self._file_system.ls(folder, detail=True)]
            files += [entry["name"] for entry in entries if entry["name"].endswith(".tsv")]
            deeper = [entry["name"].rstrip("/") for entry in entries if entry["type"] == "directory"]
            folders = [name for name in deeper if posixpath.basename(name) not in (CLIPS, AUDIOS)]
        return sorted(name.removeprefix(self._path).lstrip("/") for name in files)

    def parts(self, name: str) -> Iterator[bytes]:
        with self._file_system.open(posixpath.join(self._path, name), "rb") as file:
            while part := file.read(PART_BYTES):
                yield part

    def store(self, folder: str) -> FileStore:
        return FolderStore(posixpath.join(self._root, folder), self._allowed)


class _ArchiveTree:
    def __init__(self, archive: TarArchive) -> None:
        self._archive = archive

    def tables(self) -> list[str]:
        names = self._archive.names
        return [str(name) for name in names.filter(pc.ends_with(names, ".tsv")).to_pylist()]

    def parts(self, name: str) -> Iterator[bytes]:
        return self._archive.parts(name)

    def store(self, folder: str) -> FileStore:
        return self._archive.below(folder)


def _open_tree(path: str, cache: Path | None, allowed: Sequence[str]) -> _Tree:
    file_system, stripped = fsspec.core.url_to_fs(path)
    if stripped.endswith((".tar", ".tar.gz", ".tgz")) and file_system.isfile(stripped):
        return _ArchiveTree(
            TarArchive.open(path, cache)
        )  # checked before isdir, for which http would download the file
    if not file_system.isdir(stripped):
        raise UsageError(f"{path}: no such folder or archive; expected a folder of Common Voice, or its .tar.gz")
    return _FolderTree(path, allowed)


@dataclass(frozen=True)
class _Corpus:
    """Corpus of one language: its folder, its .tsv files and its recordings."""

    folder: str
    locale: str
    tables: dict[str, str]  # name of the table without .tsv -> file
    recordings: str  # folder

    @property
    def is_spontaneous(self) -> bool:
        return self.recordings == AUDIOS


def _corpora(files: list[str]) -> list[_Corpus]:
    """Find the corpora that some .tsv files belong to, sorted by folder."""
    corpora = []
    for folder in sorted({posixpath.dirname(file) for file in files}):
        tables = {
            posixpath.basename(file).removesuffix(".tsv"): file for file in files if posixpath.dirname(file) == folder
        }
        spontaneous = next((match for name in tables if (match := SPONTANEOUS.fullmatch(name))), None)
        if spontaneous:
            corpora.append(_Corpus(folder, spontaneous["locale"], {"": tables[spontaneous[0]]}, AUDIOS))
        elif {"train", "dev", "test", "validated", "other"} & set(tables):
            corpora.append(_Corpus(folder, posixpath.basename(folder), tables, CLIPS))
    return corpora


def _choose(corpora: list[_Corpus], where: SourceConfig) -> _Corpus:
    """Return the corpus of the language that the settings name, or the only corpus.

    Raises UsageError if there is none, or if the settings do not choose one of several.
    """
    if not corpora:
        raise UsageError(
            f"{where.path}: holds no Common Voice; expected clips/ and train.tsv, or audios/ and ss-corpus-LOCALE.tsv, "
            "in it or up to two folders below"
        )
    if len(corpora) == 1:
        if where.config_name and where.language_column != FOUND and not _matching(corpora, where.config_name):
            raise UnhonouredError(
                "config_name",
                f"--data.config_name {where.config_name}: has no effect on {where.path}, which holds only "
                f"{corpora[0].locale!r}; leave it out",
            )
        return corpora[0]
    chosen = _matching(corpora, where.config_name or where.language or "")
    if len(chosen) != 1:
        locales = sorted({corpus.locale for corpus in chosen or corpora})
        if len(locales) > 1:
            raise UsageError(
                f"{where.path}: holds several languages; set --data.config_name to one of {', '.join(locales)}"
            )
        folders = ", ".join(corpus.folder for corpus in chosen or corpora)
        raise UsageError(f"{where.path}: holds {locales[0]!r} more than once; set --data.path to one of {folders}")
    return chosen[0]


def _matching(corpora: list[_Corpus], wanted: str) -> list[_Corpus]:
    """Return the corpora of a locale such as `sv-SE`, or else those of a language such as `sv`."""
    wanted = wanted.lower().replace("_", "-")
    exact = [corpus for corpus in corpora if wanted == corpus.locale.lower()]
    return exact or [corpus for corpus in corpora if wanted == corpus.locale.lower().split("-")[0]]


class _Tables:
    """Reader of the tables of a corpus."""

    def __init__(self, tree: _Tree, corpus: _Corpus, where: SourceConfig, columns: Sequence[str] = ()) -> None:
        self._tree, self._corpus, self._where, self._extra = tree, corpus, where, ExtraColumns(columns)
        extra = [schema_with(columns).field(COLUMNS)] if columns else []
        self._schema = pa.schema([*(pa.field(name, pa.string()) for name in FIELDS), *extra])
        self._label_columns = named_column(where, LANGUAGE) or LOCALE, named_column(where, TASK)

    @property
    def used(self) -> UsedParts:
        """Splits and columns that are read."""
        audio, text = self._usual_columns
        language, task = self._label_columns
        return UsedParts(
            self._where.split or "train",
            self._where.audio_column or audio,
            self._where.text_column or text,
            language,
            task,
        )

    @property
    def _usual_columns(self) -> tuple[str, str]:
        """Columns of the audio and the transcript, in the scripted and in the spontaneous corpus."""
        return ("audio_file", "transcription") if self._corpus.is_spontaneous else ("path", "sentence")

    def rows(self, splits: list[str]) -> pa.Table:
        """Return the rows of several splits, with the columns `FIELDS` and the extra columns.

        A clip that is in several splits is kept only where it comes first.
        """
        table = pa.concat_tables([self._split(split) for split in splits])
        numbered = pa.table({"id": table["id"], "row": pa.array(range(table.num_rows), pa.int64())})
        first = numbered.group_by("id").aggregate([("row", "min")])["row_min"]
        return table.take(first.take(pc.sort_indices(first)))

    def _split(self, split: str) -> pa.Table:
        table = self._plain(split.removesuffix(WITHOUT_TEST))
        if not split.endswith(WITHOUT_TEST):
            return table
        held_out = pa.concat_tables([self._plain("dev"), self._plain("test")])
        table = table.filter(pc.invert(pc.is_in(table["speaker"], held_out["speaker"], skip_nulls=True)))
        sentences = {folded_sentence(text) for text in held_out["text"].to_pylist() if text}
        blocks = table["text"].chunks  # one by one, so that few texts are Python objects at a time
        kept = [folded_sentence(text) not in sentences for block in blocks for text in block.to_pylist()]
        return table.filter(pa.array(kept, pa.bool_()))

    def _plain(self, split: str) -> pa.Table:
        """Read the rows of one table, or of one value of the column `split`."""
        if not self._corpus.is_spontaneous:
            if split not in self._corpus.tables:
                raise self._unknown(split, self._corpus.tables)
            return self._read(self._corpus.tables[split])
        table = self._read(self._corpus.tables[""])
        splits = {name for name in pc.unique(table["split"]).to_pylist() if name}
        if split not in {*splits, *TRANSCRIBED, "validated"}:
            raise self._unknown(split, splits)
        is_wanted = pc.is_in(table["split"], pa.array(TRANSCRIBED if split == "validated" else [split]))
        return table.filter(pc.or_(is_wanted, pc.is_null(table["split"])))  # null: a broken line

    def _unknown(self, split: str, splits: Collection[str]) -> UsageError:
        return UsageError(
            f"{self._where.path}: has no split {split!r}; set --data.split to one of {', '.join(sorted(splits))}, "
            f"several as a+b, or validated{WITHOUT_TEST}"
        )

    def _read(self, file: str) -> pa.Table:
        """Read one .tsv file as a table with the columns of `rows`."""
        lines = _lines(self._tree.parts(file), f"{self._where.path}: {file}")
        names = [name.strip() for name in next(lines, b"").decode("utf-8-sig", errors="replace").split("\t")]
        audio, text = self._usual_columns
        for kind, name in zip((LANGUAGE, TASK), self._label_columns, strict=True):
            if named_column(self._where, kind) and name not in names:
                raise missing_column(f"{self._where.path}: {file}", kind, str(name), names)
        wanted: tuple[str | None, ...] = (
            column_of(names, self._where.audio_column, (audio,), "audio_column", file),
            column_of(names, self._where.text_column, (text,), "text_column", file),
        )
        wanted = (*wanted, *self._label_columns, "split")
        places = [names.index(name) if name in names else len(names) for name in wanted]
        speakers = [names.index(name) for name in SPEAKER_COLUMNS if name in names]
        require_columns(names, self._extra.names, f"{self._where.path}: {file}", self._where)
        extra = {name: names.index(name) for name in self._extra.names}
        blocks, rows = [], list[tuple[Any, ...]]()
        fields = len(names) if self._where.reading > 1 else None
        for number, line in enumerate(lines, start=2):
            place = f"{posixpath.basename(file)}:{number}"
            rows.append(self._row(line, places, speakers, place, fields) + self._extra_cell(line, extra))
            if len(rows) == BLOCK_ROWS:
                blocks.append(_table(rows, self._schema))
                rows = []
        return pa.concat_tables([*blocks, _table(rows, self._schema)])

    def _row(
        self, line: bytes, places: list[int], speakers: list[int], place: str, fields: int | None
    ) -> tuple[str | None, ...]:
        """Values of `FIELDS` for one line.

        `places` are the numbers of the cells with file, text, language, task and split, and `speakers` of those that
        may name the speaker. `place` names the line in messages. A line must have as many cells as `fields`, if it is
        given.
        """
        cells = line.split(b"\t")
        if fields is not None and len(cells) != fields:
            return self._broken(cells, places, fields, place)
        file, text, language, task, split = (_text(cells[i]) if i < len(cells) else "" for i in places)
        names = (_text(cells[i]) for i in speakers if i < len(cells))
        speaker = next((name for name in names if name), None)
        problem = None
        if not file:
            problem = f"missing_file: {place} names no file"
        elif text is None:
            problem = f"bad_label: {place}: the transcript is not UTF-8"
        if self._corpus.is_spontaneous:
            text = " ".join(TAG.sub(" ", text or "").split())
        elif file and not posixpath.splitext(file)[1]:
            file += ".mp3"  # missing in the first releases
        if self._where.language and not named_column(self._where, LANGUAGE):
            language = None
        elif not self._where.language:
            language = language or self._corpus.locale
        return file or place, file or "", text, language or None, task or None, speaker, split, problem

    def _broken(self, cells: list[bytes], places: list[int], fields: int, place: str) -> tuple[str | None, ...]:
        """Values of `FIELDS` for a line with too many or too few cells, as a tab or line feed in a sentence makes it.

        The line is named by its clip if it has one. Its split is not known, so it counts in each split.
        """
        file = _text(cells[places[0]]) if places[0] < len(cells) else ""
        is_clip = bool(re.fullmatch(r"[^\s/]+\.(mp3|wav)", file or ""))
        problem = f"bad_line: {place}: {len(cells)} fields, the header has {fields}"
        return file if is_clip else place, "", "", None, None, None, None, problem

    def _extra_cell(self, line: bytes, numbers: dict[str, int]) -> tuple[Any, ...]:
        """Extra columns of a line as a tuple of one value; empty if there are no extra columns."""
        if not numbers:
            return ()
        cells = line.split(b"\t")
        texts = {
            name: cells[i].decode(errors="backslashreplace").strip() for name, i in numbers.items() if i < len(cells)
        }
        return (self._extra.of(texts),)


def _table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [[]] * len(schema)
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)], schema)


def _lines(parts: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Yield the lines of a file without their ends, except empty lines. A quotation mark is part of the text."""
    rest = b""
    for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise DataError(f"{name}: a line of over {MAX_LINE_BYTES} bytes, so this is no table; get it again")
        yield from (line.removesuffix(b"\r") for line in lines if line.strip())
    if rest.strip():
        yield rest.removesuffix(b"\r")


def _text(cell: bytes) -> str | None:
    try:
        return cell.decode("utf-8").strip()
    except UnicodeDecodeError:
        return None
