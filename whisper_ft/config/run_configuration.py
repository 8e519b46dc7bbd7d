"""Configuration of a run, as its config.yaml or the record of a checkpoint has it."""

from pathlib import Path
from typing import Any

from whisper_ft.config import yaml12
from whisper_ft.config.parse import config_from_plain, load_config
from whisper_ft.config.resume_policy import as_resumed
from whisper_ft.config.training import TrainingConfig


def saved_configuration(run: Path) -> TrainingConfig:
    """Return the configuration in the config.yaml of a run. Raises UsageError if it cannot be read.

    A setting that is newer than the file gets the value that runs had before the setting existed.
    """
    saved = run / "config.yaml"
    config = load_config(TrainingConfig, ["--config", str(saved)])
    return as_resumed(config, (), yaml12.load(saved.read_text(encoding="utf-8")))


def recorded_configuration(recorded: dict[str, Any]) -> TrainingConfig:
    """Return the configuration in the record of a checkpoint, with newer settings as in `saved_configuration`."""
    return as_resumed(config_from_plain(TrainingConfig, recorded), (), recorded)
