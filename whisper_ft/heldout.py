"""The held-out set: what it is judged by, and what a model writes of it. The same for the loop and for evaluate.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from whisper_ft import config
from whisper_ft.agreement import Agreement
from whisper_ft.audio import LogMel
from whisper_ft.decoding import Transcriber, transcribe
from whisper_ft.hearing import heard, utterances_of
from whisper_ft.labels import LabelEncoder
from whisper_ft.parts import Parts
from whisper_ft.scoring import Prediction
from whisper_ft.sources import Source, changed, open_source


class HeldOut:
    """Utterances that a model is scored on, and how they are decoded."""

    def __init__(
        self, source: Source, decoding: config.Decoding, max_utterances: int | None, precision: config.Precision
    ) -> None:
        self.source, self._decoding, self._precision = source, decoding, precision
        self.total = utterances_of(source, max_utterances)

    @classmethod
    def of_run(cls, run: config.Config, where: config.Source | None, cache: Path) -> Self | None:
        """That of a training run, which lies at `where`; None if it evaluates nothing."""
        return cls(open_source(where, cache), run.eval, run.eval.max_utterances, run.precision) if where else None

    def judged_on(self, settings: config.Eval | None = None, rules: str = "") -> dict[str, Any]:
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
        agreement: Agreement,
        progress: Callable[[Prediction], None],
        parts: Parts | None = None,
    ) -> list[Prediction]:
        """What the model writes, of all utterances in their order and the same on every rank. A collective.

        Those in `parts` were transcribed before, and what is transcribed now is kept there.
        """
        transcriber = Transcriber(model, tokenizer, encode, self._decoding, self._precision)
        known = parts.known if parts else ()
        utterances = heard(self.source, log_mel, agreement.rank, agreement.world, self.total, known)
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
