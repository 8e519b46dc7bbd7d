"""Evaluation of a run: its evaluators, their scores, and the choice of the best model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from whisper_ft.checkpoint.state import TrainState
from whisper_ft.config.evaluation import EvalConfig
from whisper_ft.config.training import TrainingConfig
from whisper_ft.decoding.eval_protocol import EvalProtocol
from whisper_ft.decoding.evaluator import Evaluator
from whisper_ft.decoding.transcriber import Transcriber
from whisper_ft.optim.schedule import due
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.errors import PreemptedError, as_usage_error
from whisper_ft.runtime.signals import StopRequest
from whisper_ft.scoring.scores import LOSS, Prediction, Scores, score
from whisper_ft.scoring.unheard import refuse_unheard
from whisper_ft.tracking.tracker import Tracker
from whisper_ft.training.learner import Learner


@dataclass(frozen=True)
class Evaluation:
    """Evaluators of a run, and everything that is needed to score the model on them.

    The first evaluator decides which model is the best.
    """

    evaluators: Sequence[Evaluator]
    normalize: Any
    settings: EvalConfig
    learner: Learner
    collectives: Collectives
    tracker: Tracker
    stop: StopRequest

    @property
    def protocol(self) -> EvalProtocol | None:
        """Everything that the choice of the best model depends on; None if the run has no evaluator."""
        if not self.evaluators:
            return None
        return self.evaluators[0].protocol.judged_by(self.settings, self.normalize.fingerprint)

    def is_due(self, state: TrainState, steps: int) -> bool:
        """Return True after every `eval.every` steps and at the end, but not for a step that is evaluated already.

        No evaluation is due if `eval.every` is 0 or the run has no evaluator. Before the first utterance is trained,
        none is due either, because its model would become the best one.
        """
        regular = due(state.step, self.settings.every, state.step >= steps)
        trained = state.step > 0 and state.counts.utterances > 0
        return bool(self.evaluators) and trained and state.evaluated_step < state.step and regular

    def run_at_start(self, state: TrainState) -> None:
        """Score the model before the first update on the first evaluator, and log the result as step 0.

        Nothing happens at a later step, without an evaluator, or unless `eval.at_start` is set. The state does not
        include the result, because the start model must not become the best one. A stop signal ends it without result.
        """
        if state.step or not self.settings.at_start or not self.evaluators:
            return
        try:
            self.tracker.log_evaluation(state, self.score(self.evaluators[0]))
        except PreemptedError:
            self.tracker.say("the evaluation before the first step was stopped; the next start begins with it")

    def run(self, state: TrainState) -> TrainState:
        """Score the present model on every evaluator; log the scores of the first, and return the state with them.

        Every rank must call it. Raises DataError if the first evaluator could read no audio.

        A stop signal ends the evaluation early, because a machine that is reclaimed leaves little time to save. The
        state is then returned unchanged, and the resumed run repeats the evaluation.
        """
        settings = self.settings
        try:
            scores = [self.score(evaluator) for evaluator in self.evaluators]
        except PreemptedError:
            self.tracker.say(f"the evaluation of step {state.step} was stopped; the resumed run begins with it")
            return state
        refuse_unheard(scores[0], "the held-out set")
        state = state.after_evaluation(
            *scores[0].figure(settings.metric),
            greater_is_better=settings.greater_is_better,
            min_delta=settings.min_delta,
        )
        self.tracker.log_evaluation(state, scores[0])
        return state

    def score(self, evaluator: Evaluator) -> Scores:
        """Score the present model on one evaluator. Every rank must call it, and gets the same scores.

        Raises PreemptedError after a stop signal.
        """
        learner = self.learner
        transcriber = Transcriber(
            learner.model, learner.processor.tokenizer, learner.encode, evaluator.decoding, evaluator.precision
        )
        with self.tracker.progress_bar("evaluating", -(-evaluator.total // self.collectives.world)) as advance:

            def progress(_: Prediction) -> None:
                advance(1)
                if self.stop.signal is not None:
                    raise PreemptedError("a signal stopped the evaluation; run the same command to continue")

            predictions = evaluator.transcribe(transcriber, learner.log_mel, self.collectives, progress)
        return score(predictions, self.normalize)


def refuse_unknown_names(config: TrainingConfig, get_normalizer: Callable[..., Any]) -> None:
    """Raise UsageError for a normaliser or metric that would fail only at the first evaluation.

    Such are unknown names, and the metric `loss` without `eval.with_loss`.
    """
    with as_usage_error("eval.normalizer"):
        get_normalizer(config.eval.normalizer)
    with as_usage_error("eval.metric"):
        name, _ = Scores.empty().figure(config.eval.metric)
        if name == LOSS and not config.eval.with_loss:
            raise ValueError(f"{config.eval.metric!r} is only computed with --eval.with_loss true")
