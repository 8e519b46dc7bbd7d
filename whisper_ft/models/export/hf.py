"""Export in the Hugging Face format: a folder with weights, configs, processor and README, for `from_pretrained`."""

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import PreTrainedModel, WhisperForConditionalGeneration, WhisperProcessor

from whisper_ft.models.export.side_files import write_side_files
from whisper_ft.models.whisper import LoadedWhisper
from whisper_ft.runtime import atomic

WEIGHTS = "model.safetensors"


def export(weights: WhisperForConditionalGeneration | Path, files: Mapping[str, bytes], out: Path, readme: str) -> None:
    """Write a complete model folder and publish it by rename. A folder that already has the name is replaced.

    `weights` is a live model, or the safetensors file of a verified checkpoint, which is copied. `files` come from
    `config_files`. Every model that this project exports is written by this function. Raises DiskError if the folder
    cannot be written.
    """
    size = weights.stat().st_size if isinstance(weights, Path) else sum(each.nbytes for each in weights.parameters())
    with atomic.new_folder(out, size) as aside:
        if isinstance(weights, Path):
            shutil.copyfile(weights, aside / WEIGHTS)
        else:
            weights.save_pretrained(aside)
        for name, content in {**files, "README.md": readme.encode()}.items():
            (aside / name).write_bytes(content)


def refuse(loaded: LoadedWhisper) -> None:
    """Refuse nothing: transformers takes every model that it has loaded. Writers of other formats refuse some."""


def write(loaded: LoadedWhisper, out: Path, quantization: str) -> None:
    """Write weights and config files into a folder. `quantization` is float32, float16 or bfloat16."""
    dtype: torch.dtype = getattr(torch, quantization)
    model = loaded.model if loaded.model.dtype == dtype else copy.deepcopy(loaded.model).to(dtype)
    model.save_pretrained(out)
    for name, content in config_files(model, loaded.processor).items():
        (out / name).write_bytes(content)


def config_files(model: WhisperForConditionalGeneration, processor: WhisperProcessor) -> dict[str, bytes]:
    """Files of an exported folder by name, without weights and README: configs, processor and the side files.

    config.json keeps the dropout of the original checkpoint, but not the deprecated `forced_decoder_ids`.
    """
    config = copy.deepcopy(model.config)
    config.architectures = [architecture_of(model)]
    config.dtype = str(model.dtype).removeprefix("torch.")
    with TemporaryDirectory() as folder:
        for part in (config, model.generation_config, processor):
            part.save_pretrained(folder)
        write_side_files(Path(folder), processor)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def architecture_of(model: PreTrainedModel) -> str:
    """Class name for config.json. It is that of transformers, even if a wrapper made a subclass."""
    return next(base.__name__ for base in type(model).__mro__ if base.__module__.startswith("transformers.models."))
