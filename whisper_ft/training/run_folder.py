"""Folder of a run, seen by other programs: whether a folder is one, and the models in it. torch is not imported."""

from pathlib import Path

from whisper_ft.checkpoint.format import is_checkpoint
from whisper_ft.models.adapters.adapter_config import is_adapter
from whisper_ft.runtime.redaction import redacted

RUN_MODELS = ("best-adapter", "best", "final-adapter", "final")
"""Folders of a run with a model, in the order in which programs prefer them. An adapter comes before its merge, because
the run has scored the adapter."""


def is_run(folder: Path) -> bool:
    """Return True for a run directory. Other programs write a config.yaml, too, so a second file of a run is needed."""
    return (folder / "config.yaml").is_file() and any((folder / one).is_file() for one in ("status.json", "best.json"))


def holds_model(folder: Path) -> bool:
    """Return True for a folder with a whole model or an adapter. A checkpoint is neither."""
    return (folder / "config.json").is_file() or is_adapter(folder)


def model_of(path: str) -> str:
    """Return the folder of the model in a run directory: the first of RUN_MODELS that is there.

    Any other path, such as a model folder or a name on the Hub, is returned unchanged.
    """
    if path and not holds_model(Path(path)):
        for part in RUN_MODELS:
            if holds_model(Path(path, part)):
                return str(Path(path, part))
    return path


def public_name(model: str) -> str:
    """Return the name of a model without a path of this machine: of a folder, the last part.

    A model or a checkpoint in a run directory has the name of the run before it, such as `mine/best`.
    """
    if not Path(model).exists():
        return redacted(model)
    folder = Path(model).resolve()
    place = folder.parent if is_checkpoint(folder) else folder
    count = len(folder.parts) - len(place.parts) + 2 if is_run(place.parent) else 1
    return "/".join(folder.parts[-count:])
