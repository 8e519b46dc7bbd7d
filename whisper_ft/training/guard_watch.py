"""Watch over the guards of a run: verdicts on its evaluations, and the lines about them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from whisper_ft.checkpoint.state import TrainState
from whisper_ft.config.evaluation import EvalSetConfig
from whisper_ft.reports.guard_text import limit_line
from whisper_ft.runtime.errors import UsageError, as_usage_error
from whisper_ft.scoring.bootstrap import Interval
from whisper_ft.scoring.guard import (
    LONG_FIGURES,
    Verdict,
    excluded_steps,
    figures_of,
    metric_named,
    paired_interval,
    stopping_verdict,
)
from whisper_ft.scoring.scores import INVENTED, LOSS, WORDS, Scores, score
from whisper_ft.tracking.tracker import Tracker
from whisper_ft.training.evaluated_set import EvaluatedSet


class GuardWatch:
    """Guards of the sets of a run.

    Decisions depend on the figures in the state alone, so that every rank and every resumed run makes the same ones.
    The transcripts of the start model only give the intervals of the changes.
    """

    def __init__(self, sets: Sequence[EvaluatedSet], tracker: Tracker) -> None:
        self._sets = {one.name: one for one in sets if one.guard is not None}
        self.guards = [one.guard for one in sets if one.guard is not None]
        self._tracker = tracker
        self._start: dict[str, Scores | None] = {}

    def unmeasured(self, state: TrainState) -> list[EvaluatedSet]:
        """Return the guarded sets on which the start model has no figures yet."""
        return [one for one in self._sets.values() if not state.set_history.has_start(one.name)]

    def excluded(self, state: TrainState, steps: Sequence[int]) -> tuple[int, ...]:
        """Return those of some steps whose models a guard keeps from being the best."""
        return excluded_steps(self.guards, state.set_history.figures, steps)

    def stopping(self, state: TrainState) -> Verdict | None:
        """Return the verdict that ends the run at its present step; None if there is none."""
        return stopping_verdict(self.guards, state.set_history.figures, state.step)

    def remember_start(self, sets: Mapping[str, Scores]) -> None:
        """Keep the scores of the start model, from which the intervals of later changes are computed."""
        self._start |= {name: scores for name, scores in sets.items() if name in self._sets}

    def verdicts(self, state: TrainState, sets: Mapping[str, Scores]) -> dict[str, Verdict]:
        """Return the verdict on each guarded set among the scores of the present step, with its interval.

        Main rank only.
        """
        found = {}
        for guard in self.guards:
            if guard.name in sets and (verdict := guard.verdict_at(state.set_history.of(guard.name), state.step)):
                found[guard.name] = replace(verdict, interval=self._interval(verdict, sets[guard.name]))
        return found

    def _interval(self, verdict: Verdict, now: Scores) -> Interval | None:
        """Return the interval of a change; None if the transcripts of the start model are missing or of other rows."""
        guard = verdict.guard
        start = self._start_scores(guard.name)
        if start is None or figures_of(start).get(guard.metric) != verdict.reference:
            return None
        try:
            return paired_interval(start, now, guard.metric)
        except ValueError:
            return None

    def _start_scores(self, name: str) -> Scores | None:
        if name not in self._start:
            rows = self._tracker.predictions_at(0, name)
            self._start[name] = score(rows, self._sets[name].normalize) if rows else None
        return self._start[name]

    def refuse_without_figure(self, state: TrainState) -> None:
        """Raise UsageError for a guard whose figure the start model lacks, because it would never be outside."""
        for guard in self.guards:
            figures = dict(state.set_history.of(guard.name)).get(0, {})
            if figures.get(guard.metric) is None:
                other = next(
                    (name for name in (INVENTED, "wer", "cer") if figures.get(name) is not None), "another one"
                )
                raise UsageError(
                    f"--eval.sets: {guard.name}: metric {guard.metric}: the start model has no such figure on this "
                    f"set; set metric to one that it has, such as {other}"
                )

    def start_lines(self, state: TrainState, held_out_every: int | None) -> Iterator[str]:
        """Yield a line about each guard: the figure of the start model, the limit and the effect.

        A second line follows for a guard that decides about the best model and is scored less often than the held-out
        set, after every `held_out_every` steps.
        """
        for guard in self.guards:
            if verdict := guard.verdict_at(state.set_history.of(guard.name), 0):
                yield f"guard {guard.name}: {limit_line(verdict)}"
            every = self._sets[guard.name].every
            if guard.decides and held_out_every and every > held_out_every:
                yield (
                    f"guard {guard.name} is scored every {every} steps and the held-out set every {held_out_every}; an "
                    "evaluation between is judged by the newest figures of the guard"
                )


def refuse_bad_guards(sets: Iterable[EvalSetConfig], *, with_loss: bool) -> None:
    """Raise UsageError for a guard with a figure that is unknown, or that its set never has.

    `with_loss` is `eval.with_loss`.
    """
    for one in sets:
        if one.max_worse is None:
            continue
        setting = f"eval.sets: {one.name}: metric"
        with as_usage_error(setting):
            metric = metric_named(one.metric, WORDS)
        if metric in LONG_FIGURES and not one.is_long:
            raise UsageError(f"--{setting} {one.metric}: only a set of long recordings has it; set long: true or given")
        if metric == LOSS and (one.is_long or not with_loss):
            reason = (
                "a set of long recordings has none" if one.is_long else "is only computed with --eval.with_loss true"
            )
            raise UsageError(f"--{setting} {one.metric}: {reason}; set that, or another metric")
