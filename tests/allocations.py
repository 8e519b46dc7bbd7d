"""Allocations of a training step without memory: torch's own shapes and types, by tensors without values."""

import weakref
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from transformers import WhisperConfig, WhisperForConditionalGeneration

from whisper_ft.config.training import TrainingConfig
from whisper_ft.models.adapters.lora import inject, lora_config
from whisper_ft.models.whisper import AUTOCAST, freeze, parameters_by_name
from whisper_ft.optim.loss import TokenLoss
from whisper_ft.training.memory.model_dimensions import ModelDimensions


class Storages(TorchDispatchMode):
    """The bytes of all storages that are alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: set[int] = set()
        self.bytes = self.peak = 0

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if (key := storage._cdata) not in self.alive:
            self.alive.add(key)
            weakref.finalize(storage, self.remove, key, storage.nbytes())
            self.bytes += storage.nbytes()
            self.peak = max(self.peak, self.bytes)

    def remove(self, key: int, count: int) -> None:
        self.alive.discard(key)
        self.bytes -= count

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self.add, result)
        return result


def peak_of_step(config: TrainingConfig, size: ModelDimensions, windows: int, labels: int, passes: int) -> int:
    """Bytes of the tensors of a step on a CPU at their peak: weights, two moments, and all of two updates."""
    with FakeTensorMode(), Storages() as storages:
        model = WhisperForConditionalGeneration(config_of(size, config.model.attention))
        model.model.encoder.embed_positions.requires_grad_(False)
        freeze(model, config.model.freeze)
        if config.model.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if config.adapter.enabled:
            inject(model, lora_config(config.adapter, config.model.freeze), seed=1)
        parameters = parameters_by_name(model).values()
        moments = [torch.empty_like(each) for each in [*parameters, *parameters]]
        loss, tokens = TokenLoss(model, config.loss.label_smoothing).train(), torch.full((windows, labels), 220)
        storages.peak = 0
        for _ in range(2):
            for _ in range(passes):
                features = torch.empty(windows, size.mel_bins, 2 * size.positions)
                with torch.autocast("cpu", AUTOCAST[config.precision], enabled=config.precision != "fp32"):
                    losses = loss(features, tokens, tokens, torch.arange(windows * labels))
                losses.backward()
                del losses
            for parameter in parameters:
                parameter.grad = None
        del moments
    return storages.peak


def config_of(size: ModelDimensions, attention: str) -> WhisperConfig:
    """The configuration of transformers for a model of some dimensions."""
    return WhisperConfig(
        encoder_layers=size.encoder_layers, decoder_layers=size.decoder_layers, d_model=size.width,
        encoder_attention_heads=size.heads, decoder_attention_heads=size.heads, encoder_ffn_dim=size.encoder_inner,
        decoder_ffn_dim=size.decoder_inner, num_mel_bins=size.mel_bins, vocab_size=size.vocabulary, pad_token_id=0,
        bos_token_id=0, eos_token_id=0, decoder_start_token_id=0, attn_implementation=attention,
    )  # fmt: skip
