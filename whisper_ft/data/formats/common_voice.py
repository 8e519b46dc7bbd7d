"""Common Voice as Mozilla delivers it, scripted and spontaneous: a folder, or the archive as it was downloaded.

    cv-corpus-VERSION-DATE/LOCALE/{clips/*.mp3, train.tsv, dev.tsv, test.tsv, validated.tsv, other.tsv, ...}
    sps-corpus-VERSION-DATE-LOCALE/{audios/*.mp3, ss-corpus-LOCALE.tsv}

The layouts and columns are described in https://github.com/common-voice/cv-dataset (datasets/*/README.md).
"""

import posixpath
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.columns import ExtraColumns, column_of, require_columns
from whisper_ft.data.formats.file_table import COLUMNS, FileTable, data_errors, schema_with
from whisper_ft.data.storage.archive import PART, Archive
from whisper_ft.data.storage.files import FileStore, FolderStore
from whisper_ft.runtime.errors import DataError, UsageError

CLIPS, AUDIOS = "clips", "audios"  # folders of recordings of the scripted and the spontaneous corpus
WITHOUT_TEST = "-without-test"
TRANSCRIBED = ("train", "dev", "test")  # splits of the spontaneous corpus, the others have no checked transcription
SPONTANEOUS = re.compile(r"ss-corpus-(?P<locale>[^/]+)")
# Events that transcribers of the spontaneous corpus mark: [disfluency], [noise], [laugh], [unclear], ...
TAG = re.compile(r"\[[^\[\]]{1,40}\]")
MAX_LINE = 2**24  # bytes; a line of a table has about 500
BATCH = 20_000  # rows held as Python objects while a table is read
FIELDS = ("id", "file", "text", "language", "speaker", "split", "problem")  # all but `split` as in listed.SCHEMA


def open_common_voice(where: SourceConfig, cache: Path | None = None, columns: Sequence[str] = ()) -> FileTable:
    """The rows of one or more splits of a corpus, in the order of its tables.

    `where.path` is a .tar.gz or .tar as delivered, the folder of one language, or a folder above it; of several
    languages `where.config_name`, else `where.language`, chooses. `where.split` is the name of a table, `train` if
    None; `dev+other` is both, each clip once. `validated-without-test` is `validated` without what shares a speaker or
    a sentence with dev or test (compared in NFC, without case, white space folded): it is about three times `train`,
    which has each sentence once. A spontaneous corpus has train, dev, test, unassigned (not transcribed, or not
    checked) and `validated`, the first three together.

    A row's id is the name of its clip, its speaker `client_id`. Its language is null where `where.language` is set:
    that is what the user calls the language of the whole corpus, and many locales are none of Whisper's. Where it is
    not set it is the `locale` column, or the name of the folder in releases before 5.0.

    A .tar.gz is unpacked once, to the folder `cache`: see `unpacked`.
    """
    with data_errors(where.path):
        tree = _open_tree(where.path, cache)
        corpus = _choose(_corpora(tree.tables()), where)
        rows = _Tables(tree, corpus, where, columns).rows((where.split or "train").split("+"))
        return FileTable(rows, tree.shelf(posixpath.join(corpus.folder, corpus.recordings)), where)


class _Tree(Protocol):
    """A folder or an archive. Names are relative to it."""

    def tables(self) -> list[str]:
        """The .tsv files, sorted."""

    def parts(self, name: str) -> Iterator[bytes]:
        """A file, part by part."""

    def shelf(self, folder: str) -> FileStore:
        """The files of a folder."""


class _FolderTree:
    def __init__(self, root: str) -> None:
        self._root = root.rstrip("/") or "/"
        self._file_system, self._path = fsspec.core.url_to_fs(self._root)

    def tables(self) -> list[str]:
        """The .tsv files down to two folders deep. Not those among recordings: there may be a million."""
        found, folders = [], [self._path]
        for _ in range(3):
            entries = [entry for folder in folders for entry in self._file_system.ls(folder, detail=True)]
            found += [entry["name"] for entry in entries if entry["name"].endswith(".tsv")]
            deeper = [entry["name"].rstrip("/") for entry in entries if entry["type"] == "directory"]
            folders = [name for name in deeper if posixpath.basename(name) not in (CLIPS, AUDIOS)]
        return sorted(name.removeprefix(self._path).lstrip("/") for name in found)

    def parts(self, name: str) -> Iterator[bytes]:
        with self._file_system.open(posixpath.join(self._path, name), "rb") as file:
            while part := file.read(PART):
                yield part

    def shelf(self, folder: str) -> FileStore:
        return FolderStore(posixpath.join(self._root, folder))


