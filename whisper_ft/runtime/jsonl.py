"""Files of JSON lines that a kill or a full disk may have cut short."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from whisper_ft.runtime.printable import json_text


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append one line for each row. If the last line was cut short, a line feed is written first to end that line.

    Without rows nothing is written, and a missing file is not created. Raises OSError if the file cannot be written,
    and ValueError for NaN and infinity, which JSON lacks.
    """
    lines = "".join(json_text(row) + "\n" for row in rows)
    if not lines:
        return
    with path.open("ab+") as file:
        if file.tell() and not _ends_with_line_feed(file):
            file.write(b"\n")
        file.write(lines.encode())


def rows_with(path: Path, field: str) -> list[dict[str, Any]]:
    """Return the rows of a file that have a field with this name, in the order of the file.

    A line that was cut short is skipped. A missing file, or a device, has no rows. Raises OSError if the file cannot be
    read.
    """
    if not path.is_file():  # a device such as /dev/full is no file either, and never ends
        return []
    rows, name = [], f'"{field}"'.encode()
    with path.open("rb") as file:
        for line in file:
            if name not in line:  # most lines of a long run end here, because parsing all of them would take too long
                continue
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and field in row:
                rows.append(row)
    return rows


def _ends_with_line_feed(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
