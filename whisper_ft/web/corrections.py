"""Corrected recordings, kept in a folder that is a source of training data as it is (`data.path`).

The folder is an audiofolder of Hugging Face: `audio/ID.wav`, and a line of `metadata.jsonl` for each of them.
"""

import json
import re
import shlex
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.decode import MIN_SECONDS, SEGMENT_SLACK
from whisper_ft.data.audio.recording import Recording
from whisper_ft.data.types import RejectedError
from whisper_ft.runtime import atomic
from whisper_ft.runtime.errors import DataError, UsageError
from whisper_ft.runtime.jsonl import rows_with
from whisper_ft.runtime.lock import LOCK, lock_file
from whisper_ft.runtime.printable import counted, json_text
from whisper_ft.scoring.unicode_text import encodable, single_spaces

METADATA, AUDIO = "metadata.jsonl", "audio"
SAMPLE_RATE = 16_000  # of the kept audio, in Hz; Whisper hears no other
WINDOW_SECONDS = 30.0
"""Longest part in seconds, as in Whisper's window. The page keeps the windows of the transcript, which are shorter."""
MAX_CHARACTERS = 2_000
"""Longest text, speaker or consent note. A window of 30 s holds about 600 characters."""
_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")


@dataclass(frozen=True)
class CorrectedPart:
    """Part of a recording with its corrected text; times in seconds of the recording."""

    start: float
    end: float
    text: str
    hypothesis: str = ""
    """Text that the model wrote, for comparison."""


@dataclass(frozen=True)
class Provenance:
    """Origin of corrected parts: who speaks, why it may be kept, and the model that wrote the first text."""

    speaker: str
    consent: str
    language: str | None = None
    task: str = "transcribe"
    model: str = ""


class Corrections:
    """Folder of corrected recordings. It is made by the first correction.

    Several processes and threads may use it at the same time. A reader sees a correction whole, or not at all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, audio: Path, parts: Sequence[CorrectedPart], origin: Provenance) -> list[str]:
        """Keep parts of a recording, all or none of them, and return their ids.

        Raises UsageError for a part, speaker or note that cannot be kept, DataError for audio that cannot be read up to
        the end of the last part, and DiskError.
        """
        origin = _checked_origin(origin)
        parts = [_checked_part(part) for part in parts]
        if not parts:
            raise UsageError("no part has a text: write the text of at least one part")
        with atomic.disk_errors(self.folder):
            (self.folder / AUDIO).mkdir(parents=True, exist_ok=True)
        with self._locked():
            try:
                kept = self._write_audio(audio, parts)
                rows = [_row(name, seconds, part, origin) for (name, seconds), part in zip(kept, parts, strict=True)]
                self._write_rows([*self.rows(), *rows])
            except BaseException:
                self._remove_unlisted()
                raise
        return [name for name, _ in kept]

    def rows(self) -> list[dict[str, Any]]:
        """Return the kept corrections, the oldest first, as the lines of `metadata.jsonl`."""
        return [row for row in rows_with(self.folder / METADATA, "id") if isinstance(row["id"], str)]

    def audio_of(self, name: str) -> Path | None:
        """Return the audio file of a correction; None if there is no correction with this id."""
        path = self._path_of(name)
        return path if path is not None and path.is_file() else None

    def delete(self, name: str) -> bool:
        """Remove a correction: its line, then its audio. Returns False if there is none with this id."""
        if not self.folder.is_dir():
            return False
        with self._locked():
            rows = self.rows()
            left = [row for row in rows if row["id"] != name]
            if len(left) == len(rows):
                return False
            self._write_rows(left)
            self._remove_unlisted()
        return True

    def training_command(self, model: str) -> str:
        """Return the command that trains a model on these corrections, in a run directory of its own.

        The settings are those of docs/recipes.md for less than an hour of speech.
        """
        rows = self.rows()
        languages = {row.get("language") for row in rows} - {None, ""}
        run_dir = f"runs/{self.folder.name}-{len(rows)}"  # of its own, because a run is not continued with other data
        arguments = ["--model.name", model, "--data.path", str(self.folder), "--run_dir", run_dir]
        if len(languages) == 1:
            arguments += ["--data.language", str(languages.pop())]
        return shlex.join(["./launch.sh", *arguments, "--steps", "200", "--optim.lr", "5e-6"])

    def _path_of(self, name: str) -> Path | None:
        return self.folder / AUDIO / f"{name}.wav" if _ID.fullmatch(name) else None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the folder, and first remove the audio that a killed process wrote without its line."""
        with atomic.disk_errors(self.folder):
            file = lock_file(self.folder / LOCK, "page", wait=True)
        with file:
            self._remove_unlisted()
            yield

    def _remove_unlisted(self) -> None:
        """Remove files of the form of ours that `metadata.jsonl` does not name. The caller holds the lock."""
        listed = {row["id"] for row in self.rows()}
        for path in (self.folder / AUDIO).glob("*.wav"):
            name = path.name.removeprefix(atomic.ASIDE).removesuffix(".wav")
            if _ID.fullmatch(name) and (name not in listed or path.name.startswith(atomic.ASIDE)):
                path.unlink(missing_ok=True)

    def _write_audio(self, audio: Path, parts: Sequence[CorrectedPart]) -> list[tuple[str, float]]:
        """Write the audio of each part. Returns its id, and its length in seconds."""
        kept = []
        for samples in _cut(audio, parts):
            name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}"
            final = self.folder / AUDIO / f"{name}.wav"
            aside = final.with_name(f"{atomic.ASIDE}{final.name}")
            with atomic.disk_errors(final):
                soundfile.write(aside, samples, SAMPLE_RATE, subtype="PCM_16")
                atomic.sync_file(aside)
                aside.replace(final)
            kept.append((name, len(samples) / SAMPLE_RATE))
        with atomic.disk_errors(self.folder):
            atomic.sync_folder(self.folder / AUDIO)
        return kept

    def _write_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        atomic.write_lines(self.folder / METADATA, (json_text(row) + "\n" for row in rows))


