"""Workload of a training step: everything on which its memory depends."""

from dataclasses import dataclass, replace
from typing import Literal, Self

from whisper_ft.config.adapter import AdapterConfig
from whisper_ft.config.training import TrainingConfig
from whisper_ft.training.memory.model_dimensions import ModelDimensions

Side = Literal["encoder", "decoder"]
Kind = Literal["trained", "adapted", "frozen"]
"""Kinds of a linear layer: its own weights are trained, an adapter beside them is, or nothing of it."""

ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
INNER = ("fc1", "fc2")
QUANTISED_BYTES = {"int8": 1.0, "nf4": 0.5 + 4 / 64}
"""Bytes of a quantised weight. nf4 has half a byte, and a scale in float32 for each block of 64 weights."""


@dataclass(frozen=True)
class Workload:
    """A training step, as far as its memory depends on it."""

    model: ModelDimensions
    windows: int
    """Windows of a forward pass, each of 30 s or as long as the model hears."""
    labels: int
    """Label tokens of a window, the longest of the pass."""
    compute_bytes: Literal[2, 4]
    """Bytes of a number in the computation: 2 for bf16 and fp16, 4 for fp32."""
    on_gpu: bool
    optimizer: str = "adamw"
    momentum: float = 0.9
    adapter: AdapterConfig = AdapterConfig()
    frozen: frozenset[str] = frozenset()
    """Parts that are not trained: encoder, decoder, embeddings."""
    checkpointing: bool = False
    eager: bool = False
    """Attention that stores its weights for each pair of positions."""
    dropout: float = 0.0
    accumulates: bool = True
    """True if an update has several passes. The gradients then exist while the next pass runs."""
    processes: int = 1
    keeps_start: bool = False
    """True if the start weights of all trained weights are kept, for an anchor."""
    diverges: bool = False
    """True if there are passes with the logits of the start model beside those of the model."""

    @classmethod
    def of(cls, config: TrainingConfig, model: ModelDimensions, *, on_gpu: bool, windows: int, processes: int) -> Self:
        """Take a run's settings, with the longest labels of the model. `windows` are those of a pass."""
        precision = config.precision if config.precision != "auto" else ("bf16" if on_gpu else "fp32")
        return cls(
            model=model,
            windows=windows,
            labels=model.label_positions,
            compute_bytes=4 if precision == "fp32" else 2,
            on_gpu=on_gpu,
            optimizer=config.optim.name,
            momentum=config.optim.momentum,
            adapter=config.adapter,
            frozen=frozenset(config.model.freeze),
            checkpointing=config.model.gradient_checkpointing,
            eager=config.model.attention == "eager",
            dropout=config.model.dropout or 0.0,
            accumulates=config.batch.size > windows * processes,
            processes=processes,
            keeps_start=config.anchor.enabled and not config.adapter.enabled,
            diverges=config.anchor.kl > 0,
        )

    def with_windows(self, windows: int) -> Self:
        """Return a step with other windows in a pass, of which an update has several."""
        return replace(self, windows=windows, accumulates=True)

    def with_labels(self, labels: int) -> Self:
        """Return the same step with labels of another length."""
        return replace(self, labels=labels)

    @property
    def has_adapter(self) -> bool:
        """True if adapters are trained in place of the model's own weights."""
        return self.adapter.kind != "none"

    def kind(self, side: Side, layer: str) -> Kind:
        """Return the kind of a linear layer in the attention or the feed-forward block of a side."""
        if side in self.frozen:
            return "frozen"
        if not self.has_adapter:
            return "trained"
        return "adapted" if is_target(layer, self.adapter) else "frozen"

    def is_trained(self, side: Side) -> bool:
        """Return True if anything in the layers of a side is trained."""
        return any(self.kind(side, layer) != "frozen" for layer in ATTENTION + INNER)

    def keeps_activations(self, side: Side) -> bool:
        """Return True if gradients pass through a side. Those of the encoder come through the decoder."""
        return self.is_trained("encoder") or (side == "decoder" and (self.is_trained(side) or self.trains_embeddings))

    @property
    def trains_embeddings(self) -> bool:
        """True if the token embedding, which is the output layer, is trained."""
        return not self.has_adapter and not self.frozen & {"decoder", "embeddings"}

    def adapter_weights(self, side: Side) -> int:
        """Return the number of adapter weights of a side: two matrices of rank r beside each adapted layer."""
        model = self.model
        inner = model.encoder_inner if side == "encoder" else model.decoder_inner
        attentions, layers = (1, model.encoder_layers) if side == "encoder" else (2, model.decoder_layers)
        count = 0
        for names, outputs, times in ((ATTENTION, model.width, attentions), (INNER, inner, 1)):
            adapted = sum(self.kind(side, name) == "adapted" for name in names)
            magnitudes = outputs if self.adapter.dora else 0
            count += adapted * times * (self.adapter.r * (model.width + outputs) + magnitudes)
        return count * layers

    def trained_weights(self, side: Side) -> int:
        """Return the number of trained weights of a side, without the embeddings."""
        if self.has_adapter:
            return self.adapter_weights(side)
        if side in self.frozen:
            return 0
        return self.model.encoder_weights if side == "encoder" else self.model.decoder_body

    @property
    def trained_embeddings(self) -> int:
        """Number of trained weights in the embeddings of the decoder."""
        return self.model.embeddings if self.trains_embeddings else 0


def is_target(layer: str, adapter: AdapterConfig) -> bool:
    """Return True if a linear layer of attention or feed-forward block gets an adapter by its name."""
    if adapter.targets == "linear":
        return layer in ATTENTION + INNER
    if adapter.targets == "attention":
        return layer in ATTENTION
    return any(target.rpartition(".")[2] == layer for target in adapter.targets)
