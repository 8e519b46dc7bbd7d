"""pywhispercpp: whisper.cpp, from the waveform to tokens and text, as its users call it."""

import os
import time
from importlib.metadata import version
from typing import Any

import _pywhispercpp as api
import numpy as np
from pywhispercpp.model import Model

from whisper_ft.cli.export.engines.engine_job import SAMPLE_RATE, EngineJob, EngineResult, EngineRow, JobClip
from whisper_ft.models.conversion.signs import NEVER_FIRST, SYMBOLS

FILE = "ggml-model.bin"
SHORTEST = SAMPLE_RATE // 10 + 400  # samples; whisper.cpp takes a clip of less than 10 frames for nothing
EXACT: Any = {"flash_attn": False}
"""Parameters of the context. The flash attention of whisper.cpp is its default. On a CPU it changed the words of
whisper-base in 3 of 24 English clips; without it they are those of the model."""
RESERVED = 4  # tokens by which whisper.cpp's limit is below half of the decoder's positions


def transcribe(job: EngineJob) -> EngineResult:
    """Transcribe the clips, each as one window, without context, timestamps and fallback to sampling.

    whisper.cpp cannot be given a list of suppressed tokens. It has a list of signs, which is OpenAI's, and which is on
    only if the model suppresses all of them, too. Raises ImportError if this version cannot compute in float32.
    """
    _require_float32(job)
    model: Any = Model(str(job.export / FILE), n_threads=job.threads, context_params=EXACT)
    context = model._ctx
    signs = {form for symbol in SYMBOLS.split() for form in (symbol, f" {symbol}")} | {*NEVER_FIRST}
    encoded = {sign.encode() for sign in signs}
    listed = {number for number in range(job.end) if api.whisper_token_to_bytes(context, number) in encoded}
    settings = {
        "suppress_nst": listed <= {*job.suppressed},
        "suppress_blank": bool(job.suppressed_at_begin),
        "no_context": True,
        "no_timestamps": True,
        "single_segment": True,
        "temperature": 0.0,
        "temperature_inc": 0.0,
        "no_speech_thold": 1.0,
        "print_progress": False,
    }

    def row_of(clip: JobClip) -> EngineRow:
        samples = np.pad(clip.waveform, (0, max(0, SHORTEST - len(clip.waveform))))
        task = {"language": clip.language, "translate": clip.task == "translate"}
        segments = model.transcribe(samples, **settings, **task)
        tokens = [
            api.whisper_full_get_token_id(context, segment, place)
            for segment in range(api.whisper_full_n_segments(context))
            for place in range(api.whisper_full_n_tokens(context, segment))
        ]
        return EngineRow([token for token in tokens if token < job.end], "".join(each.text for each in segments))

    begin = time.perf_counter()
    rows = [row_of(clip) for clip in job.clips]
    seconds = time.perf_counter() - begin
    for number, clip in enumerate(job.clips[: job.language_clips]):
        (language, _), _ = model.auto_detect_language(clip.waveform)
        rows[number] = EngineRow(rows[number].tokens, rows[number].text, language)
    return EngineResult(version("pywhispercpp"), job.quantization, seconds, rows, job.limit - RESERVED)


def _require_float32(job: EngineJob) -> None:
    """Raise ImportError if the weights are float32, and whisper.cpp aborts on them.

    Until 1.8.5 whisper.cpp has no convolution for a kernel in float32 (its issue 2557), and ends the process.
    """
    if job.quantization == "float32" and (child := os.fork()) == 0:
        os.environ["GGML_NO_BACKTRACE"] = "1"
        Model(str(job.export / FILE), n_threads=1).transcribe(np.zeros(SAMPLE_RATE, np.float32), print_progress=False)
        os._exit(0)
    if job.quantization == "float32" and os.waitpid(child, 0)[1] != 0:
        raise ImportError("whisper.cpp of this version aborts on weights in float32; use float16")
