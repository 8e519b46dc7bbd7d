"""Settings of an adapter: low-rank weights (LoRA), trained in place of the model's own."""

from dataclasses import dataclass
from typing import Literal

from whisper_ft.config.setting import refuse_unused, require, setting

AdapterBase = Literal["float", "int8", "nf4"]
FULL_LR, ADAPTER_LR = 1e-5, 1e-4
"""Peak learning rates that `optim.lr: auto` stands for: of all weights, and of an adapter, which starts at zero."""
TIED = ("proj_out", "embed_tokens")
"""Output layer and token embedding, which are one tensor: an adapter of one of them could not be merged into both."""
UNTIED = f"without {' and '.join(TIED)}, which are one tensor, so an adapter of either could not be merged"


@dataclass(frozen=True)
class AdapterConfig:
    """Adapter: low-rank weights beside the frozen model (LoRA: Hu et al. 2021, arXiv 2106.09685)."""

    kind: Literal["none", "lora"] = setting("exact", "none", before="none")
    """lora: train low-rank weights beside the linear layers, and leave the model's own weights as they are. none: train
    the model itself."""
    r: int = setting("exact", 32, least=1, before=32)
    """Rank of the low-rank weights of a layer."""
    alpha: float = setting("exact", 64.0, before=64.0)
    """Scale of the low-rank product: it is multiplied by alpha / r."""
    dropout: float = setting("change", 0.0, before=0.0)
    """Dropout probability of the input of the low-rank weights while training."""
    targets: Literal["attention", "linear"] | list[str] = setting("exact", "linear", before="linear")
    """Layers with low-rank weights. attention: q_proj, k_proj, v_proj and out_proj of all attention; linear: these, fc1
    and fc2. Or ends of their names: [q_proj, decoder.layers.3.fc1]."""
    rslora: bool = setting("exact", False, before=False)
    """Multiply the product by alpha / sqrt(r), which suits high ranks (Kalajdzievski 2023, arXiv 2312.03732)."""
    dora: bool = setting("exact", False, before=False)
    """Also train the length of each row of the weights (DoRA: Liu et al. 2024, arXiv 2402.09353). Slower."""
    base: AdapterBase = setting("exact", "float", before="float")
    """Storage of the model's linear layers. int8 has a quarter of the memory of float, nf4 an eighth (QLoRA: Dettmers
    et al. 2023, arXiv 2305.14314); bitsandbytes quantises them when they are loaded."""
    init: str | None = setting("exact", None, before=None)
    """Folder of an adapter to go on from, such as RUN/best-adapter. None: the adapter begins without an effect."""

    def __post_init__(self) -> None:
        require(self.alpha > 0, "adapter.alpha", self.alpha, "above 0")
        require(0 <= self.dropout < 1, "adapter.dropout", self.dropout, "from 0 to below 1")
        require(self.targets != [], "adapter.targets", self.targets, "attention, linear or a list of names")
        for name in self.targets if isinstance(self.targets, list) else ():
            require(name.rsplit(".", 1)[-1] not in TIED, "adapter.targets", name, UNTIED)
        if not self.enabled:
            refuse_unused(self, "adapter", "adapter.kind is none", "--adapter.kind lora")

    @property
    def enabled(self) -> bool:
        """True if the run trains an adapter."""
        return self.kind != "none"

    @property
    def default_lr(self) -> float:
        """Peak learning rate that `optim.lr: auto` stands for."""
        return ADAPTER_LR if self.enabled else FULL_LR

    def refuse_beside(self, frozen: list[Literal["encoder", "decoder", "embeddings"]], averaged: str) -> None:
        """Raise ValueError for parts of `model.freeze` without an effect, and for an average that does not exist."""
        if not self.enabled:
            return
        if "embeddings" in frozen:
            raise ValueError(
                "--model.freeze embeddings: an adapter leaves them as they are anyway; name encoder or decoder, which "
                "then has no adapter"
            )
        if {"encoder", "decoder"} <= set(frozen):
            raise ValueError("--model.freeze encoder, decoder: no layer is left for the adapter; freeze one of them")
        if averaged != "none" and self.dora:
            raise ValueError(
                f"--average.of {averaged}: with adapter.dora, no adapter is the mean of others; leave out one"
            )
