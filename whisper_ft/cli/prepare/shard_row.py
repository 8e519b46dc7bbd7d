"""Conversion of a source's row to a record in a shard: its own audio, its transcript and a few more columns."""

import io
import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.audio.containers import Waveform, open_audio
from whisper_ft.data.audio.decode import MIN_SECONDS, SEGMENT_SLACK, decode
from whisper_ft.data.types import RejectedError, Row, TextSegment
from whisper_ft.runtime.c_stderr import silent_c_stderr

MAX_SEGMENT_SECONDS = 3_600.0  # far longer than any window; a limit, because 2 MB of FLAC can hold 11 hours

TEXTS = ("sentence", "language", "task", "client_id")
KEYS = (("recording", pa.string()), ("start", pa.float64()), ("speakers", pa.list_(pa.string())))
"""Fields of a record by which rows are arranged: recording, start in seconds in it, and all speakers."""
_TEXT, _NUMBER = {"dtype": "string", "_type": "Value"}, {"dtype": "float64", "_type": "Value"}
_SEGMENTS = pa.list_(pa.struct([("start", pa.float64()), ("end", pa.float64()), ("text", pa.string())]))


def schema_of(
    has_times: bool, has_recording: bool = False, further: Mapping[str, pa.DataType] = MappingProxyType({})
) -> pa.Schema:
    """Return the schema of the shards, with an entry `huggingface` that tells the library `datasets` about its columns.

    `has_times` adds the columns segments and prompt, `has_recording` the name of the recording, and `further` columns
    of text and of numbers.
    """
    columns = [
        ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        *((n, pa.string()) for n in TEXTS),
    ]
    features: dict[str, Any] = {"audio": {"_type": "Audio"}} | dict.fromkeys(TEXTS, _TEXT)
    if has_times:
        columns += [("segments", _SEGMENTS), ("prompt", pa.string())]
        segment = {"start": _NUMBER, "end": _NUMBER, "text": _TEXT}
        features |= {"segments": {"feature": segment, "_type": "List"}, "prompt": _TEXT}
    if has_recording:
        columns.append(KEYS[0])
        features["recording"] = _TEXT
    columns += further.items()
    features |= {name: _NUMBER if kind == pa.float64() else _TEXT for name, kind in further.items()}
    return pa.schema(columns, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def record_of(row: Row, where: SourceConfig) -> dict[str, Any]:
    """Convert a row to a record of `schema_of`, with the fields of KEYS.

    Raises RejectedError for a row with a problem, without usable audio, or with text that is not UTF-8. A row without a
    language or task of its own gets that of `where`, the settings of the source. Only the task transcribe of `where` is
    left out, because it is the default.
    """
    if problem := row.problem or row.label_problem:
        raise RejectedError(*problem)
    if not row.audio:
        raise RejectedError("decode_error", "the row holds no bytes of audio")
    try:
        "".join(filter(None, (row.id, row.text, row.language, row.task, row.speaker))).encode()
    except UnicodeEncodeError:
        raise RejectedError("bad_label", "its text or another column is not UTF-8") from None
    # A language in the settings is written, because readers would not know it. The task `transcribe` is the default.
    named_task = None if where.task == "transcribe" else where.task
    return {
        "audio": {"bytes": cut(row), "path": row.id},
        "sentence": row.text,
        "language": row.language or where.language,
        "task": row.task or named_task,
        "client_id": row.speaker,
        "segments": timed_texts(row.segments),
        "prompt": row.prompt or None,
        "recording": row.recording or row.id,
        "start": row.offset,
        "speakers": [row.speaker] if row.speaker else [],
    }


def timed_texts(segments: Sequence[TextSegment] | None) -> list[dict[str, Any]] | None:
    """Return the value of the column segments; None for a row without times."""
    if segments is None:
        return None
    return [{"start": segment.begin, "end": segment.end, "text": segment.text} for segment in segments]


def cut(row: Row) -> bytes:
    """Return the audio of a row as a file of its own.

    A whole file is returned unchanged, even if its given length is rounded. A segment of a recording is cut out, as
    mono 16-bit FLAC at the same rate. Raises RejectedError, as `decode` does, for audio that cannot be used.
    """
    if row.offset == 0.0 and row.duration is None:
        return row.audio
    try:
        with silent_c_stderr(), open_audio(row.audio) as file:
            rate, seconds = int(file.samplerate), file.frames / file.samplerate
    except RejectedError:
        raise
    except Exception as error:  # foreign bytes may raise anything, as in `decode`
        raise RejectedError("decode_error", "its header cannot be read") from error
    if row.offset == 0.0 and row.duration is not None and -MIN_SECONDS < row.duration - seconds <= SEGMENT_SLACK:
        return row.audio
    # Mono, as in training. Decoded without resampling, so 16-bit mono keeps its bits.
    waveform = decode(row.audio, rate, MAX_SEGMENT_SECONDS, row.offset, row.duration)
    return flac_of(waveform, rate)


def flac_of(waveform: Waveform, rate: int) -> bytes:  # [samples] -> bytes
    """Return a waveform as mono 16-bit FLAC. Raises RejectedError (decode_error) for a rate that FLAC does not have."""
    samples = np.clip(np.rint(waveform * 2.0**15), -(2**15), 2**15 - 1).astype(np.int16)
    encoded = io.BytesIO()
    try:
        soundfile.write(encoded, samples, rate, format="FLAC", subtype="PCM_16")
    except soundfile.LibsndfileError:  # FLAC has only multiples of ten above 65,535 Hz
        raise RejectedError("decode_error", f"{rate} samples per second cannot be written as FLAC") from None
    return encoded.getvalue()
