"""Export to ONNX, in two layouts: that of sherpa-onnx (folder `sherpa-onnx`) and that of transformers.js (`onnx`)."""

import base64
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import WhisperForConditionalGeneration

from whisper_ft.models.export.ggml import token_bytes
from whisper_ft.models.export.onnx_graphs import (
    CrossCacheEncoder,
    FeatureEncoder,
    FixedCacheDecoder,
    GrowingCacheDecoder,
)
from whisper_ft.models.export.onnx_merge import merge_decoders
from whisper_ft.models.export.openai_layout import dimensions, refuse_unlike_openai
from whisper_ft.models.generation_config import END, NO_TIMESTAMPS, START
from whisper_ft.models.whisper import FRAMES_PER_POSITION, LoadedWhisper

OPSET = 18  # the lowest that torch's exporter writes; sherpa-onnx 2.0 and transformers.js 3 read it
SHERPA, JS = "sherpa-onnx", "onnx"
"""Folders of the two layouts."""
NAME = "model"
"""First part of the file names for sherpa-onnx."""
INLINE_BYTES = 1_900_000_000  # a protobuf file holds at most 2 GiB; larger weights go into a file of their own


def refuse(loaded: LoadedWhisper) -> None:
    """Raise UsageError for a model that sherpa-onnx cannot take. Both layouts are for windows of 30 s."""
    refuse_unlike_openai(loaded, "sherpa-onnx")


def write(loaded: LoadedWhisper, out: Path, quantization: str) -> None:
    """Write both layouts into a folder. `quantization` is `float32` or `int8`, which covers most matrix products.

    Raises ImportError if onnx or onnxscript is not installed, or onnxruntime for int8.
    """
    is_int8 = quantization == "int8"
    with torch.no_grad():
        _write_sherpa(loaded, out / SHERPA, is_int8=is_int8)
        _write_js(loaded.model, out / JS, is_int8=is_int8)


def _write_sherpa(loaded: LoadedWhisper, folder: Path, *, is_int8: bool) -> None:
    """Write encoder, decoder and tokens, with the names and metadata that sherpa-onnx expects."""
    folder.mkdir()
    model, config = loaded.model, loaded.model.config
    mel = torch.zeros(1, config.num_mel_bins, 2 * FRAMES_PER_POSITION)
    frames = torch.export.Dim("T", min=2, max=config.max_source_positions * FRAMES_PER_POSITION)
    encoder = _export(
        CrossCacheEncoder(model), (mel,), {"mel": {2: frames}}, ["mel"], ["n_layer_cross_k", "n_layer_cross_v"]
    )
    _save(_quantised(encoder) if is_int8 else encoder, folder / f"{NAME}-encoder.onnx", sherpa_metadata(loaded))
    tokens = torch.zeros(1, 3, dtype=torch.int64)
    # A tensor that is given twice would become one input of the graph.
    caches = [torch.zeros(config.decoder_layers, 1, config.max_target_positions, config.d_model) for _ in range(2)]
    cross = [torch.zeros(config.decoder_layers, 1, 3, config.d_model) for _ in range(2)]
    count = torch.export.Dim("n_tokens", min=1, max=config.max_target_positions)
    heard = torch.export.Dim("S", min=1, max=config.max_source_positions)
    decoder = _export(
        FixedCacheDecoder(model),
        (tokens, *caches, *cross, torch.zeros(1, dtype=torch.int64)),
        {
            "tokens": {1: count},
            "self_keys": None,
            "self_values": None,
            "keys": {2: heard},
            "values": {2: heard},
            "offset": None,
        },
        [
            "tokens",
            "in_n_layer_self_k_cache",
            "in_n_layer_self_v_cache",
            "n_layer_cross_k",
            "n_layer_cross_v",
            "offset",
        ],
        ["logits", "out_n_layer_self_k_cache", "out_n_layer_self_v_cache"],
    )
    _save(_quantised(decoder) if is_int8 else decoder, folder / f"{NAME}-decoder.onnx", {})
    lines = [
        f"{base64.b64encode(token).decode()} {number}\n"
        for number, token in enumerate(token_bytes(loaded.processor.tokenizer))
        if token
    ]
    (folder / f"{NAME}-tokens.txt").write_text("".join(lines))


