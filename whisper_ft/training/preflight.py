"""Checks before the start: missing files, a missing GPU, a run that cannot be resumed. Without torch."""

import glob
import os
import re
from pathlib import Path
from typing import Any

from whisper_ft.config.data import DataConfig, is_hub_name
from whisper_ft.config.evaluation import Device, EvaluationConfig
from whisper_ft.config.resume_policy import refuse_changes
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.formats.shard_names import expanded
from whisper_ft.runtime.errors import UsageError
from whisper_ft.tracking.backends.packages import refuse_missing_packages


def refuse_impossible(config: TrainingConfig) -> None:
    """UsageError for what can be known to fail without loading anything: missing files, a missing GPU, another run.

    `launch.sh` asks this once before it starts any process, so that N processes do not all say the same.
    """
    refuse_missing_data(config.data)
    if config.eval.path:
        refuse_missing("eval.path", config.eval.path)
    refuse_missing_model("model.name", config.model.name)
    refuse_missing_gpu(config.device)
    refuse_missing_packages(config.track.to)
    elsewhere = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if elsewhere not in ("no", config.precision):
        raise UsageError(
            f"accelerate was told mixed_precision={elsewhere} and this run --precision {config.precision}; "
            "leave mixed_precision at 'no' in the accelerate configuration: the loop does it"
        )
    if config.run_dir.exists() and not config.run_dir.is_dir():
        raise UsageError(f"--run_dir {config.run_dir}: is a file, a folder is needed")
    has_run = any(config.run_dir.glob("checkpoints/step-*"))  # which may be the branch that the path began
    if config.resume not in ("auto", "never", "best") and not has_run and not Path(config.resume).is_dir():
        raise UsageError(f"--resume {config.resume}: neither auto, never or best, nor the folder of a checkpoint")
    if config.resume == "auto" and (saved := saved_config(config.run_dir)):
        refuse_changes(saved, config)


def refuse_impossible_evaluation(config: EvaluationConfig) -> None:
    """UsageError for what can be known to fail before a checkpoint is scored: a missing model, data or GPU."""
    for name, path in (("predictions", config.predictions), ("compare", config.compare)):
        if path is not None and not path.is_file():
            raise UsageError(f"--{name} {path}: there is no such file; give a predictions.jsonl")
    if config.predictions is not None:
        return
    refuse_missing_model("model", model_of(config.model))
    for _, where in config.named_sets:
        refuse_missing("sets: path" if config.sets else "data.path", where.path)
    refuse_missing_gpu(config.device)


def refuse_missing_data(data: DataConfig) -> None:
    """UsageError for training data of which any is not there."""
    if not data.sources:
        refuse_missing("data.path", data.path)
    for source in data.sources:
        refuse_missing("data.sources: path", source.path)


def refuse_missing(name: str, path: str) -> None:
    """UsageError for a local path or glob that names nothing; an address with a scheme is left to its file system."""
    if not path:
        raise UsageError(
            f"--{name} is missing: a file, a folder, a glob, an address such as hf://..., or a data set on the Hub"
        )
    here = os.path.expanduser(path)
    if "://" in path or os.path.exists(here) or glob.glob(here):  # a real name may hold [ or *
        return
    if glob.glob(expanded(here)[0]):  # shards by numbers in braces, of which the first is asked for
        return
    if not is_hub_name(path):
        raise UsageError(f"--{name} {path}: there is no such file or folder")


def refuse_missing_model(name: str, path: str) -> None:
    """UsageError for an empty model name, or a local folder that is not there (`owner/name` is a name on the Hub)."""
    if not path:
        raise UsageError(f"--{name} is missing: a folder in the Hugging Face format, or a name on the Hub")
    on_hub = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path) and not path.startswith(".")
    if not Path(path).exists() and not on_hub:
        raise UsageError(f"--{name} {path}: there is no such folder")
    if Path(path).exists() and not Path(path, "config.json").exists():
        raise UsageError(f"--{name} {path}: holds no config.json, so it is not a model in the Hugging Face format")


def model_of(path: str) -> str:
    """The model that a run directory offers: the best, or the final of a run that evaluated nothing; else the path."""
    if path and not Path(path, "config.json").exists():
        for part in ("best", "final"):
            if Path(path, part, "config.json").exists():
                return str(Path(path, part))
    return path


def refuse_missing_gpu(device: Device) -> None:
    """UsageError when a GPU is asked for and there is none."""
    if device == "cuda":
        import torch  # seconds; only a user who asks for a GPU pays for it here

        if not torch.cuda.is_available():
            raise UsageError("--device cuda: torch sees no GPU here; --device auto or cpu would use the CPU")


def saved_config(run_dir: Path) -> dict[str, Any] | None:
    """The configuration that a run was last saved with; None of one without a checkpoint that tells it."""
    if not any(run_dir.glob("checkpoints/step-*")):
        return None
    from whisper_ft.checkpoint.format import newest_record

    trainer = newest_record(run_dir / "checkpoints")
    return None if trainer is None else dict(trainer["config"])
