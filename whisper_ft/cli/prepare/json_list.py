"""What no source reads: a .json file that is one value over many lines, or one long line."""

import gzip
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.sources import open_source
from whisper_ft.data.storage.read_errors import data_errors
from whisper_ft.data.types import Source
from whisper_ft.runtime.errors import RunError


def open_any(where: SourceConfig) -> Source:
    """As `open_source`; and a .json (or .json.gz) file that is one list of objects, or {"data": that list}."""
    is_json = where.path.endswith((".json", ".json.gz")) and where.format in ("auto", "manifest")
    listed = _json_list(where.path) if is_json else None
    if listed is None:
        return open_source(where)
    file_system, path = fsspec.core.url_to_fs(where.path)
    root = where.audio_root or file_system.unstrip_protocol(file_system._parent(path))
    with tempfile.TemporaryDirectory() as folder:  # a manifest is read as a whole when it is opened
        lines = Path(folder) / f"{path.rpartition('/')[2].removesuffix('.gz')}l"
        lines.write_text("".join(f"{json.dumps(one)}\n" for one in listed), encoding="ascii")
        try:
            return open_source(replace(where, path=str(lines), format="manifest", audio_root=root))
        except RunError as error:
            raise type(error)(str(error).replace(str(lines), where.path)) from error


def _json_list(path: str) -> list[Any] | None:
    """The list that a file is; None of a file of JSON lines, and of whatever else is not one."""
    with data_errors(path):
        with fsspec.open(path, "rb") as file:
            content = file.read()
        text = gzip.decompress(content) if path.endswith(".gz") else content
    try:
        value = json.loads(text.decode("utf-8-sig", errors="surrogateescape"))
    except (ValueError, RecursionError):
        return None
    found = value.get("data") if isinstance(value, dict) else value
    return found if isinstance(found, list) else None
