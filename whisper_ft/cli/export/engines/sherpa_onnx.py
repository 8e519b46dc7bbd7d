"""sherpa-onnx, from the waveform to text, as its users call it."""

import time
from functools import cache

import numpy as np
import sherpa_onnx

from whisper_ft.cli.export.engines.engine_job import SAMPLE_RATE, EngineJob, EngineResult, EngineRow, JobClip

WINDOW = 30 * SAMPLE_RATE
TOKENS_PER_SECOND, LONGEST_SECONDS = 6, 29.5  # limits of sherpa-onnx, which also cuts a clip after 29.5 s


def transcribe(job: EngineJob) -> EngineResult:
    """Transcribe the clips. sherpa-onnx suppresses no tokens.

    The waveform is padded to 30 s, because sherpa-onnx pads the log-mel by zeros, which are no silence for Whisper.
    """
    folder = job.export / "sherpa-onnx"

    @cache
    def recognizer(language: str, task: str) -> sherpa_onnx.OfflineRecognizer:
        return sherpa_onnx.OfflineRecognizer.from_whisper(
            encoder=str(folder / "model-encoder.onnx"),
            decoder=str(folder / "model-decoder.onnx"),
            tokens=str(folder / "model-tokens.txt"),
            language=language,
            task=task,
            num_threads=job.threads,
        )

    def row_of(clip: JobClip) -> EngineRow:
        user = recognizer(clip.language, clip.task)
        stream = user.create_stream()
        stream.accept_waveform(SAMPLE_RATE, np.pad(clip.waveform, (0, WINDOW - len(clip.waveform))))
        user.decode_stream(stream)
        return EngineRow(text=stream.result.text)

    recognizer(job.clips[0].language, job.clips[0].task)
    begin = time.perf_counter()
    rows = [row_of(clip) for clip in job.clips]
    seconds = time.perf_counter() - begin
    limit = int(TOKENS_PER_SECOND * LONGEST_SECONDS)
    return EngineResult(sherpa_onnx.__version__, job.quantization, seconds, rows, min(job.limit, limit))
