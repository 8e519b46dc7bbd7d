"""Checks before the start, without torch: missing files, a missing GPU, a run that cannot be resumed."""

import glob
import os
import re
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from whisper_ft.checkpoint.format import is_checkpoint, list_checkpoints, newest_record
from whisper_ft.config.adapter import AdapterConfig
from whisper_ft.config.augment import WAVEFORM
from whisper_ft.config.data import DataConfig, is_hub_name
from whisper_ft.config.evaluation import Device
from whisper_ft.config.local_paths import HUB_NAME, MODEL_PARTS, looks_local, missing_message
from whisper_ft.config.resume_policy import as_resumed, refuse_changes
from whisper_ft.config.scoring import EvaluationConfig
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.transform_values import listed
from whisper_ft.config.unevaluated import refuse_unevaluated
from whisper_ft.config.unused_settings import refuse_unused_settings
from whisper_ft.config.waveform import NOISES, ROOM, ListedTransform, transforms_in
from whisper_ft.data.formats.shard_names import expanded
from whisper_ft.models.adapters.adapter_config import ADAPTER_CONFIG, is_adapter
from whisper_ft.runtime.errors import UsageError
from whisper_ft.tracking.backends.packages import refuse_missing_packages
from whisper_ft.training.run_folder import is_run, model_of

START_MODEL = "model.name"  # setting of the model that a run starts from
OPENAI_SIZES = r"(tiny|base|small|medium)(\.en)?|large(-v[123](-turbo)?)?|turbo"
"""Names of models in openai-whisper, for which loading names the model on the Hub."""


def refuse_impossible(config: TrainingConfig, given: Mapping[str, str] = MappingProxyType({})) -> None:
    """Raise UsageError if a training run cannot succeed.

    Reasons are missing files, packages or GPU, another mixed precision in accelerate, a `--resume` without checkpoint,
    and a changed setting that a resumed run may not change. A new run may also have no setting without effect. `given`
    is what `given_settings` returns.

    launch.sh makes these checks once before it starts any process, so that an error is not printed by every process.
    """
    refuse_missing_data(config.data)
    refuse_unevaluated(config, given)
    if config.eval.path:
        refuse_missing("eval.path", config.eval.path)
    if config.anchor.path:
        refuse_missing("anchor.path", config.anchor.path)
    refuse_missing_recordings(transforms_in(config.augment.waveform, WAVEFORM))
    for number, one in enumerate(config.eval.sets):
        refuse_missing("eval.sets: path", one.path)
        refuse_missing_recordings(transforms_in(one.augment, f"eval.sets[{number}].augment"))
    if config.labels.no_speech_path:
        refuse_missing("labels.no_speech_path", config.labels.no_speech_path)
    refuse_missing_model(START_MODEL, config.model.name)
    refuse_missing_gpu(config.device)
    refuse_missing_packages(config.track.to)
    elsewhere = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if elsewhere not in ("no", config.precision):
        raise UsageError(
            f"accelerate has mixed_precision={elsewhere} and this run --precision {config.precision}; "
            "set mixed_precision to 'no' in the accelerate configuration, because the loop does it itself"
        )
    if config.run_dir.exists() and not config.run_dir.is_dir():
        raise UsageError(f"--run_dir {config.run_dir}: is a file; give a folder")
    has_run = any(
        config.run_dir.glob("checkpoints/step-*")
    )  # --resume may name the removed start of a branch of this run
    refuse_missing_adapter(config.adapter, is_new=not has_run)
    names_checkpoint = config.resume not in ("auto", "never", "best")
    if names_checkpoint and not has_run and not Path(config.resume).is_dir():
        raise UsageError(f"--resume {config.resume}: is not the folder of a checkpoint, nor auto, never or best")
    if config.resume == "never" or not (has_run or names_checkpoint):
        refuse_unused_settings(config, given)
    if config.resume == "auto" and (saved := saved_config(config.run_dir)):
        refuse_changes(saved, as_resumed(config, given, saved))


def refuse_impossible_evaluation(config: EvaluationConfig) -> None:
    """Raise UsageError if an evaluation cannot succeed: missing predictions, model, data or GPU.

    With `predictions`, only this file and the one in `compare` are checked, because nothing else is needed.
    """
    for name, path in (("predictions", config.predictions), ("compare", config.compare)):
        if path is not None and not path.is_file():
            if not path.is_dir():
                raise UsageError(f"--{name} {path}: there is no such file; give a predictions.jsonl")
            inside = sorted(path.glob("predictions.jsonl")) or sorted(path.glob("*/predictions.jsonl"))
            found = inside[0] if inside else "the predictions.jsonl that evaluate.py writes into its --out"
            raise UsageError(f"--{name} {path}: is a folder; give a file, such as {found}")
    if config.predictions is not None:
        return
    for adapter in config.adapters:
        refuse_missing_model("adapters", model_of(adapter))
    if config.model or not config.adapters:
        refuse_missing_model("model", model_of(config.model))
    if config.base is not None:
        refuse_missing_model("base", config.base)
    for number, (_, source) in enumerate(config.named_sets):
        refuse_missing("sets: path" if config.sets else "data.path", source.path)
        setting = f"sets[{number}].augment" if config.sets else "augment"
        refuse_missing_recordings(transforms_in(source.augment, setting))
    refuse_missing_gpu(config.device)


