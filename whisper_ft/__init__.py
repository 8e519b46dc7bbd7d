"""Fine-tuning of Whisper: the plumbing of train.py and evaluate.py, one wing a folder (docs/house.md)."""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

COMMANDS = ("checkpoint", "demo", "doctor", "plot", "prepare", "publish", "replay")


class OldCommandNames:
    """Import finder that keeps `python -m whisper_ft.COMMAND` valid: COMMAND lives in `whisper_ft.cli`.

    `whisper_ft.checkpoint` is a wing as well as a command, so for it only the `__main__` is found here.
    """

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec of a command under its old name; None for every other module."""
        package, _, command = name.removesuffix(".__main__").rpartition(".")
        if package != __name__ or command not in COMMANDS:
            return None
        file = Path(__file__).parent / "cli" / f"{command}.py"
        if not file.exists():
            file = file.with_suffix("") / ("__main__.py" if name.endswith(".__main__") else "__init__.py")
        elif command == "checkpoint" and not name.endswith(".__main__"):
            return None
        return spec_from_file_location(name, file)


sys.meta_path.insert(0, OldCommandNames)
