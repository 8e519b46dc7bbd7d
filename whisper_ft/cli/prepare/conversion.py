"""Conversion of a source to shards, with its checks, progress bar and summary."""

import json
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import fsspec
from rich.progress import Progress

from whisper_ft.cli.prepare.json_list import open_any
from whisper_ft.cli.prepare.preparation import Preparation, begun_early
from whisper_ft.cli.prepare.prepare_config import PrepareConfig
from whisper_ft.cli.prepare.shards import LEFT_OUT, State
from whisper_ft.reports.safe_console import SafeConsole
from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.printable import counted, say
from whisper_ft.training.preflight import refuse_missing


def summary_line(state: State, settings: PrepareConfig, out: Path, split: str | None) -> str:
    """Return the line for the user about the finished shards and the rows left out.

    `split` is the split that was read among several although the user named none; None otherwise.
    """
    line = f"{out}: {counted(state.rows, 'window' if settings.windows else 'row')} in {counted(state.shards, 'shard')}"
    line += f", of split {split}" if split else ""
    if settings.split:
        splits = (f"{name} {state.rows_of.get(name, 0):,}" for name in settings.shares)
        line += f" ({', '.join(splits)})"
    if settings.windows:
        fill = state.seconds_out / (state.rows * settings.window_seconds)
        hours = f"{state.seconds_in / 3600:.2f} hours in, {state.seconds_out / 3600:.2f} in windows"
        line += f"; {hours}, {fill:.0%} full, of {counted(state.segments, 'segment')}"
    if not state.left_out:
        return line
    lines = (out / LEFT_OUT).read_text(encoding="utf-8").splitlines()
    reasons = ", ".join(f"{reason} {n}" for reason, n in Counter(json.loads(x)["reason"] for x in lines).most_common())
    left_out = counted(state.left_out, "segment" if settings.windows else "row")
    return f"{line}; {left_out} left out ({reasons}): {out / LEFT_OUT}"


def refuse_out_within(path: str, out: Path) -> None:
    """Raise UsageError for an output folder inside the data, because the next start would read the shards as data.

    Only a local folder of data is checked.
    """
    folder = fsspec.core.strip_protocol(path) if path.startswith(("file:", "local:")) else os.path.expanduser(path)
    if os.path.isdir(folder) and out.resolve().is_relative_to(Path(folder).resolve()):
        raise UsageError(f"--out {out}: lies inside --data.path {path}; name a folder outside of it")


def prepare(settings: PrepareConfig) -> str:
    """Write all missing shards, and return the line for the user.

    Raises UsageError if the settings cannot work or `out` holds something else, and LockedError if another process
    fills `out`. Raises DataError if the data cannot be read or has no usable row, and DiskError if a file cannot be
    written.
    """
    refuse_missing("data.path", settings.data.path)
    if settings.out is None:
        raise UsageError("--out is missing: the folder for the shards")
    refuse_out_within(settings.data.path, settings.out)
    early = begun_early(settings.out)
    source = open_any(replace(settings.data, reading=1) if early else settings.data)
    preparation = Preparation(source, settings, settings.out, early)
    state, console = preparation.state, SafeConsole(stderr=True)
    for line in source.notes:
        say(line, file=sys.stderr)
    split = source.used.split if source.used.other_splits else None
    if state.is_finished:
        return f"nothing to do: {summary_line(preparation.final, settings, settings.out, split)}"
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("preparing", total=preparation.records.total, completed=state.done)
        preparation.run(lambda done: progress.advance(bar, done))
        if preparation.is_arranged:
            bar = progress.add_task("arranging", total=preparation.state.rows, completed=preparation.arranged.rows)
            preparation.arrange(lambda done: progress.advance(bar, done))
    preparation.finish()
    return summary_line(preparation.final, settings, settings.out, split)
