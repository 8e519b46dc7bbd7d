"""Best model of a run whose guards changed: chosen anew among the evaluations within them, and published."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from whisper_ft.checkpoint.state import TrainState
from whisper_ft.tracking.tracker import Tracker
from whisper_ft.training.directory import RunDir
from whisper_ft.training.evaluation import Evaluation
from whisper_ft.training.published_models import checkpoint_of, is_published, publish_best, withdraw_best


def with_best_within_guards(
    state: TrainState, evaluation: Evaluation, directory: RunDir, tracker: Tracker, folders: Sequence[Path] = ()
) -> TrainState:
    """Return the state with the best evaluation among those within the present guards, and make best/ agree with it.

    Nothing changes while the guards exclude the same evaluations as before. Otherwise the choice is that of a run that
    had these guards from its start, among the evaluations whose weights are on disk. Every rank must call it.

    `folders` are looked through for checkpoints, before those of the run.
    """
    excluded = evaluation.watch.excluded(state, [step for step, _ in state.evaluated])
    if excluded == state.excluded:
        return state
    choose = partial(_choose, state, excluded, evaluation, directory, (*folders, directory.checkpoints))
    state, lines = evaluation.collectives.broadcast_from_main(choose)
    for line in lines:
        tracker.say(line, always=True)
    return state


def _choose(
    state: TrainState, excluded: tuple[int, ...], evaluation: Evaluation, directory: RunDir, folders: Sequence[Path]
) -> tuple[TrainState, list[str]]:
    """Choose and publish the best evaluation outside `excluded`. Returns the state and lines about the choice."""
    settings, learner, lost = evaluation.settings, evaluation.learner, list[int]()
    while True:
        judged = state.judged_anew(
            excluded,
            lost,
            evaluation.metric,
            greater_is_better=settings.greater_is_better,
            min_delta=settings.min_delta,
        )
        best = judged.best
        if best is None or best == state.best or is_published(directory, best, learner.adapter):
            break
        if source := checkpoint_of(best, folders):
            publish_best(directory, best, source, learner.model_files(), learner.adapter)
            break
        lost.append(best.step)
    lines = []
    if lost:
        lines.append(f"no weights are left of the better evaluation at step {', '.join(map(str, lost))}")
    if best is None and withdraw_best(directory):
        lines.append("best/ was removed, because no evaluation with weights is within the guards")
    elif best != state.best and best is not None:
        lines.append(f"the best evaluation within the guards is that of step {best.step}")
    return judged, lines
