"""Adapter of a run: its weights in the model, the identity of its base, and the folders that it is written to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import WhisperForConditionalGeneration

from whisper_ft.checkpoint.format import MODEL
from whisper_ft.checkpoint.record import CheckpointRecord
from whisper_ft.config.adapter import AdapterConfig
from whisper_ft.config.training import TrainingConfig
from whisper_ft.models.adapters.adapter_folder import AdapterFolder, read_adapter, write_adapter
from whisper_ft.models.adapters.adapter_mean import mean_adapter, mean_config, replace_weights
from whisper_ft.models.adapters.base_identity import BaseIdentity, weights_identity
from whisper_ft.models.adapters.lora import base_names, inject, lora_config, refuse_unknown_targets, size_of
from whisper_ft.runtime.errors import ResumeError, UsageError


@dataclass(frozen=True)
class RunAdapter:
    """Adapter that a run trains."""

    config: Mapping[str, Any]
    """Fields of peft's LoraConfig, with the name of the base."""
    base: BaseIdentity
    base_names: frozenset[str]
    """Names in the model's state of the weights that are not trained. A checkpoint leaves them out."""

    @classmethod
    def inject_into(
        cls,
        model: WhisperForConditionalGeneration,
        config: TrainingConfig,
        say: Callable[[str], object],
        *,
        is_new: bool,
    ) -> "RunAdapter":
        """Put the adapter of a run into its base, and report its size.

        In a new run it begins with the values in `adapter.init`, if that is set. Raises UsageError if a layer cannot
        have an adapter, or if the adapter in `adapter.init` is of another kind or base.
        """
        settings, name = config.adapter, config.model.name
        refuse_unknown_targets(model, settings)
        made = lora_config(settings, config.model.freeze)
        base = BaseIdentity(name, weights_identity(name), settings.base)
        inject(model, made, config.seed)
        say(str(size_of(model, settings)))
        if settings.init is not None and is_new:
            _begin_with(model, settings, read_adapter(Path(settings.init)), base)
            say(f"the adapter begins with the weights in {settings.init}")
        fields = made.to_dict() | {"base_model_name_or_path": name}
        return cls(fields, base, base_names(model))

    def refuse_another_base(self, record: CheckpointRecord, checkpoint: Path) -> None:
        """Raise ResumeError unless the adapter in a checkpoint was trained on this base."""
        if record.base is None:
            raise ResumeError(f"{checkpoint}: does not tell the base of its adapter; begin a run in another --run_dir")
        if difference := BaseIdentity.from_json(record.base).difference(self.base):
            raise ResumeError(
                f"{checkpoint}: {difference}. An adapter fits its own base only; restore the old one, or begin a run "
                "in another --run_dir"
            )

    def weights_in(self, model: WhisperForConditionalGeneration) -> dict[str, torch.Tensor]:
        """Return the weights of the adapter in a model, by name."""
        return {name: tensor for name, tensor in model.state_dict().items() if name not in self.base_names}

    def load_mean(self, model: WhisperForConditionalGeneration, checkpoints: Sequence[Path]) -> "RunAdapter":
        """Load the mean of the adapters in verified checkpoints into a model, and return it.

        It has their number times the rank of one.
        """
        replace_weights(model, mean_adapter([load_file(path / MODEL) for path in checkpoints]))
        return replace(self, config=mean_config(self.config, len(checkpoints)))

    def write(
        self, out: Path, weights: Path | Mapping[str, torch.Tensor], files: Mapping[str, bytes], readme: str
    ) -> None:
        """Write the adapter as a folder that peft loads, and publish it by rename.

        Parameters
            weights: weights by name, or the file of a verified checkpoint.
            files: files of an exported model by name. config.json is left out, because the folder holds no model.
        """
        kept = {name: content for name, content in files.items() if name != "config.json"}
        write_adapter(out, weights, self.config, self.base.to_json(), kept, readme)


def _begin_with(
    model: WhisperForConditionalGeneration, settings: AdapterConfig, folder: AdapterFolder, base: BaseIdentity
) -> None:
    """Copy the weights of an adapter folder into a model. Raises UsageError if they are of another kind or base."""
    kind = {"r": settings.r, "lora_alpha": settings.alpha, "use_rslora": settings.rslora, "use_dora": settings.dora}
    names = {"lora_alpha": "alpha", "use_rslora": "rslora", "use_dora": "dora"}
    for name, value in kind.items():
        if (theirs := folder.config.get(name) or False) != value:
            setting = f"adapter.{names.get(name, name)}"
            raise UsageError(f"--adapter.init {folder.path}: its {setting} is {theirs}, not {value}; set {setting}")
    if folder.identity is not None and folder.identity.get("sha256") != base.sha256:
        raise UsageError(
            f"--adapter.init {folder.path}: was trained on a base with other weights than {base.name}; name that base "
            f"in --model.name (it was {folder.base})"
        )
    own = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if different := sorted(set(own) ^ set(folder.tensors)):
        owner = "the folder" if different[0] in folder.tensors else "the model"
        raise UsageError(
            f"--adapter.init {folder.path}: has other layers than adapter.targets and model.freeze give; only {owner} "
            f"has {different[0]}"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            if parameter.shape != folder.tensors[name].shape:
                raise UsageError(f"--adapter.init {folder.path}: is of a model of another size ({name})")
            parameter.copy_(folder.tensors[name])
