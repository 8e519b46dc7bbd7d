"""The models a run gives to others: best/ and final/, folders for `from_pretrained`, published by rename."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from whisper_ft import checkpoint
from whisper_ft.checkpoint.state import Best, TrainState
from whisper_ft.models.export.hf import config_files, export
from whisper_ft.runtime import atomic
from whisper_ft.training.directory import RunDir


def publish_best(folder: RunDir, best: Best, source: Path, frame: Mapping[str, bytes]) -> None:
    """Put the weights of a verified checkpoint into best/, with best.json beside it. Main process only."""
    readme = f"# Best model\n\nBest {best.metric} of its run: {best.value:.6f}, at step {best.step}.\n"
    export(source / checkpoint.MODEL, frame, folder.best, readme)
    atomic.write_json(folder.path / "best.json", asdict(best))


def publish_final(folder: RunDir, state: TrainState, model: Any, processor: Any) -> None:
    """Put the weights after the last update into final/. Main process only."""
    if state.best is None:
        told = "The run evaluated nothing, so there is no best/."
    elif state.best.step == state.step:
        told = "It is also the best of its run."
    else:
        told = f"It is not the best of its run: that is step {state.best.step}, in ../best."
    readme = f"# Model after the last update, step {state.step}\n\n{told}\n"
    export(model, config_files(model, processor), folder.final, readme)


def publish_average(folder: RunDir, steps: Sequence[int], model: Any, processor: Any, told: str) -> None:
    """Put averaged weights into average/; `told` is how they do. Main process only."""
    made_of = ", ".join(map(str, steps))
    readme = f"# Mean of the weights of steps {made_of}\n\n{told}\n"
    export(model, config_files(model, processor), folder.average, readme)


def repair_best(
    folder: RunDir, state: TrainState, resumed_from: Path, model: Any, processor: Any
) -> tuple[TrainState, str | None]:
    """Make best/ the model that a resumed state calls best: the state to go on with, and a line about what was done.

    They differ when the run was killed between a checkpoint and the publishing of its model, when the newest
    checkpoints were damaged and the run goes on from an older one, and when it goes on from a checkpoint of another
    run. Where the best model is nowhere at hand, it is judged anew. Of `model` only the configs are used.
    """
    if state.best is None:
        given_up = folder.published is not None and folder.published.step > state.step
        return state, _withdraw(folder) if given_up else None
    if folder.published == state.best and (folder.best / "config.json").exists():
        return state, None
    for checkpoints in (resumed_from.parent, folder.checkpoints):
        source = checkpoint.path_of(checkpoints, state.best.step)
        if checkpoint.verify(source) is None and checkpoint.read_record(source)["state"]["best"] == asdict(state.best):
            publish_best(folder, state.best, source, config_files(model, processor))
            return state, f"best/ was made anew from {source}"
    _withdraw(folder)
    told = f"the best model, of step {state.best.step}, is neither in best/ nor in a checkpoint; it is judged anew"
    return state.reset_best(), told


def _withdraw(folder: RunDir) -> str | None:
    """Remove a best/ of steps that were given up."""
    (folder.path / "best.json").unlink(missing_ok=True)
    if atomic.remove(folder.best):
        return "best/ was removed: it is from later steps, which were given up"
    return None
