"""Score a model as ./launch.sh evaluate.py does: `python -m whisper_ft evaluate --model DIR --data.path DATA`."""

import sys
from collections.abc import Sequence

from whisper_ft.cli.launch import launch_program
from whisper_ft.config.scoring import EvaluationConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Start evaluate.py in one process per GPU, and return its exit code."""
    return launch_program("evaluate", EvaluationConfig, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
