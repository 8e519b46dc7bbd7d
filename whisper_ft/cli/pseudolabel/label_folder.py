"""Folder of a labelling: its record, and the shards, which get names that end in .parquet once all are complete."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from whisper_ft.cli.prepare.shards import ShardPass, State
from whisper_ft.cli.pseudolabel.block_log import FOLDER
from whisper_ft.cli.pseudolabel.label_record import RECORD, WINDOWS, read_record, window_rows
from whisper_ft.cli.pseudolabel.label_records import LabelRecords
from whisper_ft.cli.pseudolabel.pool_window import PoolWindow
from whisper_ft.config.pseudolabel import PseudolabelConfig
from whisper_ft.config.tree import to_plain
from whisper_ft.data.formats.fingerprint import changed
from whisper_ft.runtime.atomic import ASIDE, clean, disk_errors, sync_folder, write_json, write_lines
from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.jsonl import rows_with
from whisper_ft.runtime.lock import LOCK, lock_folder
from whisper_ft.runtime.printable import json_text

REJECTED = "rejected.jsonl"
Stage = Literal["transcribing", "writing", "finished"]


def read_windows(folder: Path) -> list[PoolWindow]:
    """Read all windows of a folder in the order of the pool. Raises UsageError if they cannot be read."""
    try:
        return [PoolWindow(**row) for row in window_rows(folder)]
    except TypeError as error:
        raise UsageError(f"{folder}: its {WINDOWS} cannot be read") from error


class LabelFolder:
    """Folder that this process fills. It is locked until the process ends.

    The constructor raises LockedError if another process fills it, and DiskError if it cannot be written. It raises
    UsageError if it is a file, holds other files, or was begun with other data or settings.
    """

    def __init__(self, out: Path, config: PseudolabelConfig, fingerprint: dict[str, Any]) -> None:
        self.out = out
        with disk_errors(out):
            if out.exists() and not out.is_dir():
                raise UsageError(f"--out {out}: is a file, a folder is needed")
            out.mkdir(parents=True, exist_ok=True)
            if not (out / RECORD).exists() and any(not _is_ours(path.name) for path in out.iterdir()):
                raise UsageError(f"--out {out}: holds other files; name a folder that is empty or not there yet")
            self._lock = lock_folder(out, "pseudolabel")
            clean(out)
        described = config.described()
        if (out / RECORD).exists():
            self.record = read_record(out)
            self._refuse_others(described, fingerprint)
        else:
            self.record = {
                "stage": "transcribing",
                "described": described,
                "settings": to_plain(replace(config, out=None)),
                "source": fingerprint,
                "jobs": [],
                "origin": None,
                "state": asdict(State()),
            }
            self._save()

    def _refuse_others(self, described: dict[str, Any], fingerprint: dict[str, Any]) -> None:
        before = self.record["described"]
        differences = [
            f"--{name} was {before.get(name)!r}, is {described.get(name)!r}"
            for name in {**before, **described}
            if before.get(name) != described.get(name)
        ]
        if other := "; ".join(filter(None, [changed(self.record["source"], fingerprint), *differences])):
            raise UsageError(
                f"--out {self.out}: is of other data or settings: {other}; name another folder (other limits are "
                f"applied to a finished one by --keep_from {self.out})"
            )

    @property
    def stage(self) -> Stage:
        """Stage that the folder has reached."""
        stage: Stage = self.record["stage"]
        return stage

    @property
    def state(self) -> State:
        """Progress of the shards."""
        return State(**self.record["state"])

    def begin_turn(self, number: int, job: dict[str, Any], origin: dict[str, Any]) -> None:
        """Record the job of a turn, and with the first turn the origin of the labels.

        Raises UsageError if the folder has blocks of another job, or if the turns cut the audio at other places.
        """
        jobs, job = self.record["jobs"], json.loads(json.dumps(job))
        if number < len(jobs):
            if jobs[number] != job:
                names = ", ".join(name for name in job if job[name] != jobs[number].get(name))
                raise UsageError(
                    f"--out {self.out}: was begun with another model or decoding ({names} differs); name another folder"
                )
            return
        if jobs and job["window"] != jobs[0]["window"]:
            raise UsageError("--second: hears windows of another length than MODEL; name a model with equal windows")
        jobs.append(job)
        self.record["origin"] = self.record["origin"] or json.loads(json.dumps(origin))
        self._save()

    def take_windows(self, windows: Sequence[PoolWindow]) -> None:
        """Write all transcribed windows, and go on to the shards."""
        write_lines(self.out / WINDOWS, (json_text(window.to_json()) + "\n" for window in windows))
        self.record["stage"] = "writing"
        self._save()
        shutil.rmtree(self.out / FOLDER, ignore_errors=True)

    def write(self, records: LabelRecords, config: PseudolabelConfig, advance: Callable[[int], None]) -> None:
        """Write the missing shards, and give all of them their names. Raises DiskError and DataError."""
        ShardPass(
            records, records.schema, self.state, config, self.out, self._part, self._save_state, listed=REJECTED
        ).run(advance)
        count = self.state.shards
        with disk_errors(self.out):
            for number in range(count):
                if self._part(number).exists():
                    self._part(number).rename(self.out / f"train-{number:05d}-of-{count:05d}.parquet")
            sync_folder(self.out)

    def finish(self, summary: dict[str, Any]) -> None:
        """Record the summary, and that all is done."""
        self.record |= {"stage": "finished", "summary": summary}
        self._save()
        shutil.rmtree(self.out / FOLDER, ignore_errors=True)

    def reasons(self) -> dict[str, str]:
        """Return the reason codes of the rejected windows by id."""
        with disk_errors(self.out):
            return {row["id"]: row["reason"] for row in rows_with(self.out / REJECTED, "reason")}

    def summary(self, windows: Sequence[PoolWindow]) -> dict[str, Any]:
        """Return the counts of the folder as JSON values: kept and rejected windows add up to all of them."""
        state, reasons = self.state, Counter(self.reasons().values())
        languages = Counter(window.language for window in windows if window.text and window.language)
        return {
            "windows": len(windows),
            "kept": state.rows,
            "rejected": state.left_out,
            "reasons": _most_frequent_first(reasons),
            "languages": _most_frequent_first(languages),
            "seconds": round(sum(window.seconds for window in windows), 2),
            "kept_seconds": round(state.seconds_out, 2),
        }

    def _part(self, number: int) -> Path:
        return self.out / f"shard-{number:05d}.part"

    def _save_state(self, state: State) -> None:
        self.record["state"] = asdict(state)
        self._save()

    def _save(self) -> None:
        write_json(self.out / RECORD, self.record)


def _most_frequent_first(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _is_ours(name: str) -> bool:
    """Return True for a file that a process leaves if it is killed before it has written the record."""
    return name == LOCK or name.startswith(ASIDE)
