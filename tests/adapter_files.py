"""Adapters with effect, made without a training: by our own code, and by plain peft as in popular notebooks."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import torch

from whisper_ft.config.adapter import AdapterBase
from whisper_ft.models.adapters.adapter_folder import write_adapter
from whisper_ft.models.adapters.base_identity import BaseIdentity, weights_identity
from whisper_ft.models.adapters.lora import inject
from whisper_ft.models.export.hf import config_files
from whisper_ft.models.precision import precision_record
from whisper_ft.models.whisper import load_whisper

TARGETS = ["q_proj", "v_proj", "fc1"]


def give_effect(model: torch.nn.Module, seed: int, size: float = 0.1) -> None:
    """Fill the second matrices of all adapters, which are zero in a new one, with random numbers."""
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(size * torch.randn(parameter.shape, generator=drawn))


def own_adapter(
    base: Path, out: Path, quantisation: AdapterBase = "float", seed: int = 1, size: float = 0.1, **config: Any
) -> Path:
    """An adapter folder as a run writes it, with random weights."""
    loaded = load_whisper(str(base))
    made = peft.LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": TARGETS, **config})
    files = config_files(*loaded) | precision_record("fp32")
    del files["config.json"]
    inject(loaded.model, made, seed)
    give_effect(loaded.model, seed, size)
    weights = {name: value for name, value in loaded.model.state_dict().items() if ".lora_" in name}
    fields = made.to_dict() | {"base_model_name_or_path": str(base)}
    identity = BaseIdentity(str(base), weights_identity(str(base)), quantisation).to_json()
    write_adapter(out, weights, fields, identity, files, "# Adapter\n")
    return out


def foreign_adapter(base: Path, out: Path, seed: int = 1, **config: Any) -> Path:
    """An adapter folder that peft wrote, with the task type of the popular notebooks."""
    fields = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS, "task_type": "SEQ_2_SEQ_LM", **config}
    model = peft.get_peft_model(load_whisper(str(base)).model, peft.LoraConfig(**fields))
    give_effect(model, seed)
    model.save_pretrained(str(out))
    return out


def logits_of(model: torch.nn.Module, seed: int = 0) -> torch.Tensor:
    """Logits of a model of the demo's shape on noise, in evaluation mode."""
    config: Any = model.config
    drawn = torch.Generator().manual_seed(seed)
    frames = 2 * config.max_source_positions
    features = torch.randn(2, config.num_mel_bins, frames, generator=drawn)
    tokens = torch.randint(0, config.vocab_size, (2, 7), generator=drawn)
    with torch.inference_mode():
        logits: torch.Tensor = model.eval()(input_features=features, decoder_input_ids=tokens).logits
    return logits


def hub_cache(cache: Path, models: Mapping[str, Path]) -> Path:
    """Lay folders out as huggingface_hub downloads the models me/NAME, and return the cache."""
    for name, source in models.items():
        folder = cache / f"models--me--{name}"
        shutil.copytree(source, folder / "snapshots/abc")
        (folder / "refs").mkdir()
        (folder / "refs/main").write_text("abc")
    return cache
