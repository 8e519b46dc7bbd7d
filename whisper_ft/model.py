"""Whisper in and out: loading with everything checked that training and decoding rely on, and exporting."""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import is_offline_mode
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor
from transformers.models.whisper.tokenization_whisper import LANGUAGES
from transformers.utils import cached_file, is_flash_attn_2_available

from whisper_ft.config import Model
from whisper_ft.failure import UsageError

END, START, NO_TIMESTAMPS = "<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"
TASKS = ("transcribe", "translate")
FRAMES_PER_POSITION = 2  # the stride of the encoder's second convolution, in every Whisper
AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What `precision` names; weights are float32 all the same."""
ENGLISH_END = 50256
"""Id of <|endoftext|> in OpenAI's English-only models, which have GPT-2's vocabulary; 50257 in the others."""


def quiet_libraries() -> None:
    """Leave the screen to this project: no bars for loading a file, no advice about settings the user never made."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module="torch|transformers|accelerate|huggingface_hub")


@dataclass(frozen=True)
class Parts:
    """What a model has besides its weights, checked; `LabelEncoder.of` takes it as well as a model."""

    config: Any  # WhisperConfig
    generation_config: GenerationConfig
    processor: Any  # WhisperProcessor: tokenizer and feature extractor


def load_whisper(name: str, training: Model | None = None) -> tuple[Any, Any]:
    """Model in float32 and its processor, from a folder or the Hub.

    Float32 always: large-v3 is stored in float16, and an optimizer on float16 weights loses small updates. `training`
    has the dropout and whatever else it trains with; its config keeps the checkpoint's own, so that an export is not
    marked by it. UsageError in one line where a part is missing or damaged, or where the parts do not fit together.
    """
    parts = load_parts(name)
    model = _load_weights(name, parts.config, training or Model())
    model.generation_config = parts.generation_config
    return model, parts.processor


def load_parts(name: str) -> Parts:
    """All but the weights, which of a large model are gigabytes that not every program needs.

    UsageError as in `load_whisper`, which has nothing more to say than what is wrong with the weights.
    """
    with _blaming(name, "config.json"):
        stated, _ = WhisperConfig.get_config_dict(name)
        if stated.get("model_type") != "whisper":
            raise UsageError(f"{name}: is a {stated.get('model_type')!r} model, not Whisper")
        config = WhisperConfig.from_pretrained(name)
    with _blaming(name, "tokenizer and feature extractor"):
        processor = WhisperProcessor.from_pretrained(name)
    with _blaming(name, "generation_config.json"):
        stated_generation = _stated_generation(name, stated)
    tokenizer = processor.tokenizer
    _check_tokens(name, tokenizer, {"config.json": stated, "generation_config.json": stated_generation})
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = END
    _check_parts_fit(name, config, processor)
    return Parts(config, complete_generation_config(name, stated_generation, config, tokenizer), processor)


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


def _load_weights(name: str, own: WhisperConfig, training: Model) -> Any:
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


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_id, value))


def _is_map(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_id, value.values()))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


# What Whisper's decoding needs of a generation config, and what it must look like. Anything else in the file is left
# out: thresholds and temperatures of a fallback that would make scores random, sampling and beam settings that
# contradict each other (transformers refuses to save them), `forced_decoder_ids` (language and task say the same).
GENERATION_FIELDS: dict[str, Callable[[Any], bool]] = {
    "bos_token_id": _is_id,
    "eos_token_id": _is_id,
    "pad_token_id": _is_id,
    "decoder_start_token_id": _is_id,
    "no_timestamps_token_id": _is_id,
    "prev_sot_token_id": _is_id,
    "is_multilingual": lambda value: isinstance(value, bool),
    "lang_to_id": _is_map,
    "task_to_id": _is_map,
    "language": _is_text,
    "task": _is_text,
    "suppress_tokens": _are_ids,
    "begin_suppress_tokens": _are_ids,
    "alignment_heads": lambda value: isinstance(value, list) and all(map(_are_ids, value)),
    "max_length": _is_id,
    "max_initial_timestamp_index": _is_id,
    "median_filter_width": _is_id,
}
MULTILINGUAL_FIELDS = ("lang_to_id", "task_to_id", "language", "task")