def parts_of(value: str) -> list[CorrectedPart]:
    """Parse parts from JSON: a list of objects with start, end, text and hypothesis. Parts without a text are left out.

    Raises UsageError for anything else.
    """
    try:
        parts = [
            CorrectedPart(float(part["start"]), float(part["end"]), str(part["text"]), str(part.get("hypothesis", "")))
            for part in json.loads(value)
        ]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise UsageError("parts: expected a JSON list of objects with start, end and text") from error
    return [part for part in parts if part.text.strip()]


def _checked_origin(origin: Provenance) -> Provenance:
    speaker, consent = _line("speaker", origin.speaker), _line("consent", origin.consent)
    if not consent:
        raise UsageError("consent: is empty; write why the recording may be kept, such as: my own voice")
    return Provenance(speaker, consent, origin.language or None, origin.task, _line("model", origin.model))


def _checked_part(part: CorrectedPart) -> CorrectedPart:
    text, length = _line("text", part.text), part.end - part.start
    if not (part.start >= 0 and MIN_SECONDS <= length < float("inf")):
        raise UsageError(
            f"part from {part.start:g} to {part.end:g} s: is no part of a recording of {MIN_SECONDS:g} s up"
        )
    if length > WINDOW_SECONDS + 0.01:
        raise UsageError(
            f"part from {part.start:g} to {part.end:g} s: is longer than {WINDOW_SECONDS:g} s; split it, because no "
            "model is trained on longer parts"
        )
    return CorrectedPart(part.start, part.end, text, _line("hypothesis", part.hypothesis[:MAX_CHARACTERS]))


def _line(name: str, text: str) -> str:
    text = single_spaces(encodable(text))
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"{name}: has {counted(len(text), 'character')}; at most {MAX_CHARACTERS:,} are kept")
    return text


def _row(name: str, seconds: float, part: CorrectedPart, origin: Provenance) -> dict[str, Any]:
    row = {
        "file_name": f"{AUDIO}/{name}.wav",
        "text": part.text,
        "id": name,
        "duration": round(seconds, 3),
        "speaker": origin.speaker or None,
        "consent": origin.consent,
        "language": origin.language,
        "task": origin.task,
        "hypothesis": part.hypothesis or None,
        "model": origin.model or None,
        "time": time.strftime("%FT%TZ", time.gmtime()),
    }
    return {name: value for name, value in row.items() if value is not None}


def _cut(audio: Path, parts: Sequence[CorrectedPart]) -> Iterator[Waveform]:  # -> [samples] at SAMPLE_RATE
    """Yield the samples of each part. The recording is read once, up to the last part, and never held as a whole.

    Raises DataError for audio that cannot be read, or that ends before a part begins.
    """
    spans = [(round(part.start * SAMPLE_RATE), round(part.end * SAMPLE_RATE)) for part in parts]
    pieces: list[list[Waveform]] = [[] for _ in spans]
    begin, last = 0, max(end for _, end in spans)
    try:
        with Recording(audio, SAMPLE_RATE) as recording:
            for block in recording.blocks():
                for place, (start, end) in enumerate(spans):
                    if start < begin + len(block) and end > begin:
                        pieces[place].append(block[max(start - begin, 0) : end - begin].copy())
                begin += len(block)
                if begin >= last:
                    break
    except RejectedError as error:
        if begin < last:
            raise DataError(f"the recording cannot be read up to {last / SAMPLE_RATE:.1f} s: {error}") from error
    for part, found in zip(parts, pieces, strict=True):
        samples = np.concatenate(found) if found else np.zeros(0, np.float32)
        if len(samples) < max(MIN_SECONDS, part.end - part.start - SEGMENT_SLACK) * SAMPLE_RATE:
            raise DataError(f"part from {part.start:g} to {part.end:g} s: the recording ends before its end")
        yield np.clip(samples, -1.0, 1.0)
