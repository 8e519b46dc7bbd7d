"""Whisper in and out: loading with everything checked that training and decoding rely on, and exporting."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor
from transformers.models.whisper.tokenization_whisper import LANGUAGES
from transformers.utils import is_flash_attn_2_available

from whisper_ft.config.training import ModelConfig
from whisper_ft.models.generation_config import (
    END,
    NO_TIMESTAMPS,
    START,
    TASKS,
    complete_generation,
    completed,
    stated_generation,
)
from whisper_ft.runtime.errors import UsageError

RARE = ("startoflm", "startofprev", "nospeech", "nocaptions")  # the last two are one, renamed with large-v3
FRAMES_PER_POSITION = 2  # the stride of the encoder's second convolution, in every Whisper
AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What `precision` names; weights are float32 all the same."""
_SIZES = ("tiny", "base", "small", "medium", "tiny.en", "base.en", "small.en", "medium.en")
OPENAI_NAMES = {size: f"openai/whisper-{size}" for size in (*_SIZES, "large-v2", "large-v3", "large-v3-turbo")}
OPENAI_NAMES |= {"large-v1": "openai/whisper-large", "large": OPENAI_NAMES["large-v3"]}
OPENAI_NAMES |= {"turbo": OPENAI_NAMES["large-v3-turbo"]}
"""The Hub's name of what openai-whisper's `load_model` calls otherwise."""


def quiet_libraries() -> None:
    """Leave the screen to this project: no bars for loading a file, no advice about settings the user never made."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module="torch|transformers|accelerate|huggingface_hub")


@dataclass(frozen=True)
class ModelParts:
    """What a model has besides its weights, checked; `LabelEncoder.of` takes it as well as a model."""

    config: Any  # WhisperConfig
    generation_config: GenerationConfig
    processor: Any  # WhisperProcessor: tokenizer and feature extractor
    repairs: tuple[str, ...] = ()
    """What its files lacked and was completed, a line for people each."""


def load_whisper(
    name: str, training: ModelConfig | None = None, tell: Callable[[str], object] | None = None
) -> tuple[Any, Any]:
    """Model in float32 and its processor, from a folder or the Hub.

    Float32 always: large-v3 is stored in float16, and an optimizer on float16 weights loses small updates. `training`
    has the dropout and whatever else it trains with; its config keeps the checkpoint's own, so that an export is not
    marked by it. `tell` is called with a line about each thing that the files lacked and was completed. UsageError in
    one line where a part is missing or damaged, or where the parts do not fit together.
    """
    parts = load_parts(name)
    if tell is not None:
        for repair in parts.repairs:
            tell(repair)
    model = _load_weights(name, parts.config, training or ModelConfig())
    model.generation_config = parts.generation_config
    return model, parts.processor


def load_parts(name: str) -> ModelParts:
    """All but the weights, which of a large model are gigabytes that not every program needs.

    UsageError as in `load_whisper`, which has nothing more to say than what is wrong with the weights.
    """
    if name in OPENAI_NAMES and not Path(name).exists():
        raise UsageError(f"{name}: is openai-whisper's name for it, on the Hub it is {OPENAI_NAMES[name]}")
    with _blaming(name, "config.json"):
        stated, _ = WhisperConfig.get_config_dict(name)
        if stated.get("model_type") != "whisper":
            raise UsageError(f"{name}: is a {stated.get('model_type')!r} model, not Whisper")
        config = WhisperConfig.from_pretrained(name)
    with _blaming(name, "tokenizer and feature extractor"):
        processor = WhisperProcessor.from_pretrained(name)
    with _blaming(name, "generation_config.json"):
        found, told = stated_generation(name, stated)
    tokenizer = processor.tokenizer
    _check_tokens(name, tokenizer, {"config.json": stated, "generation_config.json": told})
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = END
    marked = _mark_special(tokenizer)
    _check_parts_fit(name, config, processor)
    generation_config = complete_generation(name, told, config, tokenizer)
    repairs = [f"{name}: its tokenizer takes {marked} of Whisper's special tokens for text; mended"] if marked else []
    if taken := completed(told, generation_config):
        lacks = "generation_config.json lacks" if found else "there is no generation_config.json to tell"
        repairs.append(f"{name}: {lacks} {', '.join(taken)}; taken from the tokenizer and config.json")
    return ModelParts(config, generation_config, processor, tuple(repairs))


@contextmanager
def _blaming(name: str, part: str) -> Iterator[None]:
    """Turn whatever the libraries raise at a damaged file into one line; most of it is KeyError or the like."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # tokenizers raises bare Exceptions, safetensors its own
        kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "  # those say it in words
        told = " ".join(str(error).split())[:400]
        raise UsageError(f"{name}: cannot be loaded as a Whisper model, because of its {part}: {kind}{told}") from error


