"""Base of an adapter: a Whisper in float, or with the weights of its linear layers in int8 or nf4.

bitsandbytes is imported by functions only, because it takes seconds and most runs do not need it.
"""

from collections.abc import Callable

import torch
from transformers import WhisperForConditionalGeneration

from whisper_ft.config.adapter import AdapterBase
from whisper_ft.config.evaluation import Precision
from whisper_ft.config.training import ModelConfig
from whisper_ft.models.whisper import AUTOCAST, LoadedWhisper, load_whisper
from whisper_ft.runtime.bitsandbytes_package import import_bitsandbytes

OUTPUT = "proj_out"  # stays float, because it is the token embedding, too


def load_base(
    name: str,
    base: AdapterBase,
    precision: Precision,
    device: torch.device,
    training: ModelConfig | None = None,
    on_repair: Callable[[str], object] | None = None,
) -> LoadedWhisper:
    """Load the base of an adapter on a device, with its linear layers as float, int8 or nf4.

    `load_whisper` describes the other parameters. Raises UsageError if the model cannot be used, or if bitsandbytes is
    needed and cannot be loaded.
    """
    model, processor = load_whisper(name, training, on_repair)
    quantise(model, base, precision, device)
    return LoadedWhisper(model.to(device), processor)


def quantise(
    model: WhisperForConditionalGeneration, base: AdapterBase, precision: Precision, device: torch.device
) -> None:
    """Replace the linear layers of a float model, except the output layer, by frozen ones in int8 or nf4 on a device.

    Other parts of the model stay where they are. `float` changes nothing. `precision` is the number format of the
    computation. Raises UsageError if bitsandbytes cannot be loaded.
    """
    if base == "float":
        return
    import_bitsandbytes(f"--adapter.base {base}", "choose float")
    from whisper_ft.models.adapters.quantised_layers import quantised

    for name, layer in _linear_layers(model):
        model.set_submodule(name, quantised(layer, base, AUTOCAST[precision], device))


def dequantise(model: WhisperForConditionalGeneration) -> None:
    """Replace the quantised layers of a model by float32 ones with the same values. A float model stays as it is.

    The model must have no adapter.
    """
    if quantisation_of(model) == "float":
        return
    from whisper_ft.models.adapters.quantised_layers import Int8Linear, NF4Linear, dequantised

    for name, layer in _linear_layers(model):
        if isinstance(layer, Int8Linear | NF4Linear):
            model.set_submodule(name, dequantised(layer))


def quantisation_of(model: WhisperForConditionalGeneration) -> AdapterBase:
    """Return the storage of a model's linear layers, with an adapter or without."""
    kinds: dict[str, AdapterBase] = {"Int8Params": "int8", "Params4bit": "nf4"}
    found = {type(module.weight).__name__ for module in model.modules() if isinstance(module, torch.nn.Linear)}
    return next((base for kind, base in kinds.items() if kind in found), "float")


def _linear_layers(model: WhisperForConditionalGeneration) -> list[tuple[str, torch.nn.Linear]]:
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != OUTPUT
    ]
