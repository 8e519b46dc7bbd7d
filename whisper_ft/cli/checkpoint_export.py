"""Export of one checkpoint: as a whole model, or as an adapter folder if its run trained an adapter."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, WhisperForConditionalGeneration

from whisper_ft.checkpoint.format import MODEL
from whisper_ft.checkpoint.loading import load_weights
from whisper_ft.checkpoint.record import CheckpointRecord, read_record
from whisper_ft.config.parse import config_from_plain
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import with_values
from whisper_ft.models.export.hf import config_files, export
from whisper_ft.models.precision import precision_record
from whisper_ft.models.suppression import SuppressedTokens, release, released_tokens
from whisper_ft.models.whisper import load_whisper
from whisper_ft.runtime.errors import UsageError
from whisper_ft.training.run_adapter import RunAdapter


def export_checkpoint(checkpoint: Path, start: str | None, out: Path) -> None:
    """Export a verified checkpoint as a new folder.

    Parameters
        start: model from which the run started, if it is not any more where the record says.

    Raises UsageError if that model cannot be loaded, and ResumeError if the weights do not fit it.
    """
    record = read_record(checkpoint)
    config = record.config
    trained = str(config["model"]["name"])
    try:
        model, processor = load_whisper(start or trained)
    except UsageError as error:
        raise UsageError(f"{error}; name the model the run started from, or best/ of the run: --model") from error
    _release_as_recorded(model, processor.tokenizer, config)
    readme = f"at step {record.state.step}\n\nMade from {checkpoint.name} of a run that began at {trained}.\n"
    files = config_files(model, processor) | precision_record(config.get("precision", "fp32"))
    if record.base is not None:
        adapter = _adapter_of(record, model, checkpoint, start or trained)
        adapter.write(out, checkpoint / MODEL, files, f"# Adapter {readme}")
        return
    load_weights(checkpoint, model)  # only to check that the weights fit the configuration
    export(checkpoint / MODEL, files, out, f"# Model {readme}")


def _adapter_of(
    record: CheckpointRecord, model: WhisperForConditionalGeneration, checkpoint: Path, base: str
) -> RunAdapter:
    """Return the adapter of a checkpoint, after a check that its base and its weights fit."""
    config = with_values(config_from_plain(TrainingConfig, record.config), {"model.name": base})
    adapter = RunAdapter.inject_into(model, config, lambda line: None, is_new=False)
    adapter.refuse_another_base(record, checkpoint)
    load_weights(checkpoint, model, without=adapter.base_names)
    return adapter


def _release_as_recorded(
    model: WhisperForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, config: Mapping[str, Any]
) -> None:
    """Release the suppressed tokens that the run released (`model.suppress`). Early runs released none."""
    choice, space = config["model"].get("suppress", "keep"), config.get("labels", {}).get("leading_space", "never")
    tokens = SuppressedTokens.of(model.generation_config, tokenizer)
    release(model, released_tokens(choice, tokens, tokenizer, space))
