"""A run on a data set of the Hub (played by a server of this machine) keeps to the commit that it began with."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import START_SECONDS, Ended, Trainer, command, digest, environment
from tests.elsewhere import Elsewhere, serve

FIRST, SECOND = "a" * 40, "b" * 40


def move(top: Path, commit: str, parquet: Path) -> None:
    """Put a file into a new commit, which `main` and `first` (a tag of the first one) name."""
    data = top / "o/be" / commit / "data"
    data.mkdir(parents=True)
    shutil.copy(parquet, data / "train-00000-of-00001.parquet")
    refs = {FIRST: FIRST, SECOND: SECOND, "first": FIRST, "main": commit}
    (top / "o/be/refs.json").write_text(json.dumps(refs))


def start(train: Trainer, hub: Elsewhere, home: Path, program: str, *arguments: str, processes: int = 1) -> Ended:
    env = environment(processes) | {"HF_ENDPOINT": hub.address, "HF_HOME": str(home)}
    del env["HF_HUB_OFFLINE"]
    done = subprocess.run(
        command(program, processes, *arguments), env=env, capture_output=True, text=True, timeout=3 * START_SECONDS
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.matrix
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.matrix)])
def test_a_resumed_run_reads_the_commit_that_it_began_with(
    train: Trainer, corpus: Path, tmp_path: Path, processes: int
):
    top = tmp_path / "hub"
    move(top, FIRST, next((corpus / "train").glob("*.parquet")))
    settings = {"data__path": "o/be", "steps": 4, "eval__every": 0}
    halves = train.arguments("halves", **settings)
    with serve(top) as hub:
        first_half = [*halves, "--steps", "2", "--schedule.kind", "constant"]
        assert start(train, hub, tmp_path / "home", "train.py", *first_half, processes=processes).code == 0
        move(top, SECOND, next((corpus / "validation").glob("*.parquet")))

        moved = start(train, hub, tmp_path / "home", "train.py", *first_half, "--data.revision", "main")
        assert moved.code == 2
        assert f"the commit moved from {FIRST} to {SECOND}" in moved.err

        allowed = [*halves, "--schedule.kind", "constant", "--allow_change", "[steps]"]
        resumed = start(train, hub, tmp_path / "home", "train.py", *allowed, processes=processes)
        assert resumed.code == 0, resumed.err
        straight = [*train.arguments("straight", **settings), "--schedule.kind", "constant", "--data.revision", "first"]
        assert start(train, hub, tmp_path / "home", "train.py", *straight, processes=processes).code == 0
    assert digest(train.folder / "halves") == digest(train.folder / "straight")
    trainer = json.loads((train.folder / "halves/checkpoints/step-00000004/trainer.json").read_text())
    assert trainer["data"]["commit"] == FIRST
    assert trainer["config"]["data"]["revision"] is None, "the user's own setting"
