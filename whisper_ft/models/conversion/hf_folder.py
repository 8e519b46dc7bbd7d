"""Hugging Face folder from a model of another engine. Values that its file lacks are those of OpenAI's model."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from whisper_ft.checkpoint.safetensors_stream import lazy_parts
from whisper_ft.models.conversion.byte_level import VocabularyError
from whisper_ft.models.conversion.foreign_model import ForeignModel
from whisper_ft.models.conversion.hf_tokenizer import (
    build_tokenizer,
    given_merges,
    merge_texts,
    order_problem,
    special_tokens,
    suppressed_tokens,
)
from whisper_ft.models.conversion.openai_sizes import alignment_heads, size_of
from whisper_ft.models.export.hf import WEIGHTS, config_files
from whisper_ft.models.generation_config import END, ENGLISH_END, GENERATION_FIELDS, NO_TIMESTAMPS, START
from whisper_ft.models.whisper import load_parts
from whisper_ft.runtime import atomic
from whisper_ft.runtime.errors import UsageError

POSITIONS_PER_SECOND = 50  # encoder positions, 20 ms each, in every Whisper
FIRST_TIME_LIMIT = 50  # max_initial_timestamp_index of OpenAI's models: the first timestamp is at most 1 s


@dataclass
class ImportedFiles:
    """Files of a folder except for the weights, and the lines for the user about their origin."""

    files: dict[str, bytes]
    completed: dict[str, str] = field(default_factory=dict)
    """Origin of each field of the model that its file did not state."""
    notes: list[str] = field(default_factory=list)


def make_files(model: ForeignModel, given_tokenizer: Path | None = None) -> ImportedFiles:
    """Make all files of a Hugging Face folder except for the weights.

    Parameters
        given_tokenizer: a tokenizer.json beside the model, which may be missing. Its merges are only compared with
            those that the vocabulary implies.

    Raises UsageError if the vocabulary is not OpenAI's kind, or if the parts do not fit together.
    """
    made = ImportedFiles({}, notes=[*model.notes])
    tokenizer = _tokenizer(model, given_tokenizer, made)
    parts = model.architecture
    seconds, rest = divmod(parts.max_source_positions, POSITIONS_PER_SECOND)
    if rest:
        raise UsageError(f"{model.path}: {parts.max_source_positions} encoder positions; expected whole seconds of 50")
    extractor = WhisperFeatureExtractor(feature_size=parts.num_mel_bins, chunk_length=seconds)
    generation = _generation(model, tokenizer, made)
    vocabulary = tokenizer.get_vocab()
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), vocabulary[END])
    config = WhisperConfig(
        **vars(parts),
        **ends,
        decoder_start_token_id=vocabulary[START],
        num_hidden_layers=parts.encoder_layers,
        scale_embedding=False,
    )
    with torch.device("meta"):  # the structure without memory for weights
        structure = WhisperForConditionalGeneration(config).to(model.dtype)
    structure.generation_config = GenerationConfig(**generation)  # a new one: that of the config loses Whisper's fields
    made.files = _checked(model, structure, WhisperProcessor(extractor, tokenizer))
    return made


def _tokenizer(model: ForeignModel, given_tokenizer: Path | None, made: ImportedFiles) -> WhisperTokenizer:
    end, size = len(model.vocabulary), model.architecture.vocab_size
    special = [*model.special] or special_tokens(size, end)
    if special is None:
        raise UsageError(
            f"{model.path}: {end:,} tokens before {END} and {size:,} in all; expected a vocabulary of OpenAI's, with "
            "51,864, 51,865 or 51,866 tokens"
        )
    if problem := order_problem(special):
        raise UsageError(f"{model.path}: its vocabulary is not Whisper's: {problem}")
    if not model.special:
        made.completed["special tokens"] = f"OpenAI's vocabulary of {size:,} tokens"
    try:
        pairs = merge_texts(model.vocabulary)
    except VocabularyError as error:
        raise UsageError(f"{model.path}: its vocabulary {error}; no merges can be rebuilt from it") from error
    made.completed["merges"] = "rebuilt from the vocabulary, and verified"
    _compare_merges(pairs, given_tokenizer, made)
    return build_tokenizer(model.vocabulary, pairs, special, model.architecture.max_target_positions)


def _compare_merges(pairs: list[tuple[str, str]], given_tokenizer: Path | None, made: ImportedFiles) -> None:
    """Note the merges that the tokenizer.json beside the model lacks."""
    if given_tokenizer is None or not given_tokenizer.exists():
        return
    given = given_merges(given_tokenizer)
    if given is None:
        made.notes.append(f"{given_tokenizer}: not a tokenizer of byte pairs; not used")
        return
    if lost := [pair for pair in pairs if pair not in given]:
        made.notes.append(
            f"{given_tokenizer.name} beside the model lacks {len(lost)} of {len(pairs):,} merges, such as "
            f"{' '.join(lost[0])!r}; the new one has them"
        )


def _generation(model: ForeignModel, tokenizer: WhisperTokenizer, made: ImportedFiles) -> dict[str, Any]:
    """Fields of the generation config: those in the file, completed by those of OpenAI's model of that size."""
    _check_generation(model)
    vocabulary, size = tokenizer.get_vocab(), size_of(model.architecture)
    fields: dict[str, Any] = {
        "is_multilingual": vocabulary[END] != ENGLISH_END,
        "max_initial_timestamp_index": FIRST_TIME_LIMIT,
        "no_timestamps_token_id": vocabulary[NO_TIMESTAMPS],
        "prev_sot_token_id": vocabulary.get("<|startofprev|>"),
    } | dict(model.generation)
    if "suppress_tokens" not in fields:
        fields["suppress_tokens"] = suppressed_tokens(tokenizer)
        fields["begin_suppress_tokens"] = [*tokenizer.encode(" ", add_special_tokens=False), vocabulary[END]]
        made.completed["suppressed tokens"] = "OpenAI's list for this vocabulary"
    if "alignment_heads" not in fields:
        if size is not None:
            fields["alignment_heads"] = alignment_heads(size)
        made.completed["alignment heads"] = f"OpenAI's {size}" if size else "none: no model of OpenAI's has this shape"
    return {name: value for name, value in fields.items() if value is not None}


