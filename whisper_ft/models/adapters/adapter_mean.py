"""Mean of several LoRA adapters of one base: the adapter whose effect is the mean of their effects."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import WhisperForConditionalGeneration

Weights = Mapping[str, torch.Tensor]


def mean_adapter(adapters: Sequence[Weights]) -> dict[str, torch.Tensor]:
    """Return the mean of n adapters of one configuration, as weights of n times their rank.

    An adapter changes a layer by the product B A. The mean of the products is [B1 .. Bn] / n times [A1; ..; An], which
    is exact. The mean of the weights would not be: a product of means is not the mean of the products.
    """
    first, n = adapters[0], len(adapters)
    return {
        name: torch.cat([one[name] for one in adapters], dim=0)
        if ".lora_A." in name
        else torch.cat([one[name] for one in adapters], dim=1) / n
        for name in first
    }


def mean_config(config: Mapping[str, Any], n: int) -> dict[str, Any]:
    """Return peft's configuration of the mean of n adapters: of n times the rank, with the scale of a single one."""
    factor = math.sqrt(n) if config["use_rslora"] else n
    return {**config, "r": config["r"] * n, "lora_alpha": config["lora_alpha"] * factor}


def replace_weights(model: WhisperForConditionalGeneration, weights: Weights) -> None:
    """Replace the weights of the adapter in a model by others, perhaps of another rank. The scale stays."""
    for name, tensor in weights.items():
        module, _, attribute = name.rpartition(".")
        old = model.get_parameter(name)
        setattr(model.get_submodule(module), attribute, torch.nn.Parameter(tensor.to(old.device), requires_grad=False))
