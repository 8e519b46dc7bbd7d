"""fp16: the loss scale is part of a run, an overflow costs one update on all ranks, and a run that is lost ends."""

import json
import signal
from pathlib import Path

import pytest

from tests.conftest import Trainer, digest, logged, metrics

OVERFLOWS = {
    "steps": 10,
    "precision": "fp16",
    "scaler__initial": 2.0**24,
    "scaler__growth_every": 2,
    "model__layerdrop": 0.2,  # and dropout, as all runs of these tests
    "augment__time_masks": 1,
    "augment__frequency_masks": 1,
    "loss__label_smoothing": 0.1,
    "optim__name": "adamw_8bit",
}


def halves(train: Trainer, processes: int) -> Path:
    """A run that begins with a scale at which every gradient overflows."""
    return train.reference(processes, **OVERFLOWS)


@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.matrix), 2])
def test_an_overflow_skips_the_update_on_all_ranks_and_lowers_the_scale(train: Trainer, processes: int):
    rows = metrics(halves(train, processes))
    skipped = [rows[step]["skipped"] for step in sorted(rows)]
    scales = [rows[step]["loss_scale"] for step in sorted(rows)]
    assert scales[0] == 2.0**24
    assert skipped[0] == 1
    assert rows[1]["grad_norm"] is None, "not finite"
    assert 3 < skipped[-1] < 10, "it found a scale that holds"
    for before, scale, skips_before, skips in zip(scales, scales[1:], [0, *skipped], skipped, strict=False):
        if skips > skips_before:
            assert scale == before / 2, "every skipped update halves the scale"
        else:
            assert scale in (before, before * 2), "and after two good ones it doubles"
    assert max(scales) > min(scales) * 2
    assert all(row["loss"] < 20 for row in rows.values()), "the loss that is logged is not scaled"


@pytest.mark.long
@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.matrix), 2])
def test_a_scale_comes_back_to_the_bit_after_kills_with_everything_on(train: Trainer, processes: int):
    """Killed while every update is skipped, when nothing is saved, and after a scale that held was saved at step 6."""
    train.interrupt("killed", logged(3), signal.SIGKILL, processes, **OVERFLOWS)
    train.interrupt("killed", logged(8), signal.SIGKILL, processes, **OVERFLOWS)
    run_dir = train("killed", processes, **OVERFLOWS)
    assert digest(run_dir) == digest(halves(train, processes))
    kept = {"loss", "grad_norm", "loss_scale", "skipped", "lr"}
    expected = {step: {key: row[key] for key in kept} for step, row in metrics(halves(train, processes)).items()}
    assert {step: {key: row[key] for key in kept} for step, row in metrics(run_dir).items()} == expected


@pytest.mark.long
def test_a_scale_below_its_floor_ends_the_run_with_the_ids_of_the_batch(train: Trainer):
    ended = train.end("lost", precision="fp16", scaler__initial=2.0**40, scaler__floor=2.0**38, steps=8)
    status = json.loads((train.folder / "lost/status.json").read_text())
    assert ended.code == 5
    assert status["exit_code"] == 5
    assert "scaler.floor" in status["reason"]
    assert ".parquet#" in status["reason"], "ids of the last batch"
    assert not list((train.folder / "lost/checkpoints").glob("step-*")), "nothing was learned since the streak began"


@pytest.mark.long
def test_a_run_that_becomes_fp16_is_told_that_its_scale_starts(train: Trainer):
    train("run", steps=2, eval__every=0)
    ended = train.end("run", steps=4, eval__every=0, precision="fp16", allow_change="[steps, precision]")
    assert ended.code == 0, ended.err
    assert "65536" in ended.out
    assert metrics(train.folder / "run")[3]["loss_scale"] == 65536
