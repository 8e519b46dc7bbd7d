"""Precision of the computation: the choice for a device, and the record beside a model that a run wrote."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import cast, get_args

import torch

from whisper_ft.config import yaml12
from whisper_ft.config.evaluation import Precision
from whisper_ft.runtime.regular_file import read_regular, strict_json

RECORD = "evaluation.json"
"""File of a model folder that says how its run evaluated the model."""
MOST_BYTES = 1 << 20  # largest file that is read for a precision; ours have a few kB
EARLY_FOLDERS = ("best", "final", "average")  # models of runs that wrote no record lie in these, beside config.yaml


def resolved_precision(precision: Precision, device: torch.device) -> Precision:
    """Return the precision itself, or in place of `auto` the one that training and evaluation choose for a device.

    The choice is bf16 on a GPU that has it, else fp16, and fp32 on any other device.
    """
    if precision != "auto":
        return precision
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def precision_record(precision: Precision) -> dict[str, bytes]:
    """Return the file that records the precision of a run's evaluations beside its models, by name."""
    return {RECORD: f"{json.dumps({'precision': precision})}\n".encode()}


def recorded_precision(model: str) -> Precision | None:
    """Return the precision in which the run of a model evaluated it; None if nothing in its folder says so.

    A model of a run of early versions has no record. The configuration of the run, one folder above, then counts.
    """
    folder = Path(model)
    found: object = None
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = strict_json(read_regular(folder / RECORD, MOST_BYTES))["precision"]
    if found is None and folder.name in EARLY_FOLDERS:
        with suppress(OSError, ValueError, KeyError, TypeError, yaml12.Error):
            text = read_regular(folder.parent / "config.yaml", MOST_BYTES).decode()
            found = yaml12.load(text)["precision"]
    return cast(Precision, found) if found in get_args(Precision) and found != "auto" else None


def evaluation_precision(
    precision: Precision, model: str, device: torch.device, say: Callable[[str], object]
) -> Precision:
    """Return the precision in which a model is scored, and report it with its reason to `say`.

    `auto` is the precision in which the run of the model evaluated it, so that the rates are those of its log. For any
    other model it is the precision that a run would choose for the device.
    """
    if precision != "auto":
        reason = "as given"
    elif recorded := recorded_precision(model):
        precision, reason = recorded, "in which the run of the model evaluated it"
    else:
        precision, reason = resolved_precision(precision, device), f"chosen for {device.type}"
    say(f"precision {precision}, {reason}")
    return precision
