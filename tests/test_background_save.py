"""`save.background`: training goes on while a checkpoint is written, and nothing else is different."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import ROOT, Trainer, command, digest, environment, metrics
from tests.saving import contents_at, record_of
from whisper_ft.checkpoint.checkpoint_manifest import read_manifest
from whisper_ft.checkpoint.format import MODEL, list_checkpoints, verify
from whisper_ft.checkpoint.loading import load_optimizer
from whisper_ft.checkpoint.state import TrainState
from whisper_ft.checkpoint.writer import contents_of, write

BACKGROUND = {"save__background": "true"}


def saves(run_dir: Path) -> list[dict[str, Any]]:
    rows = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row.get("event") == "saved"]


@pytest.mark.long
def test_a_run_that_does_not_wait_for_its_saves_leaves_the_same_bits(train: Trainer):
    whole, run_dir = train.reference(), train("run", **BACKGROUND)
    last = "checkpoints/step-00000008"
    parts = ["final/model.safetensors", "best/model.safetensors", "best.json"]
    for part in (*parts, f"{last}/model.safetensors", f"{last}/optimizer.safetensors"):
        assert digest(run_dir, part) == digest(whole, part)
    for saved in list_checkpoints(run_dir / "checkpoints"):
        assert verify(saved.path) is None
        parent = read_manifest(saved.path).parent
        assert parent == read_manifest(whole / "checkpoints" / saved.path.name).parent
    assert [row["step"] for row in saves(run_dir)] == [2, 4, 6, 8], "each was waited for"


def test_every_save_is_in_the_log_with_its_step_seconds_and_bytes(train: Trainer):
    whole = train.reference()
    logged = saves(whole)
    assert [row["step"] for row in logged] == [2, 4, 6, 8]
    files = (whole / "checkpoints/step-00000008").iterdir()
    size = sum(path.stat().st_size for path in files if path.name != "manifest.json")
    assert logged[-1]["bytes"] == pytest.approx(size, rel=0.1), "without the headers"
    assert all(row["seconds"] > 0 for row in logged)


@pytest.mark.parametrize("copied", [True, False])
def test_a_copied_checkpoint_keeps_the_weights_of_its_step(tmp_path: Path, copied: bool):
    """Without a copy it does not: the proof that this test can fail."""
    model, moments = torch.nn.Linear(3, 3), {"weight/exp_avg": torch.ones(3)}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    contents = contents_of(model, moments, record_of(TrainState(step=1)), copied=copied)
    with torch.no_grad():
        for tensor in (*model.parameters(), *moments.values()):
            tensor += 1
    path = write(tmp_path, None, contents)
    saved = load_file(path / MODEL)
    assert all(torch.equal(saved[name], tensor) for name, tensor in before.items()) == copied
    assert bool((load_optimizer(path)["weight/exp_avg"] == 1).all()) == copied


@pytest.mark.long
def test_a_stop_signal_in_a_save_waits_for_it_and_the_same_command_goes_on(train: Trainer):
    in_save = lambda run_dir: any((run_dir / "checkpoints").glob(".tmp-step-*"))  # noqa: E731
    assert train.interrupt("run", in_save, signal.SIGTERM, **BACKGROUND) == 75
    run_dir = train.folder / "run"
    status = json.loads((run_dir / "status.json").read_text())
    assert status["last_checkpoint"] == f"step-{status['step']:08d}" == f"step-{saves(run_dir)[-1]['step']:08d}"
    saved = list_checkpoints(run_dir / "checkpoints")
    assert [verify(entry.path) for entry in saved] == [None] * len(saved)
    assert not list((run_dir / "checkpoints").glob(".*"))
    assert digest(train("run", **BACKGROUND)) == digest(train.reference())


@pytest.mark.long
def test_a_save_in_the_background_that_fails_ends_all_ranks_in_one_line(train: Trainer):
    size = (train.reference() / "checkpoints/step-00000008/model.safetensors").stat().st_size
    arguments = train.arguments("run", **BACKGROUND, steps=1000, save__every=20, eval__every=0)
    limited = f"ulimit -f {size // 2048}; " + 'exec "$@"'  # in blocks of 1,024 bytes
    done = subprocess.run(
        ["bash", "-c", limited, "bash", *command("train.py", 2, *arguments)],
        cwd=ROOT,
        env=environment(2),
        capture_output=True,
        text=True,
        timeout=120,
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert str(train.folder / "run/checkpoints") in errors[0]
    assert "File too large" in errors[0]
    status = json.loads((train.folder / "run/status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("failed", 6)
    assert 20 <= max(metrics(train.folder / "run")) < 40, "before the next save"
    assert not list((train.folder / "run/checkpoints").iterdir())


def test_the_bytes_of_a_checkpoint_are_known_before_it_is_written(tmp_path: Path):
    contents = contents_at(3)
    path = write(tmp_path, None, contents)
    written = sum(inner.stat().st_size for inner in path.iterdir())
    assert contents.size < written < contents.size + 2_000, "headers and manifest"
