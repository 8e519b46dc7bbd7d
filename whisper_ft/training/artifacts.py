"""The models a run gives to others: best/ and final/, folders for `from_pretrained`, published by rename."""

import copy
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from whisper_ft import checkpoint
from whisper_ft.checkpoint.state import Best, TrainState
from whisper_ft.models.whisper import export
from whisper_ft.runtime import atomic
from whisper_ft.training.directory import RunDir


def config_files(model: Any, processor: Any) -> dict[str, bytes]:
    """What an exported folder has besides weights and README: configs and processor, by file name."""
    config = copy.deepcopy(model.config)
    config.architectures, config.dtype = [type(model).__name__], str(model.dtype).removeprefix("torch.")
    with TemporaryDirectory() as folder:
        for part in (config, model.generation_config, processor):
            part.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def export_checkpoint(source: Path, frame: Mapping[str, bytes], target: Path, readme: str) -> None:
    """Publish the weights of a verified checkpoint as a folder that `from_pretrained` loads."""
    weights = source / checkpoint.MODEL
    with atomic.new_folder(target, weights.stat().st_size) as aside:
        shutil.copyfile(weights, aside / "model.safetensors")
        for name, content in {**frame, "README.md": readme.encode()}.items():
            (aside / name).write_bytes(content)


def publish_best(folder: RunDir, best: Best, source: Path, frame: Mapping[str, bytes]) -> None:
    """Put the weights of a verified checkpoint into best/, with best.json beside it. Main process only."""
    readme = f"# Best model\n\nBest {best.metric} of its run: {best.value:.6f}, at step {best.step}.\n"
    export_checkpoint(source, frame, folder.best, readme)
    atomic.write_json(folder.path / "best.json", asdict(best))


def publish_final(folder: RunDir, state: TrainState, model: Any, processor: Any) -> None:
    """Put the weights after the last update into final/. Main process only."""
    if state.best is None:
        told = "The run evaluated nothing, so there is no best/."
    elif state.best.step == state.step:
        told = "It is also the best of its run."
    else:
        told = f"It is not the best of its run: that is step {state.best.step}, in ../best."
    with atomic.new_folder(folder.final, _size(model)) as aside:
        export(model, processor, aside, f"# Model after the last update, step {state.step}\n\n{told}\n")


def publish_average(folder: RunDir, steps: Sequence[int], model: Any, processor: Any, told: str) -> None:
    """Put averaged weights into average/; `told` is how they do. Main process only."""
    made_of = ", ".join(map(str, steps))
    with atomic.new_folder(folder.average, _size(model)) as aside:
        export(model, processor, aside, f"# Mean of the weights of steps {made_of}\n\n{told}\n")


def _size(model: Any) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


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
