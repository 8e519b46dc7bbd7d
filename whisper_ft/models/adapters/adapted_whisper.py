"""Whisper with an adapter: the base is found and checked, joined with the adapter without a merge, and parted again."""

import hashlib
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import is_offline_mode, snapshot_download
from transformers import WhisperForConditionalGeneration
from transformers.utils import cached_file

from whisper_ft.models.adapters.adapter_config import ADAPTER_CONFIG, is_adapter
from whisper_ft.models.adapters.adapter_folder import AdapterFolder
from whisper_ft.models.adapters.base_identity import weights_identity
from whisper_ft.models.adapters.lora import import_peft, inject
from whisper_ft.models.generation_config import complete_generation, stated_generation
from whisper_ft.models.whisper import LoadedWhisper
from whisper_ft.runtime.errors import UsageError, one_line

FILES_TO_FETCH = ["adapter_*", "*.json"]  # of an adapter on the Hub; a checkpoint of a Trainer may lie beside them


class CheckedBase(NamedTuple):
    """Base of an adapter: its folder or name on the Hub, and the sha256 of its weights."""

    name: str
    sha256: str


def checked_base(folder: AdapterFolder, base: str | None) -> CheckedBase:
    """Find the base of an adapter: `base`, or the one in the adapter's files.

    Raises UsageError if there is none, or if its weights are not those on which the adapter was trained.
    """
    name = base or folder.base
    if not name:
        raise UsageError(f"{folder.path}: its {ADAPTER_CONFIG} names no base; name the model with --base")
    if is_path(name) and not Path(name).expanduser().is_dir():
        raise UsageError(f"{folder.path}: its base {name} is not there; name its present folder with --base")
    present = weights_identity(name)
    refuse_other_base(folder, name, present)
    return CheckedBase(name, present)


def refuse_other_base(folder: AdapterFolder, name: str, sha256: str) -> None:
    """Raise UsageError if the recorded base of an adapter has other weights than the base `name` with this sha256."""
    recorded = (folder.identity or {}).get("sha256")
    if recorded not in (None, sha256):
        raise UsageError(
            f"{folder.path}: was trained on other weights than those of {name}: their sha256 is {sha256[:12]}, and "
            f"{str(recorded)[:12]} is expected; name the base of the training with --base"
        )


def is_path(name: str) -> bool:
    """Return True for the name of a folder, which cannot be a name on the Hub: owner/model or model."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def refuse_base_of_whole_model(name: str, base: str | None) -> None:
    """Raise UsageError if a base is given. The caller knows that the model `name` is no adapter."""
    if base is not None:
        raise UsageError(f"--base {base}: has no effect, because {name} is a whole model; leave it out")


def local_adapter(name: str) -> Path | None:
    """Return the folder of an adapter, downloaded if it is on the Hub; None for a whole model or an unknown name."""
    if Path(name).exists():
        return Path(name) if is_adapter(name) else None
    flags: dict[str, Any] = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_gated_repo": False}
    flags["_raise_exceptions_for_connection_errors"] = False
    try:
        found = cached_file(name, ADAPTER_CONFIG, **flags)
        if found is None or cached_file(name, "config.json", **flags) is not None:
            return None
        offline = is_offline_mode()
        return Path(snapshot_download(name, allow_patterns=FILES_TO_FETCH, local_files_only=offline))
    except (OSError, ValueError):
        return None  # the name is no model at all, which `load_whisper` reports


def attach(loaded: LoadedWhisper, folder: AdapterFolder) -> None:
    """Put an adapter into a model, beside the weights of the base, and take over its generation config.

    Raises UsageError if it does not fit the model.
    """
    peft = import_peft()
    fields = {**folder.config, "task_type": None, "inference_mode": True}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about fields of other versions of peft
            config = peft.LoraConfig.from_peft_type(**fields)
        inject(loaded.model, config, seed=0)  # the first values are replaced at once
        result = loaded.model.load_state_dict(dict(folder.tensors), strict=False)
    except (TypeError, ValueError, LookupError, RuntimeError) as error:
        raise UsageError(f"{folder.path}: does not fit its base: {one_line(error)[:300]}") from error
    if unfit := [*result.unexpected_keys, *(name for name in result.missing_keys if ".lora_" in name)]:
        raise UsageError(
            f"{folder.path}: does not fit its base, because {len(unfit)} of its weights are missing or have no place, "
            f"such as {min(unfit)}"
        )
    loaded.model.eval()
    _take_generation(loaded, folder.path)


def detach(model: WhisperForConditionalGeneration) -> None:
    """Take an adapter out of a model. The weights of the base are as they were before `attach`."""
    for name, layer in adapted_layers(model):
        model.set_submodule(name, layer.get_base_layer())
    del model.peft_config


def adapted_layers(model: WhisperForConditionalGeneration) -> list[tuple[str, Any]]:
    """Return name and module of each layer of the base that peft has replaced by one with an adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [(name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]


def adapter_sha256(folder: AdapterFolder, base_sha256: str) -> str:
    """Return the sha256 of a base with an adapter, as hexadecimal digits. It depends on no name of a folder."""
    facts = [base_sha256, folder.quantisation]
    facts += [f"{name}={folder.config.get(name)}" for name in ("lora_alpha", "use_rslora", "use_dora", "alpha_pattern")]
    digest = hashlib.sha256("\n".join(facts).encode())
    for name, tensor in sorted(folder.tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _take_generation(loaded: LoadedWhisper, folder: Path) -> None:
    """Take the generation config of the training, which may name a language, if the folder of the adapter has one."""
    has_file, fields = stated_generation(str(folder), {})
    if has_file:
        config, tokenizer = loaded.model.config, loaded.processor.tokenizer
        loaded.model.generation_config = complete_generation(str(folder), fields, config, tokenizer)
