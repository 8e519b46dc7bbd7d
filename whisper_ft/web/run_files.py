"""Small files of a run, read without a lock, because the run may be writing them. torch is not imported."""

import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from whisper_ft.checkpoint.state import Best
from whisper_ft.config import yaml12
from whisper_ft.config.data import is_hub_name
from whisper_ft.runtime.jsonl import rows_with
from whisper_ft.runtime.regular_file import open_regular, read_regular, strict_json
from whisper_ft.training.run_folder import is_run

SMALL = 1 << 20  # bytes of the largest small file that is read
TAIL = 1 << 16  # bytes of the end of metrics.jsonl, which has less than 1 kB in a line


def runs_in(folder: Path) -> list[Path]:
    """Return the runs directly in a folder, sorted by name; hidden folders are left out."""
    with suppress(OSError):
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and is_run(path))
    return []


def json_of(path: Path) -> dict[str, Any]:
    """Return the object in a small file; {} if there is none."""
    with suppress(OSError, ValueError):
        value = strict_json(read_regular(path, SMALL))
        return value if isinstance(value, dict) else {}
    return {}


def logged_step(run: Path) -> int | None:
    """Return the step of the last whole line of metrics.jsonl; None without one."""
    with suppress(OSError):
        with open_regular(run / "metrics.jsonl") as file:
            file.seek(max(file.seek(0, 2) - TAIL, 0))
            lines = file.read().split(b"\n")
        for line in reversed(lines):
            with suppress(ValueError, TypeError, KeyError):
                return int(strict_json(line)["step"])
    return None


def evaluations(run: Path, field: str) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl that have a field and a step. They are read again once the file has changed."""
    path = run / "metrics.jsonl"
    with suppress(OSError):
        stat = path.stat()
        return _rows(path, field, stat.st_mtime_ns, stat.st_size)
    return []


@lru_cache(maxsize=64)
def _rows(path: Path, field: str, modified: int, size: int) -> list[dict[str, Any]]:
    return [row for row in rows_with(path, field) if isinstance(row.get("step"), int)]


def published_step(folder: Path, best: Best | None) -> int | None:
    """Return the step of a published model. Its README names it, and is replaced with the weights at once."""
    with suppress(OSError, ValueError):
        if found := re.search(rb"\bat step (\d+)|update, step (\d+)", read_regular(folder / "README.md", SMALL)):
            return int(found[1] or found[2])
    return best.step if best else None


def start_model(run: Path) -> str | None:
    """Return the model from which a run started, if it can be found from here."""
    with suppress(OSError, ValueError, KeyError, TypeError, yaml12.Error):
        name = str(yaml12.load(read_regular(run / "config.yaml", SMALL).decode())["model"]["name"])
        if Path(name, "config.json").exists() or (not Path(name).exists() and is_hub_name(name)):
            return name
    return None
