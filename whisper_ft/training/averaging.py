"""Mean of the weights of several checkpoints, often better than each (Izmailov et al. 2018, arXiv 1803.05407)."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from whisper_ft.checkpoint.format import MODEL, path_of, verify
from whisper_ft.checkpoint.state import TrainState
from whisper_ft.config.training import TrainingConfig
from whisper_ft.runtime import atomic
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.tracking.tracker import Tracker
from whisper_ft.training.directory import RunDir
from whisper_ft.training.evaluation import Evaluation
from whisper_ft.training.learner import Learner
from whisper_ft.training.published_models import publish_average
from whisper_ft.training.run_adapter import RunAdapter


def steps_to_average(state: TrainState, settings: TrainingConfig, steps: int) -> list[int]:
    """Return the steps of the checkpoints whose weights are averaged, in rising order; [] if no average is requested.

    At most `average.checkpoints` are returned. They follow from the settings and the evaluations only. A checkpoint
    saved because of a stop signal never counts.
    """
    count = settings.average.checkpoints
    if settings.average.of == "best":
        return sorted(state.best_steps(count, greater_is_better=settings.eval.greater_is_better))
    if settings.average.of == "none":
        return []
    every = settings.save.every or steps
    regular = list(range(every, state.step + 1, every))
    last = [state.step] if state.step >= steps and state.step not in regular else []
    return [*regular, *last][-count:]


def load_average(checkpoints: Sequence[Path], model: Any) -> None:
    """Load the mean of the weights of at least one verified checkpoint into a model.

    Weights are summed in float64 and converted to the types of the model. Tied weights stay tied.
    """
    with ExitStack() as stack, torch.no_grad():
        files = [stack.enter_context(safe_open(path / MODEL, "pt")) for path in checkpoints]
        for name, parameter in model.named_parameters():
            mean = sum(file.get_tensor(name).double() for file in files) / len(files)
            parameter.copy_(mean.to(parameter.dtype))


def load_mean(checkpoints: Sequence[Path], learner: Learner) -> RunAdapter | None:
    """Load the mean of at least one verified checkpoint into the learner's model.

    Returns the mean adapter of a run with an adapter, else None.
    """
    if learner.adapter is not None:
        return learner.adapter.load_mean(learner.model, checkpoints)
    load_average(checkpoints, learner.model)
    return None


def publish_mean(
    steps: list[int],
    collectives: Collectives,
    directory: RunDir,
    tracker: Tracker,
    learner: Learner,
    evaluation: Evaluation,
) -> None:
    """Publish the mean of the weights of several checkpoints, with its score. The averaged weights stay in the model.

    Every rank must call it. The score is that on the held-out set, if the run has one. Without any step, as if all
    evaluations are outside a guard, an average of an earlier start is removed.

    If one of the checkpoints is damaged or missing, nothing is published and a line says so. Raises PreemptedError if a
    stop signal ends the evaluation; the average is then not published.
    """
    if not steps:
        removed = collectives.broadcast_from_main(
            lambda: [folder.name for folder in (directory.average, directory.average_adapter) if atomic.remove(folder)]
        )
        gone = f"; {', '.join(removed)} of an earlier start is removed" if removed else ""
        tracker.say(f"no average was made, because no evaluation can be the best one{gone}", always=True)
        return
    paths = [path_of(directory.checkpoints, step) for step in steps]
    damaged = collectives.broadcast_from_main(
        lambda: [f"{path.name} ({problem})" for path in paths if (problem := verify(path))]
    )
    if damaged:
        tracker.say(f"no average was made, because it needs these checkpoints: {', '.join(damaged)}", always=True)
        return
    adapter = collectives.run_on_all(lambda: load_mean(paths, learner))
    result = "It was not evaluated."
    if evaluation.held_out:
        name, value = evaluation.score(evaluation.held_out).figure(evaluation.settings.metric)
        result = f"{name} on the held-out set: {value}"
    collectives.broadcast_from_main(
        lambda: publish_average(directory, steps, learner.model, learner.model_files(), result, adapter)
    )
    place = directory.average if adapter is None else directory.average_adapter
    tracker.say(f"the mean of steps {', '.join(map(str, steps))} is in {place}; {result}")
