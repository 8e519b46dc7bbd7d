"""Preparation of a folder of shards, with a record of the progress so that a stopped one can continue."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from whisper_ft.cli.prepare.arrangement import ArrangedRecords, RowFile, row_schema
from whisper_ft.cli.prepare.prepare_config import SPLITS, PrepareConfig
from whisper_ft.cli.prepare.records import Records, RowRecords
from whisper_ft.cli.prepare.shards import LEFT_OUT, ShardPass, State, parquet_file
from whisper_ft.cli.prepare.window_records import WindowRecords
from whisper_ft.config.data import DEFAULT_TASK
from whisper_ft.data.formats.fingerprint import changed
from whisper_ft.data.labelled import LabelledSource
from whisper_ft.runtime.atomic import ASIDE, clean, disk_errors, sync_folder, write_json
from whisper_ft.runtime.errors import DataError, UsageError
from whisper_ft.runtime.lock import lock_file

DESCRIPTION = "prepared.json"
LANGUAGE_COLUMN, TASK_COLUMN = "data.language_column", "data.task_column"
LATER_SETTINGS = ("windows", "window_seconds", "max_gap", "by", "split")
"""Settings that came later. They are described only if they are given, so that earlier folders can be continued."""
LATER_DATA_SETTINGS = ("segments_column", "text_times", "prompt_column")


def begun_early(out: Path) -> bool:
    """True if a folder holds a conversion that began under the first rules for reading data (`data.reading` 1)."""
    try:
        return LANGUAGE_COLUMN not in json.loads((out / DESCRIPTION).read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return False  # a new folder, or one that `Preparation` refuses


class Preparation:
    """Conversion of a source into a folder of shards, which may continue an earlier one.

    Shards get names that end in .parquet only when all are complete, so nobody reads half a data set. The constructor
    creates and locks the folder and reads the progress; `run` and `arrange` write the shards, and `finish` names them.

    The constructor raises LockedError if another process is filling the folder, and DiskError if it cannot be written.
    It raises UsageError if `out` is a file, holds other files, or holds a conversion of another source or other
    settings.

    `early` continues a conversion that began under the first rules for reading data (`begun_early`). The source must
    then be opened with `data.reading` 1.
    """

    def __init__(self, source: LabelledSource, settings: PrepareConfig, out: Path, early: bool = False) -> None:
        self._settings, self._out, self._early = settings, out, early
        self._fingerprint = source.fingerprint()  # computed once, because a long list takes seconds
        self.records = _records(source, settings)
        self.is_arranged = settings.by is not None or settings.split is not None
        with disk_errors(out):
            if out.exists() and not out.is_dir():
                raise UsageError(f"--out {out}: is a file, a folder is needed")
            out.mkdir(parents=True, exist_ok=True)
            if not (out / DESCRIPTION).exists() and any(not _is_ours(path.name) for path in out.iterdir()):
                raise UsageError(f"--out {out}: holds other files; name a folder that is empty or not there yet")
            self._lock = lock_file(out / ".lock", "prepare")
        self.state, self.arranged = self._begin()

    @property
    def final(self) -> State:
        """Progress of the pass that writes the shards."""
        return self.arranged if self.is_arranged else self.state

    def run(self, advance: Callable[[int], None]) -> None:
        """Convert the rest of the source. `advance` is called with each number of rows read.

        Raises DataError if no row is usable, and DiskError if a file cannot be written.
        """
        with disk_errors(self._out):
            clean(self._out)
        schema = row_schema(self.records.schema) if self.is_arranged else self.records.schema
        name, open_file = (self._row_file, RowFile) if self.is_arranged else (self._part, parquet_file)
        ShardPass(self.records, schema, self.state, self._settings, self._out, name, self._save, open_file).run(advance)
        if not self.state.rows:
            raise DataError(f"{self._settings.data.path}: no row is usable; {self._out / LEFT_OUT} lists the reasons")

    def arrange(self, advance: Callable[[int], None]) -> None:
        """Write the rest of the shards of an arranged conversion, as `run` does. Without an arrangement do nothing."""
        if not self.is_arranged or self.arranged.chunk:
            return
        if not self.arranged.rows:
            begin, counts = State(), ("left_out", "left_out_bytes", "seconds_in", "seconds_out", "segments")
            self.arranged = replace(begin, **{name: getattr(self.state, name) for name in counts})
        files = [self._row_file(number) for number in range(self.state.shards)]
        settings, schema = self._settings, self.records.schema
        records = ArrangedRecords(files, schema, settings.by, settings.shares)
        ShardPass(records, schema, self.arranged, settings, self._out, self._part, self._save_arranged).run(advance)

    def finish(self) -> None:
        """Give the shards their names, and record that all is done. Raises DiskError."""
        counts = self.final.shards_of or {self._split_of_source: self.final.shards}
        names = [
            f"{split}-{number:05d}-of-{count:05d}.parquet" for split, count in counts.items() for number in range(count)
        ]
        with disk_errors(self._out):
            for number, name in enumerate(names):
                if self._part(number).exists():
                    self._part(number).rename(self._out / name)
            sync_folder(self._out)
            for number in range(self.state.shards if self.is_arranged else 0):
                self._row_file(number).unlink(missing_ok=True)
        self._save(replace(self.state, is_finished=True))

    def _begin(self) -> tuple[State, State]:
        """Read the progress of an earlier start, that of `arrange` second.

        Raises UsageError if it had another source or other settings.
        """
        path = self._out / DESCRIPTION
        if not path.exists():
            self.state = self.arranged = State()
            self._save(State())
            return State(), State()
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            state, arranged = State(**record["state"]), State(**record.get("arranged", {}))
            source_before, before = record["source"], record["settings"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"--out {self._out}: its {DESCRIPTION} cannot be read; name another folder") from error
        now = self._described()
        differences = [
            f"--{name} was {before.get(name)!r}, is {now.get(name)!r}"
            for name in {**before, **now}
            if before.get(name) != now.get(name)
        ]
        if other := "; ".join(filter(None, [changed(source_before, self._fingerprint), *differences])):
            raise UsageError(f"--out {self._out}: is of another source or other settings: {other}; name another folder")
        return state, arranged

    def _described(self) -> dict[str, Any]:
        """Return the settings that determine the written bytes, by name."""
        settings, data = self._settings, self._settings.data
        names = ("split", "config_name", "audio_column", "text_column", "language", "task")
        described = {f"data.{name}": getattr(data, name) for name in names}
        if self._early:
            described["data.task"] = data.task or DEFAULT_TASK
        else:
            described |= {LANGUAGE_COLUMN: data.language_column, TASK_COLUMN: data.task_column}
        described |= {"shard_mb": settings.shard_mb, "group_mb": settings.group_mb}
        plain = type(settings)()
        described |= {n: getattr(settings, n) for n in LATER_SETTINGS if getattr(settings, n) != getattr(plain, n)}
        later = {f"data.{name}": getattr(data, name) for name in LATER_DATA_SETTINGS}
        return described | {name: value for name, value in later.items() if value}

    def _save(self, state: State) -> None:
        """Record durably that everything up to `state` is written, and with arranged rows up to `self.arranged`."""
        self.state = state
        record = {"state": asdict(state), "settings": self._described(), "source": self._fingerprint}
        write_json(self._out / DESCRIPTION, record | ({"arranged": asdict(self.arranged)} if self.is_arranged else {}))

    def _save_arranged(self, state: State) -> None:
        self.arranged = state
        self._save(self.state)

    @property
    def _split_of_source(self) -> str:
        split = self._settings.data.split
        return split if split in SPLITS else "train"

    def _part(self, number: int) -> Path:
        return self._out / f"shard-{number:05d}.part"

    def _row_file(self, number: int) -> Path:
        return self._out / f"rows-{number:05d}.part"


def _records(source: LabelledSource, settings: PrepareConfig) -> Records:
    if settings.windows:
        return WindowRecords(source, settings.window_seconds, settings.max_gap)
    data = settings.data
    return RowRecords(source, has_times=bool(data.text_times or data.segments_column or data.prompt_column))


def _is_ours(name: str) -> bool:
    """Return True for a file that a process leaves if it is killed before it has written the description."""
    return name == ".lock" or name.startswith(ASIDE)
