"""Recordings without speech that a run draws from: silence, noise, and impulse responses of rooms."""

import glob
import hashlib
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, Self

from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.decode import MIN_SECONDS, decode
from whisper_ft.data.audio.file_bytes import FileBytes
from whisper_ft.data.audio.recording import Recording
from whisper_ft.data.storage.content import local_pieces, of_list
from whisper_ft.data.types import RejectedError
from whisper_ft.runtime.errors import DataError, UsageError
from whisper_ft.runtime.printable import counted
from whisper_ft.runtime.rng import hash64

SETTING = "labels.no_speech_path"


class NoiseFile(NamedTuple):
    """Recording, with its length in seconds by its header, and its size in bytes."""

    path: Path
    seconds: float
    size: int


class NoiseFiles:
    """Recordings of a path, which `setting` gives."""

    def __init__(self, files: Sequence[NoiseFile], path: str, setting: str = SETTING) -> None:
        self.files, self._setting = list(files), setting
        self.place = f"--{setting} {path}"
        """Setting and path, for messages."""
        sizes = [file.size for file in files]
        self.content: str = of_list([str(file.path) for file in files], sizes, local_pieces)["sample"]
        """Digest of a sample of the bytes, as `data.storage.content` takes it, when the recordings were found."""

    @classmethod
    def found(cls, path: str, setting: str = SETTING) -> Self:
        """Find the recordings of a file, a folder with the folders in it, or a glob, and read their headers.

        Raises UsageError if there is none, or if one cannot be used. Hidden files are left out.
        """
        local = Path(os.path.expanduser(path))
        matches = [local] if local.exists() else [Path(name) for name in glob.glob(str(local), recursive=True)]
        paths = [file for match in matches for file in (match.rglob("*") if match.is_dir() else [match])]
        files = sorted({file for file in paths if file.is_file() and not file.name.startswith(".")})
        if not files:
            raise UsageError(f"--{setting} {path}: there is no recording; give a file, a folder or a glob")
        return cls([NoiseFile(file, _seconds_of(file, setting), file.stat().st_size) for file in files], path, setting)

    @property
    def fingerprint(self) -> str:
        """Number of recordings, and a digest of their names, sizes and lengths. Their folder may be moved."""
        described = [(file.path.name, file.size, file.seconds) for file in self.files]
        digest = hashlib.sha256(repr(described).encode()).hexdigest()[:16]
        return f"{counted(len(described), 'recording')}, digest {digest}"

    def pick(self, *key: int) -> NoiseFile:
        """Return a random recording, which `key` determines."""
        return self.files[hash64(*key, 0) % len(self.files)]

    def part(self, rate: int, most_seconds: float, *key: int) -> Waveform:  # -> [samples]
        """Return a random part, at most `most_seconds` long, of the recording that `pick` returns.

        `key` determines both. A recording that is no longer than that is returned whole. Raises DataError if it can no
        longer be read.
        """
        file = self.pick(*key)
        seconds = min(file.seconds, most_seconds)
        offset = (file.seconds - seconds) * (hash64(*key, 1) / 2**64)
        try:
            with closing(FileBytes(file.path)) as content:
                return decode(content, rate, most_seconds, offset, seconds)
        except (OSError, RejectedError) as error:
            raise DataError(f"--{self._setting}: {file.path} cannot be read: {error}") from error


def _seconds_of(path: Path, setting: str) -> float:
    """Return the length of a recording by its header. Raises UsageError if it has none."""
    try:
        with Recording(path, 16_000) as recording:
            seconds = recording.seconds
    except RejectedError as error:
        raise UsageError(f"--{setting}: {path} cannot be used: {error.detail}; remove the file") from error
    if seconds is None or seconds < MIN_SECONDS:
        raise UsageError(f"--{setting}: {path} cannot be used, because its header states no length; convert it to wav")
    return seconds
