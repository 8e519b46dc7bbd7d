"""Model for inference: on its device, in evaluation mode, with its precision and the hash of its weights."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from whisper_ft.config.evaluation import Precision
from whisper_ft.models.adapters.adapted_whisper import (
    adapter_sha256,
    attach,
    checked_base,
    local_adapter,
    refuse_base_of_whole_model,
)
from whisper_ft.models.adapters.adapter_folder import read_adapter
from whisper_ft.models.adapters.quantised_base import load_base
from whisper_ft.models.precision import evaluation_precision
from whisper_ft.models.whisper import load_whisper, weights_sha256
from whisper_ft.runtime.device_memory import memory_errors


@dataclass(frozen=True)
class InferenceModel:
    """A model that writes transcripts, with its processor, the hash of its weights and its precision."""

    model: WhisperForConditionalGeneration
    processor: WhisperProcessor
    sha256: str
    precision: Precision

    @property
    def spelling(self) -> dict[str, str] | None:
        """Spelling table of Whisper's English normaliser; None if the tokenizer has none."""
        return getattr(self.processor.tokenizer, "english_spelling_normalizer", None)


@memory_errors("while the model was loaded")
def load_for_inference(
    name: str, precision: Precision, device: torch.device, say: Callable[[str], object], base: str | None = None
) -> InferenceModel:
    """Load a whole model, or an adapter on its base, from a folder or the Hub. Raises UsageError if it cannot be used.

    An adapter is not merged, so its scores are those of its run.

    Parameters
        say: called with a line about each missing part that was completed, and one about the precision.
        base: base of an adapter, if it is not where the adapter's files name it.
    """
    path = local_adapter(name)
    if path is None:
        refuse_base_of_whole_model(name, base)
        model, processor = load_whisper(name, on_repair=say)
        chosen = evaluation_precision(precision, name, device, say)
        return InferenceModel(model.to(device).eval(), processor, weights_sha256(model), chosen)
    folder = read_adapter(path)
    found = checked_base(folder, base)
    chosen = evaluation_precision(precision, str(path), device, say)
    loaded = load_base(found.name, folder.quantisation, chosen, device, on_repair=say)
    attach(loaded, folder)
    sha256 = adapter_sha256(folder, found.sha256)
    return InferenceModel(loaded.model.to(device).eval(), loaded.processor, sha256, chosen)
