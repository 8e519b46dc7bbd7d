"""Export of one checkpoint: as a whole model, or as an adapter folder if its run trained an adapter."""

from pathlib import Path

from whisper_ft.checkpoint.format import MODEL
from whisper_ft.models.export.hf import config_files, export
from whisper_ft.models.precision import precision_record
from whisper_ft.training.checkpoint_model import load_checkpoint


def export_checkpoint(checkpoint: Path, start: str | None, out: Path) -> None:
    """Export a verified checkpoint as a new folder.

    Parameters
        start: model from which the run started, if it is not any more where the record says.

    Raises UsageError if that model cannot be loaded, and ResumeError if the weights do not fit it.
    """
    found = load_checkpoint(checkpoint, start)
    model, processor = found.loaded
    record, trained = found.record, found.record.config["model"]["name"]
    readme = f"at step {record.state.step}\n\nMade from {checkpoint.name} of a run that began at {trained}.\n"
    files = config_files(model, processor) | precision_record(record.config.get("precision", "fp32"))
    if found.adapter is not None:
        found.adapter.write(out, checkpoint / MODEL, files, f"# Adapter {readme}")
    else:
        export(checkpoint / MODEL, files, out, f"# Model {readme}")
