"""Whisper models: loading, with checks of all that training and decoding rely on, and freezing of parts."""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)
from transformers.utils import is_flash_attn_2_available

from whisper_ft.config.training import ModelConfig
from whisper_ft.models.generation_config import END, complete_generation, completed_fields, stated_generation
from whisper_ft.models.tokenizer import check_merges, check_tokens, mark_special
from whisper_ft.runtime.errors import UsageError

FRAMES_PER_POSITION = 2  # log-mel frames per encoder position: the stride of the second convolution, in every Whisper
AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Number format of the computation for each value of `precision`. Weights are always float32."""
_SIZES = ("tiny", "base", "small", "medium", "tiny.en", "base.en", "small.en", "medium.en")
OPENAI_NAMES = {size: f"openai/whisper-{size}" for size in (*_SIZES, "large-v2", "large-v3", "large-v3-turbo")}
OPENAI_NAMES |= {"large-v1": "openai/whisper-large", "large": OPENAI_NAMES["large-v3"]}
OPENAI_NAMES |= {"turbo": OPENAI_NAMES["large-v3-turbo"]}
"""Names of models on the Hub, by the name that `load_model` of openai-whisper takes."""


def quiet_libraries() -> None:
    """Silence transformers and torch: no progress bars for files, and no advice about settings the user never made.

    Errors are still logged. The setting counts for the whole process.
    """
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module="torch|transformers|accelerate|huggingface_hub")


@dataclass(frozen=True)
class ModelParts:
    """Checked parts of a model other than its weights. `LabelEncoder.of` accepts them in place of a model."""

    config: WhisperConfig
    generation_config: GenerationConfig
    processor: WhisperProcessor  # tokenizer and feature extractor
    repairs: tuple[str, ...] = ()
    """One line for the user about each thing that was missing in the files and was completed."""


class LoadedWhisper(NamedTuple):
    """A model in float32 with its processor (tokenizer and feature extractor)."""

    model: WhisperForConditionalGeneration
    processor: WhisperProcessor


def load_whisper(
    name: str, training: ModelConfig | None = None, on_repair: Callable[[str], object] | None = None
) -> LoadedWhisper:
    """Load a model and its processor from a folder or the Hub.

    Weights are always float32. large-v3 is stored in float16, and an optimizer on float16 weights loses small updates.
    The encoder's positions, which are fixed sinusoids, are frozen.

    Parameters
        name: a folder, or a name on the Hub.
        training: dropout, layerdrop, attention and gradient checkpointing of the training. The model's config keeps the
            values of the checkpoint, so that an export does not carry those of the training.
        on_repair: called with one line about each thing that was missing in the files and was completed.

    Raises UsageError with one line if a part is missing or damaged, or if the parts do not fit together.
    """
    parts = load_parts(name)
    if on_repair is not None:
        for repair in parts.repairs:
            on_repair(repair)
    model = _load_weights(name, parts.config, training or ModelConfig())
    model.generation_config = parts.generation_config
    return LoadedWhisper(model, parts.processor)


def load_parts(name: str) -> ModelParts:
    """Load all parts of a model but the weights, which are gigabytes for a large model and not always needed.

    Raises the same UsageError as `load_whisper`, except for problems of the weights.
    """
    if name in OPENAI_NAMES and not Path(name).exists():
        raise UsageError(f"{name}: this is openai-whisper's name; on the Hub the model is {OPENAI_NAMES[name]}")
    with _blaming(name, "config.json"):
        stated, _ = WhisperConfig.get_config_dict(name)
        if (kind := stated.get("model_type")) != "whisper":
            raise UsageError(f"{name}: not a Whisper model: model_type in config.json is {kind!r}, not 'whisper'")
        if quantised := stated.get("quantization_config"):
            method = quantised.get("quant_method", "unknown") if isinstance(quantised, dict) else quantised
            raise UsageError(
                f"{name}: its weights are quantised (quantization_config in config.json, method {method}), and only "
                "float weights are trained and scored here; name the model from which it was made"
            )
        config = WhisperConfig.from_pretrained(name)
    with _blaming(name, "tokenizer and feature extractor"):
        processor = WhisperProcessor.from_pretrained(name)
    with _blaming(name, "generation_config.json"):
        has_file, fields = stated_generation(name, stated)
    tokenizer = processor.tokenizer
    check_tokens(name, tokenizer, {"config.json": stated, "generation_config.json": fields})
    check_merges(name, tokenizer)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = END
    marked = mark_special(tokenizer)
    _check_parts_fit(name, config, processor)
    generation_config = complete_generation(name, fields, config, tokenizer)
    repairs = []
    if marked:
        repairs.append(f"{name}: {marked} special tokens of Whisper are ordinary in the tokenizer; made special")
    if completed := completed_fields(fields, generation_config):
        problem = "generation_config.json lacks" if has_file else "there is no generation_config.json to state"
        repairs.append(f"{name}: {problem} {', '.join(completed)}; taken from the tokenizer and config.json")
    return ModelParts(config, generation_config, processor, tuple(repairs))


@contextmanager
def _blaming(name: str, part: str) -> Iterator[None]:
    """Turn every exception that a library raises for a damaged file into a UsageError of one line.

    Most of these exceptions, such as a KeyError, say nothing to a user.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # tokenizers raises bare Exceptions, safetensors its own
        kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "  # an OSError is a sentence already
        reason = " ".join(str(error).split())[:400]
        raise UsageError(f"{name}: not loadable as a Whisper model, because of its {part}: {kind}{reason}") from error


