"""Pages and results in a folder of runs: reports of evaluations, curves, and checks of the data."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from whisper_ft.runtime.regular_file import read_regular, strict_json

KINDS: dict[str, Literal["report", "curves", "data"]] = {
    "report.html": "report",
    "curves.html": "curves",
    "doctor.html": "data",
}
"""Kinds of pages by the names of their files. No other file of a run is sent to a browser."""
NO_PAGES = (
    "checkpoints",
    "predictions",
    "tensorboard",
    "wandb",
    "index",
    "best",
    "final",
    "average",
    "interpolated-scores",
)
"""Folders of a run that hold no pages, and perhaps many files."""
DEEPEST = 4  # folders below the served one
MOST_FOLDERS = 2000  # folders that are looked into
SUMMARY_BYTES = 1 << 26  # largest summary.json that is read
FIGURES = ("wer", "cer", "utterances", "unit")
POLICY = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; media-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Policy of a page of a run. The page has its own, stricter one, but anybody may have written the file. So the browser
treats it as of no site: its script reaches neither the server nor the cookie with the token."""


@dataclass(frozen=True)
class RunPage:
    """Page in a folder of runs."""

    path: Path
    """Path relative to the served folder."""
    kind: Literal["report", "curves", "data"]
    figures: dict[str, Any]
    """WER, CER and number of utterances of a report; empty if they are not known."""

    def record(self, run: Path) -> dict[str, Any]:
        """Return the page as JSON values. `run` is the folder, relative to the served one, to which it belongs."""
        name = self.path.parent.relative_to(run).as_posix()
        address = f"/runs/page/{quote(self.path.as_posix())}"
        return {"name": "" if name == "." else name, "kind": self.kind, "address": address, **self.figures}


def pages_in(folder: Path) -> list[RunPage]:
    """Return the pages in a folder and the folders below it, sorted by path. Links are not followed."""
    found = []
    for path in _files(folder):
        kind = KINDS[path.name]
        figures = _figures(folder / path.parent / "summary.json") if kind == "report" else {}
        found.append(RunPage(path, kind, figures))
    return sorted(found, key=lambda page: page.path)


def page_file(folder: Path, path: str) -> Path | None:
    """Return the file of a page by its path below a folder; None if there is no such page, or it leads elsewhere."""
    with suppress(OSError, ValueError):
        file = (folder / path).resolve(strict=True)
        if file.name in KINDS and file.is_file() and file.is_relative_to(folder.resolve(strict=True)):
            return file
    return None


def _files(folder: Path) -> Iterator[Path]:
    looked = 0
    for place, folders, files in os.walk(folder):
        relative, looked = Path(place).relative_to(folder), looked + 1
        if looked > MOST_FOLDERS:
            return
        deep = len(relative.parts) >= DEEPEST
        folders[:] = [] if deep else sorted(name for name in folders if name not in NO_PAGES and name[0] != ".")
        yield from (relative / name for name in files if name in KINDS)


def _figures(summary: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, json.JSONDecodeError):
        values = strict_json(read_regular(summary, SUMMARY_BYTES))
        if isinstance(values, dict):
            return {name: values[name] for name in FIGURES if isinstance(values.get(name), int | float | str)}
    return {}
