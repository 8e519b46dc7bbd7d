"""A row as it is written: its own audio, and all that the source says of it."""

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.audio.decode import MIN_SECONDS, SEGMENT_SLACK, decode
from whisper_ft.data.types import RejectedError, Row

MAX_SEGMENT_SECONDS = 3_600.0  # no window is as long, and 2 MB of FLAC can hold 11 hours

# The `huggingface` entry is how `datasets` knows an audio column from two plain ones.
TEXTS = ("sentence", "language", "task", "client_id")
FEATURES = {"audio": {"_type": "Audio"}} | {name: {"dtype": "string", "_type": "Value"} for name in TEXTS}
SCHEMA = pa.schema(
    [("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), *((name, pa.string()) for name in TEXTS)],
    metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
)


def record_of(row: Row, where: SourceConfig) -> dict[str, Any]:
    """A row as `SCHEMA` has it; UnusableError where it has a problem, or no audio."""
    if row.problem is not None:
        raise RejectedError(*row.problem)
    if not row.audio:
        raise RejectedError("decode_error", "the row holds no bytes of audio")
    try:
        "".join(filter(None, (row.id, row.text, row.language, row.task, row.speaker))).encode()
    except UnicodeEncodeError:
        raise RejectedError("bad_label", "its text, or what else is said of it, is not UTF-8") from None
    # Who names a language here wants it kept; `transcribe` goes without saying.
    named_task = None if where.task == "transcribe" else where.task
    return {
        "audio": {"bytes": cut(row), "path": row.id},
        "sentence": row.text,
        "language": row.language or where.language,
        "task": row.task or named_task,
        "client_id": row.speaker,
    }


def cut(row: Row) -> bytes:
    """The row's own audio: its bytes as they are, or its segment of a recording as mono 16-bit FLAC at the same rate.

    Lists often give the length of a whole file, rounded; such a file stays as it is. UnusableError as in `decode`.
    """
    if row.offset == 0.0 and row.duration is None:
        return row.audio
    try:
        header = soundfile.info(io.BytesIO(row.audio))
        rate, seconds = int(header.samplerate), header.frames / header.samplerate
    except Exception as error:  # a stranger's bytes, as in `decode`
        raise RejectedError("decode_error", "libsndfile cannot read its header") from error
    if row.offset == 0.0 and row.duration is not None and -MIN_SECONDS < row.duration - seconds <= SEGMENT_SLACK:
        return row.audio
    # Mono, as all that is heard in training; decoded without a change of rate, so of 16-bit mono the bits stay.
    waveform = decode(row.audio, rate, MAX_SEGMENT_SECONDS, row.offset, row.duration)
    samples = np.clip(np.rint(waveform * 2.0**15), -(2**15), 2**15 - 1).astype(np.int16)
    encoded = io.BytesIO()
    try:
        soundfile.write(encoded, samples, rate, format="FLAC", subtype="PCM_16")
    except soundfile.LibsndfileError:  # above 65,535 FLAC has multiples of ten only
        raise RejectedError("decode_error", f"{rate} samples per second cannot be written as FLAC") from None
    return encoded.getvalue()
