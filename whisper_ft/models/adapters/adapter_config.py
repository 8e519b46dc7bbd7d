"""Files of an adapter folder, and the check of its adapter_config.json, as peft writes both. torch is not imported."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.regular_file import read_regular, strict_json

ADAPTER_CONFIG, ADAPTER_WEIGHTS, ADAPTER_PICKLE = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
)
BASE_RECORD = "base.json"
"""File of our own in an adapter folder: name, sha256 and quantisation of the base."""
MOST_BYTES = 1 << 20  # largest adapter_config.json or base.json that is read; peft's has 1 to 2 kB


def is_adapter(folder: str | Path) -> bool:
    """Return True for a folder with an adapter. A whole model with a left-over adapter_config.json is no adapter."""
    place = Path(folder)
    return (place / ADAPTER_CONFIG).is_file() and not any(place.glob("model*.safetensors"))


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Read the adapter_config.json of a folder. Raises UsageError if it is damaged, or not that of a LoRA adapter."""
    config = _read_object(folder / ADAPTER_CONFIG)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UsageError(f"{folder}: is an adapter of the kind {str(kind)[:40]!r}; LORA is the only one that is read")
    return config


def read_base_record(folder: Path) -> dict[str, Any] | None:
    """Read what is recorded about the base of an adapter of ours; None for an adapter of another program.

    Raises UsageError if the file is damaged.
    """
    return _read_object(folder / BASE_RECORD) if (folder / BASE_RECORD).exists() else None


def base_name(config: Mapping[str, Any]) -> str:
    """Return the base that an adapter_config.json names: a folder or a name on the Hub; "" if it names none."""
    return str(config.get("base_model_name_or_path") or "")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        fields = strict_json(read_regular(path, MOST_BYTES))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); copy the adapter again, or export it again") from error
    if not isinstance(fields, dict):
        raise UsageError(f"{path}: expected a JSON object, found {type(fields).__name__}")
    return fields
