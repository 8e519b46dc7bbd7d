"""Leakage: recordings, sentences and speakers that a held-out set shares with the training data.

Shared recordings make the scores worthless. The held-out set is indexed once, as hashes and ids. Each training row is
then compared with this index.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.types import Row, Source

Kind = Literal["audio", "pcm", "name", "name_only", "sentence", "speaker"]
Keys = dict[Kind, bytes]
WaveformOf = Callable[[Row], Waveform | None]
"""Function that returns the decoded audio of a row, or None if the row has no audio to compare."""

MAX_EXAMPLES = 5
"""Number of examples kept for each kind of overlap."""
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

# Id that ends in the number of a row, as in `file.parquet#7`. Equal numbers in two sets do not mean equal recordings.
_NUMBERED = re.compile(r"(?P<file>.*)#(?:line )?\d+", re.DOTALL)
_TABLES = (".parquet", ".arrow", ".tar", ".tar.gz", ".tgz", ".jsonl", ".json", ".csv", ".tsv")
_SHARD = re.compile(r"^.*\.(?:tar|tar\.gz|tgz)#", re.DOTALL)
_AUDIO_TYPE = re.compile(r"\.(?:wav|flac|mp3|ogg|oga|opus|m4a|webm|aac|aiff?)(?=@[^@]*$|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Overlap:
    """Rows that both sets share by one kind of key, such as equal audio or an equal sentence."""

    kind: Kind
    train_rows: int  # training rows with a key that a held-out row has, too
    heldout_rows: int  # held-out rows with a key that a training row has, too
    examples: tuple[tuple[str, str], ...]  # the first pairs of training id and held-out id


@dataclass(frozen=True)
class Leakage:
    """Result of comparing the training rows with the held-out rows."""

    train_rows: int
    heldout_rows: int
    overlaps: tuple[Overlap, ...]  # one for each compared kind, LEAKS before WARNINGS

    @property
    def leaks(self) -> tuple[Overlap, ...]:
        """Overlaps with at least one row that must not exist, because the same recordings are in both sets."""
        return tuple(overlap for overlap in self.overlaps if overlap.kind in LEAKS and overlap.train_rows)

    @property
    def warnings(self) -> tuple[Overlap, ...]:
        """Overlaps with at least one row that improve the scores but may be intended.

        An example is one sentence read by many people.
        """
        return tuple(overlap for overlap in self.overlaps if overlap.kind in WARNINGS and overlap.train_rows)


class LeakageComparison:
    """Comparison of training rows, one by one, with an index of the held-out rows.

    Parameters
        heldout: held-out rows; all of them are read when the object is created
        waveform_of: decoder of a row's audio. With it the decoded sound is compared too, so the keys given to `add`
            must be made with a waveform as well.
    """

    def __init__(self, heldout: Iterable[Row], waveform_of: WaveformOf | None = None) -> None:
        self._kinds = [kind for kind in (*LEAKS, *WARNINGS) if waveform_of is not None or kind != "pcm"]
        self._index: dict[Kind, dict[bytes, tuple[int, str]]] = {kind: {} for kind in self._kinds}  # rows, first id
        self._heldout_rows = self._train_rows = 0
        for row in heldout:
            self._heldout_rows += 1
            for kind, key in keys_of(row, waveform_of(row) if waveform_of else None).items():
                rows, first = self._index[kind].get(key, (0, row.id))
                self._index[kind][key] = rows + 1, first
        self._hits: dict[Kind, int] = dict.fromkeys(self._kinds, 0)
        self._matched: dict[Kind, set[bytes]] = {kind: set() for kind in self._kinds}
        self._examples: dict[Kind, list[tuple[str, str]]] = {kind: [] for kind in self._kinds}

    def add(self, row: Row, keys: Keys) -> None:
        """Compare one training row with the held-out rows, by the row's keys from `keys_of`.

        A name that is shared together with its words is not counted again as a name alone.
        """
        self._train_rows += 1
        for kind in self._kinds:
            key = keys.get(kind)
            match = self._index[kind].get(key) if key is not None else None
            if key is None or match is None or (kind == "name_only" and keys["name"] in self._index["name"]):
                continue
            self._hits[kind] += 1
            self._matched[kind].add(key)
            if len(self._examples[kind]) < MAX_EXAMPLES:
                self._examples[kind].append((row.id, match[1]))

    def result(self) -> Leakage:
        """Return the overlaps between the held-out rows and the training rows added so far."""
        overlaps = []
        for kind in self._kinds:
            rows = sum(self._index[kind][key][0] for key in self._matched[kind])
            overlaps.append(Overlap(kind, self._hits[kind], rows, tuple(self._examples[kind])))
        return Leakage(self._train_rows, self._heldout_rows, tuple(overlaps))


def shared_by_index(train: Source, heldout: Source) -> str:
    """Message about file names and tables that are in both sets; "" if the sets share no name and no table.

    Only the two indexes are compared, and no row is read. Rows of a table have numbers instead of names. But a table
    that is in both sets has the same row groups in both.
    """
    names = dict(_named_rows(heldout))
    shared = [(row, names[name]) for name, row in (_named_rows(train) if names else ()) if name in names]
    tables = _tables(heldout.fingerprint())
    shared += [(table, tables[groups]) for groups, table in _tables(train.fingerprint()).items() if groups in tables]
    if not shared:
        return ""
    return f"{len(shared):,} file names or tables are in both, such as {shared[0][0]} and {shared[0][1]}"


def shared_by_name(recordings: Sequence[Path], heldout: Source) -> str:
    """Message about recordings with the name of a held-out row; "" without any. No row is read."""
    names = dict(_named_rows(heldout)) if recordings else {}
    shared = [(path, names[name]) for path in recordings if (name := name_of(path.name)) in names]
    return f"{len(shared):,} have a name in both, such as {shared[0][0]} and {shared[0][1]}" if shared else ""


def row_of(recording: Path) -> Row:
    """Return a recording as a row without text, which can be compared with held-out rows."""
    return Row(str(recording), recording.read_bytes(), "")


def _named_rows(source: Source) -> Iterator[tuple[str, str]]:
    """Yield the file name and the id of each row whose id contains a file name."""
    for chunk, rows in enumerate(source.rows):
        if rows and name_of(source.row_id(chunk, 0)) is not None:
            ids = (source.row_id(chunk, row) for row in range(rows))
            yield from ((name, row_id) for row_id in ids if (name := name_of(row_id)))


def _tables(fingerprint: Mapping[str, Any]) -> dict[tuple[int, str], str]:
    """Map the number of rows and the digest of each table to its name, for the tables that a fingerprint lists."""
    each = [part.get("each", {}) for part in fingerprint.get("sources", [fingerprint])]
    return {(rows, digest): name for tables in each for name, (rows, digest) in tables.items() if rows}


def keys_of(row: Row, waveform: Waveform | None = None) -> Keys:
    """Hashes that identify a row, by kind. A kind is left out if the row has no value for it.

    The decoded sound is hashed if `waveform` is given and not silent, and the bytes of audio if the row has no problem.
    Two segments of one recording count as two recordings, because the hash of the audio includes offset and duration.
    """
    keys: Keys = {}
    if row.audio and not row.problem:
        place = b"" if row.offset == 0 and row.duration is None else f"{row.offset:.3f}+{row.duration}".encode()
        keys["audio"] = hashlib.sha256(hashlib.sha256(row.audio).digest() + place).digest()
    if waveform is not None and waveform.any():  # else all silent clips of one length would be equal
        keys["pcm"] = hashlib.sha256(np.rint(waveform.clip(-2, 2) * 2**15).astype("<i4").tobytes()).digest()
    sentence = folded_sentence(row.text)
    if name := name_of(row.id):
        words = "".join(character for character in sentence if character.isalnum())
        keys["name"] = _hash(f"{name}\0{words}")
        keys["name_only"] = _hash(name)
    if sentence:
        keys["sentence"] = _hash(sentence)
    if row.speaker:
        keys["speaker"] = _hash(str(row.speaker))
    return keys


def folded_sentence(text: object) -> str:
    """Sentence in the form that is compared: NFC, case-folded, with single spaces; "" if the value is not text."""
    if not isinstance(text, str):
        return ""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return " ".join(folded.split())


def name_of(row_id: str) -> str | None:
    """File name in a row id, without folders and audio suffix; None if the id only numbers a row."""
    if numbered := _NUMBERED.fullmatch(row_id):
        row_id = numbered["file"]  # clip.mp3#2 is the second row with clip.mp3
        if row_id.lower().endswith(_TABLES):
            return None
    name = _SHARD.sub("", row_id).replace("\\", "/").rpartition("/")[2]
    return _AUDIO_TYPE.sub("", name) or None


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
