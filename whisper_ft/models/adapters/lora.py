"""Low-rank weights (LoRA) beside the linear layers of a Whisper: their places, first values and number.

peft is imported by functions only, because it takes a second and most runs have no adapter.
"""

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from transformers import WhisperForConditionalGeneration

from whisper_ft.config.adapter import TIED, AdapterConfig
from whisper_ft.config.nearest import nearest
from whisper_ft.runtime.bitsandbytes_package import quiet_bitsandbytes
from whisper_ft.runtime.errors import UsageError, one_line

if TYPE_CHECKING:
    from peft import LoraConfig

ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
TARGETS = {"attention": ATTENTION, "linear": (*ATTENTION, "fc1", "fc2")}
"""Ends of the names of the layers that a word in `adapter.targets` stands for."""
ADAPTER_NAME = "default"  # peft's own name of the first adapter in a model


def import_peft() -> ModuleType:
    """Import peft. Raises UsageError if it is not installed."""
    try:
        with quiet_bitsandbytes():
            import peft
    except ImportError as error:
        raise UsageError(f"an adapter needs the package peft: pip install peft ({one_line(error)})") from error
    module: ModuleType = peft
    return module


def lora_config(settings: AdapterConfig, frozen: Collection[str] = ()) -> "LoraConfig":
    """Return peft's configuration of the adapter that the settings describe.

    `frozen` are the parts of the model without an adapter: encoder, decoder.
    """
    targets = TARGETS.get(settings.targets) if isinstance(settings.targets, str) else settings.targets
    excluded = "|".join(sorted({"encoder", "decoder"} & set(frozen)))
    config: LoraConfig = import_peft().LoraConfig(
        r=settings.r,
        lora_alpha=int(settings.alpha) if settings.alpha.is_integer() else settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(targets or ()),
        exclude_modules=rf"model\.({excluded})\..*" if excluded else None,
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        bias="none",
    )
    return config


def refuse_unknown_targets(model: WhisperForConditionalGeneration, settings: AdapterConfig) -> None:
    """Raise UsageError for a name in `adapter.targets` that no layer ends with, or only layers that are not linear."""
    if isinstance(settings.targets, str):
        return
    modules = dict(model.named_modules())
    linear = [name for name, module in modules.items() if isinstance(module, torch.nn.Linear)]
    for target in settings.targets:
        if _ends_with(linear, target):
            continue
        if _ends_with(modules, target):
            raise UsageError(
                f"--adapter.targets {target}: is no linear layer; name others, or take attention or linear"
            )
        near = nearest(target, sorted({name.rsplit(".", 1)[-1] for name in linear} - set(TIED)))
        hint = f"did you mean {near!r}?" if near else f"the layers are {', '.join(TARGETS['linear'])}"
        raise UsageError(f"--adapter.targets {target}: the model has no such layer; {hint}")


def inject(model: WhisperForConditionalGeneration, config: "LoraConfig", seed: int) -> None:
    """Put the low-rank weights of a configuration into a model, and freeze all its other weights.

    The model stays a Whisper: a layer becomes a module with the layer as `base_layer` and the new weights, which have
    no effect yet, except those of DoRA by rounding. The first values depend on nothing but `seed` and the layers. The
    model may be quantised, and should be on the device on which it is used.

    Raises UsageError if the configuration names a tied layer, or if peft cannot use it.
    """
    peft = import_peft()
    if config.modules_to_save:
        raise UsageError(
            f"adapter with whole weights of {', '.join(config.modules_to_save)}: only LoRA weights are used"
        )
    with _quantisation_shown(model), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            peft.inject_adapter_in_model(config, model, ADAPTER_NAME)
        except (ValueError, NotImplementedError) as error:
            raise UsageError(f"the adapter does not fit the model: {one_line(error)}") from error
    for name, _ in model.named_parameters():
        if ".lora_" in name and (tied := next((each for each in TIED if f"{each}." in name), None)):
            raise UsageError(
                f"adapter with {tied}: {' and '.join(TIED)} are one tensor, so an adapter of either could not be merged"
            )


@dataclass(frozen=True)
class AdapterSize:
    """Numbers of the weights in a model with an adapter, and the scale of the adapter."""

    trained: int
    """Trained weights."""
    total: int
    """Weights of the model without the adapter; a quantised weight is one weight."""
    layers: int
    """Layers with low-rank weights."""
    rank: int
    alpha: float
    rslora: bool

    @property
    def scale(self) -> float:
        """Factor of the low-rank product."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def __str__(self) -> str:
        formula = "alpha / sqrt(r)" if self.rslora else "alpha / r"
        return (
            f"adapter: {self.trained:,} weights are trained, {100 * self.trained / self.total:.2g} % of the model's "
            f"{self.total:,}, in {self.layers} layers; scale {formula} = {self.scale:g}"
        )


def size_of(model: WhisperForConditionalGeneration, settings: AdapterConfig) -> AdapterSize:
    """Count the weights of a model with an injected adapter."""
    own = {name: one for name, one in model.named_parameters() if ".lora_" not in name}
    linear = {
        f"{name}.weight": module.in_features * module.out_features
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    return AdapterSize(
        trained=sum(one.numel() for name, one in model.named_parameters() if one.requires_grad),
        total=sum(linear.get(name, one.numel()) for name, one in own.items()),
        layers=sum(".lora_A." in name for name, _ in model.named_parameters()),
        rank=settings.r,
        alpha=settings.alpha,
        rslora=settings.rslora,
    )


@contextmanager
def adapters_off(model: WhisperForConditionalGeneration) -> Iterator[None]:
    """Let a model compute without its adapter during a block, as its base does.

    peft's own switch also changes `requires_grad` of the adapter, which DistributedDataParallel does not allow.
    """
    layers = [module for module in model.modules() if hasattr(module, "_disable_adapters")]
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def base_names(model: WhisperForConditionalGeneration) -> frozenset[str]:
    """Return the names in the model's state of everything but the adapter, which a checkpoint leaves out."""
    return frozenset(name for name in model.state_dict() if ".lora_" not in name)


def _ends_with(names: Collection[str], target: str) -> bool:
    return any(name == target or name.endswith(f".{target}") for name in names)


@contextmanager
def _quantisation_shown(model: WhisperForConditionalGeneration) -> Iterator[None]:
    """Mark a model with quantised layers during a block as peft expects it, by attributes that transformers sets."""
    kinds = {type(module.weight).__name__ for module in model.modules() if isinstance(module, torch.nn.Linear)}
    marks = {"Int8Params": "is_loaded_in_8bit", "Params4bit": "is_loaded_in_4bit"}
    shown = [mark for kind, mark in marks.items() if kind in kinds and not hasattr(model, mark)]
    for mark in shown:
        setattr(model, mark, True)
    try:
        yield
    finally:
        for mark in shown:
            delattr(model, mark)
