"""Whisper from a ggml file of whisper.cpp."""

from pathlib import Path

import numpy as np
import torch

from whisper_ft.models.conversion.byte_reader import reading
from whisper_ft.models.conversion.foreign_model import (
    Architecture,
    ForeignModel,
    check_shapes,
    layer_counts,
    tensor_names,
)
from whisper_ft.models.conversion.ggml_blocks import BLOCK_TYPES
from whisper_ft.models.conversion.ggml_file import FLOAT16, GgmlFile, read_ggml
from whisper_ft.models.export.openai_layout import openai_name
from whisper_ft.models.generation_config import END
from whisper_ft.runtime.errors import UsageError


def read_ggml_model(path: Path) -> ForeignModel:
    """Read a ggml file. Raises UsageError with one line if it is damaged, or not a complete Whisper."""
    file = read_ggml(path)
    layers = layer_counts({*file.tensors}, lambda side: f"{side}.blocks.")
    for side, field in (("encoder", "n_audio_layer"), ("decoder", "n_text_layer")):
        if layers[side] != file.header[field]:
            raise UsageError(
                f"{path}: the header states {file.header[field]} layers in the {side}, {layers[side]} are in the file"
            )
    theirs = {name: openai_name(name) for name in tensor_names(layers["encoder"], layers["decoder"])}
    ours = {their_name: name for name, their_name in theirs.items()}
    shapes = {ours.get(name, name): _shape(name, tensor.shape) for name, tensor in file.tensors.items()}
    architecture = _architecture(file, shapes)
    check_shapes(path, architecture, shapes)

    def read(name: str) -> np.ndarray:
        with reading(path) as reader:
            return file.values(reader, theirs[name]).reshape(shapes[name])

    is_half = all(tensor.type == FLOAT16 for tensor in file.tensors.values())
    return ForeignModel(
        path,
        "whisper.cpp",
        architecture,
        torch.float16 if is_half else torch.float32,
        read,
        _before_end(file.vocabulary),
        notes=_notes(file),
    )


def _before_end(vocabulary: list[bytes]) -> list[bytes]:
    """Tokens before <|endoftext|>, which is in the files of the converter for Hugging Face models and not in others."""
    end = END.encode()
    return vocabulary[: vocabulary.index(end)] if end in vocabulary else vocabulary


def _shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape in transformers: whisper.cpp has a last axis of 1 in the biases of the convolutions."""
    return shape[:1] if name in ("encoder.conv1.bias", "encoder.conv2.bias") and shape[1:] == (1,) else shape


def _architecture(file: GgmlFile, shapes: dict[str, tuple[int, ...]]) -> Architecture:
    header = file.header
    if header["n_audio_state"] != header["n_text_state"]:
        raise UsageError(
            f"{file.path}: the encoder has the width {header['n_audio_state']}, the decoder {header['n_text_state']}"
        )
    inner = {side: shapes.get(f"model.{side}.layers.0.fc1.weight", (0,))[0] for side in ("encoder", "decoder")}
    return Architecture(
        vocab_size=header["n_vocab"],
        d_model=header["n_audio_state"],
        num_mel_bins=header["n_mels"],
        max_source_positions=header["n_audio_ctx"],
        max_target_positions=header["n_text_ctx"],
        encoder_layers=header["n_audio_layer"],
        decoder_layers=header["n_text_layer"],
        encoder_attention_heads=header["n_audio_head"],
        decoder_attention_heads=header["n_text_head"],
        encoder_ffn_dim=inner["encoder"],
        decoder_ffn_dim=inner["decoder"],
    )


def _notes(file: GgmlFile) -> tuple[str, ...]:
    """Line about the precision that quantisation lost."""
    kinds = sorted({BLOCK_TYPES[each.type].name for each in file.tensors.values() if each.type in BLOCK_TYPES})
    if not kinds:
        return ()
    return (
        f"{file.quantised} of {len(file.tensors)} tensors are quantised ({', '.join(kinds)}) and are written as "
        "float32; the rounding of the quantisation cannot be undone",
    )
