"""Opening of a .json file that is one list of objects, which the reader of JSON lines cannot read."""

import gzip
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.labelled import LabelledSource
from whisper_ft.data.sources import open_source
from whisper_ft.data.storage.read_errors import data_errors
from whisper_ft.runtime.errors import RunError

MAX_BYTES = 2**30
"""Size of the largest list that is read as a whole, in bytes, unpacked. A larger file is read as JSON lines."""


def open_any(where: SourceConfig) -> LabelledSource:
    """Open a source as `open_source` does. A .json file may also hold one list of objects, or {"data": list}."""
    is_json = where.path.endswith((".json", ".json.gz")) and where.format in ("auto", "manifest")
    items = _json_list(where.path) if is_json else None
    if items is None:
        return open_source(where)
    file_system, path = fsspec.core.url_to_fs(where.path)
    root = where.audio_root or file_system.unstrip_protocol(file_system._parent(path))
    with tempfile.TemporaryDirectory() as folder:  # may be temporary, because opening a manifest reads all of it
        lines = Path(folder) / f"{path.rpartition('/')[2].removesuffix('.gz')}l"
        lines.write_text("".join(f"{json.dumps(item)}\n" for item in items), encoding="ascii")
        try:
            return open_source(replace(where, path=str(lines), format="manifest", audio_root=root))
        except RunError as error:
            error.args = (str(error).replace(str(lines), where.path),)
            raise


def _json_list(path: str) -> list[Any] | None:
    """Read the list in a JSON file; None if the file holds JSON lines or anything else."""
    with data_errors(path), fsspec.open(path, "rb") as file:
        text = (gzip.GzipFile(fileobj=file) if path.endswith(".gz") else file).read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        return None
    try:
        value = json.loads(text.decode("utf-8-sig", errors="surrogateescape"))
    except (ValueError, RecursionError):
        return None
    items = value.get("data") if isinstance(value, dict) else value
    return items if isinstance(items, list) else None
