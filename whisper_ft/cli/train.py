"""Train as ./launch.sh does: `python -m whisper_ft train --config FILE`."""

import sys
from collections.abc import Sequence

from whisper_ft.cli.launch import launch_program
from whisper_ft.config.training import TrainingConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Start train.py in one process per GPU, and return its exit code."""
    return launch_program("train", TrainingConfig, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
