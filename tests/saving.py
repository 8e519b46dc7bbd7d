"""A program that only saves as a run does, to be killed and starved: `python -m tests.saving WHAT FOLDER`.

It prints its results as JSON. A save and a fork take milliseconds here, so hundreds can be killed while a single run of
train.py starts.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.conftest import ROOT, START_SECONDS
from whisper_ft.checkpoint.checkpoint_manifest import MANIFEST, OWN_SHA256, own_sha256
from whisper_ft.checkpoint.format import list_checkpoints, path_of, verify
from whisper_ft.checkpoint.record import CheckpointRecord, read_record
from whisper_ft.checkpoint.retention import retain
from whisper_ft.checkpoint.state import Best, TrainState
from whisper_ft.checkpoint.writer import Contents, write
from whisper_ft.runtime.errors import RunError
from whisper_ft.training.directory import RunDir
from whisper_ft.training.published_models import publish_best

SAVES = 60
ELEMENTS = 300_000  # 1.2 MB of weights, as much again of moments: a save of some milliseconds
EVERY_BEST = 3  # each third step is the best so far


def state_at(step: int) -> TrainState:
    best = max(step - step % EVERY_BEST, 1)
    return TrainState(step=step, best=Best(best, "wer", 1 / best))


def contents_at(step: int, elements: int = ELEMENTS) -> Contents:
    """A checkpoint in which every number is its step, so that no part of another one can hide in it."""
    tensor = torch.full((elements,), float(step))
    record = json.dumps(record_of(state_at(step)).to_json()).encode()
    return Contents(step, {"w": tensor}, {"w/exp_avg": tensor}, record)


def record_of(state: TrainState) -> CheckpointRecord:
    """Record of a state, with nothing else in it."""
    return CheckpointRecord(state, config={"data": {"lanes": 16}}, data={"lanes": 16}, lr=0.1, world=1)


def sign(path: Path, files: Mapping[str, object] = {}, **fields: object) -> None:
    """Write the manifest of a checkpoint anew, so that it fits the present files, with these changes in it."""
    manifest = json.loads((path / MANIFEST).read_text())
    for name, written in manifest["files"].items():
        content = (path / name).read_bytes()
        written.update({"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    manifest["files"] |= files
    manifest = {name: value for name, value in manifest.items() if name != OWN_SHA256} | fields
    (path / MANIFEST).write_text(json.dumps({**manifest, OWN_SHA256: own_sha256(manifest)}))


def save(run: RunDir, step: int, elements: int = ELEMENTS) -> None:
    """Save as a run does: commit, best, retention, status."""
    run.require_own()
    path = write(run.checkpoints, None, contents_at(step, elements))
    state = state_at(step)
    if state.improved and state.best:
        publish_best(run, state.best, path, {"config.json": b"{}"})
    retain(run.checkpoints, 2, ())
    run.status("running", step)


def start(folder: Path) -> RunDir:
    """Lock, clean up and open, as every start does."""
    run = RunDir(folder)
    run.open()
    return run


def newest_step(folder: Path) -> int:
    saved = list_checkpoints(folder / "checkpoints")
    return saved[0].step if saved else 0


def problems(folder: Path, acknowledged: int) -> list[str]:
    """Faults of a run after an accident, once it is opened again; `acknowledged`: last step known as saved."""
    faults = []
    run = start(folder)
    saved = list_checkpoints(run.checkpoints)
    usable = [entry for entry in saved if entry.problem is None and verify(entry.path) is None]
    if len(usable) < len(saved):
        faults.append(f"damaged: {[entry.path.name for entry in saved if entry not in usable]}")
    if acknowledged and (not usable or usable[0].step < acknowledged):
        faults.append(f"step {acknowledged} was saved; there is {[entry.step for entry in usable]}")
    if len(usable) < min(acknowledged, 2):
        faults.append("fewer than two are left")
    for entry in usable:
        faults += [f"{name} of step {entry.step} is mixed" for name in mixed(entry.path, entry.step)]
    if usable and not best_is_at_hand(run, read_record(usable[0].path).state):
        faults.append("the best model is neither in best/ nor in a checkpoint")
    left = [path.name for path in (*folder.iterdir(), *run.checkpoints.iterdir()) if path.name[:2] in (".t", ".r")]
    if left:
        faults.append(f"left behind: {left}")
    return faults


def mixed(path: Path, step: int) -> list[str]:
    """Files of a checkpoint that hold numbers of another."""
    wrong = [name for name in ("model", "optimizer") if not all_are(path / f"{name}.safetensors", step)]
    return wrong + ["trainer"] * (read_record(path).state.step != step)


def all_are(path: Path, step: int) -> bool:
    return all(bool((tensor == step).all()) for tensor in load_file(path).values())


def best_is_at_hand(run: RunDir, state: TrainState) -> bool:
    """True where best/ is whole or can be made anew, as `repair_best` decides."""
    assert state.best is not None
    if run.published == state.best and (run.best / "config.json").exists():
        return all_are(run.best / "model.safetensors", state.best.step)
    return verify(path_of(run.checkpoints, state.best.step)) is None


def in_child(action: Callable[[], None]) -> int:
    """Run an action in a process of its own, and give its id."""
    child = os.fork()
    if child == 0:
        try:
            action()
        finally:
            os._exit(0)
    return child


def killed(folder: Path, times: int = SAVES) -> dict[str, Any]:
    """SIGKILL at random moments of saves, one after another: the run goes on after each."""
    faults, interrupted = [], 0
    chance = random.Random(5)
    for _ in range(times):
        reader, writer = os.pipe()

        def saving(writer: int = writer) -> None:
            run = start(folder)
            for step in range(newest_step(folder) + 1, 10_000):
                save(run, step)
                os.write(writer, f"{step} ".encode())

        child = in_child(saving)
        os.close(writer)
        acknowledged = os.read(reader, 1 << 16)
        time.sleep(chance.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while more := os.read(reader, 1 << 16):
            acknowledged += more
        os.close(reader)
        interrupted += any(path.name.startswith(".") for path in (folder / "checkpoints").iterdir())
        faults += problems(folder, int(acknowledged.split()[-1]))
    return {"kills": times, "interrupted": interrupted, "steps": newest_step(folder), "problems": faults}


DISK = {"open", "write", "flush", "fsync", "rename", "replace", "mkdir", "rmdir", "unlink", "chmod", "sendfile"}
"""Functions of the interpreter, all written in C, by which a program changes a disk."""


def end_before(call: int) -> list[str]:
    """Make this process end as if the power failed, before call number `call` to the disk; returns the calls so far."""
    made: list[str] = []

    def count(frame: Any, event: str, function: Any) -> None:
        if event == "c_call" and function.__name__ in DISK:
            if len(made) == call:
                os._exit(9)
            made.append(function.__name__)

    sys.setprofile(count)
    return made


def exits(folder: Path, step: int = 4) -> dict[str, Any]:
    """`os._exit` before the first, second, ... last call to the disk of a save, each on a copy of the same run.

    The run has steps 1 to 3; step 4 is a new checkpoint, 3 one that replaces another, and the best.
    """
    run = start(folder / "run")
    for before in (1, 2, 3):
        save(run, before, elements=100)
    faults, points, outcomes = [], 0, set()
    while True:
        copy = folder / f"copy-{points}"
        shutil.copytree(folder / "run", copy)
        ended_at = points

        def saving(copy: Path = copy, ended_at: int = ended_at) -> None:
            run = start(copy)
            end_before(ended_at)
            save(run, step, elements=100)
            sys.setprofile(None)

        _, status = os.waitpid(in_child(saving), 0)
        if os.waitstatus_to_exitcode(status) == 0:
            break
        faults += [f"after {points} calls: {problem}" for problem in problems(copy, 3)]
        newest = list_checkpoints(copy / "checkpoints")[0]
        outcomes.add((newest.step, newest.save))
        save(start(copy), 5, elements=100)  # it goes on
        shutil.rmtree(copy)
        points += 1
    return {"points": points, "outcomes": sorted(outcomes), "problems": faults}


def refused(action: Callable[[], object]) -> str:
    """Exit code and message of a RunError; "" where there was none."""
    try:
        action()
    except RunError as error:
        return f"{error.exit_code} {error}"
    return ""


def mount(*arguments: str) -> None:
    """In the namespace of this process only: nothing stays mounted when it ends."""
    subprocess.run(["mount", *arguments], check=True)


def full(folder: Path) -> dict[str, Any]:
    """A disk of 24 MB that is nearly full, and one that has no room for one more file."""
    mount("-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder))
    place = folder / "run"
    for step in (1, 2):
        save(start(place), step)
    (folder / "filler").write_bytes(b"x" * (shutil.disk_usage(folder).free - 2_000_000))
    before = refused(lambda: save(start(place), 3))
    after_before = problems(place, 2)
    (folder / "filler").unlink()
    inodes = len(list(folder.rglob("*"))) + 1
    mount("-o", f"remount,nr_inodes={inodes + 3}", str(folder))
    within = refused(lambda: save(start(place), 3))
    left = sorted(path.name for path in (place / "checkpoints").iterdir())
    mount("-o", "remount,nr_inodes=1000", str(folder))
    after_within = problems(place, 2)
    save(start(place), 3)
    return {"before": before, "within": within, "left": left, "problems": [*after_before, *after_within]}


def read_only(folder: Path) -> dict[str, Any]:
    """A disk that became read-only: at a start, and in a run."""
    mount("-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder))
    run = start(folder / "run")
    save(run, 1)
    mount("--bind", str(folder), str(folder))
    mount("-o", "remount,bind,ro", str(folder))
    starting = refused(lambda: RunDir(folder / "run").open())
    saving = refused(lambda: save(run, 2))
    source = folder / "run/checkpoints/step-00000001"
    return {"starting": starting, "saving": saving, "damage": verify(source)}


def resisting(folder: Path) -> dict[str, Any]:
    """An old checkpoint that cannot be moved away, because something is mounted there."""
    mount("-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder))
    run = start(folder / "run")
    for step in (4, 5, 6):
        write(run.checkpoints, None, contents_at(step, 100))
    oldest = str(path_of(run.checkpoints, 4))
    mount("--bind", oldest, oldest)
    warnings = retain(run.checkpoints, 2, ())
    return {"warnings": warnings, "steps": [entry.step for entry in list_checkpoints(run.checkpoints)]}


def unmounted(folder: Path) -> dict[str, Any]:
    """A disk that is unmounted under a run: what is below the place where it was is not the run's."""
    mount("-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder))
    run = start(folder / "run")
    save(run, 1)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    saving = refused(lambda: save(run, 2))
    run.status("failed", 1, saving, 6)
    return {"saving": saving, "left": [path.name for path in folder.iterdir()]}


def power_cut(folder: Path, synced: bool = True) -> dict[str, Any]:
    """Content of a disk at the instant of a commit: ext4 on a file, copied while it is in use.

    Only up to the commit, because the rest of a save is synced too, and on ext4 that syncs everything before it.
    """
    if not synced:
        os.fsync = lambda fd: None  # type: ignore[assignment]
    disk, place, cut = folder / "disk", folder / "place", folder / "cut"
    with disk.open("wb") as file:
        file.truncate(96 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(disk)], check=True)
    place.mkdir()
    cut.mkdir()
    mount("-o", "loop", str(disk), str(place))
    run = start(place / "run")
    faults: dict[int, list[str]] = {}
    for step in (1, 2, 3, 4):
        write(run.checkpoints, None, contents_at(step))
        shutil.copyfile(disk, folder / "copy")
        mount("-o", "loop", str(folder / "copy"), str(cut))
        try:
            faults[step] = problems(cut / "run", step)
        except OSError as error:
            faults[step] = [str(error)]
        subprocess.run(["umount", "--lazy", str(cut)], check=True)
    return {"problems": faults}


def outcome(what: str, folder: Path, *arguments: object, prefix: Sequence[str] = ()) -> Any:
    """Results of this program, run by itself; `prefix` may put it into a namespace. Several of WHAT: `full+exits`."""
    argv = [*prefix, sys.executable, "-m", "tests.saving", what, str(folder), *map(str, arguments)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=START_SECONDS)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def main() -> None:
    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    what, folder = sys.argv[1], Path(sys.argv[2])
    programs: dict[str, Callable[[Path], dict[str, Any]]] = {
        "exits": exits,
        "replacing": partial(exits, step=3),
        "full": full,
        "read_only": read_only,
        "resisting": resisting,
        "unmounted": unmounted,
        "power_cut": power_cut,
        "power_cut_unsynced": partial(power_cut, synced=False),
    }
    if what == "killed":
        print(json.dumps(killed(folder, int(sys.argv[3]))))
        return
    results = {}
    for name in what.split("+"):
        (folder / name).mkdir()
        results[name] = programs[name](folder / name)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
