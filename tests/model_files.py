"""JSON files of a model's folder, read and changed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def content(file: Path) -> Any:
    return json.loads(file.read_text())


def edited(micro_whisper: Path, folder: Path, file: str, edit: Callable[[Any], None]) -> Path:
    """The micro model with something changed in one of its JSON files."""
    shutil.copytree(micro_whisper, folder, dirs_exist_ok=True)
    changed = content(folder / file)
    edit(changed)
    (folder / file).write_text(json.dumps(changed))
    return folder
