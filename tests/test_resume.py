"""Resume: what may change, what is refused, and what is said."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import Trainer, digest, metrics


@pytest.fixture(scope="module")
def halfway(tmp_path_factory: pytest.TempPathFactory, corpus: Path, micro_whisper: Path) -> Trainer:
    """A finished run of 4 steps, to be copied and continued."""
    trainer = Trainer(tmp_path_factory.mktemp("halfway"), corpus, micro_whisper)
    trainer("run", steps=4)
    return trainer


def copy(halfway: Trainer, to: Trainer, name: str = "run") -> Path:
    """The run under another path: moving a run directory keeps it resumable."""
    shutil.copytree(halfway.folder / "run", to.folder / name)
    return to.folder / name


def test_another_configuration_is_refused_in_one_line_with_the_way_out(halfway: Trainer, train: Trainer):
    copy(halfway, train)
    for settings, told in (
        ({"seed": 5}, "seed was 1 and is 5"),
        ({"optim__lr": 5e-4}, "--allow_change '[optim.lr]'"),
    ):
        ended = train.end("run", steps=4, **settings)
        assert ended.code == 2
        assert told in ended.err
        assert len(ended.err.strip().splitlines()) == 1


def test_other_data_is_refused(train: Trainer, corpus: Path, tmp_path: Path):
    grown = tmp_path / "train"
    shutil.copytree(corpus / "train", grown)
    settings = {"steps": 2, "data__path": grown, "eval__every": 0}
    train("run", **settings)
    shutil.copy(next((corpus / "validation").glob("*.parquet")), grown)
    ended = train.end("run", **settings)
    assert ended.code == 2
    assert "the data is not what" in ended.err


def test_more_steps_and_another_rate_go_on_when_allowed_and_the_rate_is_told(halfway: Trainer, train: Trainer):
    run_dir = copy(halfway, train)
    ended = train.end("run", steps=6, optim__lr=5e-4, allow_change="[steps, optim.lr]")
    assert ended.code == 0, ended.err
    assert "LR at step 4: saved 0.0005, now " in ended.out
    assert "optim.lr: was 0.001, is 0.0005, as allowed" in ended.out
    assert sorted(metrics(run_dir)) == [1, 2, 3, 4, 5, 6]


def test_a_finished_run_started_again_changes_nothing(halfway: Trainer, train: Trainer):
    run_dir = copy(halfway, train)
    before = digest(run_dir)
    train("run", steps=4)
    assert digest(run_dir) == before


def test_a_used_directory_is_refused_when_a_fresh_run_is_asked_for(halfway: Trainer, train: Trainer):
    copy(halfway, train)
    ended = train.end("run", steps=4, resume="never")
    assert ended.code == 2
    assert "holds a run already" in ended.err


def test_a_damaged_checkpoint_is_passed_over_and_the_run_ends_the_same(halfway: Trainer, train: Trainer):
    run_dir = copy(halfway, train)
    expected = digest(run_dir)
    weights = run_dir / "checkpoints/step-00000004/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    ended = train.end("run", steps=4)
    assert ended.code == 0, ended.err
    assert (
        "step-00000004 is not usable: model.safetensors is damaged (its sha256 differs); trying the one before"
        in ended.out
    )
    assert digest(run_dir) == expected


def test_when_all_checkpoints_are_damaged_the_run_does_not_start_from_zero(halfway: Trainer, train: Trainer):
    run_dir = copy(halfway, train)
    for manifest in run_dir.glob("checkpoints/*/manifest.json"):
        manifest.write_text("{")
    ended = train.end("run", steps=4)
    assert ended.code == 3
    assert "none is usable" in ended.err
    assert json.loads((run_dir / "status.json").read_text())["exit_code"] == 3


def test_best_is_made_anew_from_its_checkpoint_when_it_is_gone(halfway: Trainer, train: Trainer):
    run_dir = copy(halfway, train)
    before = digest(run_dir, "best/model.safetensors")
    shutil.rmtree(run_dir / "best")
    train("run", steps=4)
    assert digest(run_dir, "best/model.safetensors") == before


def test_best_of_the_earlier_run_is_what_a_resumed_one_has_to_beat(halfway: Trainer, train: Trainer):
    """A run whose state knows a best of 0 % keeps it, whatever comes later."""
    run_dir = copy(halfway, train)
    best_before = json.loads((run_dir / "best.json").read_text())
    train("run", steps=6, allow_change="[steps]", eval__every=1)
    later = metrics(run_dir, having="wer")
    best = json.loads((run_dir / "best.json").read_text())
    assert best["value"] == min([best_before["value"], *(later[step]["wer"] for step in (5, 6))])
    if all(later[step]["wer"] >= best_before["value"] for step in (5, 6)):
        assert best == best_before


def test_two_runs_in_one_directory_the_second_is_told_who_holds_it(train: Trainer, tmp_path: Path):
    import fcntl
    import os

    (tmp_path / "run").mkdir()
    with (tmp_path / "run/.lock").open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write(json.dumps({"pid": os.getpid(), "host": "here"}))
        held.flush()
        ended = train.end("run", steps=1)
    assert ended.code == 7
    assert f'"pid": {os.getpid()}' in ended.err
