"""Published models of a run: best/, final/ and average/. Each is a folder for `from_pretrained`, replaced by rename.

A run with an adapter has best-adapter/, final-adapter/ and average-adapter/, which are folders for peft.

Every function raises DiskError before it writes if the run directory is not this run's any more. `files` are the files
of a model folder by name, such as configs, without weights and README.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from whisper_ft.checkpoint.format import MODEL, path_of, verify
from whisper_ft.checkpoint.record import read_record
from whisper_ft.checkpoint.state import PUBLISHED_AS, Best, TrainState
from whisper_ft.models.adapters.adapter_config import ADAPTER_CONFIG
from whisper_ft.models.export.hf import export
from whisper_ft.runtime import atomic
from whisper_ft.training.directory import RunDir
from whisper_ft.training.run_adapter import RunAdapter


def publish_best(
    directory: RunDir, best: Best, source: Path, files: Mapping[str, bytes], adapter: RunAdapter | None = None
) -> None:
    """Publish the weights of the verified checkpoint `source` as best/, and write `best` to best.json.

    In a run with an adapter they are published as best-adapter/. An earlier best/ is then removed, because it is the
    merged model of another step. Main process only.
    """
    directory.require_own()
    readme = f"# Best model\n\nBest {best.metric} of its run: {best.value:.6f}, at step {best.step}.\n"
    if adapter is None:
        export(source / MODEL, files, directory.best, readme)
    else:
        adapter.write(directory.best_adapter, source / MODEL, files, readme)
        atomic.remove(directory.best)
    directory.require_own()
    kind = "whole" if adapter is None else "adapter"
    atomic.write_json(directory.path / "best.json", asdict(best) | {PUBLISHED_AS: kind})


def publish_final(
    directory: RunDir, state: TrainState, model: Any, files: Mapping[str, bytes], adapter: RunAdapter | None = None
) -> None:
    """Publish the weights after the last update as final/, or those of an adapter as final-adapter/.

    Main process only.
    """
    directory.require_own()
    if state.best is None and state.excluded:
        relation = "No evaluation of the run was within its guards against forgetting, so there is no best/."
    elif state.best is None:
        relation = "No evaluation of a held-out set chose a best model, so there is no best/."
    elif state.best.step == state.step:
        relation = "It is also the best model of its run."
    else:
        relation = f"The best model of its run is another one: step {state.best.step}, in ../best."
    readme = f"# Model after the last update, step {state.step}\n\n{relation}\n"
    if adapter is None:
        export(model, files, directory.final, readme)
    else:
        adapter.write(directory.final_adapter, adapter.weights_in(model), files, readme)


def publish_average(
    directory: RunDir,
    steps: Sequence[int],
    model: Any,
    files: Mapping[str, bytes],
    result: str,
    adapter: RunAdapter | None = None,
) -> None:
    """Publish averaged weights as average/, or those of an adapter as average-adapter/.

    `result` is a sentence about their score. Main process only.
    """
    directory.require_own()
    made_of = ", ".join(map(str, steps))
    if adapter is None:
        export(model, files, directory.average, f"# Mean of the weights of steps {made_of}\n\n{result}\n")
    else:
        readme = f"# Mean of the adapters of steps {made_of}\n\n{result}\n"
        adapter.write(directory.average_adapter, adapter.weights_in(model), files, readme)


def repair_best(
    directory: RunDir,
    state: TrainState,
    resumed_from: Path,
    files: Callable[[], Mapping[str, bytes]],
    adapter: RunAdapter | None = None,
) -> tuple[TrainState, str | None]:
    """Make best/ agree with the state of a resumed run. Returns the state to continue with, and a message or None.

    In a run with an adapter, best-adapter/ takes the place of best/. Main process only.

    State and best/ differ for one of four reasons:

    - the run was killed after a checkpoint was saved and before its model was published;
    - the newest checkpoints were damaged, so the run continues from an older one;
    - the run continues from a checkpoint of another run;
    - a start changed the limit of a guard, chose best/ anew, and ended before its next save.

    If no checkpoint holds the best model, best/ is removed and the evaluations so far are forgotten, so the next ones
    choose a new best. If the state has no best, best/ is removed. The message is None if there is
    nothing to report. `files` is only called if best/ is rebuilt.
    """
    if state.best is None:
        published = directory.published
        if published is None or not withdraw_best(directory):
            return state, None
        later = f"it is of step {published.step}, later than the checkpoint"
        reason = later if published.step > state.step else "the checkpoint has no evaluation within its guards"
        return state, f"best/ was removed, because {reason}"
    if is_published(directory, state.best, adapter):
        return state, None
    if source := checkpoint_of(state.best, (resumed_from.parent, directory.checkpoints)):
        publish_best(directory, state.best, source, files(), adapter)
        name = directory.best.name if adapter is None else directory.best_adapter.name
        return state, f"{name}/ was rebuilt from {source}"
    withdraw_best(directory)
    message = f"the best model, of step {state.best.step}, is in neither best/ nor a checkpoint; it is chosen anew"
    return state.reset_best(), message


def is_published(directory: RunDir, best: Best, adapter: RunAdapter | None) -> bool:
    """Return True if best/ is the model of this evaluation, or best-adapter/ its adapter."""
    there = directory.best / "config.json" if adapter is None else directory.best_adapter / ADAPTER_CONFIG
    return directory.published == best and there.exists()


def checkpoint_of(best: Best, folders: Iterable[Path]) -> Path | None:
    """Return the verified checkpoint with the model of this evaluation, from the first folder that has it."""
    for folder in folders:
        source = path_of(folder, best.step)
        if verify(source) is None:
            state = read_record(source).state
            if state.best == best or state.evaluated[-1:] == ((best.step, best.value),):
                return source
    return None


def withdraw_best(directory: RunDir) -> bool:
    """Remove best/ and best.json. Returns True if there was a best/."""
    directory.require_own()
    (directory.path / "best.json").unlink(missing_ok=True)
    removed = [atomic.remove(folder) for folder in (directory.best, directory.best_adapter)]
    return any(removed)
