"""Record of an export: `export.json`, with the result of the check and a sha256 of every other file."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from whisper_ft.runtime import atomic
from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.regular_file import read_regular, strict_json

RECORD = "export.json"
SCHEMA = 1  # version of export.json, raised when a key changes its meaning
RECORD_BYTES = 1 << 24  # largest record that is read


def write_record(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the record of an export, with facts about it, and the hashes of the files that are there now."""
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": atomic.sha256(path)}
        for path in _files(folder)
    }
    atomic.write_json(folder / RECORD, {"schema": SCHEMA, **facts, "files": files})


def read_record(folder: Path) -> dict[str, Any]:
    """Read the record of an export. Raises UsageError if it is missing or cannot be read."""
    if not folder.is_dir():
        raise UsageError(f"--verify {folder}: there is no such folder")
    try:
        record = strict_json(read_regular(folder / RECORD, RECORD_BYTES))
        if record["schema"] != SCHEMA:
            raise ValueError(f"schema {record['schema']}, and this version reads {SCHEMA}")
        for name, entry in record["files"].items():
            if not (isinstance(name, str) and isinstance(entry["bytes"], int) and isinstance(entry["sha256"], str)):
                raise ValueError(f"no hash of {name}")
    except FileNotFoundError as error:
        raise UsageError(f"--verify {folder}: has no {RECORD}, so it is no export of this program") from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"--verify {folder}: its {RECORD} cannot be read ({error})") from error
    return dict(record)


def changed_files(folder: Path) -> list[str]:
    """Return a line for each file of an export that is missing, changed or not in its record, by name.

    Raises UsageError if the record cannot be read.
    """
    stated = read_record(folder)["files"]
    present = {str(path.relative_to(folder)): path for path in _files(folder)}
    found = []
    for name in sorted(stated.keys() | present.keys()):
        if name not in present:
            found.append(f"{name}: is missing")
        elif name not in stated:
            found.append(f"{name}: is not in {RECORD}")
        elif present[name].stat().st_size != stated[name]["bytes"]:
            found.append(f"{name}: has {present[name].stat().st_size:,} bytes, and had {stated[name]['bytes']:,}")
        elif atomic.sha256(present[name]) != stated[name]["sha256"]:
            found.append(f"{name}: has other bytes than when it was written")
    return found


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / RECORD)
