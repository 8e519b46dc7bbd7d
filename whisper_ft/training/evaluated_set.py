"""Evaluated sets of a run: the held-out set and those of eval.sets, each with prompts, normaliser and cadence."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from whisper_ft.config.data import SourceConfig
from whisper_ft.config.evaluation import HELD_OUT, EvalSetConfig
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.labelled import LabelledSource
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.long_recordings import long_recordings
from whisper_ft.data.sources import of_eval_set, open_eval_set, open_held_out
from whisper_ft.data.used_settings import languages_found
from whisper_ft.decoding.eval_protocol import EvalProtocol
from whisper_ft.decoding.evaluator import Evaluator, augmentation_of_set, encoder_of_set
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.errors import UsageError
from whisper_ft.scoring.guard import Guard, metric_named
from whisper_ft.scoring.normalizer import Normalizer, NormalizerFactory
from whisper_ft.training.learner import Learner


@dataclass(frozen=True)
class EvaluatedSet:
    """A set on which a run scores its model."""

    evaluator: Evaluator
    source: LabelledSource
    encode: LabelEncoder
    """Encoder of prompts, and of the labels whose loss is computed."""
    normalize: Normalizer
    every: int
    """Steps between two evaluations."""
    protocol: Callable[[], EvalProtocol]
    """Everything besides the model on which the figures depend. The first call reads from the files of the set."""
    guard: Guard | None = None
    """Limit on how much worse than the start model the model may be on this set."""

    @property
    def name(self) -> str:
        """Name of the set in figures and files."""
        return self.evaluator.name

    @property
    def rows(self) -> int:
        """Number of rows of the source that may be scored; all of them if they are joined to recordings."""
        return sum(self.source.rows) if self.evaluator.is_long else self.evaluator.total


def open_held_out_set(
    config: TrainingConfig,
    where: SourceConfig | None,
    index: Path,
    learner: Learner,
    get_normalizer: NormalizerFactory,
) -> EvaluatedSet | None:
    """Open the held-out set; None if the run has none.

    Parameters
        where: `config.held_out`, pinned to a commit if it is on the Hub.
        index: folder for cached file indexes.
        get_normalizer: returns the normaliser with a name, for a language.
    """
    if where is None:
        return None
    settings, generation = config.eval, learner.model.generation_config
    source = open_held_out(config, where, index)
    evaluator = Evaluator(HELD_OUT, source, settings, settings.max_utterances, config.precision, generation)
    normalize = get_normalizer(settings.normalizer, language=learner.encode.language)

    def protocol() -> EvalProtocol:
        return evaluator.protocol.judged_by(settings, normalize.fingerprint)

    return EvaluatedSet(evaluator, source, learner.encode, normalize, settings.every, protocol)


def open_eval_sets(
    config: TrainingConfig,
    sets: Sequence[EvalSetConfig],
    index: Path,
    learner: Learner,
    collectives: Collectives,
    get_normalizer: NormalizerFactory,
) -> list[EvaluatedSet]:
    """Open the sets of eval.sets; `sets` are their settings, pinned to a commit. Every rank must call it.

    The other parameters are those of `open_held_out_set`. Raises UsageError with the name of a set that the model
    cannot be asked about, and the errors of `open_eval_set`.
    """
    sources = [open_eval_set(where, index) for where in sets]
    found = collectives.broadcast_from_main(lambda: [languages_found([source]) for source in sources])
    return [
        _eval_set(config, where, source, languages, learner, collectives, get_normalizer)
        for where, source, languages in zip(sets, sources, found, strict=True)
    ]


def _eval_set(
    config: TrainingConfig,
    where: EvalSetConfig,
    source: LabelledSource,
    found: Sequence[str],
    learner: Learner,
    collectives: Collectives,
    get_normalizer: NormalizerFactory,
) -> EvaluatedSet:
    settings, generation, most = config.eval, learner.model.generation_config, where.max_utterances
    try:
        encode, language = encoder_of_set(
            where,
            found,
            learner.model,
            learner.processor.tokenizer,
            detect_language=settings.detect_language,
            leading_space=config.labels.leading_space,
            normalizer=learner.encode.normalizer,
        )
    except UsageError as error:
        raise of_eval_set(error, where.name) from error
    setting, window_seconds = f"--eval.sets: {where.name}: long", learner.log_mel.window_seconds
    recordings = long_recordings(source, where, most, window_seconds, collectives, setting)
    augment = augmentation_of_set(where, f"eval.sets: {where.name}: augment")
    evaluator = Evaluator(where.name, recordings, settings, most, config.precision, generation, where.is_long, augment)
    normalize = get_normalizer(settings.normalizer, language=language)

    def protocol() -> EvalProtocol:
        return evaluator.protocol.scored_by(settings.normalizer, normalize.fingerprint, where)

    return EvaluatedSet(evaluator, source, encode, normalize, where.every or 0, protocol, _guard(where, normalize))


def _guard(where: EvalSetConfig, normalize: Normalizer) -> Guard | None:
    if where.max_worse is None:
        return None
    return Guard(where.name, metric_named(where.metric, normalize.unit), where.max_worse, where.rule)