def refuse_missing_adapter(settings: AdapterConfig, *, is_new: bool) -> None:
    """Raise UsageError if a package for adapters is missing, or the folder with which one begins in a new run."""
    needed = {"peft": settings.enabled, "bitsandbytes": settings.base != "float"}
    for package in (name for name, is_needed in needed.items() if is_needed and find_spec(name) is None):
        raise UsageError(f"--adapter.kind {settings.kind}: the package {package} is missing; pip install {package}")
    if is_new and settings.init is not None and not is_adapter(settings.init):
        raise UsageError(
            f"--adapter.init {settings.init}: is no folder with an adapter; name one with {ADAPTER_CONFIG}, such as "
            "RUN/best-adapter"
        )


def refuse_missing_data(data: DataConfig) -> None:
    """Raise UsageError if a local path of the training data is missing. `refuse_missing` checks each path."""
    if not data.sources:
        refuse_missing("data.path", data.path)
    for source in data.sources:
        refuse_missing("data.sources: path", source.path)


def refuse_missing(name: str, path: str) -> None:
    """Raise UsageError if a path is empty, or a local path or glob that matches no file. `name` is its setting.

    Addresses with a scheme, such as hf://..., and names on the Hub are not checked here.
    """
    if not path:
        raise UsageError(
            f"--{name} is missing: give a file, a folder, a glob, an address such as hf://..., or a data set on the Hub"
        )
    local = os.path.expanduser(path)
    if "://" in path or os.path.exists(local) or glob.glob(local):  # a real name may contain [ or *
        return
    if glob.glob(expanded(local)[0]):  # numbered shards in braces, of which the first must exist
        return
    if not is_hub_name(path):
        is_name = HUB_NAME.fullmatch(path) and not Path(path).parent.exists()
        on_hub = f"; a data set of that name on the Hub is hf://datasets/{path}" if is_name else ""
        raise UsageError(f"--{name} {path}: {missing_message(path, 'file or folder')}{on_hub}")


def refuse_missing_recordings(transforms: Iterable[ListedTransform]) -> None:
    """Raise UsageError if a path of recordings in the transforms of a waveform matches no file."""
    for setting, path in (place for one in transforms for place in one.folders):
        local = os.path.expanduser(path)
        if not os.path.exists(local) and not glob.glob(local, recursive=True):
            names = ROOM if ".reverb." in setting else listed(NOISES)
            raise UsageError(
                f"--{setting} {path}: there is no such file or folder; give one with recordings, or {names}"
            )


def refuse_missing_model(name: str, path: str) -> None:
    """Raise UsageError if `path` is empty, or a folder that is missing or holds no model or adapter.

    `name` is its setting; empty for an argument without a name. `owner/name` is accepted, because it may be a model on
    the Hub, unless it looks like a local path. The names of openai-whisper are answered when the model is loaded.
    `model.name`, from which a run starts, must be a whole model.
    """
    if not path:
        raise UsageError(f"--{name} is missing: give a folder in the Hugging Face format, or a name on the Hub")
    given = f"--{name} {path}" if name else path
    if not Path(path).exists() and looks_local(path, MODEL_PARTS) and not re.fullmatch(OPENAI_SIZES, path):
        if re.fullmatch(f"whisper-({OPENAI_SIZES})", path):
            raise UsageError(f"{given}: there is no such folder; did you mean openai/{path}, the model on the Hub?")
        hint = "" if "/" in path else "; a model on the Hub is named owner/name, such as openai/whisper-small"
        raise UsageError(f"{given}: {missing_message(path, 'folder')}{hint}")
    if is_adapter(path):
        if name == START_MODEL:
            raise UsageError(
                f"{given}: is an adapter, and a run starts from a whole model; name its base as --{START_MODEL}, and "
                f"go on from the adapter with --adapter.kind lora --adapter.init {path}"
            )
        return
    if is_checkpoint(Path(path)):
        if name == START_MODEL:
            raise UsageError(
                f"{given}: is a checkpoint; --resume {path} continues from it, and `python -m whisper_ft checkpoint "
                f"export {path} --out DIR` makes a model of it"
            )
        return
    if Path(path).exists() and not Path(path, "config.json").exists():
        if checkpoints := list_checkpoints(Path(path)):
            raise UsageError(f"{given}: holds several checkpoints; name one, such as {checkpoints[0].path}")
        if is_run(Path(path)):
            raise UsageError(
                f"{given}: is a run without a model, because there is no best/, final/ or adapter yet; wait for its "
                f"first evaluation or its end, or take a checkpoint: python -m whisper_ft checkpoint export {path}"
            )
        raise UsageError(
            f"{given}: has no config.json and no {ADAPTER_CONFIG}, so it is no model in the Hugging Face format"
        )


def refuse_missing_gpu(device: Device) -> None:
    """Raise UsageError if a GPU is requested and torch sees none."""
    if device in ("cuda", "mps"):
        import torch  # takes seconds, which only a user who requests a GPU pays here

        is_there = torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()
        if not is_there:
            name = "GPU" if device == "cuda" else "GPU of an Apple processor"
            raise UsageError(f"--device {device}: torch sees no {name} here; use --device auto or cpu, for the CPU")


def saved_config(run_dir: Path) -> dict[str, Any] | None:
    """Read the configuration from the newest checkpoint of a run; None if no checkpoint can be read."""
    record = newest_record(run_dir / "checkpoints")
    return None if record is None else record.config
