"""faster-whisper, from the waveform to text, as its users call it."""

import time

import faster_whisper
import numpy as np

from whisper_ft.cli.export.engines.engine_job import EngineJob, EngineResult, EngineRow, Floats, JobClip


def transcribe(job: EngineJob) -> EngineResult:
    """Transcribe the clips, each as one window. faster-whisper takes the log-mel's size and the tokenizer from files.

    Its own list of suppressed tokens is replaced by that of the model, and its fallback to sampling is off. The clips
    are padded by silence to a window, as OpenAI pads them. faster-whisper itself pads the log-mel by zeros, which are
    no silence, so a short clip would be another input than for all other engines.
    """
    model = faster_whisper.WhisperModel(
        str(job.export), device=job.device, compute_type="default", cpu_threads=job.threads
    )

    def padded(waveform: Floats) -> Floats:
        return np.pad(waveform, (0, model.feature_extractor.n_samples - len(waveform)))

    def row_of(clip: JobClip) -> EngineRow:
        segments, _ = model.transcribe(
            padded(clip.waveform),
            language=clip.language,
            task=clip.task,
            beam_size=1,
            temperature=0,
            condition_on_previous_text=False,
            without_timestamps=True,
            suppress_tokens=[*job.suppressed],
            compression_ratio_threshold=None,
            log_prob_threshold=None,
            no_speech_threshold=None,
        )
        found = list(segments)
        tokens = [token for segment in found for token in segment.tokens if token != job.end]
        return EngineRow(tokens, "".join(segment.text for segment in found))

    begin = time.perf_counter()
    rows = [row_of(clip) for clip in job.clips]
    seconds = time.perf_counter() - begin
    for number, clip in enumerate(job.clips[: job.language_clips]):
        language = model.detect_language(padded(clip.waveform))[0]
        rows[number] = EngineRow(rows[number].tokens, rows[number].text, language)
    return EngineResult(faster_whisper.__version__, model.model.compute_type, seconds, rows)
