"""Data of faulty runs: the demo's spoken corpus, with its clips or transcripts changed."""

import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from whisper_ft.cli.demo.corpus import SCHEMA, write_corpus

BASE_TRAIN, TRAIN, VALIDATION = 1000, 320, 40  # utterances
SILENT_SECONDS = 3.0
SILENT_CLIPS = 12

Clip = dict[str, Any]
"""Row of the corpus: `audio` with bytes and path, `sentence`, `client_id`."""


def corpus(folder: Path, language: str, seed: int, train: int = TRAIN) -> Path:
    """Write a corpus of a language, if it is not there yet, and return its folder."""
    write_corpus(folder, language, train=train, validation=VALIDATION, test=VALIDATION, seed=seed, processes=2)
    return folder


def clips_of(folder: Path) -> list[Clip]:
    """Return all rows of a split, in order."""
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def write_clips(clips: Iterable[Clip], folder: Path) -> Path:
    """Write rows as one file in a new folder, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(clips), SCHEMA)
    pq.write_table(table, folder / "train-00000-of-00001.parquet", row_group_size=50)
    return folder


def changed(clips: Iterable[Clip], change: Callable[[Clip, int], Clip]) -> Iterator[Clip]:
    """Yield rows after a change, which also gets the number of the row."""
    return (change(clip, number) for number, clip in enumerate(clips))


def with_half_text(clip: Clip, number: int) -> Clip:
    """Cut the transcript after the first half of its words."""
    words = clip["sentence"].split()
    return clip | {"sentence": " ".join(words[: max(len(words) // 2, 1)])}


def noisy(clip: Clip, number: int) -> Clip:
    """Add white noise as loud as the speech, and keep the low frequencies only, as in a bad call."""
    sound, rate = soundfile.read(io.BytesIO(clip["audio"]["bytes"]), dtype="float32")
    random = np.random.default_rng(number)
    spectrum = np.fft.rfft(sound + random.normal(0, np.std(sound), len(sound)))
    spectrum[int(len(spectrum) * 1500 / (rate / 2)) :] = 0  # above 1.5 kHz
    return _encoded(clip, np.fft.irfft(spectrum, len(sound)).astype(np.float32), rate)


def damaged(clip: Clip, number: int) -> Clip:
    """Cut the file of every fortieth clip after 200 bytes, so that it cannot be decoded."""
    content = clip["audio"]["bytes"][:200] if number % 40 == 7 else clip["audio"]["bytes"]
    return clip | {"audio": {"bytes": content, "path": clip["audio"]["path"]}}


def silent_clips() -> list[Clip]:
    """Return clips of faint noise without a word."""
    clips = []
    for number in range(SILENT_CLIPS):
        sound = np.random.default_rng(number).normal(0, 1e-3, int(16_000 * SILENT_SECONDS)).astype(np.float32)
        clip = {"audio": {"bytes": b"", "path": f"silence-{number}.flac"}, "sentence": "", "client_id": "nobody"}
        clips.append(_encoded(clip, sound, 16_000))
    return clips


def _encoded(clip: Clip, sound: np.ndarray[Any, np.dtype[np.float32]], rate: int) -> Clip:
    encoded = io.BytesIO()
    soundfile.write(encoded, sound / max(float(np.abs(sound).max()), 1.0), rate, format="FLAC")
    path = Path(clip["audio"]["path"]).with_suffix(".flac")
    return clip | {"audio": {"bytes": encoded.getvalue(), "path": str(path)}}
