"""Opening of regular files only: a FIFO would block, and a device such as /dev/zero would never end."""

import json
import os
import stat
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from typing import Any

DEEPEST = 64  # levels of nested JSON that are accepted; a checkpoint has 5


def open_regular(path: Path) -> FileIO:
    """Open a file for reading. Raises OSError if it cannot be opened, or is a FIFO, a device or a folder."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError("not a regular file")
        return FileIO(fd)
    except BaseException:
        os.close(fd)
        raise


def read_regular(path: Path, limit: int) -> bytes:
    """Return the content of a file. Raises OSError as `open_regular` does, and ValueError beyond `limit` bytes."""
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it is larger than {limit:,} bytes")
    return content


def strict_json(content: bytes) -> Any:
    """Parse JSON whose bytes may be damaged. Raises ValueError for anything that a writer of JSON would not write.

    This includes NaN and infinity, a name that an object has twice, and more than `DEEPEST` levels.
    """
    try:
        value = json.loads(content, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError(f"it has more than {DEEPEST} levels") from None
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for item in level for inner in _items(item)]
        if not level:
            return value
    raise ValueError(f"it has more than {DEEPEST} levels")


def _items(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("an object has a name twice")
    return fields


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")
