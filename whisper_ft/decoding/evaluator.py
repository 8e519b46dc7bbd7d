"""The held-out set: what it is judged by, and what a model writes of it. The same for the loop and for evaluate.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from whisper_ft.config.data import SourceConfig
from whisper_ft.config.evaluation import DecodingConfig, EvalConfig, Precision
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.formats.fingerprint import changed
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.sources import open_source
from whisper_ft.data.types import Source
from whisper_ft.decoding.long_form import audio_windows, utterances_of
from whisper_ft.decoding.resume_log import ResumeLog
from whisper_ft.decoding.transcribe import transcribe
from whisper_ft.decoding.transcriber import Transcriber
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.scoring.scores import Prediction


class Evaluator:
    """Utterances that a model is scored on, and how they are decoded."""

    def __init__(
        self, source: Source, decoding: DecodingConfig, max_utterances: int | None, precision: Precision
    ) -> None:
        self.source, self._decoding, self._precision = source, decoding, precision
        self.total = utterances_of(source, max_utterances)

    @classmethod
    def of_run(cls, run: TrainingConfig, where: SourceConfig | None, cache: Path) -> Self | None:
        """That of a training run, which lies at `where`; None if it evaluates nothing."""
        return cls(open_source(where, cache), run.eval, run.eval.max_utterances, run.precision) if where else None

    def eval_protocol(self, settings: EvalConfig | None = None, rules: str = "") -> dict[str, Any]:
        """Whatever alters the transcripts and, with the settings of a run, its figures. JSON values.

        `rules` is the fingerprint of the normaliser: a version that changes an output has another.

        The best of a run is a best among evaluations that share it.
        """
        figures = ("metric", "greater_is_better", "normalizer")
        return {
            "data": self.source.fingerprint(),
            "utterances": self.total,
            **{name: getattr(settings, name) for name in figures if settings is not None},
            "rules": rules,
            "num_beams": self._decoding.num_beams,
            "max_new_tokens": self._decoding.max_new_tokens,
            "detect_language": self._decoding.detect_language,
            "prompt": self._decoding.prompt,
            "timestamps": self._decoding.timestamps,
            "precision": self._precision,
        }

    def transcripts(
        self,
        model: Any,
        tokenizer: Any,
        encode: LabelEncoder,
        log_mel: LogMel,
        agreement: Collectives,
        progress: Callable[[Prediction], None],
        parts: ResumeLog | None = None,
    ) -> list[Prediction]:
        """What the model writes, of all utterances in their order and the same on every rank. A collective.

        Those in `parts` were transcribed before, and what is transcribed now is kept there.
        """
        transcriber = Transcriber(model, tokenizer, encode, self._decoding, self._precision)
        known = parts.known if parts else ()
        utterances = audio_windows(self.source, log_mel, agreement.rank, agreement.world, self.total, known)
        was_training = model.training
        model.eval()
        try:
            size = self._decoding.batch_size
            return transcribe(transcriber, utterances, size, self.total, agreement, progress, parts)
        finally:
            model.train(was_training)


def comparable(then: dict[str, Any] | None, now: dict[str, Any]) -> bool:
    """Whether two evaluations were judged on the same; the first one of a run is compared with nothing."""
    if then is None:
        return True
    then = {"timestamps": False, **then}  # what was not asked before there was a choice
    return not changed(then["data"], now["data"]) and {**then, "data": None} == {**now, "data": None}
