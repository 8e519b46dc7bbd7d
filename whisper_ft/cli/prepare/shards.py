"""Writing of parquet shards into a folder, with a record of the progress so that a stopped conversion can continue."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from whisper_ft.cli.prepare.ahead import ReadAhead
from whisper_ft.cli.prepare.prepare_config import PrepareConfig
from whisper_ft.cli.prepare.shard_row import SCHEMA, record_of
from whisper_ft.config.data import DEFAULT_TASK
from whisper_ft.data.formats.fingerprint import changed
from whisper_ft.data.types import RejectedError, Row, Source
from whisper_ft.runtime.atomic import ASIDE, clean, disk_errors, sync_file, sync_folder, write_json
from whisper_ft.runtime.errors import DataError, UsageError
from whisper_ft.runtime.lock import lock_file
from whisper_ft.runtime.printable import json_text
from whisper_ft.runtime.signals import interrupt_held

MEGABYTE = 1_000_000
DESCRIPTION = "prepared.json"
LEFT_OUT = "left-out.jsonl"
LANGUAGE_COLUMN, TASK_COLUMN = "data.language_column", "data.task_column"
SPLITS = ("train", "validation", "dev", "test")  # splits that `datasets` recognises by the beginning of a file name


@dataclass(frozen=True)
class State:
    """Progress of a conversion: the shards that are complete and durable, and the next row to convert."""

    chunk: int = 0
    row: int = 0
    shards: int = 0
    rows: int = 0  # written
    left_out: int = 0
    left_out_bytes: int = 0  # recorded size of LEFT_OUT; any further bytes were written by a process that was killed
    is_finished: bool = False


def begun_early(out: Path) -> bool:
    """True if a folder holds a conversion that began under the first rules for reading data (`data.reading` 1)."""
    try:
        return LANGUAGE_COLUMN not in json.loads((out / DESCRIPTION).read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return False  # a new folder, or one that `Preparation` refuses


class Preparation:
    """Conversion of a source into a folder of shards, which may continue an earlier one.

    Shards get names that end in .parquet only when all are complete, so nobody reads half a data set. The constructor
    creates and locks the folder and reads the progress; `run` writes the shards.

    The constructor raises LockedError if another process is filling the folder, and DiskError if it cannot be written.
    It raises UsageError if `out` is a file, holds other files, or holds a conversion of another source or other
    settings.

    `early` continues a conversion that began under the first rules for reading data (`begun_early`). The source must
    then be opened with `data.reading` 1.
    """

    def __init__(self, source: Source, settings: PrepareConfig, out: Path, early: bool = False) -> None:
        self._source, self._settings, self._out, self._early = source, settings, out, early
        self._fingerprint = source.fingerprint()  # computed once, because a long list takes seconds
        with disk_errors(out):
            if out.exists() and not out.is_dir():
                raise UsageError(f"--out {out}: is a file, a folder is needed")
            out.mkdir(parents=True, exist_ok=True)
            if not (out / DESCRIPTION).exists() and any(not _is_ours(path.name) for path in out.iterdir()):
                raise UsageError(f"--out {out}: holds other files; name a folder that is empty or not there yet")
            self._lock = lock_file(out / ".lock", "prepare")
        self.state = self._begin()

    def run(self, advance: Callable[[int], None]) -> State:
        """Write the missing shards, and return the final progress. `advance` is called with each number of rows read.

        Raises DataError if no row is usable, and DiskError if a shard cannot be written.
        """
        with disk_errors(self._out):
            clean(self._out)
        with ReadAhead(self._source) as chunks:
            while self.state.chunk < len(self._source.rows):
                self._write_shard(chunks, advance)
        if not self.state.rows:
            raise DataError(f"{self._settings.data.path}: no row is usable; {self._out / LEFT_OUT} lists the reasons")
        with disk_errors(self._out):
            for number in range(self.state.shards):
                if self._part(number).exists():
                    self._part(number).rename(self._out / self._name(number))
            sync_folder(self._out)
        self._record(replace(self.state, is_finished=True))
        return self.state

    def _begin(self) -> State:
        """Read the progress of an earlier start. Raises UsageError if it had another source or other settings."""
        path = self._out / DESCRIPTION
        if not path.exists():
            self._record(State())
            return State()
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            state, source_before, before = State(**record["state"]), record["source"], record["settings"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"--out {self._out}: its {DESCRIPTION} cannot be read; name another folder") from error
        now = self._described()
        differences = [
            f"--{name} was {before.get(name)!r}, is {value!r}"
            for name, value in now.items()
            if before.get(name) != value
        ]
        if other := "; ".join(filter(None, [changed(source_before, self._fingerprint), *differences])):
            raise UsageError(f"--out {self._out}: is of another source or other settings: {other}; name another folder")
        return state

    def _described(self) -> dict[str, Any]:
        """Return the settings that determine the written bytes, by name."""
        settings, data = self._settings, self._settings.data
        names = ("split", "config_name", "audio_column", "text_column", "language", "task")
        described = {f"data.{name}": getattr(data, name) for name in names}
        if self._early:
            described["data.task"] = data.task or DEFAULT_TASK
        else:
            described |= {LANGUAGE_COLUMN: data.language_column, TASK_COLUMN: data.task_column}
        return described | {"shard_mb": settings.shard_mb, "group_mb": settings.group_mb}

    def _record(self, state: State) -> None:
        """Record durably that everything up to `state` is written."""
        write_json(
            self._out / DESCRIPTION,
            {"state": asdict(state), "settings": self._described(), "source": self._fingerprint},
        )
        self.state = state

    def _write_shard(self, chunks: ReadAhead, advance: Callable[[int], None]) -> None:
        """Write the next shard, then the list of the rows left out of it, then the record of the progress.

        If no row left is usable, there is no shard, only the list and the record.
        """
        aside, left_out = self._out / f"{ASIDE}shard", list[dict[str, str]]()
        with disk_errors(aside):
            # Encoded audio cannot be compressed further, and its values do not repeat.
            writer = pq.ParquetWriter(aside, SCHEMA, compression="none", use_dictionary=False)
        try:
            after = self._fill(writer, chunks, left_out, advance)
        finally:
            with disk_errors(aside):
                writer.close()
        with disk_errors(self._out):
            if after.rows > self.state.rows:
                sync_file(aside)
                aside.replace(self._part(self.state.shards))
                after = replace(after, shards=self.state.shards + 1)
            else:
                aside.unlink()
            length = self._list(left_out)
        self._record(replace(after, left_out=self.state.left_out + len(left_out), left_out_bytes=length))

    def _fill(
        self,
        writer: pq.ParquetWriter,
        chunks: ReadAhead,
        left_out: list[dict[str, str]],
        advance: Callable[[int], None],
    ) -> State:
        """Write row groups until the shard is full or no row is left, and add unusable rows to `left_out`.

        Returns the progress with the next row and the number of rows written. The caller counts shards and rows left
        out.
        """
        group: list[dict[str, Any]] = []
        group_bytes = shard_bytes = 0
        state, written = self.state, self.state.rows

        def flush() -> None:
            nonlocal group_bytes, shard_bytes, written
            if group:
                with disk_errors(self._out):
                    writer.write_table(pa.Table.from_pylist(group, SCHEMA))
            written, shard_bytes, group_bytes = written + len(group), shard_bytes + group_bytes, 0
            group.clear()

        for chunk, number, row in self._rows(state, chunks):
            try:
                with interrupt_held():
                    record = record_of(row, self._settings.data)
            except RejectedError as unusable:
                left_out.append({"id": row.id, "reason": unusable.reason, "detail": unusable.detail})
                advance(1)
                continue
            size = len(record["audio"]["bytes"]) + len(row.text.encode())
            if group and group_bytes + size > self._settings.group_mb * MEGABYTE:
                flush()
                if shard_bytes + self._settings.group_mb * MEGABYTE > self._settings.shard_mb * MEGABYTE:
                    return replace(state, chunk=chunk, row=number, rows=written)
            group.append(record)
            group_bytes += size
            advance(1)
        flush()
        return replace(state, chunk=len(self._source.rows), row=0, rows=written)

    def _rows(self, state: State, chunks: ReadAhead) -> Iterator[tuple[int, int, Row]]:
        """Yield the rows that are not converted yet, each as (chunk, row number in the chunk, row)."""
        first = state.row
        for chunk in range(state.chunk, len(self._source.rows)):
            for number, row in enumerate(chunks.read(chunk)[first:], first):
                yield chunk, number, row
            first = 0

    def _list(self, left_out: list[dict[str, str]]) -> int:
        """Append rows to the list of rows left out, and return the size of its file in bytes.

        Anything that a killed process wrote after the recorded size is overwritten.
        """
        lines = "".join(f"{json_text(row)}\n" for row in left_out).encode()
        path, length = self._out / LEFT_OUT, self.state.left_out_bytes + len(lines)
        if not length:
            path.unlink(missing_ok=True)
            return 0
        with path.open("ab") as file:
            file.truncate(self.state.left_out_bytes)
            file.write(lines)
        sync_file(path)
        sync_folder(self._out)
        return length

    def _part(self, number: int) -> Path:
        return self._out / f"shard-{number:05d}.part"

    def _name(self, number: int) -> str:
        split = self._settings.data.split
        return f"{split if split in SPLITS else 'train'}-{number:05d}-of-{self.state.shards:05d}.parquet"


def _is_ours(name: str) -> bool:
    """Return True for a file that a process leaves if it is killed before it has written the description."""
    return name == ".lock" or name.startswith(ASIDE)
