"""Anchor of a run: its start model and start weights, near which the trained model is held."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from transformers import WhisperForConditionalGeneration

from whisper_ft.config.anchor import AnchorConfig
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.types import Batch
from whisper_ft.models.start_model import StartModel
from whisper_ft.models.whisper import weights_sha256
from whisper_ft.optim.loss import StartOutput
from whisper_ft.optim.pull import StartWeights, copies_of, distance, pull_back


class Divergence(NamedTuple):
    """Divergence KL(start model || model) on the anchor audio of an update, in nats."""

    sum: float = 0.0
    """Sum over the label tokens of one rank or of all."""
    tokens: int = 0
    """Label tokens of all ranks."""

    @property
    def mean(self) -> float:
        """Mean over the label tokens; 0 without any."""
        return self.sum / max(self.tokens, 1)


@dataclass(frozen=True)
class Anchor:
    """Start of a run, and the settings of the two terms that hold the model near it.

    It must be made while the model has its start weights, before a checkpoint is loaded.
    """

    settings: AnchorConfig
    peak_lr: float
    sha256: str
    """Hash of the start weights. A resumed run must have the same ones."""
    weights: StartWeights | None
    """Start values of the trained weights, if `l2` is on. With `kl` they are those of the start model."""
    model: StartModel | None
    """Start model, if `kl` is on."""

    @classmethod
    def of(
        cls,
        model: WhisperForConditionalGeneration,
        parameters: Mapping[str, torch.nn.Parameter],
        config: TrainingConfig,
        base: str | None,
    ) -> "Anchor | None":
        """Take the present weights as start; None if no term is on.

        Parameters
            parameters: trained parameters by name.
            base: hash of the base of an adapter, whose start is the base without it; None for a whole model.
        """
        settings = config.anchor
        if not settings.enabled:
            return None
        start = StartModel.of(model, has_adapter=base is not None) if settings.kl else None
        weights: StartWeights | None = None
        if settings.l2 and start is None:
            weights = copies_of(parameters)
        elif settings.l2 and start is not None:
            first = dict(start.model.named_parameters())
            weights = {parameter: first[name] for name, parameter in parameters.items()}
        return cls(settings, config.optim.peak_lr, base or weights_sha256(model), weights, start)

    def output(self, batch: Batch) -> StartOutput:
        """Return the output of the start model for the label positions of a batch on its device. Needs `kl`."""
        assert self.model is not None
        states = self.model.states(batch.input_features, batch.decoder_input_ids, batch.predicted)
        return StartOutput(states, self.model.head)

    def pull(self, optimizer: torch.optim.Optimizer) -> None:
        """Pull the weights back after an update that was applied, if `l2` is on."""
        if self.weights is not None:
            pull_back(optimizer, self.weights, self.settings.l2, self.peak_lr)

    def figures(self, divergence: Divergence) -> dict[str, float]:
        """Return the figures of a logged step: the mean divergence, and the distance to the start weights."""
        of_kl = {"anchor_kl": divergence.mean, "anchor_tokens": divergence.tokens} if self.settings.kl else {}
        return of_kl | ({"anchor_l2": distance(self.weights)} if self.weights is not None else {})
