"""Identity of an adapter's base: a sha256 of its stored weights, and their quantisation."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from transformers.utils import cached_file

from whisper_ft.config.adapter import AdapterBase
from whisper_ft.runtime.errors import UsageError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TIED_OUTPUT = "proj_out.weight"  # the token embedding under a second name, which only some files have


@dataclass(frozen=True)
class BaseIdentity:
    """Facts by which an adapter recognises its base, as an adapter folder and a checkpoint record them."""

    name: str
    """Folder or name on the Hub from which the base was loaded. It may change."""
    sha256: str
    """`weights_identity` of the base."""
    quantisation: AdapterBase
    """Storage of the linear layers while the adapter was trained."""

    def to_json(self) -> dict[str, Any]:
        """Return the identity as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Build an identity from the values of `to_json`. Other fields are ignored; KeyError if one is missing."""
        return cls(str(fields["name"]), str(fields["sha256"]), fields["quantisation"])

    def difference(self, other: "BaseIdentity") -> str:
        """Return in words how another base differs; "" if it is the same. The name does not count."""
        if self.sha256 != other.sha256:
            return (
                f"its base had weights with the sha256 {self.sha256[:12]}, and those of {other.name} have "
                f"{other.sha256[:12]}"
            )
        if self.quantisation != other.quantisation:
            return f"its base was stored as {self.quantisation}, and is now {other.quantisation}"
        return ""


def weights_identity(name: str) -> str:
    """Return the sha256 of a model's weights as they are stored, as hexadecimal digits.

    Each tensor counts with its name, type and shape. The folder, its name and the division into files do not count, and
    neither does a second copy of the token embedding. One tensor at a time is in memory.

    `name` is a folder or a name on the Hub. Raises UsageError if it has no safetensors.
    """
    file_of = {key: path for path in weight_files(name) for key in _keys(path) if key != TIED_OUTPUT}
    digest = hashlib.sha256()
    for key, path in sorted(file_of.items()):
        with safe_open(path, "pt") as file:
            tensor: torch.Tensor = file.get_tensor(key)
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _keys(path: Path) -> list[str]:
    with safe_open(path, "pt") as file:
        return list(file.keys())


def weight_files(name: str) -> list[Path]:
    """Return the files with the weights of a model. Those of a model on the Hub are in the cache after its loading."""
    if whole := _file(name, WEIGHTS):
        return [whole]
    index = _file(name, INDEX)
    if index is None:
        raise UsageError(f"{name}: has neither {WEIGHTS} nor {INDEX}, so its weights cannot be read")
    shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    return [file for shard in shards if (file := _file(name, shard)) is not None]


def _file(name: str, file: str) -> Path | None:
    found = cached_file(name, file, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)
