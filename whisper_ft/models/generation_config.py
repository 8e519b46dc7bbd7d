"""Generation config of a model: the fields that Whisper's decoding needs, with missing fields completed."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import is_offline_mode
from transformers import GenerationConfig, WhisperConfig, WhisperTokenizer
from transformers.models.whisper.tokenization_whisper import LANGUAGES
from transformers.utils import cached_file

from whisper_ft.runtime.errors import UsageError

END, START, NO_TIMESTAMPS = "<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"
TASKS = ("transcribe", "translate")
ENGLISH_END = 50256
"""Id of <|endoftext|> in OpenAI's English-only models, which have GPT-2's vocabulary. Other models have 50257."""


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_ids(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_id, value))


def _is_map(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_id, value.values()))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


# Fields of a generation config that Whisper's decoding needs, each with the check of its value. All
# others are left out:
# - thresholds and temperatures of the fallback, because they would make scores random;
# - sampling and beam settings that contradict each other, because transformers refuses to save them;
# - `forced_decoder_ids`, because language and task say the same.
GENERATION_FIELDS: dict[str, Callable[[object], bool]] = {
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
COMPLETED_FIELDS = (
    "is_multilingual",
    "lang_to_id",
    "task_to_id",
    "decoder_start_token_id",
    "no_timestamps_token_id",
    "eos_token_id",
    "pad_token_id",
    "max_length",
)
MULTILINGUAL_FIELDS = ("lang_to_id", "task_to_id", "language", "task")


def stated_generation(name: str, config: Mapping[str, Any]) -> tuple[bool, dict[str, Any]]:
    """Read the fields that decoding needs from a model's files, and tell if they are those of generation_config.json.

    Returns True and the fields of generation_config.json, or False and the fields of `config` (config.json) if there is
    no such file. Only fields in GENERATION_FIELDS with a value are returned. The file is read here and not by
    transformers, which silently replaces a damaged file by defaults and refuses an old file.

    Raises UsageError if the file is not a JSON object, or if a field has an impossible value. A file that is not JSON
    raises ValueError, and one that cannot be fetched raises OSError.
    """
    path = cached_file(
        name,
        "generation_config.json",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=not is_offline_mode(),
    )
    fields = config if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(fields, Mapping):
        raise UsageError(f"{name}: generation_config.json: expected a JSON object, found {type(fields).__name__}")
    stated = {field: fields[field] for field in GENERATION_FIELDS if fields.get(field) is not None}
    for field, value in stated.items():
        if field == "eos_token_id" and isinstance(value, list) and len(value) == 1:
            stated[field] = value[0]
        if not GENERATION_FIELDS[field](stated[field]):
            raise UsageError(f"{name}: generation_config.json: impossible value of {field}: {str(value)[:60]!r}")
    return path is not None, stated


def complete_generation(
    name: str, stated: Mapping[str, Any], config: WhisperConfig, tokenizer: WhisperTokenizer
) -> GenerationConfig:
    """Build a generation config from the stated fields, and complete missing fields from tokenizer and config.

    The fields of languages and tasks are left out for an English-only model. The config is a new object, because one
    marked `_from_model_config` loses Whisper's own fields when it is saved and loaded. Raises UsageError if languages
    or tasks of a multilingual model are unknown, or an id is outside the vocabulary.
    """
    vocabulary = tokenizer.get_vocab()
    derived: dict[str, Any] = {
        "decoder_start_token_id": vocabulary[START],
        "no_timestamps_token_id": vocabulary[NO_TIMESTAMPS],
        "eos_token_id": vocabulary[END],
        "pad_token_id": tokenizer.pad_token_id,
        "max_length": config.max_target_positions,  # otherwise generation stops after 20 tokens
    }
    languages = {f"<|{code}|>": vocabulary[f"<|{code}|>"] for code in LANGUAGES if f"<|{code}|>" in vocabulary}
    is_multilingual = _is_multilingual(stated, languages, vocabulary[END])
    if is_multilingual:
        derived["lang_to_id"] = languages
        derived["task_to_id"] = {task: vocabulary[f"<|{task}|>"] for task in TASKS if f"<|{task}|>" in vocabulary}
    fields = derived | {k: v for k, v in stated.items() if is_multilingual or k not in MULTILINGUAL_FIELDS}
    if is_multilingual and not (fields["lang_to_id"] and fields["task_to_id"]):
        raise UsageError(
            f"{name}: the model is multilingual, but neither its files nor its tokenizer name languages and tasks"
        )
    ids = [value for field, value in fields.items() if field.endswith("_token_id")]
    ids += [number for field in ("lang_to_id", "task_to_id") for number in fields.get(field, {}).values()]
    if max(ids) >= config.vocab_size:
        raise UsageError(
            f"{name}: generation_config.json has the id {max(ids)}, but the model has {config.vocab_size} tokens"
        )
    fields |= {"is_multilingual": is_multilingual, "do_sample": False, "return_timestamps": False}
    return GenerationConfig(**fields)


def completed_fields(stated: Mapping[str, Any], complete: GenerationConfig) -> list[str]:
    """Names of the fields in COMPLETED_FIELDS that were completed because they were not stated, for a message.

    The value is added to `is_multilingual`, and the number of languages to `lang_to_id`.
    """
    names = [field for field in COMPLETED_FIELDS if field not in stated and hasattr(complete, field)]
    values = {"is_multilingual": f" ({'true' if complete.is_multilingual else 'false'})"}
    if "lang_to_id" in names:
        values["lang_to_id"] = f" ({len(complete.lang_to_id)} languages)"
    return [name + values.get(name, "") for name in names]


def _is_multilingual(stated: Mapping[str, Any], languages: Mapping[str, int], end: int) -> bool:
    """True if the model says that it is multilingual; an old model that does not say is judged by its vocabulary.

    The tokenizers of OpenAI's English-only models hold language tokens, too, which those models never learned. Such a
    tokenizer is recognised by the id of <|endoftext|>. In any other vocabulary, language tokens mean a multilingual
    model.
    """
    if "is_multilingual" in stated:
        return bool(stated["is_multilingual"])
    return bool(stated.get("lang_to_id")) or (bool(languages) and end != ENGLISH_END)
