"""OpenAI's layout of a Whisper model: its dimensions and the names of its tensors, which several engines read."""

import re

import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from whisper_ft.models.generation_config import END, NO_TIMESTAMPS, START
from whisper_ft.models.whisper import LoadedWhisper
from whisper_ft.runtime.errors import UsageError

VOCABULARIES = {
    51864: {END: 50256, START: 50257, NO_TIMESTAMPS: 50362},
    51865: {END: 50257, START: 50258, NO_TIMESTAMPS: 50363},
    51866: {END: 50257, START: 50258, NO_TIMESTAMPS: 50364},
}
"""Ids of special tokens by the size of the vocabulary: English, 99 languages, and 100 languages (large-v3).

Engines take the ids from the size, so a model with one more token has other special tokens for them.
"""
AUDIO_POSITIONS, TEXT_POSITIONS = 1500, 448  # of a window of 30 s, and of the decoder
MEL_BINS = (80, 128)
FFN_FACTOR = 4  # width of the feed-forward layers in OpenAI's code, by the width of the model
_PARTS = {
    "layers": "blocks",
    "self_attn": "attn",
    "self_attn_layer_norm": "attn_ln",
    "encoder_attn": "cross_attn",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "final_layer_norm": "mlp_ln",
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "out_proj": "out",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    "embed_tokens": "token_embedding",
}
"""OpenAI's name of each part of a tensor's name in transformers; other parts are called the same."""


def refuse_unlike_openai(loaded: LoadedWhisper, engine: str) -> None:
    """Raise UsageError if a model differs from OpenAI's in anything that an engine takes for granted.

    That is the vocabulary, a window of 30 s, the positions of the decoder, the mel bins, and the kind of its layers.
    `engine` is the name of the engine in the message.
    """
    config, tokenizer = loaded.model.config, loaded.processor.tokenizer
    known = VOCABULARIES.get(config.vocab_size)
    if known is None:
        sizes = ", ".join(f"{size:,}" for size in VOCABULARIES)
        raise _refusal(engine, f"vocabularies of {sizes} tokens", f"{config.vocab_size:,}")
    for token, number in known.items():
        if (own := tokenizer.convert_tokens_to_ids(token)) != number:
            raise _refusal(engine, f"{token} with the id {number} in a vocabulary of this size", f"{own}")
    seconds = config.max_source_positions * 30 / AUDIO_POSITIONS
    for what, expected, value in (
        ("windows of 30 seconds", AUDIO_POSITIONS, (config.max_source_positions, f"{seconds:g} seconds")),
        (f"decoders of {TEXT_POSITIONS} positions", TEXT_POSITIONS, (config.max_target_positions,)),
        (f"feed-forward layers of {FFN_FACTOR} widths", FFN_FACTOR * config.d_model, (config.encoder_ffn_dim,)),
        (f"feed-forward layers of {FFN_FACTOR} widths", FFN_FACTOR * config.d_model, (config.decoder_ffn_dim,)),
        ("the activation gelu", "gelu", (config.activation_function,)),
        ("unscaled embeddings", False, (config.scale_embedding, "scaled ones")),
        ("a tied output layer", True, (config.tie_word_embeddings, "one of its own")),
    ):
        if value[0] != expected:
            raise _refusal(engine, what, f"{value[-1]}")
    if config.num_mel_bins not in MEL_BINS:
        raise _refusal(engine, "80 or 128 mel bins", f"{config.num_mel_bins}")


def _refusal(engine: str, takes: str, has: str) -> UsageError:
    return UsageError(f"{engine} takes {takes}, and this model has {has}; transformers takes it: --to hf")


def dimensions(config: WhisperConfig) -> dict[str, int]:
    """Return the fields of openai-whisper's `ModelDimensions`."""
    return {
        "n_mels": config.num_mel_bins,
        "n_audio_ctx": config.max_source_positions,
        "n_audio_state": config.d_model,
        "n_audio_head": config.encoder_attention_heads,
        "n_audio_layer": config.encoder_layers,
        "n_vocab": config.vocab_size,
        "n_text_ctx": config.max_target_positions,
        "n_text_state": config.d_model,
        "n_text_head": config.decoder_attention_heads,
        "n_text_layer": config.decoder_layers,
    }


def openai_name(name: str) -> str:
    """Return OpenAI's name of a tensor of transformers' Whisper.

    `model.decoder.layers.0.fc1.bias` becomes `decoder.blocks.0.mlp.0.bias`.
    """
    name = name.removeprefix("model.").replace("embed_positions.weight", "positional_embedding")
    name = re.sub(r"^encoder\.layer_norm", "encoder.ln_post", re.sub(r"^decoder\.layer_norm", "decoder.ln", name))
    return ".".join(_PARTS.get(part, part) for part in name.split("."))


def openai_tensors(model: WhisperForConditionalGeneration, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the tensors of a model by OpenAI's names, on the CPU. The output layer is left out, because it is tied."""
    return {
        openai_name(name): tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "proj_out.weight"
    }
