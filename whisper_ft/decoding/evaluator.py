"""Evaluators: named sets of utterances, each with the way in which a model transcribes it."""

from collections.abc import Callable
from pathlib import Path

from whisper_ft.config.data import SourceConfig
from whisper_ft.config.evaluation import DecodingConfig, Precision
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.sources import open_source
from whisper_ft.data.types import Source
from whisper_ft.decoding.eval_protocol import EvalProtocol
from whisper_ft.decoding.long_form import audio_windows, utterances_of
from whisper_ft.decoding.resume_log import ResumeLog
from whisper_ft.decoding.transcribe import transcribe
from whisper_ft.decoding.transcriber import Transcriber
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.scoring.scores import Prediction

HELD_OUT = "held-out"


class Evaluator:
    """A set of utterances under a name, and the decoding settings for it. Used in training and by evaluate.py."""

    def __init__(
        self, name: str, source: Source, decoding: DecodingConfig, max_utterances: int | None, precision: Precision
    ) -> None:
        self.name, self.source, self.decoding, self.precision = name, source, decoding, precision
        self.total = utterances_of(source, max_utterances)

    @property
    def protocol(self) -> EvalProtocol:
        """Everything that the transcripts depend on, beside the model."""
        return EvalProtocol.of(self.source.fingerprint(), self.total, self.decoding, self.precision)

    def transcribe(
        self,
        transcriber: Transcriber,
        log_mel: LogMel,
        collectives: Collectives,
        progress: Callable[[Prediction], None],
        resume_log: ResumeLog | None = None,
    ) -> list[Prediction]:
        """Predictions of all utterances, in order and equal on every rank. A collective.

        Utterances in the resume log are not transcribed again; new predictions are appended to it.
        """
        known = resume_log.known if resume_log else ()
        windows = audio_windows(self.source, log_mel, collectives.rank, collectives.world, self.total, known)
        with transcriber.inference():
            return transcribe(
                transcriber, windows, self.decoding.batch_size, self.total, collectives, progress, resume_log
            )


def evaluators_of(config: TrainingConfig, held_out: SourceConfig | None, index: Path) -> list[Evaluator]:
    """Evaluators of a training run; the first one chooses the best model. Empty if the run evaluates nothing.

    Parameters
        held_out: the held-out set, pinned to a commit if it is on the Hub.
        index: folder for cached file indexes.
    """
    if held_out is None:
        return []
    source = open_source(held_out, index)
    return [Evaluator(HELD_OUT, source, config.eval, config.eval.max_utterances, config.precision)]
