"""Folder that is never incomplete: it is written under another name, described by one JSON file, then renamed."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path


def write_once(
    out: Path, description: str, arguments: Mapping[str, object], write: Callable[[Path], None], *, flag: str = "--out"
) -> bool:
    """Make the folder `out`; returns False if it exists already and was made with the same arguments.

    `write` is called to fill a new folder, which then gets the name `out`. After an error of `write` nothing is left.
    The file named `description` in the folder records the arguments.

    Raises ValueError if `out` is a file, or a folder with any other content; an empty folder is replaced. `flag` is the
    name of its option in the message.
    """
    if _is_described(out, description, arguments):
        return False
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(
            f"{flag} {out} is there already, from other arguments or another version; delete it or name another folder"
        )
    aside = out.with_name(out.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)  # leftover of a killed process
    aside.mkdir(parents=True)
    try:
        write(aside)
        (aside / description).write_text(json.dumps(arguments, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)  # exists only after an error
    return True


def _is_described(out: Path, description: str, arguments: Mapping[str, object]) -> bool:
    """Return True if the description in the folder records exactly these arguments."""
    try:
        written = json.loads((out / description).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no folder, no description, or a foreign one: the caller checks which
        return False
    return bool(written == json.loads(json.dumps(arguments)))
