"""Forty kills at random moments of runs whose WER falls: each run ends with the bits of one that nobody killed.

The kills come in every part of a run: in updates, evaluations, saves in the foreground and in the background, and while
best/, final/ and average/ are published.
"""

import json
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.conftest import EndedTooEarlyError, Trainer, digest, metrics

KILLS = 10  # of each run
EVERY = 10  # steps between two evaluations
STEPS = 120
LAST = "final/model.safetensors", "best/model.safetensors", "average/model.safetensors"
Condition = Callable[[Path], bool]


@pytest.fixture
def settings(train: Trainer, tmp_path: Path) -> dict[str, Any]:
    """Settings of a run that learns 12 sentences by heart, and is evaluated on them."""
    pq.write_table(pq.read_table(train.corpus / "train").slice(0, 12), tmp_path / "few.parquet")
    return {
        "steps": STEPS,
        "data__path": tmp_path / "few.parquet",
        "eval__path": tmp_path / "few.parquet",
        "eval__every": EVERY,
        "eval__max_utterances": 12,
        "eval__max_new_tokens": 60,
        "batch__size": 8,
        "batch__per_device": 4,
        "model__dropout": 0,
        "optim__lr": 5e-3,
        "save__every": 5,
        "log__every": 1,
        "average__of": "best",
        "average__checkpoints": 2,
    }


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    """Complete rows of metrics.jsonl so far."""
    path = run_dir / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def reached(step: int) -> Condition:
    return lambda run_dir: any(row["step"] >= step and "loss" in row for row in rows_of(run_dir))


def evaluates(step: int) -> Condition:
    """True while an evaluation from this step on is under way."""

    def holds(run_dir: Path) -> bool:
        rows = rows_of(run_dir)
        return bool(rows) and rows[-1]["step"] >= step and rows[-1]["step"] % EVERY == 0 and "loss" in rows[-1]

    return holds


def writes(step: int, folder: str, pattern: str) -> Condition:
    """True while something is written aside, once a step is reached."""
    return lambda run_dir: reached(step)(run_dir) and any((run_dir / folder).glob(pattern))


def moments(rng: random.Random) -> list[tuple[str, Condition]]:
    """Parts of the work in which a run is killed, in the order of its steps."""
    parts = ["update", "evaluation", "save", "best"] * 2
    rng.shuffle(parts)
    steps = sorted(rng.randrange(5, STEPS - 20) for _ in parts)
    conditions: dict[str, Callable[[int], Condition]] = {
        "update": reached,
        "evaluation": evaluates,
        "save": lambda step: writes(step, "checkpoints", ".tmp-step-*"),
        "best": lambda step: writes(step, ".", ".tmp-best*"),
    }
    kills = [(part, conditions[part](step)) for part, step in zip(parts, steps, strict=True)]
    return [*kills, ("final", writes(STEPS, ".", ".tmp-final*")), ("average", writes(STEPS, ".", ".tmp-average*"))]


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("processes", "background", "seed"), [(1, False, 0), (1, True, 1), (2, False, 2), (2, True, 3)]
)
def test_a_run_killed_ten_times_ends_as_one_that_nobody_killed(
    train: Trainer, settings: dict[str, Any], processes: int, background: bool, seed: int
):
    settings |= {"save__background": str(background).lower()}
    whole = train("whole", processes, **settings)
    rates = {step: row["wer"] for step, row in metrics(whole, having="wer").items()}
    lowest = [rate for step, rate in rates.items() if rate == min(r for s, r in rates.items() if s <= step)]
    assert len(set(lowest)) >= 4, f"best/ should be replaced many times: {rates}"
    rng, killed = random.Random(seed), []
    for part, holds in moments(rng):
        pause = rng.uniform(0, 0.2) if part in ("update", "evaluation") else rng.uniform(0, 0.003)

        def now(run_dir: Path, holds: Condition = holds, pause: float = pause) -> bool:
            if holds(run_dir):
                time.sleep(pause)
                return True
            return False

        with suppress(EndedTooEarlyError):
            assert train.interrupt("run", now, signal.SIGKILL, processes, **settings) == -signal.SIGKILL
            killed.append(part)
    run_dir = train("run", processes, **settings)
    print(f"killed in {killed}")
    assert len(killed) >= KILLS - 2, killed
    for part in LAST:
        assert digest(run_dir, part) == digest(whole, part), part
    assert (run_dir / "best.json").read_bytes() == (whole / "best.json").read_bytes()
    assert {step: row["wer"] for step, row in metrics(run_dir, having="wer").items()} == rates
    losses = [{step: row["loss"] for step, row in metrics(folder).items()} for folder in (run_dir, whole)]
    assert losses[0] == losses[1]
    names = sorted(path.name for path in (whole / "predictions").iterdir())
    assert sorted(path.name for path in (run_dir / "predictions").iterdir()) == names
    assert not [path for path in run_dir.rglob("*") if path.name.startswith((".tmp-", ".trash-"))]
