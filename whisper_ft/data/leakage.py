"""What a held-out set shares with the training data: recordings, which make its figures worthless, and what helps less.

The held-out side is indexed once, as hashes and ids; the training side streams past it row by row.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.types import Row, Source

Kind = Literal["audio", "pcm", "name", "name_only", "sentence", "speaker"]
Keys = dict[Kind, bytes]
Hear = Callable[[Row], Waveform | None]
"""The decoded audio of a row, None where there is none to compare."""

SHOWN = 5  # examples of each kind
MEANING: dict[Kind, str] = {
    "audio": "the same bytes of audio",
    "pcm": "the same sound, encoded in another way or not",
    "name": "the same file name and the same words",
    "name_only": "the same file name, but other words",
    "sentence": "the same sentence (case and spaces aside)",
    "speaker": "the same speaker",
}
LEAKS: tuple[Kind, ...] = ("audio", "pcm", "name")
WARNINGS: tuple[Kind, ...] = ("name_only", "sentence", "speaker")

# `file.parquet#7` says which row of a file it is: equal in two sets, it says nothing about the recording.
_NUMBERED = re.compile(r"(?P<file>.*)#(?:line )?\d+", re.DOTALL)
_TABLES = (".parquet", ".arrow", ".tar", ".tar.gz", ".tgz", ".jsonl", ".json", ".csv", ".tsv")
_SHARD = re.compile(r"^.*\.(?:tar|tar\.gz|tgz)#", re.DOTALL)
_AUDIO_TYPE = re.compile(r"\.(?:wav|flac|mp3|ogg|oga|opus|m4a|webm|aac|aiff?)(?=@[^@]*$|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Overlap:
    """What is shared in one way."""

    kind: Kind
    train_rows: int  # rows of the training data that are also held out
    heldout_rows: int  # held-out rows that are trained on
    examples: tuple[tuple[str, str], ...]  # ids in the training and in the held-out data, the first few


@dataclass(frozen=True)
class Leakage:
    """The comparison of two sets."""

    train_rows: int
    heldout_rows: int
    overlaps: tuple[Overlap, ...]  # of the kinds that were looked for, LEAKS before WARNINGS

    @property
    def leaks(self) -> tuple[Overlap, ...]:
        """What must not be: recordings that are trained on and judged by."""
        return tuple(found for found in self.overlaps if found.kind in LEAKS and found.train_rows)

    @property
    def warnings(self) -> tuple[Overlap, ...]:
        """What may be meant, as sentences that many people read are, but makes the figures look better."""
        return tuple(found for found in self.overlaps if found.kind in WARNINGS and found.train_rows)

    def lines(self) -> list[str]:
        """For people: the figures of each kind, with the ids of some rows below."""
        told = [f"{self.train_rows:,} training rows against {self.heldout_rows:,} held-out rows"]
        for found in self.overlaps:
            rank = "" if not found.train_rows else "LEAK: " if found.kind in LEAKS else "warning: "
            share = 100 * found.heldout_rows / max(self.heldout_rows, 1)
            told.append(
                f"{rank}{MEANING[found.kind]}: {found.heldout_rows:,} held-out rows ({share:.1f} %), "
                f"{found.train_rows:,} training rows"
            )
            told += [f"  {train} = {heldout}" for train, heldout in found.examples]
        return told


class LeakageComparison:
    """One pass of the training data along an index of the held-out data.

    `heldout` is read at once. With `hear`, the decoded sound is compared too, and `add` needs it of each row.
    """

    def __init__(self, heldout: Iterable[Row], hear: Hear | None = None) -> None:
        self._kinds = [kind for kind in (*LEAKS, *WARNINGS) if hear is not None or kind != "pcm"]
        self._index: dict[Kind, dict[bytes, tuple[int, str]]] = {kind: {} for kind in self._kinds}  # rows, first id
        self._heldout_rows = self._train_rows = 0
        for row in heldout:
            self._heldout_rows += 1
            for kind, key in keys_of(row, hear(row) if hear else None).items():
                rows, first = self._index[kind].get(key, (0, row.id))
                self._index[kind][key] = rows + 1, first
        self._hits: dict[Kind, int] = dict.fromkeys(self._kinds, 0)
        self._matched: dict[Kind, set[bytes]] = {kind: set() for kind in self._kinds}
        self._examples: dict[Kind, list[tuple[str, str]]] = {kind: [] for kind in self._kinds}

    def add(self, row: Row, keys: Keys) -> None:
        """Compare one training row, whose keys are those of `keys_of`.

        A name that is shared together with its words is not counted again without them.
        """
        self._train_rows += 1
        for kind in self._kinds:
            key = keys.get(kind)
            found = self._index[kind].get(key) if key is not None else None
            if key is None or found is None or (kind == "name_only" and keys["name"] in self._index["name"]):
                continue
            self._hits[kind] += 1
            self._matched[kind].add(key)
            if len(self._examples[kind]) < SHOWN:
                self._examples[kind].append((row.id, found[1]))

    def result(self) -> Leakage:
        """What was found so far."""
        overlaps = []
        for kind in self._kinds:
            rows = sum(self._index[kind][key][0] for key in self._matched[kind])
            overlaps.append(Overlap(kind, self._hits[kind], rows, tuple(self._examples[kind])))
        return Leakage(self._train_rows, self._heldout_rows, tuple(overlaps))


def compare(train: Iterable[Row], heldout: Iterable[Row], hear: Hear | None = None) -> Leakage:
    """What the held-out rows share with the training rows; `hear` decodes, to compare the sound as well."""
    comparison = LeakageComparison(heldout, hear)
    for row in train:
        comparison.add(row, keys_of(row, hear(row) if hear else None))
    return comparison.result()


def shared_by_index(train: Source, heldout: Source) -> str:
    """What a look at the two indexes alone tells is in both, in a line; "" if nothing: file names and whole tables.

    Reads no row. A row of a table has no name, only its number, but a table that is in both has the same row groups.
    """
    names = dict(_named_rows(heldout))
    found = [(row, names[name]) for name, row in (_named_rows(train) if names else ()) if name in names]
    tables = _tables(heldout.fingerprint())
    found += [(table, tables[groups]) for groups, table in _tables(train.fingerprint()).items() if groups in tables]
    if not found:
        return ""
    return f"{len(found):,} file names or tables are in both, such as {found[0][0]} and {found[0][1]}"


def _named_rows(source: Source) -> Iterator[tuple[str, str]]:
    """File name and id of the rows that have one."""
    for chunk, rows in enumerate(source.rows):
        if rows and name_of(source.row_id(chunk, 0)) is not None:
            ids = (source.row_id(chunk, row) for row in range(rows))
            yield from ((name, row_id) for row_id in ids if (name := name_of(row_id)))


def _tables(fingerprint: Mapping[str, Any]) -> dict[tuple[int, str], str]:
    """Rows and digest of the row groups of each table, where the fingerprint has them."""
    each = [part.get("each", {}) for part in fingerprint.get("sources", [fingerprint])]
    return {(rows, digest): name for tables in each for name, (rows, digest) in tables.items() if rows}


def keys_of(row: Row, waveform: Waveform | None = None) -> Keys:
    """Hashes by which a row is found again; of what it lacks there is none.

    Two segments of one recording are two recordings here: bytes are hashed with the place of the utterance in them.
    """
    keys: Keys = {}
    if row.audio and not row.problem:
        place = b"" if row.offset == 0 and row.duration is None else f"{row.offset:.3f}+{row.duration}".encode()
        keys["audio"] = hashlib.sha256(hashlib.sha256(row.audio).digest() + place).digest()
    if waveform is not None and waveform.any():  # silence of one length would equal all other
        keys["pcm"] = hashlib.sha256(np.rint(waveform.clip(-2, 2) * 2**15).astype("<i4").tobytes()).digest()
    sentence = folded(row.text)
    if name := name_of(row.id):
        words = "".join(character for character in sentence if character.isalnum())
        keys["name"] = _hash(f"{name}\0{words}")
        keys["name_only"] = _hash(name)
    if sentence:
        keys["sentence"] = _hash(sentence)
    if row.speaker:
        keys["speaker"] = _hash(str(row.speaker))
    return keys


def folded(text: object) -> str:
    """A sentence as it is compared: NFC, without case, with single spaces; of what is no text, nothing."""
    return unicodedata.normalize("NFC", " ".join(text.casefold().split())) if isinstance(text, str) else ""


def name_of(row_id: str) -> str | None:
    """The file name in an id, without folders and the type of the audio; None where the id only numbers a row."""
    if numbered := _NUMBERED.fullmatch(row_id):
        row_id = numbered["file"]  # clip.mp3#2 is the second row with that clip
        if row_id.lower().endswith(_TABLES):
            return None
    name = _SHARD.sub("", row_id).replace("\\", "/").rpartition("/")[2]
    return _AUDIO_TYPE.sub("", name) or None


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
