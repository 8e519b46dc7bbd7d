"""Evaluation of a run: when each set is scored, the scores, and the choice of the best model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from whisper_ft.checkpoint.state import TrainState
from whisper_ft.config.evaluation import HELD_OUT, EvalConfig
from whisper_ft.config.training import TrainingConfig
from whisper_ft.decoding.eval_protocol import EvalProtocol
from whisper_ft.decoding.resume_log import ResumeLog
from whisper_ft.decoding.transcriber import Transcriber
from whisper_ft.models.whisper import weights_sha256
from whisper_ft.optim.schedule import due
from whisper_ft.reports.guard_text import change_line
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.errors import PreemptedError, as_usage_error
from whisper_ft.runtime.signals import StopRequest
from whisper_ft.scoring.guard import BETTER, HIGHER, figures_of
from whisper_ft.scoring.scores import LOSS, WORDS, Prediction, Scores, score
from whisper_ft.scoring.unheard import refuse_unheard
from whisper_ft.tracking.tracker import Tracker
from whisper_ft.training.evaluated_set import EvaluatedSet
from whisper_ft.training.guard_watch import GuardWatch, refuse_bad_guards
from whisper_ft.training.learner import Learner
from whisper_ft.training.long_form_watch import warning_about


@dataclass(frozen=True)
class Evaluation:
    """Evaluated sets of a run, and everything that is needed to score the model on them.

    The held-out set decides which model is the best, and guards among the other sets may exclude one. The run may have
    no held-out set and still have others.
    """

    held_out: EvaluatedSet | None
    sets: Sequence[EvaluatedSet]
    """Sets of eval.sets."""
    settings: EvalConfig
    learner: Learner
    collectives: Collectives
    tracker: Tracker
    stop: StopRequest

    @cached_property
    def watch(self) -> GuardWatch:
        """Guards of the sets."""
        return GuardWatch(self.sets, self.tracker)

    @property
    def protocol(self) -> EvalProtocol | None:
        """Everything that the choice of the best model depends on; None if the run has no held-out set."""
        return self.held_out.protocol() if self.held_out else None

    @property
    def metric(self) -> str:
        """Name of the figure of the held-out set that chooses the best model, with `auto` resolved."""
        unit = self.held_out.normalize.unit if self.held_out else WORDS
        return replace(Scores.empty(), unit=unit).figure(self.settings.metric)[0]

    def is_due(self, state: TrainState, steps: int) -> bool:
        """Return True if any set is to be scored before the next step.

        Each set is due after every `every` steps and at the end, but not for a step at which it is scored already. The
        end is the last step, or the one at which the patience ends or a guard stops the run. Before the first utterance
        is trained, none is due, because the start model would become the best one.
        """
        return bool(self._due(state, steps))

    def is_over(self, state: TrainState, steps: int) -> bool:
        """Return True after the last step, or if the run ends before it for an `end_reason`."""
        return state.step >= steps or bool(self.end_reason(state, steps))

    def end_reason(self, state: TrainState, steps: int) -> str:
        """Return the reason why the run ends before its last step: a guard, or the patience; "" if it goes on."""
        if state.step >= steps:
            return ""
        if verdict := self.watch.stopping(state):
            return f"guard {verdict.guard.name} with rule stop: {change_line(verdict)}"
        if state.out_of_patience(self.settings.patience):
            return f"no better evaluation within eval.patience, which is {self.settings.patience}"
        return ""

    def run_at_start(self, state: TrainState) -> TrainState:
        """Score the model before the first update on every set, and log the result as step 0.

        Without `eval.at_start` only guarded sets are scored, and nothing happens at a later step. Returns the state
        with the figures of the sets. The held-out set adds none, because the start model must not become the best one.
        A stop signal ends it without result.
        """
        at_start = self.settings.at_start
        sets, held_out = self.sets if at_start else self.watch.unmeasured(state), self.held_out if at_start else None
        if state.step or not (held_out or sets):
            return state
        try:
            scores = None if held_out is None else self.score(held_out)
            of_sets = {one.name: self.score(one) for one in sets}
        except PreemptedError:
            self.tracker.say("the evaluation before the first step was stopped; the next start begins with it")
            return state
        state = self._with_start_figures(state, of_sets)
        self._log(state, scores, of_sets)
        return state

    def measure_start(self, state: TrainState) -> TrainState:
        """Score the start model on the guarded sets of a resumed run on which its figures are not known.

        It must be in the learner still, so this comes before the weights of the checkpoint. Every rank must call it.
        Raises PreemptedError after a stop signal.
        """
        of_sets = {one.name: self.score(one) for one in self.watch.unmeasured(state)}
        if not of_sets:
            return self._with_start_figures(state, {})
        names = ", ".join(of_sets)
        self.tracker.say(
            f"the start model was scored for the guards {names}; they judge evaluations from step {state.step} on",
            always=True,
        )
        state = self._with_start_figures(state, of_sets)
        self.tracker.log_start_figures(of_sets, self.learner.precision)
        return state

    def run(self, state: TrainState, steps: int) -> TrainState:
        """Score the present model on the sets that are due, log the scores, and return the state with them.

        Every rank must call it. Raises DataError if no audio of a set could be read. `steps` are the updates of the
        run.

        A stop signal ends the evaluation early, because a machine that is reclaimed leaves little time to save. The
        state is then returned unchanged, nothing is logged, and the resumed run repeats the evaluation.
        """
        before, scored = state, dict[str, Scores]()
        try:
            # A second round follows if the first one ends the run, because every set is due at the end.
            while due_now := [one for one in self._due(state, steps) if one.name not in scored]:
                for one in due_now:
                    scored[one.name] = self.score(one)
                    refuse_unheard(scored[one.name], _title(one))
                state = self._judged(before, scored)
        except PreemptedError:
            self.tracker.say(f"the evaluation of step {state.step} was stopped; the resumed run begins with it")
            return before
        self._log(state, scored.pop(HELD_OUT, None), scored)
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

    def _due(self, state: TrainState, steps: int) -> list[EvaluatedSet]:
        """Return the sets that are due, the held-out set first."""
        if not _is_trained(state):
            return []
        is_end = self.is_over(state, steps)
        # If the patience has ended, the held-out set was scored at that step.
        held_out_ends = state.step >= steps or self.watch.stopping(state) is not None
        found = []
        if self.held_out and state.evaluated_step < state.step and due(state.step, self.held_out.every, held_out_ends):
            found.append(self.held_out)
        is_scored = {one.name: state.step in state.steps_of_set(one.name) for one in self.sets}
        return found + [one for one in self.sets if due(state.step, one.every, is_end) and not is_scored[one.name]]

    def _judged(self, state: TrainState, scored: Mapping[str, Scores]) -> TrainState:
        """Return the state with the scores of its step."""
        settings, of_sets = self.settings, {name: scores for name, scores in scored.items() if name != HELD_OUT}
        state = _with_figures(state.after_sets(of_sets), of_sets)
        if HELD_OUT not in scored:
            return state
        return state.after_evaluation(
            *scored[HELD_OUT].figure(settings.metric),
            greater_is_better=settings.greater_is_better,
            min_delta=settings.min_delta,
            is_excluded=bool(self.watch.excluded(state, [state.step])),
        )

    def _with_start_figures(self, state: TrainState, of_sets: Mapping[str, Scores]) -> TrainState:
        """Return the state with the scores of the start model, which is in the learner.

        Raises UsageError for a guard whose figure is not among them, and DataError for one of which nothing is heard.
        """
        guarded = [one for one in self.sets if one.guard and one.name in of_sets]
        for one in guarded:
            refuse_unheard(of_sets[one.name], _title(one))
        state = _with_figures(state, of_sets, step=0)
        if guarded:
            weights = self.collectives.broadcast_from_main(lambda: start_identity(self.learner))
            known = state.set_history.start_weights
            if known not in (None, weights):
                self.tracker.say(
                    "warning: the start model has other weights than when the run began; the guards "
                    f"{', '.join(one.name for one in guarded)} compare with these",
                    always=True,
                )
            state = replace(state, set_history=replace(state.set_history, start_weights=known or weights))
        self.watch.refuse_without_figure(state)
        self.watch.remember_start(of_sets)
        self.tracker.say_all(self.watch.start_lines(state, self.held_out.every if self.held_out else None))
        return state

    def _log(self, state: TrainState, scores: Scores | None, of_sets: dict[str, Scores]) -> None:
        warnings = self._warnings(state, scores, of_sets)
        verdicts = self.watch.verdicts(state, of_sets) if self.tracker.enabled else {}
        self.tracker.log_evaluation(state, scores, of_sets, self.learner.precision, warnings, verdicts)

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


def _with_figures(state: TrainState, of_sets: Mapping[str, Scores], step: int | None = None) -> TrainState:
    """Return the state with the figures of sets at a step, by default its own."""
    figures = {name: figures_of(scores) for name, scores in of_sets.items()}
    history = state.set_history.with_figures(state.step if step is None else step, figures)
    return replace(state, set_history=history)


def start_identity(learner: Learner) -> str:
    """Return the sha256 of the start model in a learner, or of the base if the run trains an adapter."""
    return weights_sha256(learner.model) if learner.adapter is None else learner.adapter.base.sha256


def _title(one: EvaluatedSet) -> str:
    return "the held-out set" if one.name == HELD_OUT else f"the set {one.name} of eval.sets"


def _is_trained(state: TrainState) -> bool:
    return state.step > 0 and state.counts.utterances > 0


def refuse_unknown_names(config: TrainingConfig, get_normalizer: Callable[..., Any]) -> None:
    """Raise UsageError for a normaliser or metric that would fail only at the first evaluation, or choose the worst.

    Such are unknown names, figures that a guarded set never has, the metric `loss` without `eval.with_loss`, numbers
    that describe the set, and figures whose direction is not that of `eval.greater_is_better`.
    """
    with as_usage_error("eval.normalizer"):
        get_normalizer(config.eval.normalizer)
    with as_usage_error("eval.metric"):
        name, _ = Scores.empty().figure(config.eval.metric)
        if name == LOSS and not config.eval.with_loss:
            raise ValueError(f"{config.eval.metric!r} is only computed with --eval.with_loss true")
        _refuse_direction(name, greater_is_better=config.eval.greater_is_better)
    refuse_bad_guards(config.eval.sets_beside(config.data), with_loss=config.eval.with_loss)


def _refuse_direction(metric: str, *, greater_is_better: bool) -> None:
    """Raise ValueError for a number that says nothing of a model, and for the wrong direction of a figure."""
    direction = BETTER.get(metric)
    if direction is None:
        raise ValueError(f"{metric!r} describes the set, and no model is better by it (allowed: {', '.join(BETTER)})")
    if greater_is_better != (direction == HIGHER):
        wanted, better = ("true", "higher") if direction == HIGHER else ("false", "lower")
        raise ValueError(f"{metric!r} is better if it is {better}; set --eval.greater_is_better {wanted}")
