"""The held-out set: what it is judged by, and what a model writes of it. The same for the loop and for evaluate.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from whisper_ft import config
from whisper_ft.agreement import Agreement
from whisper_ft.audio import LogMel
from whisper_ft.decoding import Transcriber, transcribe
from whisper_ft.labels import LabelEncoder
from whisper_ft.scoring import Prediction
from whisper_ft.sources import Source, changed, open_source
from whisper_ft.stream import heard, utterances_of


class HeldOut:
    """Utterances that a model is scored on, and how they are decoded."""

    def __init__(
        self, source: Source, decoding: config.Decoding, max_utterances: int | None, precision: config.Precision
    ) -> None:
        self._source, self._decoding, self._precision = source, decoding, precision
        self.total = utterances_of(source, max_utterances)

    @classmethod
    def of_run(cls, run: config.Config, cache: Path) -> Self | None:
        """That of a training run; None if it evaluates nothing."""
        where = run.held_out
        return cls(open_source(where, cache), run.eval, run.eval.max_utterances, run.precision) if where else None

    def judged_on(self, normalizer: str) -> dict[str, Any]:
        """Whatever alters the figures: best is a best among evaluations that share it. JSON values."""
        return {
            "data": self._source.fingerprint(),
            "utterances": self.total,
            "normalizer": normalizer,
            "num_beams": self._decoding.num_beams,
            "max_new_tokens": self._decoding.max_new_tokens,
            "precision": self._precision,
        }

    def transcripts(
        self,
        model: Any,
        tokenizer: Any,
        encode: LabelEncoder,
        log_mel: LogMel,
        agreement: Agreement,
        progress: Callable[[int], None],
    ) -> list[Prediction]:
        """What the model writes, of all utterances in their order and the same on every rank. A collective."""
        transcriber = Transcriber(model, tokenizer, encode, self._decoding, self._precision)
        utterances = heard(self._source, log_mel, agreement.rank, agreement.world, self.total)
        was_training = model.training
        model.eval()
        try:
            return transcribe(transcriber, utterances, self._decoding.batch_size, self.total, agreement, progress)
        finally:
            model.train(was_training)


def comparable(then: dict[str, Any] | None, now: dict[str, Any]) -> bool:
    """Whether two evaluations were judged on the same; the first one of a run is compared with nothing."""
    if then is None:
        return True
    return not changed(then["data"], now["data"]) and {**then, "data": None} == {**now, "data": None}
