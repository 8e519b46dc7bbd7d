"""Model for inference: on its device, in evaluation mode, with its precision and the hash of its weights."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from whisper_ft.config.evaluation import Precision
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
    name: str, precision: Precision, device: torch.device, say: Callable[[str], object]
) -> InferenceModel:
    """Load a model from a folder or the Hub. Raises UsageError if it cannot be used.

    `say` is called with a line about each missing part that was completed, and one about the precision.
    """
    model, processor = load_whisper(name, on_repair=say)
    chosen = evaluation_precision(precision, name, device, say)
    return InferenceModel(model.to(device).eval(), processor, weights_sha256(model), chosen)