def _check_generation(model: ForeignModel) -> None:
    """Raise UsageError for an impossible value of a field, such as a token or a head that the model does not have."""
    parts = model.architecture
    for name, value in model.generation.items():
        possible = GENERATION_FIELDS[name](value)
        if possible and name == "alignment_heads":
            sizes = (parts.decoder_layers, parts.decoder_attention_heads)
            possible = all(len(head) == 2 and head[0] < sizes[0] and head[1] < sizes[1] for head in value)
        elif possible:
            possible = max(value, default=0) < parts.vocab_size
        if not possible:
            raise UsageError(f"{model.path.parent}: config.json has an impossible value of {name}: {str(value)[:60]!r}")


def _checked(
    model: ForeignModel, structure: WhisperForConditionalGeneration, processor: WhisperProcessor
) -> dict[str, bytes]:
    """Return the config files after a test in which the folder is loaded without weights, as every program does."""
    with TemporaryDirectory() as name:
        for file, content in config_files(structure, processor).items():
            (Path(name) / file).write_bytes(content)
        try:
            parts = load_parts(name)
        except UsageError as error:
            raise UsageError(f"{model.path}: {str(error).removeprefix(f'{name}: ')}") from error
    structure.generation_config = parts.generation_config
    return config_files(structure, parts.processor)


def fill_folder(model: ForeignModel, files: dict[str, bytes], folder: Path) -> None:
    """Write weights and files into an empty folder. Raises UsageError for a weight that is not finite."""
    atomic.write_parts(folder / WEIGHTS, _weights(model))
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _weights(model: ForeignModel) -> Iterator[bytes | memoryview]:
    def read(name: str) -> torch.Tensor:
        tensor = model.tensor(name)
        if not torch.isfinite(tensor).all():
            raise UsageError(f"{model.path}: {name} has values that are not finite; the file is damaged")
        return tensor

    shapes = model.architecture.shapes()
    return lazy_parts({name: (model.dtype, torch.Size(shape)) for name, shape in shapes.items()}, read)