class _ArchiveTree:
    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self.parts = archive.parts
        self.shelf = archive.below

    def tables(self) -> list[str]:
        names = self._archive.names
        return [str(name) for name in names.filter(pc.ends_with(names, ".tsv")).to_pylist()]


def _open_tree(path: str, cache: Path | None) -> _Tree:
    file_system, stripped = fsspec.core.url_to_fs(path)
    if stripped.endswith((".tar", ".tar.gz", ".tgz")) and file_system.isfile(stripped):
        return _ArchiveTree(Archive.open(path, cache))  # asked first: http would download it to see if it is a folder
    if not file_system.isdir(stripped):
        raise UsageError(f"{path}: should be a folder of Common Voice, or its .tar.gz; there is none")
    return _FolderTree(path)


@dataclass(frozen=True)
class _Corpus:
    """One language."""

    folder: str
    locale: str
    tables: dict[str, str]  # name of the table without .tsv -> file
    recordings: str  # folder

    @property
    def is_spontaneous(self) -> bool:
        return self.recordings == AUDIOS


def _corpora(files: list[str]) -> list[_Corpus]:
    """The corpora that these tables are of, sorted by folder."""
    found = []
    for folder in sorted({posixpath.dirname(file) for file in files}):
        tables = {
            posixpath.basename(file).removesuffix(".tsv"): file for file in files if posixpath.dirname(file) == folder
        }
        spontaneous = next((match for name in tables if (match := SPONTANEOUS.fullmatch(name))), None)
        if spontaneous:
            found.append(_Corpus(folder, spontaneous["locale"], {"": tables[spontaneous[0]]}, AUDIOS))
        elif {"train", "dev", "test", "validated", "other"} & set(tables):
            found.append(_Corpus(folder, posixpath.basename(folder), tables, CLIPS))
    return found


def _choose(corpora: list[_Corpus], where: SourceConfig) -> _Corpus:
    """The corpus of the language that was asked for, or the only one there is."""
    if not corpora:
        raise UsageError(
            f"{where.path}: holds no Common Voice: a folder or archive with clips/ and train.tsv, or audios/ and "
            "ss-corpus-LOCALE.tsv, was expected in it, or up to two folders below"
        )
    if len(corpora) == 1:
        return corpora[0]
    wanted = (where.config_name or where.language or "").lower().replace("_", "-")
    chosen = [corpus for corpus in corpora if wanted == corpus.locale.lower()]
    chosen = chosen or [corpus for corpus in corpora if wanted == corpus.locale.lower().split("-")[0]]
    if len(chosen) != 1:
        locales = sorted({corpus.locale for corpus in chosen or corpora})
        if len(locales) > 1:
            raise UsageError(
                f"{where.path}: holds several languages; set --data.config_name to one of {', '.join(locales)}"
            )
        folders = ", ".join(corpus.folder for corpus in chosen or corpora)
        raise UsageError(f"{where.path}: holds {locales[0]!r} more than once; set --data.path to one of {folders}")
    return chosen[0]


