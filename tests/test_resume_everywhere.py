"""Resume at every step, and onto another number of processes: real runs of train.py."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import Trainer, digest, metrics
from whisper_ft.checkpoint.format import list_checkpoints
from whisper_ft.cli.replay.step_rows import configuration, replay

STEPS = 6
EVERY_STEP = {"steps": STEPS, "eval__every": 0, "save__every": 1, "save__keep": STEPS}
LAST = f"checkpoints/step-{STEPS:08d}"


def cut(whole: Path, step: int, to: Path) -> Path:
    """Copy a run without all that it wrote after the checkpoint of a step."""
    shutil.copytree(whole, to, ignore=shutil.ignore_patterns("final", "best*"))
    for saved in list_checkpoints(to / "checkpoints"):
        if saved.step > step:
            shutil.rmtree(saved.path)
    assert max(saved.step for saved in list_checkpoints(to / "checkpoints")) == step
    return to


def resumed_at(run_dir: Path) -> list[int]:
    """The steps that a run was resumed at."""
    rows = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [row["step"] for row in rows if row.get("event") == "resumed"]


@pytest.mark.parametrize("step", [1, *(pytest.param(step, marks=pytest.mark.matrix) for step in range(2, STEPS))])
def test_a_run_that_goes_on_from_any_step_ends_in_the_same_bits(train: Trainer, step: int):
    whole = train.reference(**EVERY_STEP)
    assert {saved.step for saved in list_checkpoints(whole / "checkpoints")} == {*range(1, STEPS + 1)}
    cut(whole, step, train.folder / "cut")
    run_dir = train("cut", **EVERY_STEP)
    assert resumed_at(run_dir) == [step]
    assert digest(run_dir) == digest(whole)
    assert digest(run_dir, f"{LAST}/optimizer.safetensors") == digest(whole, f"{LAST}/optimizer.safetensors")


# Without dropout: its masks are those of the processes.
ANY_WORLD = EVERY_STEP | {"model__dropout": 0}


@pytest.mark.parametrize(
    ("before", "after"), [(1, 2), *(pytest.param(*worlds, marks=pytest.mark.matrix) for worlds in ((2, 1), (1, 3)))]
)
def test_a_run_continues_on_another_number_of_processes(train: Trainer, before: int, after: int):
    cut(train.reference(before, **ANY_WORLD), 3, train.folder / "moved")
    run_dir = train("moved", after, **ANY_WORLD)
    assert resumed_at(run_dir) == [3]
    alone = train.reference(**ANY_WORLD)
    expected, moved = metrics(alone), metrics(run_dir)
    assert sorted(moved) == [*range(1, STEPS + 1)]
    for step, row in moved.items():
        assert row["label_tokens"] == expected[step]["label_tokens"]
        assert row["lr"] == expected[step]["lr"]
        assert row["loss"] == pytest.approx(expected[step]["loss"], rel=1e-5), "float32 sums in another order"
        assert row["grad_norm"] == pytest.approx(expected[step]["grad_norm"], rel=1e-4)
    before_move, now = configuration(alone, None), configuration(run_dir, None)
    for step in range(STEPS):
        assert replay(now, step) == replay(before_move, step)
