"""Fine-tuning of Whisper: the package behind train.py and evaluate.py. docs/house.md describes its folders."""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

COMMANDS = {
    "checkpoint": "list, verify or export the checkpoints of a run",
    "demo": "make a spoken corpus and a micro Whisper to try everything on",
    "diagnose": "tell what is likely wrong with a run, and what to change",
    "doctor": "check the data of a run before any GPU time",
    "evaluate": "score a model on a test set: evaluate.py, on all GPUs",
    "estimate": "estimate the memory of a training run, without a GPU",
    "export": "export a model to the format of another engine, and check it there",
    "import": "turn a model of faster-whisper or whisper.cpp into a Hugging Face folder, to fine-tune it",
    "interpolate": "mix a model with its start model, and choose the best mixture within the guards",
    "merge": "merge an adapter into its base, as a whole model that is checked",
    "plot": "draw the curves of one or several runs, also while they train",
    "prepare": "convert any data source to parquet shards, resumable",
    "pseudolabel": "transcribe audio without text into training data, filtered, each label with its origin",
    "publish": "upload a model of a run to the Hugging Face Hub, with a card",
    "replay": "print the utterances of any step of a run, without a model",
    "serve": "try a model on a page in the browser, or by OpenAI's transcription API",
    "train": "fine-tune Whisper: train.py, on all GPUs",
    "transcribe": "transcribe audio and video files into texts and subtitles",
}
"""Name and help line of each command. The module of a command is `whisper_ft.cli.NAME`."""
OTHER_MODULES = {"import": "import_model"}
"""Modules in `whisper_ft.cli` that cannot have the name of their command, because it is a keyword of Python."""


class OldCommandNames:
    """Import finder that keeps `python -m whisper_ft.COMMAND` valid: COMMAND lives in `whisper_ft.cli`.

    `whisper_ft.checkpoint` is also the package of the checkpoint format, which Python's own finder has to find. So this
    finder finds only its `__main__`, the command.
    """

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the import spec of a command that is asked for under its old name; None for every other module."""
        package, _, command = name.removesuffix(".__main__").rpartition(".")
        if package != __name__ or command not in COMMANDS:
            return None
        file = Path(__file__).parent / "cli" / f"{OTHER_MODULES.get(command, command)}.py"
        if not file.exists():
            file = file.with_suffix("") / ("__main__.py" if name.endswith(".__main__") else "__init__.py")
        elif command == "checkpoint" and not name.endswith(".__main__"):
            return None
        return spec_from_file_location(name, file)


sys.meta_path.insert(0, OldCommandNames)
