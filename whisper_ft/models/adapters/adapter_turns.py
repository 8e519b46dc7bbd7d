"""Several adapters on one base, which is loaded once: each adapter is attached for its turn."""

from collections.abc import Callable, Iterator, Sequence

import torch

from whisper_ft.config.evaluation import Precision
from whisper_ft.models.adapters.adapted_whisper import (
    adapter_sha256,
    attach,
    checked_base,
    detach,
    local_adapter,
    refuse_other_base,
)
from whisper_ft.models.adapters.adapter_folder import AdapterFolder, read_adapter
from whisper_ft.models.adapters.quantised_base import load_base
from whisper_ft.models.inference import InferenceModel
from whisper_ft.models.precision import evaluation_precision
from whisper_ft.runtime.device_memory import memory_errors
from whisper_ft.runtime.errors import UsageError


def adapters_in_turn(
    names: Sequence[str],
    base: str | None,
    precision: Precision,
    device: torch.device,
    say: Callable[[str], object],
) -> Iterator[InferenceModel]:
    """Yield the base with each adapter in turn. A model may be used until the next one is taken.

    Parameters
        names: folders of adapters, or their names on the Hub.
        base: the base of all of them; None for the one that they name.
        say: called with a line about each missing part of the base, and one about each precision.

    Raises UsageError if one is no adapter, or if they differ in their base. That of the first one is compared before
    anything is loaded.
    """
    folders = [_folder_of(name) for name in names]
    _refuse_different(folders, base)
    first, sha256 = checked_base(folders[0], base)
    for folder in folders[1:]:
        refuse_other_base(folder, first, sha256)
    chosen = [evaluation_precision(precision, str(folder.path), device, say) for folder in folders]
    if folders[0].quantisation == "nf4" and len(set(chosen)) > 1:
        raise UsageError("--adapters: they were trained in different precisions on an nf4 base; give one: --precision")
    with memory_errors("while the model was loaded"):
        loaded = load_base(first, folders[0].quantisation, chosen[0], device, on_repair=say)
        model, generation = loaded.model, loaded.model.generation_config
    for folder, own in zip(folders, chosen, strict=True):
        attach(loaded, folder)
        yield InferenceModel(model.to(device).eval(), loaded.processor, adapter_sha256(folder, sha256), own)
        detach(model)
        model.generation_config = generation


def _folder_of(name: str) -> AdapterFolder:
    path = local_adapter(name)
    if path is None:
        raise UsageError(f"--adapters {name}: is no adapter; give folders with an adapter_config.json")
    return read_adapter(path)


def _refuse_different(folders: Sequence[AdapterFolder], base: str | None) -> None:
    """Raise UsageError for adapters of different bases, and for one that changes its base while it is used.

    Recorded bases are compared by their sha256 later. Other adapters have only the name of their base.
    """
    first = folders[0]
    for folder in folders:
        if folder.config.get("bias", "none") != "none":
            raise UsageError(f"--adapters {folder.path}: it also changes biases of the base; score it alone: --model")
        is_recorded = folder.identity is not None and first.identity is not None
        differing = folder.quantisation != first.quantisation
        if differing or (base is None and not is_recorded and folder.base != first.base):
            raise UsageError(
                f"--adapters: the base of {folder.path} is {folder.base} in {folder.quantisation}, and that of "
                f"{first.path} is {first.base} in {first.quantisation}; score adapters of one base together"
            )
