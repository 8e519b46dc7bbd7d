"""Texts beside recordings, and the record of those that `transcribe` wrote, so that nobody trains on them by accident.

A folder with `talk.wav` and `talk.txt` is a data set of pairs, also if a model wrote the text. The record is a hidden
file in the folder. It has the sha256 of each such text, so a text that a person has corrected is a transcript again.
"""

import hashlib
import json
import os
import posixpath
from collections.abc import Sequence
from pathlib import Path

from whisper_ft.data.formats.text_lines import decoded
from whisper_ft.data.storage.files import FolderStore
from whisper_ft.data.types import RejectedError

RECORD = ".whisper-ft-transcripts.jsonl"


def record_transcript(path: Path, content: bytes, model: str) -> None:
    """Add a transcript to the record of its folder, in one write, because several processes may add theirs.

    Parameters
        path: file of the transcript, which is written after the record.
        model: name of the model, for the reader of the record.
    """
    row = {"file": path.name, "sha256": hashlib.sha256(content).hexdigest(), "model": model}
    record = os.open(path.with_name(RECORD), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(record, (json.dumps(row, ensure_ascii=False) + "\n").encode())
    finally:
        os.close(record)


class TranscriptTexts:
    """Texts of a folder and the folders below, without those that a model wrote.

    Parameters
        store: the folder.
        names: names of its files, relative to it.
    """

    def __init__(self, store: FolderStore, names: Sequence[str]) -> None:
        self._store, self._written = store, set[tuple[str, str]]()
        for record in (name for name in names if posixpath.basename(name) == RECORD):
            for line in store.read(record).splitlines():
                if entry := _entry(line):
                    self._written.add((posixpath.join(posixpath.dirname(record), entry[0]), entry[1]))

    def read(self, name: str, most_bytes: int) -> str:
        """Return the text of a file.

        Raises RejectedError if the file cannot be read, is larger than `most_bytes`, or is no text. A text that a model
        wrote is refused, too, until somebody has changed it.
        """
        if (self._store.size(name) or 0) > most_bytes:
            raise RejectedError("bad_label", f"{name}: over {most_bytes} bytes, so it is no transcript")
        content = self._store.read(name)
        if self._written and (name, hashlib.sha256(content).hexdigest()) in self._written:
            raise RejectedError(
                "bad_label",
                f"{name}: a model wrote it (transcribe), and nobody corrected it; to use it as it is, delete {RECORD} "
                "beside it, or choose labels by pseudolabel (docs/pseudolabel.md)",
            )
        text = decoded(content)
        if text is None:
            reason = "neither UTF-8 nor UTF-16; convert it, as by iconv -f CP1251 -t UTF-8"
            raise RejectedError("bad_label", f"{name}: {reason}")
        return text


def _entry(line: bytes) -> tuple[str, str] | None:
    """Return file name and sha256 of a line; None for a line that a kill or a full disk has cut."""
    try:
        row = json.loads(line)
        return str(row["file"]), str(row["sha256"])
    except (ValueError, KeyError, TypeError):
        return None
