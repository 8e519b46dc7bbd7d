"""Published models of a run: best/, final/ and average/. Each is a folder for `from_pretrained`, replaced by rename.

Every function raises DiskError before it writes if the run directory is not this run's any more. `files` are the files
of a model folder by name, such as configs, without weights and README.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from whisper_ft.checkpoint.format import MODEL, path_of, verify
from whisper_ft.checkpoint.record import read_record
from whisper_ft.checkpoint.state import Best, TrainState
from whisper_ft.models.export.hf import export
from whisper_ft.runtime import atomic
from whisper_ft.training.directory import RunDir


def publish_best(directory: RunDir, best: Best, source: Path, files: Mapping[str, bytes]) -> None:
    """Publish the weights of the verified checkpoint `source` as best/, and write `best` to best.json.

    Main process only.
    """
    directory.require_own()
    readme = f"# Best model\n\nBest {best.metric} of its run: {best.value:.6f}, at step {best.step}.\n"
    export(source / MODEL, files, directory.best, readme)
    directory.require_own()
    atomic.write_json(directory.path / "best.json", asdict(best))


def publish_final(directory: RunDir, state: TrainState, model: Any, files: Mapping[str, bytes]) -> None:
    """Publish the weights after the last update as final/. Main process only."""
    directory.require_own()
    if state.best is None:
        relation = "The run evaluated nothing, so there is no best/."
    elif state.best.step == state.step:
        relation = "It is also the best model of its run."
    else:
        relation = f"The best model of its run is another one: step {state.best.step}, in ../best."
    readme = f"# Model after the last update, step {state.step}\n\n{relation}\n"
    export(model, files, directory.final, readme)


def publish_average(
    directory: RunDir, steps: Sequence[int], model: Any, files: Mapping[str, bytes], result: str
) -> None:
    """Publish averaged weights as average/; `result` is a sentence about their score. Main process only."""
    directory.require_own()
    made_of = ", ".join(map(str, steps))
    readme = f"# Mean of the weights of steps {made_of}\n\n{result}\n"
    export(model, files, directory.average, readme)


def repair_best(
    directory: RunDir, state: TrainState, resumed_from: Path, files: Callable[[], Mapping[str, bytes]]
) -> tuple[TrainState, str | None]:
    """Make best/ agree with the state of a resumed run. Returns the state to continue with, and a message or None.

    Main process only.

    State and best/ differ for one of three reasons:

    - the run was killed after a checkpoint was saved and before its model was published;
    - the newest checkpoints were damaged, so the run continues from an older one;
    - the run continues from a checkpoint of another run.

    If no checkpoint holds the best model, best/ is removed and the evaluations so far are forgotten, so the next ones
    choose a new best. If the state has no best, a best/ of later steps is removed. The message is None if there is
    nothing to report. `files` is only called if best/ is rebuilt.
    """
    if state.best is None:
        is_later = directory.published is not None and directory.published.step > state.step
        return state, _withdraw(directory) if is_later else None
    if directory.published == state.best and (directory.best / "config.json").exists():
        return state, None
    for checkpoints in (resumed_from.parent, directory.checkpoints):
        source = path_of(checkpoints, state.best.step)
        if verify(source) is None and read_record(source).state.best == state.best:
            publish_best(directory, state.best, source, files())
            return state, f"best/ was rebuilt from {source}"
    _withdraw(directory)
    message = f"the best model, of step {state.best.step}, is in neither best/ nor a checkpoint; it is chosen anew"
    return state.reset_best(), message


def _withdraw(directory: RunDir) -> str | None:
    """Remove best/ and best.json. Returns a message if there was a best/."""
    directory.require_own()
    (directory.path / "best.json").unlink(missing_ok=True)
    if atomic.remove(directory.best):
        return "best/ was removed, because it belongs to later steps than the checkpoint"
    return None
