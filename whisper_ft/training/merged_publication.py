"""Merged model of a run with an adapter: best/, or final/ without an evaluation, for programs without peft."""

from collections.abc import Callable

from whisper_ft.checkpoint.state import TrainState
from whisper_ft.config.evaluation import Precision
from whisper_ft.models.adapters.adapter_folder import read_adapter
from whisper_ft.models.adapters.merge import merged_model, targets_of
from whisper_ft.models.export.hf import config_files, export
from whisper_ft.models.precision import precision_record
from whisper_ft.runtime.errors import OutOfMemoryError, UsageError
from whisper_ft.training.directory import RunDir


def publish_merged(directory: RunDir, state: TrainState, precision: Precision, say: Callable[[str], object]) -> None:
    """Merge best-adapter/ into its base and publish the model as best/; without a best, final-adapter/ as final/.

    A quantised base is dequantised, because the adapter was trained beside these weights. A best/ that is there stays,
    because it is removed with each new best. Main process only.

    If the base cannot be loaded any more, `say` reports it and the run ends well, because the adapter is complete.
    """
    source, out = directory.final_adapter, directory.final
    if state.best is not None:
        source, out = directory.best_adapter, directory.best
        if (out / "config.json").exists():
            return
    directory.require_own()
    try:
        folder = read_adapter(source)
        onto = targets_of(folder)[-1]
        merged = merged_model(folder, onto)
    except (UsageError, OutOfMemoryError) as error:
        later = f"python -m whisper_ft merge {directory.path} --out DIR"
        say(f"{out.name}/ was not written: {error}; merge the adapter later: {later}")
        return
    readme = (
        f"# Merged model\n\nThe adapter in ../{source.name}, merged into the {onto} base. The run has scored the "
        "adapter; `python -m whisper_ft merge` compares both.\n"
    )
    export(merged.model, config_files(*merged) | precision_record(precision), out, readme)