def _load_weights(name: str, own: WhisperConfig, training: ModelConfig) -> Any:
    """The model with all its weights from the file; UsageError if any is missing, left over or of another shape."""
    if training.attention == "flash_attention_2" and not is_flash_attn_2_available():
        raise UsageError(
            "--model.attention flash_attention_2: needs a GPU and the package flash-attn; sdpa needs neither"
        )
    dropouts = {
        "dropout": training.dropout,
        "encoder_layerdrop": training.layerdrop,
        "decoder_layerdrop": training.layerdrop,
    }
    before = {key: getattr(own, key) for key in dropouts}
    # Read by the layers when they are made, and never again.
    own.update({key: value for key, value in dropouts.items() if value is not None})
    _refuse_pickle(name)
    with _blaming(name, "weights"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, loaded = WhisperForConditionalGeneration.from_pretrained(
            name,
            config=own,
            attn_implementation=training.attention,
            generation_config=GenerationConfig(),  # so that the file is not read: an old one may not get through
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # they are refused below, in one line
            output_loading_info=True,
            use_safetensors=True,  # no pickle is read, though its library would
        )
    model.config.update(before)
    # The encoder's positions are sinusoids, in OpenAI's model no parameter. transformers makes them fixed, and from 5.0
    # on loads them as a parameter that is trained.
    model.model.encoder.embed_positions.requires_grad_(False)
    model.config.apply_spec_augment = False  # the run has its own, which does not depend on what was drawn before
    if training.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})  # the other kind changes the gradients
    # Read before `language` and `task` by Whisper's `generate`, and at odds with them after a training.
    if hasattr(model.config, "forced_decoder_ids"):
        del model.config.forced_decoder_ids
    tied = {"proj_out.weight"} if own.tie_word_embeddings else set()
    for problem, keys in (
        ("missing", set(loaded["missing_keys"]) - tied),
        ("not the model's", loaded["unexpected_keys"]),
        ("of another shape", {key if isinstance(key, str) else key[0] for key in loaded["mismatched_keys"]}),
    ):
        if keys:
            raise UsageError(f"{name}: of its weights, {len(keys)} are {problem}, such as {min(keys)}")
    if (
        own.tie_word_embeddings
        and model.proj_out.weight.data_ptr() != model.model.decoder.embed_tokens.weight.data_ptr()
    ):
        raise UsageError(f"{name}: the output projection is not tied to the embeddings, as its config says")
    return model


def _refuse_pickle(name: str) -> None:
    """UsageError for a folder with weights in no other form than a pickle, as models were saved until 2023."""
    folder = Path(name)
    if folder.is_dir() and not any(folder.glob("*.safetensors*")) and any(folder.glob("pytorch_model*.bin*")):
        raise UsageError(
            f"{name}: its weights are a pickle, which may hold a program and is not read; if you trust it, write them "
            'as safetensors once: python -c "from transformers import WhisperForConditionalGeneration as W; '
            f'W.from_pretrained({name!r}).save_pretrained({name!r})"'
        )


def freeze(model: Any, parts: Sequence[str]) -> None:
    """Take parts out of training: `encoder`, `decoder`, `embeddings` (of the decoder: its output layer too).

    ValueError if nothing is left to train.
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


def _check_tokens(name: str, tokenizer: Any, stated: Mapping[str, Mapping[str, Any]]) -> None:
    """UsageError unless the tokenizer is a whole one with Whisper's tokens where the config files say they are."""
    vocabulary = tokenizer.get_vocab()
    if vocabulary.keys() <= tokenizer.get_added_vocab().keys():
        raise UsageError(f"{name}: has no tokenizer: tokenizer.json is missing or holds no vocabulary")
    if tokenizer.eos_token != END:
        raise UsageError(f"{name}: the tokenizer ends a text with {tokenizer.eos_token}, not with {END}")
    roles = {"decoder_start_token_id": START, "eos_token_id": END, "no_timestamps_token_id": NO_TIMESTAMPS}
    for role, token in roles.items():
        if token not in vocabulary:
            raise UsageError(f"{name}: the tokenizer has no {token}")
        for file, fields in stated.items():
            value, found = fields.get(role), vocabulary[token]
            if value not in (None, found, [found]):
                raise UsageError(f"{name}: {role} is {value} in {file}, but {token} is {found} in the tokenizer")
    for field, sign in (("lang_to_id", "{}"), ("task_to_id", "<|{}|>")):
        for key, value in (stated["generation_config.json"].get(field) or {}).items():
            token = sign.format(key)
            if vocabulary.get(token, value) != value:  # a name of the user's own may stand for any token
                raise UsageError(
                    f"{name}: {field} has {value} for {key}, but {token} is {vocabulary[token]} in the tokenizer"
                )


def _mark_special(tokenizer: Any) -> int:
    """How many of Whisper's special tokens were ordinary ones, which transcripts could hold; they are special now.

    So are all of a model without tokenizer.json, as models were saved until 2023: its added_tokens.json says no more
    than ids, and transformers 5 heeds what special_tokens_map.json says only of <|endoftext|>.
    """
    names = {END, START, NO_TIMESTAMPS, *(f"<|{name}|>" for name in (*LANGUAGES, *TASKS, *RARE))}
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    ordinary = [token.content for _, token in sorted(added.items()) if token.content in names and not token.special]
    if ordinary:
        known = [token for token in tokenizer.extra_special_tokens if token not in ordinary]
        marked = [AddedToken(token, normalized=False, special=True) for token in ordinary]
        tokenizer.add_special_tokens({"extra_special_tokens": [*known, *marked]})
    return len(ordinary)


def _check_parts_fit(name: str, config: Any, processor: Any) -> None:
    extractor, tokenizer = processor.feature_extractor, processor.tokenizer
    if config.num_mel_bins != extractor.feature_size:
        raise UsageError(
            f"{name}: the model takes {config.num_mel_bins} mel bins, its extractor makes {extractor.feature_size}"
        )
    frames = config.max_source_positions * FRAMES_PER_POSITION
    if frames != extractor.nb_max_frames:
        raise UsageError(f"{name}: the model takes {frames} frames, its extractor makes {extractor.nb_max_frames}")
    if len(tokenizer) > config.vocab_size:
        raise UsageError(f"{name}: the tokenizer has {len(tokenizer)} tokens, the model {config.vocab_size}")


def parameters_by_name(model: Any) -> dict[str, torch.nn.Parameter]:
    """Trainable parameters of the unwrapped model."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