def sherpa_metadata(loaded: LoadedWhisper) -> dict[str, str]:
    """Return the metadata of the encoder, from which sherpa-onnx takes all sizes and special tokens."""
    config, generation, tokenizer = loaded.model.config, loaded.model.generation_config, loaded.processor.tokenizer
    ids = tokenizer.get_vocab()
    languages = dict(generation.lang_to_id) if generation.is_multilingual else {}
    start = [ids[START]]
    if languages:  # sherpa-onnx replaces language and task by those that it is asked for
        start += [languages.get("<|en|>", min(languages.values())), ids["<|transcribe|>"]]
    special = {
        "sot": ids[START],
        "sot_index": 0,
        "eot": ids[END],
        "blank_id": tokenizer.encode(" ", add_special_tokens=False)[0],
        "is_multilingual": int(bool(languages)),
        "no_speech": ids.get("<|nospeech|>", ids.get("<|nocaptions|>", 0)),
        "transcribe": ids.get("<|transcribe|>", 0),
        "translate": ids.get("<|translate|>", 0),
        "sot_prev": ids.get("<|startofprev|>", 0),
        "sot_lm": ids.get("<|startoflm|>", 0),
        "no_timestamps": ids[NO_TIMESTAMPS],
    }
    lists: dict[str, Sequence[Any]] = {
        "sot_sequence": start,
        "all_language_tokens": [*languages.values()],
        "all_language_codes": [token[2:-2] for token in languages],
        "non_speech_tokens": getattr(generation, "suppress_tokens", None) or [],
    }
    named = {"model_type": "whisper", "version": "1", "maintainer": "whisper-ft"}
    numbers = {key: str(value) for key, value in (dimensions(config) | special).items()}
    return named | numbers | {key: ",".join(map(str, values)) for key, values in lists.items()}


def _write_js(model: WhisperForConditionalGeneration, folder: Path, *, is_int8: bool) -> None:
    """Write the encoder, and the decoder with both of its passes in one graph, as transformers.js loads them."""
    folder.mkdir()
    config = model.config
    batch = torch.export.Dim("batch_size", min=1, max=1024)
    features = torch.zeros(2, config.num_mel_bins, config.max_source_positions * FRAMES_PER_POSITION)
    encoder = _export(
        FeatureEncoder(model), (features,), {"input_features": {0: batch}}, ["input_features"], ["last_hidden_state"]
    )
    passes = [_js_decoder(model, is_first=is_first) for is_first in (True, False)]
    if is_int8:
        encoder, *passes = map(_quantised, (encoder, *passes))
    ending = "_quantized.onnx" if is_int8 else ".onnx"  # as transformers.js names them
    _save(encoder, folder / f"encoder_model{ending}", {})
    _save(merge_decoders(*passes), folder / f"decoder_model_merged{ending}", {})


def _js_decoder(model: WhisperForConditionalGeneration, *, is_first: bool) -> Any:
    """Export one of the two passes of the decoder."""
    config, heads = model.config, model.config.decoder_attention_heads
    width = config.d_model // heads
    batch = torch.export.Dim("batch_size", min=1, max=1024)
    count = torch.export.Dim("sequence_length", min=1, max=config.max_target_positions)
    past_count = torch.export.Dim("past_length", min=1, max=config.max_target_positions)
    heard = torch.export.Dim("encoder_length", min=1, max=config.max_source_positions)
    parts = [
        (n, side, kind)
        for n in range(config.decoder_layers)
        for side in ("decoder", "encoder")
        for kind in ("key", "value")
    ]
    past = (
        () if is_first else tuple(torch.zeros(2, heads, 3 if side == "decoder" else 5, width) for _, side, _ in parts)
    )
    lengths = (
        () if is_first else tuple({0: batch, 2: past_count if side == "decoder" else heard} for _, side, _ in parts)
    )
    dynamic: dict[str, Any] = {"tokens": {0: batch, 1: count}, "encoded": {0: batch, 1: heard}}
    outputs = [f"present.{n}.{side}.{kind}" for n, side, kind in parts if is_first or side == "decoder"]
    inputs = [] if is_first else [f"past_key_values.{n}.{side}.{kind}" for n, side, kind in parts]
    return _export(
        GrowingCacheDecoder(model, is_first=is_first),
        (torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2, 5, config.d_model), *past),
        dynamic if is_first else dynamic | {"past": lengths},
        ["input_ids", "encoder_hidden_states", *inputs],
        ["logits", *outputs],
    )


def _export(
    module: torch.nn.Module,
    example: tuple[torch.Tensor, ...],
    dynamic: Mapping[str, Any],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> Any:
    """Return the ONNX model (`onnx.ModelProto`) of a module.

    `dynamic` holds the dimensions of each argument of `forward` that may differ from those of `example`.
    """
    with _quiet():
        program: Any = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=[*inputs],
            output_names=[*outputs],
            dynamic_shapes=dict(dynamic),
            verbose=False,
        )
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings of torch and onnxruntime in the block, which are about themselves and about other models."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _quantised(graph: Any) -> Any:
    """Return a model whose constant matrices are int8; activations are quantised while it runs."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet(), TemporaryDirectory(prefix="whisper-ft-") as folder:
        path = Path(folder) / "model.onnx"
        quantize_dynamic(graph, path, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8)
        return onnx.load(path)


def _save(graph: Any, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a model, with its weights in a second file if they are too large for one."""
    import onnx

    onnx.helper.set_model_props(graph, dict(metadata))
    if sum(len(weight.raw_data) for weight in graph.graph.initializer) <= INLINE_BYTES:
        onnx.save(graph, path)
    else:
        onnx.save(graph, path, save_as_external_data=True, location=f"{path.name}_data")
