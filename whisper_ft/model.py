"""Whisper in and out: loading with everything checked that training and decoding rely on, and exporting."""

import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor

from whisper_ft.failure import UsageError


def quiet_libraries() -> None:
    """Leave the screen to this project: no bars for loading a file, no advice about settings the user never made."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module="torch|transformers|accelerate|huggingface_hub")


def load_whisper(name: str, dropout: float | None = None) -> tuple[Any, Any]:
    """Model in float32 and its processor, from a folder or the Hub.

    Float32 always: large-v3 is stored in float16, and an optimizer on float16 weights loses small updates.
    UsageError where it cannot be loaded, or where model, feature extractor and tokenizer do not fit together.
    """
    try:
        config = WhisperConfig.from_pretrained(name)
        if config.model_type != "whisper":
            raise UsageError(f"{name}: is a {config.model_type!r} model, not Whisper")
        if dropout is not None:
            config.dropout = dropout
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = WhisperForConditionalGeneration.from_pretrained(name, config=config, dtype=torch.float32)
        processor = WhisperProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UsageError(f"{name}: cannot be loaded as a Whisper model: {' '.join(str(error).split())}") from error
    _check_parts_fit(name, model, processor)
    model.generation_config = complete_generation_config(model, processor.tokenizer)
    return model, processor


def _check_parts_fit(name: str, model: Any, processor: Any) -> None:
    extractor, tokenizer, config = processor.feature_extractor, processor.tokenizer, model.config
    if config.num_mel_bins != extractor.feature_size:
        raise UsageError(
            f"{name}: the model takes {config.num_mel_bins} mel bins, its extractor makes {extractor.feature_size}"
        )
    frames = config.max_source_positions * model.model.encoder.conv1.stride[0] * model.model.encoder.conv2.stride[0]
    if frames != extractor.nb_max_frames:
        raise UsageError(f"{name}: the model takes {frames} frames, its extractor makes {extractor.nb_max_frames}")
    if len(tokenizer) > config.vocab_size:
        raise UsageError(f"{name}: the tokenizer has {len(tokenizer)} tokens, the model {config.vocab_size}")
    if (
        config.tie_word_embeddings
        and model.proj_out.weight.data_ptr() != model.model.decoder.embed_tokens.weight.data_ptr()
    ):
        raise UsageError(f"{name}: the output projection is not tied to the embeddings, as its config says")


def complete_generation_config(model: Any, tokenizer: Any) -> GenerationConfig:
    """The model's generation config with what decoding needs, taken from the tokenizer where it is missing.

    A fresh object: one marked `_from_model_config` loses Whisper's own fields when it is saved and loaded again.
    `forced_decoder_ids` of old checkpoints is dropped; language and task say the same and are not ignored.
    """
    fields = {k: v for k, v in model.generation_config.to_dict().items() if not k.startswith("_")}
    fields.pop("forced_decoder_ids", None)
    fields.pop("transformers_version", None)
    vocabulary = tokenizer.get_vocab()
    languages = {token: vocabulary[token] for token in vocabulary if _is_language(token)}
    needed = {
        "decoder_start_token_id": vocabulary["<|startoftranscript|>"],
        "no_timestamps_token_id": vocabulary["<|notimestamps|>"],
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "max_length": model.config.max_target_positions,  # without it, 20 tokens
        "is_multilingual": bool(languages),
        "return_timestamps": False,
    }
    if languages:
        needed["lang_to_id"] = languages
        needed["task_to_id"] = {task: vocabulary[f"<|{task}|>"] for task in ("transcribe", "translate")}
    return GenerationConfig(**needed | {k: v for k, v in fields.items() if v is not None})


def _is_language(token: str) -> bool:
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    return token.startswith("<|") and token[2:-2] in LANGUAGES


def parameters_by_name(model: Any) -> dict[str, torch.nn.Parameter]:
    """Trainable parameters of the unwrapped model."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def export(model: Any, processor: Any, folder: Path, readme: str) -> None:
    """Write a folder that `from_pretrained` loads: weights, configs, processor, README."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "README.md").write_text(readme, encoding="utf-8")
