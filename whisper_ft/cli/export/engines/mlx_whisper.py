"""mlx-whisper, from our log-mel to tokens and text by its own decoding."""

import time

import mlx.core as mx
import mlx_whisper
import numpy as np
from mlx_whisper.decoding import DecodingOptions, decode, detect_language
from mlx_whisper.load_models import load_model

from whisper_ft.cli.export.engines.engine_job import EngineJob, EngineResult, EngineRow, Floats, JobClip


def transcribe(job: EngineJob) -> EngineResult:
    """Transcribe the clips in the number format of the weights."""
    dtype = mx.float16 if job.quantization == "float16" else mx.float32
    model = load_model(str(job.export), dtype)

    def features_of(clip: JobClip) -> mx.array:
        return mx.array(clip.features.T).astype(dtype)  # [T, M], as MLX has its convolutions

    def row_of(clip: JobClip) -> EngineRow:
        options = DecodingOptions(
            task=clip.task,
            language=clip.language,
            temperature=0.0,
            sample_len=job.limit,
            without_timestamps=True,
            suppress_tokens=[*job.suppressed],
            fp16=dtype == mx.float16,
        )
        result = decode(model, features_of(clip), options)
        return EngineRow([int(token) for token in result.tokens], result.text)

    def logits_of(clip: JobClip, tokens: list[int]) -> Floats:
        logits = model(features_of(clip)[None], mx.array([[*clip.prompt, *tokens]]))[0, len(clip.prompt) - 1 :]
        return np.array(logits.astype(mx.float32))

    begin = time.perf_counter()
    rows = [row_of(clip) for clip in job.clips]
    seconds = time.perf_counter() - begin
    for number, clip in enumerate(job.clips[: job.language_clips]):
        _, shares = detect_language(model, features_of(clip))
        rows[number] = EngineRow(rows[number].tokens, rows[number].text, max(shares, key=lambda code: shares[code]))
    logits = {number: logits_of(job.clips[number], rows[number].tokens or []) for number in range(job.logits_clips)}
    return EngineResult(mlx_whisper.__version__, job.quantization, seconds, rows, logits=logits)
