"""Adapter folder: a LoRA adapter in the files of peft, and beside them the identity of its base and its processor.

peft itself loads such a folder. Folders that peft wrote in other programs are read, too.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from whisper_ft.checkpoint.safetensors_stream import parts
from whisper_ft.config.adapter import AdapterBase
from whisper_ft.models.adapters.adapter_config import (
    ADAPTER_CONFIG,
    ADAPTER_PICKLE,
    ADAPTER_WEIGHTS,
    BASE_RECORD,
    base_name,
    read_adapter_config,
    read_base_record,
)
from whisper_ft.models.adapters.lora import ADAPTER_NAME
from whisper_ft.runtime import atomic
from whisper_ft.runtime.errors import UsageError, one_line
from whisper_ft.runtime.printable import json_text

PREFIX = "base_model.model."
"""Begin of the names in peft's files, which peft wraps twice around a model."""
_OWN = re.compile(rf"(\.lora_\w+)\.{ADAPTER_NAME}(?:(?<=magnitude_vector\.{ADAPTER_NAME})\.weight)?(?=\.|$)")
_PEFT = re.compile(r"(\.lora_(?:A|B|embedding_A|embedding_B|magnitude_vector))(?=\.|$)")


@dataclass(frozen=True)
class AdapterFolder:
    """Content of an adapter folder."""

    path: Path
    config: Mapping[str, Any]
    """Content of adapter_config.json."""
    base: str
    """Folder or Hub name of the base in adapter_config.json; "" if it names none."""
    identity: Mapping[str, Any] | None
    """Content of base.json; None for an adapter of another program."""
    tensors: Mapping[str, torch.Tensor]
    """Weights by their names in a model with the injected adapter, such as `...q_proj.lora_A.default.weight`."""

    @property
    def quantisation(self) -> AdapterBase:
        """Number format of the base in the training; float for an adapter of another program, which records none."""
        found = (self.identity or {}).get("quantisation", "float")
        if found not in get_args(AdapterBase):
            raise UsageError(
                f"{self.path / BASE_RECORD}: quantisation is {found!r}; this version knows none of that name"
            )
        return cast(AdapterBase, found)


def write_adapter(
    out: Path,
    weights: Path | Mapping[str, torch.Tensor],
    config: Mapping[str, Any],
    identity: Mapping[str, Any],
    files: Mapping[str, bytes],
    readme: str,
) -> None:
    """Write a complete adapter folder and publish it by rename. A folder that already has the name is replaced.

    Parameters
        weights: weights by their names in the model, or the safetensors file of a verified checkpoint with these names.
        config: fields of peft's LoraConfig (`to_dict()`), with the name of the base in `base_model_name_or_path`.
        identity: content of base.json.
        files: further files by name, such as generation_config.json and those of the processor.

    Raises DiskError if the folder cannot be written.
    """
    tensors = load_file(weights) if isinstance(weights, Path) else weights
    named = {peft_name(name): tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic.new_folder(out, sum(tensor.nbytes for tensor in named.values())) as aside:
        atomic.write_parts(aside / ADAPTER_WEIGHTS, parts(named))
        texts = {ADAPTER_CONFIG: _config_text(config), BASE_RECORD: json_text(dict(identity), indent=2) + "\n"}
        for name, content in {**files, **{name: text.encode() for name, text in texts.items()}}.items():
            (aside / name).write_bytes(content)
        (aside / "README.md").write_text(readme, encoding="utf-8")


def read_adapter(path: Path) -> AdapterFolder:
    """Read an adapter folder, of ours or of another program.

    Raises UsageError if a file is missing or damaged, if the weights are a pickle, or if it is no LoRA adapter.
    """
    config = read_adapter_config(path)
    weights = path / ADAPTER_WEIGHTS
    if not weights.is_file():
        raise UsageError(_no_weights(path))
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{weights}: cannot be read ({one_line(error)}); copy the adapter again") from error
    named = {own_name(name): tensor for name, tensor in tensors.items()}
    return AdapterFolder(path, config, base_name(config), read_base_record(path), named)


def peft_name(name: str) -> str:
    """Return the name that a weight of a model with an adapter has in peft's file."""
    return PREFIX + _OWN.sub(r"\1", name)


def own_name(name: str) -> str:
    """Return the name in a model with an adapter of a weight in peft's file. Weights without `lora_` keep theirs."""
    plain = _OWN.sub(r"\1", name.removeprefix(PREFIX))
    named = _PEFT.sub(rf"\1.{ADAPTER_NAME}", plain)
    return named + ".weight" * plain.endswith(".lora_magnitude_vector")


def _no_weights(path: Path) -> str:
    if not (path / ADAPTER_PICKLE).exists():
        return f"{path}: has no {ADAPTER_WEIGHTS}, so the adapter is incomplete; copy its folder again"
    return (
        f"{path}: its weights are a pickle, which may hold a program and is not read; write them as safetensors once: "
        'python -c "import torch, safetensors.torch as s; '
        f's.save_file(torch.load({str(path / ADAPTER_PICKLE)!r}, weights_only=True), {str(path / ADAPTER_WEIGHTS)!r})"'
    )


def _config_text(config: Mapping[str, Any]) -> str:
    """Return adapter_config.json. Sets become sorted lists, so that equal adapters have equal bytes.

    `auto_mapping` names the class of the model, for peft's AutoPeftModel, because `task_type` names none.
    """
    values = {name: sorted(value) if isinstance(value, set | frozenset) else value for name, value in config.items()}
    kind = {"base_model_class": "WhisperForConditionalGeneration"}
    mapping = kind | {"parent_library": "transformers.models.whisper.modeling_whisper"}
    values |= {"inference_mode": True, "auto_mapping": mapping}
    return json_text(dict(sorted(values.items())), indent=2) + "\n"