class _Tables:
    """Reads the tables of a corpus."""

    def __init__(self, tree: _Tree, corpus: _Corpus, where: SourceConfig, columns: Sequence[str] = ()) -> None:
        self._tree, self._corpus, self._where, self._carried = tree, corpus, where, ExtraColumns(columns)
        others = [schema_with(columns).field(COLUMNS)] if columns else []
        self._schema = pa.schema([*(pa.field(name, pa.string()) for name in FIELDS), *others])

    def rows(self, splits: list[str]) -> pa.Table:
        """The rows of all these splits, each clip where it is first: -> `FIELDS`, and what is carried."""
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
        sentences = {_folded(text) for text in held_out["text"].to_pylist() if text}
        blocks = table["text"].chunks  # one by one, so that few of them are Python objects at a time
        kept = [_folded(text) not in sentences for block in blocks for text in block.to_pylist()]
        return table.filter(pa.array(kept, pa.bool_()))

    def _plain(self, split: str) -> pa.Table:
        """The rows of one table, or of one value of the column `split`."""
        if not self._corpus.is_spontaneous:
            if split not in self._corpus.tables:
                raise self._unknown(split, self._corpus.tables)
            return self._read(self._corpus.tables[split])
        table = self._read(self._corpus.tables[""])
        there = {name for name in pc.unique(table["split"]).to_pylist() if name}
        if split not in {*there, *TRANSCRIBED, "validated"}:
            raise self._unknown(split, there)
        return table.filter(pc.is_in(table["split"], pa.array(TRANSCRIBED if split == "validated" else [split])))

    def _unknown(self, split: str, there: Collection[str]) -> UsageError:
        return UsageError(
            f"{self._where.path}: has no split {split!r}; set --data.split to one of {', '.join(sorted(there))}, "
            f"several as a+b, or validated{WITHOUT_TEST}"
        )

    def _read(self, file: str) -> pa.Table:
        """A table in the columns of `rows`."""
        lines = _lines(self._tree.parts(file), f"{self._where.path}: {file}")
        names = [name.strip() for name in next(lines, b"").decode("utf-8-sig", errors="replace").split("\t")]
        audio, text = ("audio_file", "transcription") if self._corpus.is_spontaneous else ("path", "sentence")
        wanted = {
            "file": column_of(names, self._where.audio_column, (audio,), "audio_column", file),
            "text": column_of(names, self._where.text_column, (text,), "text_column", file),
        }
        wanted |= {"language": "locale", "speaker": "client_id", "split": "split"}
        require_columns(names, self._carried.names, f"{self._where.path}: {file}")
        others = {name: names.index(name) for name in self._carried.names}
        at = [names.index(wanted[field]) if wanted[field] in names else len(names) for field in FIELDS[1:6]]
        batches, batch = [], list[tuple[Any, ...]]()
        for number, line in enumerate(lines, start=2):
            batch.append(self._row(line, at, f"{posixpath.basename(file)}:{number}") + self._others(line, others))
            if len(batch) == BATCH:
                batches.append(_table(batch, self._schema))
                batch = []
        return pa.concat_tables([*batches, _table(batch, self._schema)])

    def _row(self, line: bytes, at: list[int], place: str) -> tuple[str | None, ...]:
        """A line in the columns of `FIELDS`."""
        cells = line.split(b"\t")
        file, text, locale, speaker, split = (_text(cells[i]) if i < len(cells) else "" for i in at)
        problem = None
        if not file:
            problem = f"missing_file: {place} names no file"
        elif text is None:
            problem = f"bad_label: {place}: the transcript is not UTF-8"
        if self._corpus.is_spontaneous:
            text = " ".join(TAG.sub(" ", text or "").split())
        elif file and not posixpath.splitext(file)[1]:
            file += ".mp3"  # the first releases left it out
        language = None if self._where.language else locale or self._corpus.locale
        return file or place, file or "", text, language, speaker or None, split, problem

    def _others(self, line: bytes, at: dict[str, int]) -> tuple[Any, ...]:
        """What a line says in the columns to carry along, as one cell; none where there are none."""
        if not at:
            return ()
        cells = line.split(b"\t")
        said = {name: cells[i].decode(errors="backslashreplace").strip() for name, i in at.items() if i < len(cells)}
        return (self._carried.of(said),)


def _table(batch: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*batch, strict=True) if batch else [[]] * len(schema)
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)], schema)


def _lines(parts: Iterator[bytes], name: str) -> Iterator[bytes]:
    """The lines of a file that are not empty, without their ends. Quotes are characters like others."""
    rest = b""
    for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        if len(rest) > MAX_LINE:
            raise DataError(f"{name}: a line of over {MAX_LINE} bytes: not a table")
        yield from (line.removesuffix(b"\r") for line in lines if line.strip())
    if rest.strip():
        yield rest.removesuffix(b"\r")


def _text(cell: bytes) -> str | None:
    try:
        return cell.decode("utf-8").strip()
    except UnicodeDecodeError:
        return None


def _folded(text: str | None) -> str:
    """A sentence as it is compared: NFC, no case, each run of white space one space."""
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", text or "").casefold()).split())
