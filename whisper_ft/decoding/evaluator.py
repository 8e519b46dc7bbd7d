"""Evaluators: an evaluator is a named set of utterances together with the settings for transcribing it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from transformers import GenerationConfig

from whisper_ft.config.data import DEFAULT_TASK, NamedSourceConfig, SourceConfig
from whisper_ft.config.evaluation import DecodingConfig, Precision
from whisper_ft.config.setting import LeadingSpace
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.augment.waveform.chain import WaveformChain
from whisper_ft.data.formats.fingerprint import with_content
from whisper_ft.data.joined_recordings import JoinedRecordings
from whisper_ft.data.labels.rewrite import LabelNormalizer
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.types import Source
from whisper_ft.decoding.eval_protocol import EvalProtocol
from whisper_ft.decoding.long_form import audio_windows, utterances_of
from whisper_ft.decoding.resume_log import ResumeLog
from whisper_ft.decoding.transcribe import transcribe
from whisper_ft.decoding.transcriber import Transcriber
from whisper_ft.models.suppression import fingerprint
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.scoring.scores import Prediction

AUGMENT_SEED = 0
"""Seed of the transforms of evaluated sets."""


class Evaluator:
    """A named set of utterances and its decoding settings. Training and evaluate.py both use evaluators.

    With `augment`, made by `augmentation_of_set`, its transforms are applied before the utterances are transcribed.

    For a set of long recordings (`is_long`), `source` is the result of `data.long_recordings`. No loss is computed for
    it, because a reference is longer than a window.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        decoding: DecodingConfig,
        max_utterances: int | None,
        precision: Precision,
        generation_config: GenerationConfig,
        is_long: bool = False,
        augment: WaveformChain | None = None,
    ) -> None:
        self.name, self.source, self.precision, self.is_long = name, source, precision, is_long
        self.decoding = replace(decoding, with_loss=False) if is_long else decoding
        self._augment = augment
        self._suppressed = fingerprint(generation_config)
        self.total = utterances_of(source, max_utterances)

    @cached_property
    def protocol(self) -> EvalProtocol:
        """Everything besides the model on which the transcripts depend. The files' content is read at the first use."""
        data = with_content(self.source.fingerprint(), self.source.content())
        joined = self.source.rule if isinstance(self.source, JoinedRecordings) else {}
        augment = {} if self._augment is None else self._augment.rule
        if self._augment is not None and self._augment.recordings:
            data |= {"augmentation_bytes": self._augment.content}
        return EvalProtocol.of(data, self.total, self.decoding, self.precision, self._suppressed, joined, augment)

    @property
    def notes(self) -> Sequence[str]:
        """Lines for the user about joined recordings and augmented sound; none for any other set."""
        joined = [self.source.note] if isinstance(self.source, JoinedRecordings) else []
        return joined if self._augment is None else [*joined, f"scored on augmented sound: {self._augment.words}"]

    def transcribe(
        self,
        transcriber: Transcriber,
        log_mel: LogMel,
        collectives: Collectives,
        progress: Callable[[Prediction], None],
        resume_log: ResumeLog | None = None,
    ) -> list[Prediction]:
        """Transcribe all utterances. Every rank must call it, and gets all predictions, in the order of the set.

        `progress` gets each new prediction of this rank. Utterances in the resume log are not transcribed again. New
        predictions are appended to it, except those whose audio could not be read. An error is raised on every rank.
        """
        known = resume_log.known if resume_log else ()
        windows = audio_windows(
            self.source, log_mel, collectives.rank, collectives.world, self.total, known, self._augment
        )
        with transcriber.inference():
            return transcribe(
                transcriber, windows, self.decoding.batch_size, self.total, collectives, progress, resume_log
            )


def augmentation_of_set(where: NamedSourceConfig, setting: str) -> WaveformChain | None:
    """Return the transforms of a set's sound; None without any. `setting` names its setting `augment` in errors.

    Their seed is that of no run, so that every run and evaluate.py hear the same. Raises UsageError as `WaveformChain`.
    """
    return WaveformChain.of(where.augment, AUGMENT_SEED, setting)


def encoder_of_set(
    where: SourceConfig,
    found: Sequence[str],
    model: Any,
    tokenizer: Any,
    *,
    detect_language: bool,
    leading_space: LeadingSpace,
    normalizer: LabelNormalizer | None = None,
) -> tuple[LabelEncoder, str | None]:
    """Return the label encoder of an evaluation set, and the language of the normaliser that scores it.

    The language is None if it is detected and no setting says it. `found` are the languages that the rows name by
    themselves. evaluate.py and training use this function, so that they prompt and normalise alike. Raises UsageError
    if the model has no such language or task.
    """
    # With language detection the prompt needs some language; the detected one takes its place.
    default = where.language or ("en" if detect_language else None)
    task, found = where.task or DEFAULT_TASK, [] if detect_language else found
    encode = LabelEncoder.of(model, tokenizer, default, task, normalizer, found, leading_space)
    return encode, where.language if detect_language else encode.language
