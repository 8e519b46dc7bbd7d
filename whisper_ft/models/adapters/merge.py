"""Merge of an adapter into its base: a whole model, which loads without peft.

The adapter of a quantised base has two targets. `float` is the base as it is stored, and `dequantised` the rounded
weights beside which the adapter was trained. Decision 19 compares them.
"""

import warnings
from collections.abc import Callable
from typing import Literal

import torch
from transformers import WhisperForConditionalGeneration

from whisper_ft.models.adapters.adapted_whisper import (
    adapted_layers,
    attach,
    checked_base,
    local_adapter,
    refuse_base_of_whole_model,
)
from whisper_ft.models.adapters.adapter_folder import AdapterFolder, read_adapter
from whisper_ft.models.adapters.quantised_base import dequantise, quantise
from whisper_ft.models.whisper import LoadedWhisper, load_whisper
from whisper_ft.runtime.errors import UsageError, one_line

MergeTarget = Literal["float", "dequantised"]


def targets_of(folder: AdapterFolder) -> tuple[MergeTarget, ...]:
    """Return the possible targets of a merge: `float`, and `dequantised` for the adapter of a quantised base."""
    return ("float",) if folder.quantisation == "float" else ("float", "dequantised")


def load_merged(name: str, base: str | None, say: Callable[[str], object]) -> LoadedWhisper:
    """Load a whole model, or an adapter merged into its base, from a folder or the Hub.

    A quantised base is dequantised, because the adapter was trained beside these weights. Arguments and errors are
    those of `merged_model`.
    """
    path = local_adapter(name)
    if path is None:
        refuse_base_of_whole_model(name, base)
        return load_whisper(name, on_repair=say)
    folder = read_adapter(path)
    onto = targets_of(folder)[-1]
    say(f"{name} is an adapter; it is merged into its base in {'float' if onto == 'float' else 'dequantised weights'}")
    return merged_model(folder, onto, base, say)


def merged_model(
    folder: AdapterFolder,
    onto: MergeTarget,
    base: str | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> LoadedWhisper:
    """Load the base of an adapter in float32 and merge the adapter into it.

    Parameters
        onto: target of the merge, one of `targets_of`.
        base: base of the adapter; None for the one that its files name.
        say: called with one line about each thing that was missing in the base and was completed.

    Raises UsageError if the adapter cannot be merged, or if its base is missing or another one.
    """
    loaded = load_whisper(checked_base(folder, base).name, on_repair=say)
    if onto == "dequantised":
        quantise(loaded.model, folder.quantisation, "fp32", torch.device("cpu"))
        dequantise(loaded.model)
    attach(loaded, folder)
    fold(loaded.model, folder)
    return loaded


def fold(model: WhisperForConditionalGeneration, folder: AdapterFolder) -> None:
    """Add an attached adapter to the weights of the base, and remove it.

    Raises UsageError if a weight becomes NaN or infinite.
    """
    for name, layer in adapted_layers(model):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                layer.merge(safe_merge=True)
        except ValueError as error:
            raise UsageError(f"{folder.path}: cannot be merged: {one_line(error)}") from error
        model.set_submodule(name, layer.get_base_layer())
    del model.peft_config
