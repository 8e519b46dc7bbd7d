"""Process of an engine, seen from the command: its start, and its result or the reason why there is none."""

import os
import subprocess
import sys
from pathlib import Path

import whisper_ft
from whisper_ft.cli.export.engines.__main__ import UNAVAILABLE
from whisper_ft.cli.export.engines.engine_job import EngineResult
from whisper_ft.cli.export.targets import Engine
from whisper_ft.runtime.errors import one_line
from whisper_ft.runtime.parent import LAUNCHER


class EngineUnavailableError(Exception):
    """The package of an engine cannot be imported. The text is the reason, in one line."""


class EngineFailedError(Exception):
    """An engine could not load the export, or ended during the transcription. The text is the reason, in one line."""


def run_engine(engine: Engine, folder: Path) -> EngineResult:
    """Do the job in a folder with an engine, in a process of its own, and return the result.

    The engines bring OpenMP and BLAS of their own, which do not get on in one process, and a crash of their native code
    must not end the command. Raises EngineUnavailableError or EngineFailedError.
    """
    package = str(Path(whisper_ft.__file__).parents[1])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    ended = subprocess.run(
        [sys.executable, "-m", "whisper_ft.cli.export.engines", engine.module, str(folder)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), LAUNCHER: str(os.getpid())},
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    last = one_line((ended.stderr.strip().splitlines() or ["no message"])[-1])
    if ended.returncode == UNAVAILABLE:
        raise EngineUnavailableError(last)
    if ended.returncode != 0:
        raise EngineFailedError(f"its process ended with code {ended.returncode}: {last}")
    return EngineResult.read(folder)
