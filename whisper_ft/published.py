"""The models a run gives to others: best/ and final/, folders for `from_pretrained`, published by rename."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from whisper_ft import checkpoint, durable
from whisper_ft.model import export
from whisper_ft.rundir import RunDir
from whisper_ft.state import Best, TrainState


def publish_best(folder: RunDir, best: Best, model: Any, processor: Any) -> None:
    """Put weights into best/, with best.json beside it. Main process only."""
    readme = f"# Best model\n\nLowest {best.metric} of its run: {best.value:.6f}, at step {best.step}.\n"
    with durable.new_folder(folder.best) as aside:
        export(model, processor, aside, readme)
    durable.write_json(folder.path / "best.json", asdict(best))


def publish_final(folder: RunDir, state: TrainState, model: Any, processor: Any) -> None:
    """Put the weights after the last update into final/. Main process only."""
    if state.best is None:
        told = "The run evaluated nothing, so there is no best/."
    elif state.best.step == state.step:
        told = "It is also the best of its run."
    else:
        told = f"It is not the best of its run: that is step {state.best.step}, in ../best."
    with durable.new_folder(folder.final) as aside:
        export(model, processor, aside, f"# Model after the last update, step {state.step}\n\n{told}\n")


def mend_best(
    folder: RunDir, state: TrainState, resumed_from: Path, model: Any, processor: Any
) -> tuple[TrainState, str | None]:
    """Make best/ the model that a resumed state calls best: the state to go on with, and a line about what was done.

    They differ when the run was killed between a checkpoint and the publishing of its model, when the newest
    checkpoints were damaged and the run goes on from an older one, and when it goes on from a checkpoint of another
    run. Where the best model is nowhere at hand, it is judged anew. `model` is used to convert, and left changed.
    """
    if state.best is None:
        given_up = folder.published is not None and folder.published.step > state.step
        return state, _withdraw(folder) if given_up else None
    if folder.published == state.best and (folder.best / "config.json").exists():
        return state, None
    for checkpoints in (resumed_from.parent, folder.checkpoints):
        source = checkpoints / f"step-{state.best.step:08d}"
        if checkpoint.verify(source) is None and checkpoint.read_trainer(source)["state"]["best"] == asdict(state.best):
            checkpoint.load_weights(source, model)
            publish_best(folder, state.best, model, processor)
            return state, f"best/ was made anew from {source}"
    _withdraw(folder)
    told = f"the best model, of step {state.best.step}, is neither in best/ nor in a checkpoint; it is judged anew"
    return state.judged_anew(), told


def _withdraw(folder: RunDir) -> str | None:
    """Remove a best/ of steps that were given up."""
    (folder.path / "best.json").unlink(missing_ok=True)
    if durable.remove(folder.best):
        return "best/ was removed: it is from later steps, which were given up"
    return None
