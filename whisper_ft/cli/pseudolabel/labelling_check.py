"""Check of a labelling before the start, without torch: missing files or GPU, and held-out sets that were learned."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from whisper_ft.cli.prepare.conversion import refuse_out_within
from whisper_ft.config import yaml12
from whisper_ft.config.data import SourceConfig
from whisper_ft.config.pseudolabel import PseudolabelConfig
from whisper_ft.runtime.errors import UsageError
from whisper_ft.training.preflight import refuse_missing, refuse_missing_gpu, refuse_missing_model
from whisper_ft.training.run_folder import is_run, model_of

MODEL_DEPTH = 3
"""Folders from that of a checkpoint's model up to its run: RUN/checkpoints/step-00001000."""


def refuse_impossible_labelling(config: PseudolabelConfig) -> list[str]:
    """Raise UsageError if a labelling cannot succeed, and return lines for the user.

    A model that was trained on a held-out set is refused, as far as its run directory tells.
    """
    refuse_missing("data.path", config.data.path)
    if config.out is not None:
        refuse_out_within(config.data.path, config.out)
    for one in config.held_out:
        refuse_missing("held_out", one.path)
    if config.keep_from is not None:
        return []
    if not config.model:
        raise UsageError("MODEL is missing: give a run directory, a folder of a model, or a name on the Hub")
    lines = []
    for name, model in (("model", config.model), ("second", config.second)):
        if model is None:
            continue
        refuse_missing_model(name, model_of(model))
        trained = [*_trained_on(Path(model))]
        for one in config.held_out:
            if _place(one) in trained:
                raise UsageError(
                    f"--held_out {one.path}: the model {model} was trained on it; name sets that no model has learned"
                )
        if name == "model" and _place(config.data) in trained:
            lines.append(
                f"warning: {model} was trained on {config.data.path}: its texts repeat the labels that it learned, and "
                "its confidence says little"
            )
    if config.base is not None:
        refuse_missing_model("base", config.base)
    refuse_missing_gpu(config.device)
    return lines


def _place(where: SourceConfig | Mapping[str, Any]) -> tuple[str, str | None, str | None]:
    """Return the real path of a set, its split and its configuration."""
    if isinstance(where, SourceConfig):
        where = vars(where)
    path = str(where.get("path") or "")
    local = os.path.expanduser(path)
    is_local = "://" not in path and os.path.exists(local)
    return os.path.realpath(local) if is_local else path, where.get("split"), where.get("config_name")


def _trained_on(model: Path) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield the places of the training data of a model, if it is in a run directory; nothing else is known."""
    folders = [model, *model.absolute().parents][:MODEL_DEPTH]
    run = next((one for one in folders if is_run(one)), None)
    if run is None:
        return
    try:
        data = yaml12.load((run / "config.yaml").read_text(encoding="utf-8"))["data"]
        sources = data.get("sources") or [data]
    except (OSError, UnicodeDecodeError, yaml12.Error, KeyError, TypeError, AttributeError):
        return
    yield from (_place(source) for source in sources if isinstance(source, dict) and source.get("path"))
