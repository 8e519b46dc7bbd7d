"""Model of a checkpoint: the model from which its run started, with the weights or the adapter of the checkpoint."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, WhisperForConditionalGeneration

from whisper_ft.checkpoint.format import is_checkpoint, verify
from whisper_ft.checkpoint.loading import load_weights
from whisper_ft.checkpoint.record import CheckpointRecord, read_record
from whisper_ft.config.evaluation import Precision
from whisper_ft.config.parse import config_from_plain
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import with_values
from whisper_ft.data.labels.languages import whisper_language
from whisper_ft.models.adapters.quantised_base import quantise
from whisper_ft.models.inference import InferenceModel, load_for_inference
from whisper_ft.models.precision import resolved_precision
from whisper_ft.models.suppression import SuppressedTokens, release, released_tokens
from whisper_ft.models.whisper import LoadedWhisper, load_whisper, weights_sha256
from whisper_ft.runtime.device_memory import memory_errors
from whisper_ft.runtime.errors import UsageError
from whisper_ft.training.run_adapter import RunAdapter


@dataclass(frozen=True)
class CheckpointModel:
    """Model of a checkpoint."""

    loaded: LoadedWhisper
    record: CheckpointRecord
    start: str
    """Folder or Hub name of the model from which the run started."""
    adapter: RunAdapter | None
    """Adapter in the model, if the run trains one."""


def load_checkpoint(
    checkpoint: Path, start: str | None = None, quantised_on: torch.device | None = None
) -> CheckpointModel:
    """Load the model of a verified checkpoint.

    Parameters
        start: model from which the run started, if it is not any more where the record says.
        quantised_on: device on which the base of an adapter is quantised as in its run. None: the base stays float.

    Raises UsageError if that model cannot be loaded, and ResumeError if the weights do not fit it.
    """
    record = read_record(checkpoint)
    base = start or _start_in(record)
    try:
        loaded = load_whisper(base)
    except UsageError as error:
        where = "name where it is now (--base; --model of checkpoint export), or take best/ of the run"
        raise UsageError(f"{error}; the run started from that model: {where}") from error
    _release_as_recorded(loaded.model, loaded.processor.tokenizer, record.config)
    if record.base is None:
        load_weights(checkpoint, loaded.model)
        return CheckpointModel(loaded, record, base, None)
    config = with_values(config_from_plain(TrainingConfig, record.config), {"model.name": base})
    if quantised_on is not None:
        precision = resolved_precision(config.precision, quantised_on)
        quantise(loaded.model, config.adapter.base, precision, quantised_on)
    adapter = RunAdapter.inject_into(loaded.model, config, lambda line: None, is_new=False)
    adapter.refuse_another_base(record, checkpoint)
    load_weights(checkpoint, loaded.model, without=adapter.base_names)
    return CheckpointModel(loaded, record, base, adapter)


def load_any_for_inference(
    path: str, precision: Precision, device: torch.device, say: Callable[[str], object], base: str | None = None
) -> InferenceModel:
    """Load a checkpoint of a run, or anything that `load_for_inference` loads, for which the parameters are.

    Raises UsageError also if the checkpoint is damaged.
    """
    if not is_checkpoint(Path(path)):
        return load_for_inference(path, precision, device, say, base)
    if problem := verify(Path(path)):
        raise UsageError(f"{path}: {problem}")
    return load_checkpoint_for_inference(Path(path), precision, device, say, base)


@memory_errors("while the checkpoint was loaded")
def load_checkpoint_for_inference(
    checkpoint: Path,
    precision: Precision,
    device: torch.device,
    say: Callable[[str], object],
    start: str | None = None,
) -> InferenceModel:
    """Load the model of a verified checkpoint as `load_for_inference` loads a folder.

    `auto` is the precision of the run. If the run trained one language, the model writes that one by default.
    """
    found = load_checkpoint(checkpoint, start, quantised_on=device)
    if precision == "auto":
        recorded: Precision = found.record.config.get("precision", "auto")
        precision = resolved_precision(recorded, device)
    say(f"precision {precision}, of the run of the checkpoint")
    model, processor = found.loaded
    if language := _language_in(found.record):
        model.generation_config.language = language
    return InferenceModel(model.to(device).eval(), processor, weights_sha256(model), precision)


def start_of(checkpoint: Path) -> str:
    """Return the folder or Hub name of the model from which the run of a checkpoint started."""
    return _start_in(read_record(checkpoint))


def _start_in(record: CheckpointRecord) -> str:
    return str(record.config["model"]["name"])


def own_language(checkpoint: Path) -> str | None:
    """Return the code of the only language that the run of a checkpoint trained; None if there are several."""
    return _language_in(read_record(checkpoint))


def _language_in(record: CheckpointRecord) -> str | None:
    languages = set(config_from_plain(TrainingConfig, record.config).data.languages)
    language = languages.pop()
    return None if languages or language is None else whisper_language(language)


def _release_as_recorded(
    model: WhisperForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, config: Mapping[str, Any]
) -> None:
    """Release the suppressed tokens that the run released (`model.suppress`). Early runs released none."""
    choice, space = config["model"].get("suppress", "keep"), config.get("labels", {}).get("leading_space", "never")
    tokens = SuppressedTokens.of(model.generation_config, tokenizer)
    release(model, released_tokens(choice, tokens, tokenizer, space))
