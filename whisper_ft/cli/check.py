"""Check of a command line before any process is launched: `python -m whisper_ft.cli.check train.py ARGUMENTS`."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from whisper_ft.config.evaluation import EvaluationConfig
from whisper_ft.config.parse import load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.runtime.errors import UsageError
from whisper_ft.training.preflight import refuse_impossible, refuse_impossible_evaluation

NOTHING_TO_START = 100  # what `main` returns once it has shown --help: no exit code of a run


def _make_demo(config: TrainingConfig) -> int:
    """Make what the demo's configurations train on, where it is named and not there: that is made, not shipped."""
    paths = (config.model.name, config.data.path, config.eval.path, *(source.path for source in config.data.sources))
    named = [Path(path).parts[:2] for path in paths]
    if all(parts[:1] != ("demo-data",) or Path(*parts).exists() for parts in named):
        return 0
    return subprocess.call([sys.executable, "-P", "-m", "whisper_ft.demo", "--out", "demo-data"])


def main(argv: Sequence[str]) -> int:
    """Check the command line of a program before it is launched, and make the demo's data if that is what is missing.

    0: start it. 2, with the reason: it cannot work. NOTHING_TO_START: it was --help, which is told here. Programs other
    than the two of this project check themselves.
    """
    program, arguments = Path(argv[0]).resolve(), argv[1:]
    ours = program.parent == Path(__file__).resolve().parents[2]
    try:
        if ours and program.name == "train.py":
            config = load_config(TrainingConfig, arguments, program.name)
            if failed := _make_demo(config):
                return failed
            refuse_impossible(config)
        elif ours and program.name == "evaluate.py":
            refuse_impossible_evaluation(load_config(EvaluationConfig, arguments, program.name))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except SystemExit:
        return NOTHING_TO_START
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