def _stated_generation(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that decoding needs, as the model's own file has them; of a model without, from its config.json.

    The file as it is: transformers answers a damaged one in silence with defaults, and an old one with an error.
    """
    path = cached_file(
        name,
        "generation_config.json",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=not is_offline_mode(),
    )
    fields = config if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(fields, Mapping):
        raise UsageError(f"{name}: generation_config.json is not a JSON object")
    stated = {field: fields[field] for field in GENERATION_FIELDS if fields.get(field) is not None}
    for field, value in stated.items():
        if field == "eos_token_id" and isinstance(value, list) and len(value) == 1:
            stated[field] = value[0]
        if not GENERATION_FIELDS[field](stated[field]):
            raise UsageError(f"{name}: generation_config.json: {field} cannot be {str(value)[:60]!r}")
    return stated


def complete_generation_config(name: str, stated: Mapping[str, Any], config: Any, tokenizer: Any) -> GenerationConfig:
    """A generation config of what a model states, and of its tokenizer where it states nothing.

    A fresh object: one marked `_from_model_config` loses Whisper's own fields when it is saved and loaded again.
    """
    vocabulary = tokenizer.get_vocab()
    derived: dict[str, Any] = {
        "decoder_start_token_id": vocabulary[START],
        "no_timestamps_token_id": vocabulary[NO_TIMESTAMPS],
        "eos_token_id": vocabulary[END],
        "pad_token_id": tokenizer.pad_token_id,
        "max_length": config.max_target_positions,  # without it, 20 tokens
    }
    languages = {f"<|{code}|>": vocabulary[f"<|{code}|>"] for code in LANGUAGES if f"<|{code}|>" in vocabulary}
    is_multilingual = _is_multilingual(stated, languages, vocabulary[END])
    if is_multilingual:
        derived["lang_to_id"] = languages
        derived["task_to_id"] = {task: vocabulary[f"<|{task}|>"] for task in TASKS if f"<|{task}|>" in vocabulary}
    fields = derived | {k: v for k, v in stated.items() if is_multilingual or k not in MULTILINGUAL_FIELDS}
    if is_multilingual and not (fields["lang_to_id"] and fields["task_to_id"]):
        raise UsageError(f"{name}: is multilingual, but neither its files nor its tokenizer name languages and tasks")
    ids = [value for field, value in fields.items() if field.endswith("_token_id")]
    ids += [number for field in ("lang_to_id", "task_to_id") for number in fields.get(field, {}).values()]
    if max(ids) >= config.vocab_size:
        raise UsageError(f"{name}: generation_config.json: no token {max(ids)}, the model has {config.vocab_size}")
    fields |= {"is_multilingual": is_multilingual, "do_sample": False, "return_timestamps": False}
    return GenerationConfig(**fields)


def _is_multilingual(stated: Mapping[str, Any], languages: Mapping[str, int], end: int) -> bool:
    """What the model says of itself; an old one that says nothing is judged by its vocabulary.

    The tokenizers of OpenAI's English-only models hold language tokens, too, which the models never learned: there
    the id of <|endoftext|> tells. Elsewhere, language tokens are there to be used.
    """
    if "is_multilingual" in stated:
        return bool(stated["is_multilingual"])
    return bool(stated.get("lang_to_id")) or (bool(languages) and end != ENGLISH_END)


def parameters_by_name(model: Any) -> dict[str, torch.nn.Parameter]:
    """Trainable parameters of the unwrapped model."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def export(model: Any, processor: Any, folder: Path, readme: str) -> None:
    """Write a folder that `from_pretrained` loads: weights, configs, processor, README.

    config.json is the checkpoint's own, with its dropout; only the deprecated `forced_decoder_ids` is gone.
    """
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "README.md").write_text(readme, encoding="utf-8")
