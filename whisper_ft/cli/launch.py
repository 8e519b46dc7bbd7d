"""Launcher behind launch.sh: plan the launch, check the command line, then run `accelerate launch` in this process.

The command line is checked once, before any process starts. So an error in it is printed as one line, with exit code 2,
and --help is printed once. The check also makes the demo's data if it is missing.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisper_ft.runtime.errors import RunError, UsageError
from whisper_ft.runtime.exit_codes import FINISHED, INTERRUPTED
from whisper_ft.runtime.launch_plan import PACKAGE, LaunchPlan, plan_launch
from whisper_ft.runtime.machine import this_machine
from whisper_ft.runtime.printable import say

if TYPE_CHECKING:
    from whisper_ft.config.training import TrainingConfig

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("accelerate", "jsonargparse")  # the packages that this program imports first
DEMO_DATA, MADE_BY_DEMO = "demo-data", ("be", "micro-whisper")


def main(argv: Sequence[str] | None = None) -> int:
    """Launch a program, and return its exit code. `argv` is None for the arguments of this process.

    An error in the command line is one line and exit code 2. With --dry_run, the command is only printed.
    """
    try:
        _refuse_bare_python()
        plan = plan_launch(
            sys.argv[1:] if argv is None else argv,
            os.environ,
            this_machine(),
            ROOT,
            lambda text: say(f"note: {text}", file=sys.stderr),
        )
        if plan.dry_run:
            say(plan)
            return FINISHED
        _enter(plan)
        from whisper_ft.runtime.accelerate_launch import launch_and_wait, quiet_torch

        with quiet_torch():  # the check of a run that is resumed may import torch
            code = check(plan.program, plan.arguments)
        return launch_and_wait(plan.command) if code is None else code
    except RunError as error:
        say(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:  # during the check: no program was started yet
        say("stopped", file=sys.stderr)
        return INTERRUPTED


def launch_program(name: str, cls: Any, argv: Sequence[str]) -> int:
    """Launch train.py or evaluate.py of the clone that holds this package, and return the exit code.

    Parameters
        name: command and name of the program, without .py.
        cls: configuration class of the program, for --help.
        argv: arguments of the program and options of launch.sh.
    """
    from whisper_ft.config.help import help_text, is_help
    from whisper_ft.runtime.command import exit_code_of

    program = ROOT / f"{name}.py"

    def refuse() -> None:
        if (topic := is_help(argv)) is not None:
            say(*help_text(cls, f"python -m whisper_ft {name}", topic).split("\n"))
        elif not program.is_file():
            raise UsageError(
                f"{name}: {program.name} is not beside the installed package; clone the project, and there "
                "`pip install -e .` or `make setup`"
            )

    code = exit_code_of(refuse)
    if code or is_help(argv) is not None:
        return code
    root = str(ROOT)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    return main([str(program), *argv])


def _refuse_bare_python() -> None:
    """Raise UsageError if the packages of the project are not installed for this Python."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise UsageError(
            f"python here has no {missing[0]}; run `make setup` in {ROOT}, or activate an environment that has it"
        )


def _enter(plan: LaunchPlan) -> None:
    """Set the environment variables and the current folder to those of a plan.

    This has to happen before torch is imported, because torch reads some variables only once.
    """
    for name in set(os.environ) - set(plan.environment):
        del os.environ[name]
    os.environ.update(plan.environment)
    if plan.folder is not None:
        os.chdir(plan.folder)


def check(program: str, arguments: Sequence[str]) -> int | None:
    """Check the command line of a program that several processes share, and make the demo's data if it is missing.

    Returns None if the program should be started, else the exit code to end with. Raises UsageError for a command line
    that cannot work. Other programs are not checked.
    """
    try:
        if program == PACKAGE:
            {"transcribe": _check_transcription, "pseudolabel": _check_labelling}[arguments[0]](arguments[1:])
            return None
        return _check_script(Path(program).resolve(), arguments)
    except SystemExit:  # after --help
        return FINISHED


def _check_script(path: Path, arguments: Sequence[str]) -> int | None:
    """Check the arguments of train.py or evaluate.py, as `check` does. Other scripts are not checked."""
    if path.parent != ROOT or path.name not in ("train.py", "evaluate.py"):
        return None
    from whisper_ft.config.parse import given_settings, load_config
    from whisper_ft.config.scoring import EvaluationConfig
    from whisper_ft.config.training import TrainingConfig
    from whisper_ft.training.preflight import refuse_impossible, refuse_impossible_evaluation

    if path.name == "train.py":
        config = load_config(TrainingConfig, arguments, path.name)
        if code := _make_demo_data(config):
            return code
        refuse_impossible(config, given_settings(TrainingConfig, arguments))
    else:
        refuse_impossible_evaluation(load_config(EvaluationConfig, arguments, path.name))
    return None


def _check_transcription(arguments: Sequence[str]) -> None:
    from whisper_ft.cli.transcribe.transcribe_arguments import parse_arguments
    from whisper_ft.cli.transcribe.transcribe_check import checked_files

    checked_files(parse_arguments(arguments))


def _check_labelling(arguments: Sequence[str]) -> None:
    from whisper_ft.cli.pseudolabel.labelling_arguments import parse_arguments
    from whisper_ft.cli.pseudolabel.labelling_check import refuse_impossible_labelling

    refuse_impossible_labelling(parse_arguments(arguments))


def _make_demo_data(config: "TrainingConfig") -> int:
    """Make the demo's corpus and model if the configuration names them and they are missing; return the exit code."""
    paths = (config.model.name, config.data.path, config.eval.path, *(source.path for source in config.data.sources))
    made = {(DEMO_DATA, name) for name in MADE_BY_DEMO}
    if all(Path(*place).exists() for place in made & {Path(path).parts[:2] for path in paths}):
        return FINISHED
    return subprocess.call([sys.executable, "-P", "-m", "whisper_ft", "demo", "--out", DEMO_DATA])


if __name__ == "__main__":
    sys.exit(main())
