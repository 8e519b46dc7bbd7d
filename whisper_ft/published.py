"""The models a run gives to others: best/ and final/, folders for `from_pretrained`, published by rename."""

import shutil
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
    durable.write_json(folder.path / "best.json", {"step": best.step, "metric": best.metric, "value": best.value})


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


def mend_best(folder: RunDir, best: Best | None, model: Any, processor: Any) -> str | None:
    """Make best/ the model that a resumed state calls best; a line about what was done, None if nothing was to do.

    They differ when the run was killed between a checkpoint and the publishing of its model, or when the newest
    checkpoints were damaged and the run goes on from an older one. `model` is used to convert, and left changed.
    """
    if best is None:
        return _withdraw(folder)
    if (folder.best / "config.json").exists() and folder.best_step == best.step:
        return None
    source = folder.checkpoints / f"step-{best.step:08d}"
    if problem := checkpoint.verify(source):
        return f"best/ is not the model of step {best.step}, and its checkpoint cannot be used to mend it: {problem}"
    checkpoint.load_weights(source, model)
    publish_best(folder, best, model, processor)
    return f"best/ was made anew from {source.name}"


def _withdraw(folder: RunDir) -> str | None:
    """Remove a best/ of a branch that was given up."""
    trash = durable.move_away(folder.best)
    (folder.path / "best.json").unlink(missing_ok=True)
    if trash is None:
        return None
    shutil.rmtree(trash, ignore_errors=True)
    return "best/ was removed: it is from later steps, which were given up"
