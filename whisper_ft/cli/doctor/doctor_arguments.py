"""Command line of the doctor. Without torch, so that --help and a refusal are quick."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from whisper_ft.config.parse import load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.runtime.errors import UsageError
from whisper_ft.training.preflight import refuse_missing, refuse_missing_data, refuse_missing_model


def arguments_of(argv: Sequence[str]) -> tuple[argparse.Namespace, TrainingConfig]:
    """The options of the doctor and the configuration of the run; UsageError for a command line that cannot work."""
    parser = argparse.ArgumentParser(
        prog="python -m whisper_ft doctor",
        description="Look through the data before any GPU time. All other arguments are settings of a run, as for "
        "train.py.",
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument("--max_rows", type=int, metavar="N", help="look at the first N training rows only")
    parser.add_argument(
        "--leakage",
        choices=("fast", "full", "none"),
        default="fast",
        help="what to compare with the held-out set: names, bytes, sentences, speakers; full: the decoded sound too",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write DIR/doctor.html")
    parser.add_argument("--fail", action="store_true", help="exit code 4 if anything stands in the way")
    try:
        own, settings = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise UsageError(f"--{(error.argument_name or '').lstrip('-')}: {error.message}") from error
    if own.max_rows is not None and own.max_rows < 1:
        raise UsageError(f"--max_rows must be at least 1, got {own.max_rows}")
    if own.out is not None and own.out.exists() and not own.out.is_dir():
        raise UsageError(f"--out {own.out}: is a file, a folder is needed")
    config = load_config(TrainingConfig, settings, "python -m whisper_ft doctor")
    refuse_missing_data(config.data)
    if config.eval.path:
        refuse_missing("eval.path", config.eval.path)
    refuse_missing_model("model.name", config.model.name)
    return own, config