def _load_weights(name: str, own: WhisperConfig, training: ModelConfig) -> WhisperForConditionalGeneration:
    """Build the model and load all its weights.

    Raises UsageError if a weight is missing, superfluous or of another shape, if the weights are a pickle, or if
    flash-attn is wanted and not available.
    """
    if training.attention == "flash_attention_2" and not is_flash_attn_2_available():
        raise UsageError(
            "--model.attention flash_attention_2: needs a GPU and the package flash-attn; sdpa needs neither"
        )
    _refuse_adapter(name)
    _refuse_pickle(name)
    dropouts = {
        "dropout": training.dropout,
        "encoder_layerdrop": training.layerdrop,
        "decoder_layerdrop": training.layerdrop,
    }
    before = {key: getattr(own, key) for key in dropouts}
    # The layers read these values only when they are built.
    own.update({key: value for key, value in dropouts.items() if value is not None})
    with _blaming(name, "weights"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, loading = WhisperForConditionalGeneration.from_pretrained(
            name,
            config=own,
            attn_implementation=training.attention,
            generation_config=GenerationConfig(),  # else transformers reads the file, which fails for an old one
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # `_check_weights` refuses them in one line
            output_loading_info=True,
            use_safetensors=True,  # otherwise transformers would read a pickle, too
        )
    model.config.update(before)
    _check_weights(name, model, loading, is_tied=own.tie_word_embeddings)
    # OpenAI's encoder positions are fixed sinusoids. transformers builds them frozen, but from 5.0 on loads them as a
    # trainable parameter.
    model.model.encoder.embed_positions.requires_grad_(False)
    model.config.apply_spec_augment = False  # the run has its own SpecAugment, which depends on no earlier random draw
    if training.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})  # reentrant checkpointing changes the gradients
    # Whisper's `generate` prefers this field to `language` and `task`, which it may contradict after a training.
    if hasattr(model.config, "forced_decoder_ids"):
        del model.config.forced_decoder_ids
    return model


def _check_weights(
    name: str, model: WhisperForConditionalGeneration, loading: Mapping[str, Any], *, is_tied: bool
) -> None:
    """Raise UsageError unless the file held exactly the model's weights, with the output layer tied as in the config.

    `loading` is the loading info of `from_pretrained`, `is_tied` the `tie_word_embeddings` of the config.
    """
    for problem, keys in (
        ("missing", set(loading["missing_keys"]) - ({"proj_out.weight"} if is_tied else set())),
        ("unknown to the model", loading["unexpected_keys"]),
        ("of another shape", {key if isinstance(key, str) else key[0] for key in loading["mismatched_keys"]}),
    ):
        if keys:
            raise UsageError(f"{name}: {len(keys)} of its weights are {problem}, such as {min(keys)}")
    if is_tied and model.proj_out.weight.data_ptr() != model.model.decoder.embed_tokens.weight.data_ptr():
        raise UsageError(f"{name}: the output projection is not tied to the embeddings, though its config says so")


def _refuse_adapter(name: str) -> None:
    """Raise UsageError for a folder with the files of an adapter, which transformers would load beside its base."""
    if Path(name, "adapter_config.json").is_file():
        raise UsageError(f"{name}: holds an adapter_config.json, and a whole model is expected; remove that file")


def _refuse_pickle(name: str) -> None:
    """Raise UsageError for a folder that has only pickled weights, as models were saved until 2023."""
    folder = Path(name)
    if folder.is_dir() and not any(folder.glob("*.safetensors*")) and any(folder.glob("pytorch_model*.bin*")):
        raise UsageError(
            f"{name}: its weights are a pickle, which may hold a program and is not read; if you trust it, write them "
            'as safetensors once: python -c "from transformers import WhisperForConditionalGeneration as W; '
            f'W.from_pretrained({name!r}).save_pretrained({name!r})"'
        )


def freeze(model: WhisperForConditionalGeneration, parts: Sequence[str]) -> None:
    """Exclude parts from training: `encoder`, `decoder`, `embeddings`.

    `embeddings` are the token and position embeddings of the decoder, and the output layer that is tied to the token
    embeddings. `decoder` includes `embeddings`. Raises ValueError if nothing is left to train, and KeyError for any
    other part.
    """
    decoder = model.model.decoder
    modules = {
        "encoder": [model.model.encoder],
        "decoder": [decoder],
        "embeddings": [decoder.embed_tokens, decoder.embed_positions],
    }
    for part in parts:
        for module in modules[part]:
            module.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"{', '.join(parts)}: nothing is left to train")


def _check_parts_fit(name: str, config: WhisperConfig, processor: WhisperProcessor) -> None:
    """Raise UsageError if the mel bins or frames of a model differ from those of its feature extractor.

    A tokenizer with more tokens than the model raises it, too.
    """
    extractor, tokenizer = processor.feature_extractor, processor.tokenizer
    bins, frames = config.num_mel_bins, config.max_source_positions * FRAMES_PER_POSITION
    if bins != extractor.feature_size:
        raise UsageError(
            f"{name}: the model takes {bins} mel bins, its feature extractor makes {extractor.feature_size}"
        )
    if frames != extractor.nb_max_frames:
        raise UsageError(
            f"{name}: the model takes {frames} frames, its feature extractor makes {extractor.nb_max_frames}"
        )
    if len(tokenizer) > config.vocab_size:
        raise UsageError(f"{name}: the tokenizer has {len(tokenizer)} tokens, the model {config.vocab_size}")


def parameters_by_name(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Trainable parameters of the unwrapped model, by name. A tied parameter comes once, under its first name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def weights_sha256(model: torch.nn.Module) -> str:
    """Return the sha256 of all weights with their names, as hexadecimal digits.

    It does not depend on the folder in which the model lies.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()
