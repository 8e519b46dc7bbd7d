"""Evaluation of a run: when each set is scored, the scores, and the choice of the best model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from whisper_ft.checkpoint.state import TrainState
from whisper_ft.config.evaluation import EvalConfig
from whisper_ft.config.training import TrainingConfig
from whisper_ft.decoding.eval_protocol import EvalProtocol
from whisper_ft.decoding.resume_log import ResumeLog
from whisper_ft.decoding.transcriber import Transcriber
from whisper_ft.optim.schedule import due
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.errors import PreemptedError, as_usage_error
from whisper_ft.runtime.signals import StopRequest
from whisper_ft.scoring.scores import LOSS, Prediction, Scores, score
from whisper_ft.scoring.unheard import refuse_unheard
from whisper_ft.tracking.tracker import Tracker
from whisper_ft.training.evaluated_set import EvaluatedSet
from whisper_ft.training.learner import Learner
from whisper_ft.training.long_form_watch import warning_about


@dataclass(frozen=True)
class Evaluation:
    """Evaluated sets of a run, and everything that is needed to score the model on them.

    The held-out set alone decides which model is the best. The run may have no held-out set and still have others.
    """

    held_out: EvaluatedSet | None
    sets: Sequence[EvaluatedSet]
    """Sets of eval.sets."""
    settings: EvalConfig
    learner: Learner
    collectives: Collectives
    tracker: Tracker
    stop: StopRequest

    @property
    def protocol(self) -> EvalProtocol | None:
        """Everything that the choice of the best model depends on; None if the run has no held-out set."""
        return self.held_out.protocol() if self.held_out else None

    def is_due(self, state: TrainState, steps: int) -> bool:
        """Return True if any set is to be scored before the next step.

        Each set is due after every `every` steps and at the end, but not for a step at which it is scored already. The
        end is the last step, or the one at which the patience ends. Before the first utterance is trained, none is due,
        because the start model would become the best one.
        """
        return self._held_out_is_due(state, steps) or bool(self._due_sets(state, steps))

    def run_at_start(self, state: TrainState) -> None:
        """Score the model before the first update on every set, and log the result as step 0.

        Nothing happens at a later step, without a set, or unless `eval.at_start` is set. The state does not include the
        result, because the start model must not become the best one. A stop signal ends it without result.
        """
        if state.step or not self.settings.at_start or not (self.held_out or self.sets):
            return
        try:
            scores = None if self.held_out is None else self.score(self.held_out)
            of_sets = {one.name: self.score(one) for one in self.sets}
        except PreemptedError:
            self.tracker.say("the evaluation before the first step was stopped; the next start begins with it")
            return
        self._log(state, scores, of_sets)

    def run(self, state: TrainState, steps: int) -> TrainState:
        """Score the present model on the sets that are due, log the scores, and return the state with them.

        Every rank must call it. Raises DataError if no audio of a set could be read. `steps` are the updates of the
        run.

        A stop signal ends the evaluation early, because a machine that is reclaimed leaves little time to save. The
        state is then returned unchanged, nothing is logged, and the resumed run repeats the evaluation.
        """
        before, scores = state, None
        try:
            if self.held_out and self._held_out_is_due(state, steps):
                scores = self.score(self.held_out)
                refuse_unheard(scores, "the held-out set")
                state = self._judged(state, scores)
            of_sets: dict[str, Scores] = {}
            for one in self._due_sets(state, steps):
                of_sets[one.name] = self.score(one)
                refuse_unheard(of_sets[one.name], f"the set {one.name} of eval.sets")
        except PreemptedError:
            self.tracker.say(f"the evaluation of step {state.step} was stopped; the resumed run begins with it")
            return before
        state = state.after_sets(of_sets)
        self._log(state, scores, of_sets)
        return state

    def score(self, one: EvaluatedSet, resume_log: ResumeLog | None = None) -> Scores:
        """Score the present model on one set. Every rank must call it, and gets the same scores.

        Utterances in the resume log are not transcribed again. Raises PreemptedError after a stop signal.
        """
        learner, evaluator = self.learner, one.evaluator
        transcriber = Transcriber(
            learner.model,
            learner.processor.tokenizer,
            one.encode,
            evaluator.decoding,
            evaluator.precision,
            is_long=evaluator.is_long,
        )
        label = f"evaluating {one.name}" if self.sets else "evaluating"
        with self.tracker.progress_bar(label, -(-evaluator.total // self.collectives.world)) as advance:

            def progress(_: Prediction) -> None:
                advance(1)
                if self.stop.signal is not None:
                    raise PreemptedError("a signal stopped the evaluation; run the same command to continue")

            predictions = evaluator.transcribe(transcriber, learner.log_mel, self.collectives, progress, resume_log)
        return score(predictions, one.normalize)

    def _held_out_is_due(self, state: TrainState, steps: int) -> bool:
        if self.held_out is None or not _is_trained(state) or state.evaluated_step >= state.step:
            return False
        return due(state.step, self.held_out.every, state.step >= steps)

    def _due_sets(self, state: TrainState, steps: int) -> list[EvaluatedSet]:
        if not _is_trained(state):
            return []
        is_end = state.step >= steps or state.out_of_patience(self.settings.patience)
        is_scored = {one.name: state.step in state.steps_of_set(one.name) for one in self.sets}
        return [one for one in self.sets if due(state.step, one.every, is_end) and not is_scored[one.name]]

    def _judged(self, state: TrainState, scores: Scores) -> TrainState:
        settings = self.settings
        return state.after_evaluation(
            *scores.figure(settings.metric),
            greater_is_better=settings.greater_is_better,
            min_delta=settings.min_delta,
        )

    def _log(self, state: TrainState, scores: Scores | None, of_sets: dict[str, Scores]) -> None:
        warnings = self._warnings(state, scores, of_sets)
        self.tracker.log_evaluation(state, scores, of_sets, self.learner.precision, warnings)

    def _warnings(self, state: TrainState, held_out: Scores | None, of_sets: dict[str, Scores]) -> dict[str, str]:
        """Return the line about each long set that can be compared with its evaluation before; "" without reason."""
        if held_out is None or not self.tracker.enabled:
            return {}
        long = [one for one in self.sets if one.evaluator.is_long and one.name in of_sets]
        lines = {
            one.name: warning_about(one.name, one.normalize, of_sets[one.name], held_out, state, self.tracker)
            for one in long
        }
        return {name: line for name, line in lines.items() if line is not None}


def _is_trained(state: TrainState) -> bool:
    return state.step > 0 and state.counts.utterances > 0


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
