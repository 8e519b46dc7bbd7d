"""Whisper from a folder of CTranslate2, as faster-whisper uses it: model.bin, config.json and the vocabulary.

CTranslate2 stacks the rows of the query, key and value layers in one matrix, those of key and value in cross-attention.
Its int8 weights have one scale per row: weight = stored / scale.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from whisper_ft.models.conversion.byte_level import VocabularyError, bytes_of
from whisper_ft.models.conversion.byte_reader import reading
from whisper_ft.models.conversion.ctranslate2_file import Variable, read_variables
from whisper_ft.models.conversion.foreign_model import Architecture, ForeignModel, check_shapes, layer_counts
from whisper_ft.models.generation_config import END
from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.regular_file import read_regular, strict_json

WEIGHTS, CONFIG = "model.bin", "config.json"
VOCABULARIES = ("vocabulary.json", "vocabulary.txt")
MOST_JSON_BYTES = 32_000_000  # limit of a plausible vocabulary; the real ones have 1 MB
GRAPH_SETTINGS = {
    "activation": (3,),  # gelu, not its approximations
    "alibi": (0,),
    "alibi_use_positive_positions": (0,),
    "alignment_heads": (1,),
    "alignment_layer": (-1,),
    "pre_norm": (1,),
    "scale_alibi": (0,),
    "scale_embeddings": (0,),
    "start_from_zero_embedding": (0,),
}
"""Scalars of CTranslate2's graph by the last part of their name, with the values that mean Whisper's computation."""
GENERATION = {
    "alignment_heads": "alignment_heads",
    "suppress_ids": "suppress_tokens",
    "suppress_ids_begin": "begin_suppress_tokens",
}

SUPPRESSED = ("suppress_ids", "suppress_ids_begin")


class Part(NamedTuple):
    """Place of a tensor: part `place` of `parts` equal parts of the rows of a variable."""

    variable: str
    place: int = 0
    parts: int = 1


def read_ctranslate2_model(folder: Path) -> ForeignModel:
    """Read a Whisper from a folder of CTranslate2. Its weights stay in the file until they are used.

    Raises UsageError if the weights or the vocabulary are missing, if a file is damaged, or if it holds no Whisper.
    """
    path = folder / WEIGHTS
    variables = read_variables(path)
    layers = layer_counts({*variables}, lambda side: f"{side}/layer_")
    layers = {
        side: sum(f"{side}/layer_{n}/ffn/linear_0/weight" in variables for n in range(layers[side])) for side in layers
    }
    places = dict(_places(layers))
    architecture = _architecture(path, variables, layers)
    check_shapes(
        path,
        architecture,
        {name: _shape(part, variables) for name, part in places.items() if part.variable in variables},
    )
    _check_rest(path, variables, {part.variable for part in places.values()}, layers)

    def read(name: str) -> np.ndarray:
        return _values(path, variables, places[name])

    names = _vocabulary(folder, architecture.vocab_size)
    end = names.index(END) if END in names else len(names)
    try:
        vocabulary = [bytes_of(name) for name in names[:end]]
    except VocabularyError as error:
        raise UsageError(f"{folder}: its vocabulary {error}") from error
    used = [variables[part.variable] for part in places.values()]
    is_half = all(variable.type == "float16" for variable in used)
    return ForeignModel(
        path,
        "CTranslate2",
        architecture,
        torch.float16 if is_half else torch.float32,
        read,
        vocabulary,
        tuple(names[end:]),
        _generation(folder),
        _notes(variables),
    )


def _places(layers: Mapping[str, int]) -> Iterator[tuple[str, Part]]:
    """Yield each tensor of transformers with its place in the variables."""
    for conv in ("conv1", "conv2"):
        yield from _linear(f"encoder/{conv}", f"model.encoder.{conv}")
    yield "model.decoder.embed_tokens.weight", Part("decoder/embeddings/weight")
    for side, count in layers.items():
        yield f"model.{side}.embed_positions.weight", Part(f"{side}/position_encodings/encodings")
        yield from _norm(f"{side}/layer_norm", f"model.{side}.layer_norm")
        for n in range(count):
            yield from _layer(side, f"{side}/layer_{n}", f"model.{side}.layers.{n}")


def _layer(side: str, theirs: str, ours: str) -> Iterator[tuple[str, Part]]:
    yield from _linear(f"{theirs}/self_attention/linear_0", *(f"{ours}.self_attn.{x}_proj" for x in "qkv"))
    yield from _linear(f"{theirs}/self_attention/linear_1", f"{ours}.self_attn.out_proj")
    yield from _norm(f"{theirs}/self_attention/layer_norm", f"{ours}.self_attn_layer_norm")
    if side == "decoder":
        yield from _linear(f"{theirs}/attention/linear_0", f"{ours}.encoder_attn.q_proj")
        yield from _linear(f"{theirs}/attention/linear_1", *(f"{ours}.encoder_attn.{x}_proj" for x in "kv"))
        yield from _linear(f"{theirs}/attention/linear_2", f"{ours}.encoder_attn.out_proj")
        yield from _norm(f"{theirs}/attention/layer_norm", f"{ours}.encoder_attn_layer_norm")
    yield from _linear(f"{theirs}/ffn/linear_0", f"{ours}.fc1")
    yield from _linear(f"{theirs}/ffn/linear_1", f"{ours}.fc2")
    yield from _norm(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm")


def _linear(theirs: str, *ours: str) -> Iterator[tuple[str, Part]]:
    for index, name in enumerate(ours):
        yield f"{name}.weight", Part(f"{theirs}/weight", index, len(ours))
        if not name.endswith("k_proj"):  # keys of Whisper have no bias; `_check_rest` requires zeros
            yield f"{name}.bias", Part(f"{theirs}/bias", index, len(ours))


def _norm(theirs: str, ours: str) -> Iterator[tuple[str, Part]]:
    yield f"{ours}.weight", Part(f"{theirs}/gamma")
    yield f"{ours}.bias", Part(f"{theirs}/beta")


def _shape(part: Part, variables: Mapping[str, Variable]) -> tuple[int, ...]:
    shape = variables[part.variable].shape
    rows = shape[0] if shape else 0
    return (rows // part.parts if rows % part.parts == 0 else -1, *shape[1:])


def _values(path: Path, variables: Mapping[str, Variable], part: Part) -> np.ndarray:
    """Read a tensor, integers scaled back to float32."""
    variable, scales = variables[part.variable], variables.get(f"{part.variable}_scale")
    with reading(path) as reader:
        values = variable.values(reader)
        if scales is not None:
            scale = scales.values(reader).astype(np.float32)
            with np.errstate(divide="ignore", invalid="ignore"):  # what is not finite is refused by the writer
                values = values.astype(np.float32) / scale.reshape(scale.shape + (1,) * (values.ndim - scale.ndim))
    rows = len(values) // part.parts
    return values[part.place * rows : (part.place + 1) * rows]


def _architecture(path: Path, variables: Mapping[str, Variable], layers: Mapping[str, int]) -> Architecture:
    def size(name: str, axis: int) -> int:
        shape = variables[name].shape if name in variables else ()
        return shape[axis] if axis < len(shape) else 0

    heads = {side: _scalar(path, variables, f"{side}/num_heads") for side in layers}
    return Architecture(
        vocab_size=size("decoder/embeddings/weight", 0),
        d_model=size("decoder/embeddings/weight", 1),
        num_mel_bins=size("encoder/conv1/weight", 1),
        max_source_positions=size("encoder/position_encodings/encodings", 0),
        max_target_positions=size("decoder/position_encodings/encodings", 0),
        encoder_layers=layers["encoder"],
        decoder_layers=layers["decoder"],
        encoder_attention_heads=heads["encoder"],
        decoder_attention_heads=heads["decoder"],
        encoder_ffn_dim=size("encoder/layer_0/ffn/linear_0/weight", 0),
        decoder_ffn_dim=size("decoder/layer_0/ffn/linear_0/weight", 0),
    )


def _scalar(path: Path, variables: Mapping[str, Variable], name: str) -> int:
    if name not in variables or variables[name].shape:
        raise UsageError(f"{path}: {name}, a number, is missing; the file is not a whole Whisper of CTranslate2")
    with reading(path) as reader:
        return int(variables[name].values(reader))


def _check_rest(path: Path, variables: Mapping[str, Variable], used: set[str], layers: Mapping[str, int]) -> None:
    """Raise UsageError for an unknown variable, another setting, a scale that does not fit, or a key bias."""
    output, tied = variables.get("decoder/projection/weight"), variables["decoder/embeddings/weight"]
    if output is not None and output != tied:
        raise UsageError(f"{path}: the output layer is not tied to the token embeddings, as Whisper's is")
    for name, variable in variables.items():
        setting = name.rpartition("/")[2]
        if name in used or name == "decoder/projection/weight" or setting == "num_heads":
            continue
        if name.removesuffix("_scale") in used and name.endswith("_scale"):
            if variable.shape not in ((), variables[name.removesuffix("_scale")].shape[:1]):
                raise UsageError(f"{path}: {name} has the shape {variable.shape}; expected one scale for each row")
        elif name.startswith("decoder/projection/") and setting in ("weight_scale", "bias"):
            continue
        elif variable.shape or setting not in GRAPH_SETTINGS:
            raise UsageError(f"{path}: {name} is not a variable of a Whisper; the model cannot be imported")
        elif (value := _scalar(path, variables, name)) not in GRAPH_SETTINGS[setting]:
            raise UsageError(
                f"{path}: {name} is {value}, expected {GRAPH_SETTINGS[setting][0]}: not Whisper's computation"
            )
    for side, block in [
        (side, block) for side in layers for block in ("self_attention/linear_0", "attention/linear_1")
    ]:
        for n in range(layers[side]):
            if (name := f"{side}/layer_{n}/{block}/bias") in used:
                keys = Part(name, 1, 3) if block.startswith("self") else Part(name, 0, 2)
                if np.any(_values(path, variables, keys)):
                    raise UsageError(f"{path}: {name} has a bias for the keys, which Whisper has not")


def _vocabulary(folder: Path, expected: int) -> list[str]:
    """Read the names of all tokens by id."""
    path = next((folder / name for name in VOCABULARIES if (folder / name).exists()), None)
    if path is None:
        raise UsageError(f"{folder}: its vocabulary is missing; expected {' or '.join(VOCABULARIES)} beside {WEIGHTS}")
    try:
        content = read_regular(path, MOST_JSON_BYTES)
        names = strict_json(content) if path.suffix == ".json" else content.decode().removesuffix("\n").split("\n")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not a vocabulary: {error}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError(f"{path}: not a vocabulary: expected a list of texts")
    if len(names) != expected:
        raise UsageError(f"{path}: {len(names):,} tokens; the model has {expected:,}")
    return names


def _generation(folder: Path) -> dict[str, Any]:
    """Read the fields of config.json that belong to the generation config. Without the file there are none."""
    path = folder / CONFIG
    if not path.exists():
        return {}
    try:
        stated = strict_json(read_regular(path, MOST_JSON_BYTES))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not readable: {error}") from error
    if not isinstance(stated, dict):
        raise UsageError(f"{path}: expected a JSON object, found {type(stated).__name__}")
    found = {ours: stated[theirs] for theirs, ours in GENERATION.items() if stated.get(theirs) is not None}
    # null is the converter's word for a model that suppresses no tokens.
    return {GENERATION[name]: [] for name in SUPPRESSED if name in stated} | found


def _notes(variables: Mapping[str, Variable]) -> tuple[str, ...]:
    """Line about the precision that quantisation lost."""
    kinds = sorted({each.type for name, each in variables.items() if f"{name}_scale" in variables})
    if not kinds:
        return ()
    count = sum(f"{name}_scale" in variables for name in variables)
    return (
        f"{count} weight matrices are quantised ({', '.join(kinds)}) and are written as float32; the rounding of the "
        "quantisation cannot be undone",
    )
