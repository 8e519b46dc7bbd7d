"""Decoding of a job's clips by openai-whisper or by mlx-whisper, its port: the same options and the same steps."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from whisper_ft.cli.export.engines.engine_job import EngineJob, EngineRow, Floats, JobClip


class DecodedClips(NamedTuple):
    """Output for all clips, as EngineResult has it."""

    seconds: float
    rows: list[EngineRow]
    logits: dict[int, Floats]


def options_of(job: EngineJob, clip: JobClip) -> dict[str, Any]:
    """Return the arguments of DecodingOptions for a clip, all but `fp16`."""
    return {
        "task": clip.task,
        "language": clip.language,
        "temperature": 0.0,
        "sample_len": job.limit,
        "without_timestamps": True,
        "suppress_tokens": [*job.suppressed],
    }


def decode_clips(
    job: EngineJob,
    row_of: Callable[[JobClip], EngineRow],
    shares_of: Callable[[JobClip], Mapping[str, float]],
    logits_of: Callable[[JobClip, list[int]], Floats],
) -> DecodedClips:
    """Transcribe all clips, and detect languages and compute logits for as many as the job asks for.

    Parameters
        job: the job.
        row_of: transcribes a clip.
        shares_of: probability of each language for a clip.
        logits_of: logits [n + 1, V] of a clip's n tokens and the token after them.
    """
    begin = time.perf_counter()
    rows = [row_of(clip) for clip in job.clips]
    seconds = time.perf_counter() - begin
    for number, clip in enumerate(job.clips[: job.language_clips]):
        shares = shares_of(clip)
        rows[number] = EngineRow(rows[number].tokens, rows[number].text, max(shares, key=lambda code: shares[code]))
    logits = {number: logits_of(job.clips[number], rows[number].tokens or []) for number in range(job.logits_clips)}
    return DecodedClips(seconds, rows, logits)
