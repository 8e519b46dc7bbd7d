"""CTranslate2, from our log-mel to tokens."""

import time

import ctranslate2
import numpy as np

from whisper_ft.cli.export.engines.engine_job import EngineJob, EngineResult, EngineRow, Floats, JobClip


def transcribe(job: EngineJob) -> EngineResult:
    """Transcribe the clips. The suppressed tokens are those of the export; only the timestamps are added."""
    model = ctranslate2.models.Whisper(
        str(job.export), device=job.device, compute_type="default", intra_threads=job.threads
    )

    def generate(clip: JobClip, **options: bool) -> ctranslate2.models.WhisperGenerationResult:
        return model.generate(
            _view(clip.features),
            [clip.prompt],
            beam_size=1,
            max_length=2 * job.limit,  # CTranslate2 writes half as many tokens
            suppress_blank=True,
            suppress_tokens=[-1, *job.timestamps],
            **options,
        )[0]

    begin = time.perf_counter()
    tokens = [generate(clip).sequences_ids[0] for clip in job.clips]
    seconds = time.perf_counter() - begin
    languages = [model.detect_language(_view(clip.features))[0][0][0] for clip in job.clips[: job.language_clips]]
    rows = [
        EngineRow(row, detected_language=languages[number].strip("<|>") if number < len(languages) else None)
        for number, row in enumerate(tokens)
    ]
    logits = {
        number: _logits(generate(clip, return_logits_vocab=True))
        for number, clip in enumerate(job.clips[: job.logits_clips])
    }
    return EngineResult(ctranslate2.__version__, model.compute_type, seconds, rows, logits=logits)


def _view(features: Floats) -> ctranslate2.StorageView:
    return ctranslate2.StorageView.from_array(features[None])


def _logits(result: ctranslate2.models.WhisperGenerationResult) -> Floats:
    """Logits [n + 1, V] of a result that was generated with them."""
    steps = [np.asarray(step).reshape(-1) for step in result.logits[0]]
    return np.stack(steps).astype(np.float32)
