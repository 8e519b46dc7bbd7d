"""mlx-whisper, from our log-mel to tokens and text by its own decoding."""

import mlx.core as mx
import mlx_whisper
import numpy as np
from mlx_whisper.decoding import DecodingOptions, decode, detect_language
from mlx_whisper.load_models import load_model

from whisper_ft.cli.export.engines.engine_job import EngineJob, EngineResult, EngineRow, Floats, JobClip
from whisper_ft.cli.export.engines.openai_decoding import decode_clips, options_of


def transcribe(job: EngineJob) -> EngineResult:
    """Transcribe the clips in the number format of the weights."""
    dtype = mx.float16 if job.quantization == "float16" else mx.float32
    model = load_model(str(job.export), dtype)

    def features_of(clip: JobClip) -> mx.array:
        return mx.array(clip.features.T).astype(dtype)  # [T, M], as MLX has its convolutions

    def row_of(clip: JobClip) -> EngineRow:
        options = DecodingOptions(**options_of(job, clip), fp16=dtype == mx.float16)
        result = decode(model, features_of(clip), options)
        return EngineRow([int(token) for token in result.tokens], result.text)

    def logits_of(clip: JobClip, tokens: list[int]) -> Floats:
        logits = model(features_of(clip)[None], mx.array([[*clip.prompt, *tokens]]))[0, len(clip.prompt) - 1 :]
        return np.array(logits.astype(mx.float32))

    def shares_of(clip: JobClip) -> dict[str, float]:
        shares: dict[str, float] = detect_language(model, features_of(clip))[1]
        return shares

    decoded = decode_clips(job, row_of, shares_of, logits_of)
    return EngineResult(mlx_whisper.__version__, job.quantization, decoded.seconds, decoded.rows, logits=decoded.logits)
