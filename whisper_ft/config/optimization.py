"""Settings of the optimisation: loss, loss scale, optimizer, and the course of the learning rate."""

from dataclasses import dataclass
from typing import Literal

from whisper_ft.config.setting import Auto, ScheduleKind, decided, require, setting


@dataclass(frozen=True)
class LossConfig:
    """Loss: the mean cross-entropy over all label tokens of the global batch."""

    label_smoothing: float = setting("change", 0.0)
    """Share of the target probability that is spread evenly over the vocabulary; the logged loss includes it."""

    def __post_init__(self) -> None:
        require(0 <= self.label_smoothing < 1, "loss.label_smoothing", self.label_smoothing, "from 0 to below 1")


@dataclass(frozen=True)
class ScalerConfig:
    """Loss scaling, which keeps small gradients from becoming zero. It is used only if `precision` is fp16."""

    initial: float = setting("change", 65536.0)
    """Loss scale at the start of a run."""
    growth: float = setting("change", 2.0)
    """Factor by which the scale is multiplied after `growth_every` updates without an overflow."""
    growth_every: int = setting("change", 2000, least=1)
    """Number of updates in a row without an overflow after which the scale grows."""
    backoff: float = setting("change", 0.5)
    """Factor by which the scale is multiplied at an overflow; that update is skipped."""
    floor: float = setting("change", 1.0)
    """Smallest loss scale. Below it the run stops with exit code 5, because the model has diverged."""

    def __post_init__(self) -> None:
        for name in ("initial", "floor"):
            require(getattr(self, name) > 0, f"scaler.{name}", getattr(self, name), "above 0")
        require(self.initial >= self.floor, "scaler.initial", self.initial, f"at least scaler.floor, {self.floor:g}")
        require(self.growth >= 1, "scaler.growth", self.growth, "at least 1")
        require(0 < self.backoff < 1, "scaler.backoff", self.backoff, "between 0 and 1")


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer."""

    name: Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd"] = setting("change", "adamw")
    """Optimizer. Bytes of its state per weight: adamw 8, adamw_8bit (bitsandbytes) 2 but 8 for embeddings, adafactor
    almost 0, sgd 4. paged_adamw_8bit moves its state to CPU memory if GPU memory is short. sgd needs a far higher
    `lr`."""
    lr: float | Auto = setting("change", "auto", before=1e-5, auto="auto")
    """Peak learning rate; schedule.* describes its course. auto: 1e-4 with an adapter, else 1e-5; chosen once and
    recorded."""
    layer_decay: float = setting("change", 1.0)
    """Each layer of encoder and decoder has this factor times the learning rate of the layer above; 1 is off.

    Layer l of L (l from 1) has lr * layer_decay^(L - l), so the top layer and the final norm have `lr` itself.
    Convolutions, positions and the token embedding, which is also the output layer, have lr * layer_decay^L."""
    betas: tuple[float, float] = setting("change", (0.9, 0.98))
    """Decay rates of the two moments, for the AdamW variants."""
    eps: float = setting("change", 1e-6)
    """Term added to the root of the second moment, for the AdamW variants."""
    momentum: float = setting("change", 0.9)
    """Momentum of sgd; 0 is off."""
    weight_decay: float = setting("change", 0.0, least=0)
    """Decoupled weight decay of matrices, not of norms, biases and positions. sgd adds it to the gradient."""
    clip_norm: float = setting("change", 1.0, least=0)
    """Largest norm of the gradient; a larger gradient is scaled down to it. 0 is off."""

    def __post_init__(self) -> None:
        require(self.lr == "auto" or self.lr > 0, "optim.lr", self.lr, "above 0")
        require(all(0 <= beta < 1 for beta in self.betas), "optim.betas", self.betas, "two numbers from 0 to below 1")
        require(self.eps > 0, "optim.eps", self.eps, "above 0")
        require(0 <= self.momentum < 1, "optim.momentum", self.momentum, "from 0 to below 1")
        require(0 < self.layer_decay <= 1, "optim.layer_decay", self.layer_decay, "above 0 and at most 1")

    @property
    def peak_lr(self) -> float:
        """`lr` as a number. Raises ValueError for `auto`, which the start of a run resolves."""
        return decided(self.lr, "optim.lr")


@dataclass(frozen=True)
class ScheduleConfig:
    """Course of the learning rate over the run."""

    kind: ScheduleKind = setting("change", "linear")
    """Shape after the warm-up: linear or cosine down to 0, constant, or wsd (stable, then down over `decay`)."""
    warmup: float = setting("change", 0.1)
    """Number of warm-up updates; a value below 1 is a share of all updates."""
    decay: float = setting("change", 0.2)
    """Number of updates in the final decay of wsd; a value below 1 is a share of all updates."""

    def __post_init__(self) -> None:
        for name, value in (("warmup", self.warmup), ("decay", self.decay)):
            allowed = value >= 0 and (value < 1 or float(value).is_integer())
            require(allowed, f"schedule.{name}", value, "a whole number of updates, or a share of the run below 1")
