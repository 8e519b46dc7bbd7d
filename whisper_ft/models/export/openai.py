"""Writer of OpenAI's own format: one file `model.pt` for `whisper.load_model`, and the alignment heads beside it."""

import base64
import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from whisper_ft.models.export.openai_layout import dimensions, openai_tensors, refuse_unlike_openai
from whisper_ft.models.whisper import LoadedWhisper

WEIGHTS = "model.pt"
ALIGNMENT_HEADS = "alignment_heads.json"


def refuse(loaded: LoadedWhisper) -> None:
    """Raise UsageError if openai-whisper cannot take the model."""
    refuse_unlike_openai(loaded, "openai-whisper")


def write(loaded: LoadedWhisper, out: Path, quantization: str) -> None:
    """Write model.pt and alignment_heads.json into a folder. `quantization` is float32 or float16.

    model.pt holds dimensions and tensors only, so `torch.load` reads it with weights_only. openai-whisper keeps the
    alignment heads of its own models in its code and takes others by `set_alignment_heads`, as base85 text.
    """
    model, config = loaded.model, loaded.model.config
    tensors = openai_tensors(model, getattr(torch, quantization))
    with (out / WEIGHTS).open("wb") as file:
        try:
            torch.save({"dims": dimensions(config), "model_state_dict": tensors}, file)
        except RuntimeError as error:  # torch ends the file after an error, which fails too, and hides the first one
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
    if heads := getattr(model.generation_config, "alignment_heads", None):
        shape = (config.decoder_layers, config.decoder_attention_heads)
        content = {"alignment_heads": heads, "base85": alignment_dump(heads, shape)}
        (out / ALIGNMENT_HEADS).write_text(json.dumps(content) + "\n", encoding="utf-8")


def alignment_dump(heads: Iterable[Sequence[int]], shape: tuple[int, int]) -> str:
    """Return alignment heads (layer, head) as `set_alignment_heads` of openai-whisper takes them, encoded as ASCII.

    It is a boolean array [decoder layers, heads], zipped, in base85. `shape` is the shape of the array.
    """
    array = np.zeros(shape, dtype=bool)
    for layer, head in heads:
        array[layer, head] = True
    return base64.b85encode(gzip.compress(array.tobytes(), mtime=0)).decode()
