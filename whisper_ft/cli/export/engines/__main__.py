"""Process of an engine: `python -m whisper_ft.cli.export.engines MODULE FOLDER` does the job in a folder."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from whisper_ft.cli.export.engines.engine_job import EngineJob
from whisper_ft.runtime.parent import end_with_parent
from whisper_ft.runtime.printable import say

WITHOUT_TORCH = ("ctranslate2", "faster_whisper")
"""Engines that import torch only if it is there, for conversions. That takes 4 s of processor time."""
UNAVAILABLE = 69  # exit code for a package that cannot be imported; EX_UNAVAILABLE of sysexits.h


def main(argv: Sequence[str]) -> int:
    """Transcribe the clips of a job and write the result. Returns UNAVAILABLE after an ImportError of the engine."""
    end_with_parent()
    name, folder = argv[0], Path(argv[1])
    os.environ["HF_HUB_OFFLINE"] = "1"  # an export has to be complete, so nothing is fetched in place of a missing file
    job = EngineJob.read(folder)
    if name in WITHOUT_TORCH and job.device == "cpu":  # on a GPU, torch brings the libraries of CUDA
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        result = import_module(f"whisper_ft.cli.export.engines.{name}").transcribe(job)
    except ImportError as error:
        say(error, file=sys.stderr)
        return UNAVAILABLE
    result.write(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
