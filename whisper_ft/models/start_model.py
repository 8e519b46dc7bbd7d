"""Start model of a run: its output is compared with that of the model which is trained from it."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import WhisperForConditionalGeneration

from whisper_ft.models.adapters.lora import adapters_off


@dataclass(frozen=True)
class StartModel:
    """Model with the weights that a run starts from. It is never trained, and computes without dropout."""

    model: WhisperForConditionalGeneration
    """A copy; of a run with an adapter, the model that is trained, whose adapter is switched off for each output."""
    is_copy: bool

    @classmethod
    def of(cls, model: WhisperForConditionalGeneration, *, has_adapter: bool) -> "StartModel":
        """Take the present weights of a model. A copy shares the memory of weights that are frozen."""
        return cls(model, is_copy=False) if has_adapter else cls(frozen_copy(model), is_copy=True)

    @property
    def head(self) -> torch.Tensor:  # [V, D]
        """Weights of the output layer, which has no bias."""
        weights: torch.Tensor = self.model.proj_out.weight
        return weights.detach()

    def states(
        self, input_features: torch.Tensor, decoder_input_ids: torch.Tensor, predicted: torch.Tensor
    ) -> torch.Tensor:  # [B, M, T], [B, L], [N] -> [N, D]
        """Return the last hidden states at the positions that `predicted` names, as indices into all B x L."""
        with torch.no_grad(), self._as_at_start():
            hidden: torch.Tensor = self.model.model(
                input_features=input_features, decoder_input_ids=decoder_input_ids, use_cache=False
            ).last_hidden_state
        return hidden.flatten(0, 1).index_select(0, predicted)

    @contextmanager
    def _as_at_start(self) -> Iterator[None]:
        if self.is_copy:
            yield
            return
        was_training = self.model.training
        self.model.eval()
        try:
            with adapters_off(self.model):
                yield
        finally:
            self.model.train(was_training)


def frozen_copy(model: WhisperForConditionalGeneration) -> WhisperForConditionalGeneration:
    """Return a copy of a model in evaluation mode, without gradients. Frozen weights are shared, not copied."""
    shared = {id(parameter): parameter for parameter in model.parameters() if not parameter.requires_grad}
    return copy.deepcopy(model, shared).requires_grad_(False).eval()
