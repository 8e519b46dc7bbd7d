"""Resume: what may change, what is refused, and what is said."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Trainer, digest, logged, metrics
from whisper_ft.checkpoint.format import list_checkpoints


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


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param({"resume": "never", "seed": 7}, marks=pytest.mark.long),
        pytest.param({"data__path": "{validation}"}, marks=pytest.mark.long),
        {"model__name": "{broken}", "allow_change": "[model.dropout]", "model__dropout": 0},
    ],
    ids=["a fresh run", "other data", "a broken model"],
)
def test_a_refused_start_leaves_the_run_as_it_was(
    halfway: Trainer, train: Trainer, corpus: Path, tmp_path: Path, refused: dict[str, object]
):
    run_dir = copy(halfway, train)
    config, ids = (run_dir / "config.yaml").read_text(), replayed(run_dir)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/config.json").write_text("{}")
    places = {"validation": corpus / "validation", "broken": tmp_path / "broken"}
    refused = {name: str(value).format(**places) for name, value in refused.items()}
    assert train.end("run", **{"steps": 4} | refused).code == 2
    assert (run_dir / "config.yaml").read_text() == config
    assert replayed(run_dir) == ids
    train("run", steps=4)


def test_an_allowed_change_that_was_never_saved_does_not_bind_the_run(halfway: Trainer, train: Trainer):
    """config.yaml says what the last accepted start asked for; what counts is the newest checkpoint."""
    run_dir = copy(halfway, train)
    changed = {"steps": 40, "allow_change": "[steps]", "save__every": 0, "eval__every": 0}
    begun = lambda path: "steps: 40" in (path / "config.yaml").read_text()  # noqa: E731
    assert train.interrupt("run", begun, signal.SIGKILL, **changed) == -signal.SIGKILL
    before = digest(run_dir)
    train("run", steps=4)
    assert digest(run_dir) == before


def replayed(run_dir: Path) -> str:
    argv = [sys.executable, "-m", "whisper_ft.replay", "--run_dir", str(run_dir), "--step", "4"]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_a_run_from_a_named_checkpoint_goes_on_where_it_was_interrupted(
    halfway: Trainer, train: Trainer, tmp_path: Path
):
    """The same command twice is the same as once: it does not go back to the named checkpoint."""
    source = copy(halfway, train).rename(tmp_path / "source")
    settings = {
        "resume": source / "checkpoints/step-00000002",
        "allow_change": "[steps]",
        "steps": 20,
        "eval__every": 0,
    }
    whole = train("whole", **settings)
    assert train.interrupt("run", logged(5), signal.SIGKILL, **settings) == -signal.SIGKILL
    ended = train.end("run", **settings)
    assert ended.code == 0, ended.err
    assert "began at step 2 and goes on from its newest checkpoint" in ended.out
    assert digest(tmp_path / "run") == digest(whole)
    newest = json.loads((tmp_path / "run/checkpoints/step-00000020/manifest.json").read_text())
    assert newest["parent"] == "step-00000018"


def test_going_back_to_the_best_keeps_where_it_began_and_goes_on_there(halfway: Trainer, train: Trainer):
    run_dir = copy(halfway, train)
    began = json.loads((run_dir / "best.json").read_text())["step"]
    settings = {"resume": "best", "allow_change": "[steps]", "eval__every": 0, "steps": 20}
    assert train.interrupt("run", logged(11), signal.SIGKILL, **settings) == -signal.SIGKILL
    kept = [found.step for found in list_checkpoints(run_dir / "checkpoints")]
    assert began in kept
    ended = train.end("run", **settings)
    assert ended.code == 0, ended.err
    assert f"--resume best began at step {began} and goes on from its newest checkpoint" in ended.out


def test_the_checkpoint_a_run_began_at_may_vanish_while_it_trains(halfway: Trainer, train: Trainer, tmp_path: Path):
    source = copy(halfway, train).rename(tmp_path / "source")
    settings = {"resume": source / "checkpoints/step-00000004", "allow_change": "[steps]", "steps": 30}

    def removed(run_dir: Path) -> bool:
        if logged(6)(run_dir):
            shutil.rmtree(source, ignore_errors=True)
        return not source.exists()

    assert train.interrupt("run", removed, signal.SIGTERM, **settings, eval__every=0, save__every=0) == 75


def test_a_run_cannot_be_made_shorter_than_it_is(halfway: Trainer, train: Trainer):
    run_dir = copy(halfway, train)
    ended = train.end("run", steps=3, allow_change="[steps]")
    assert ended.code == 2
    assert "is at step 4 already: the run cannot be shortened to 3 steps" in ended.err
    assert len(list_checkpoints(run_dir / "checkpoints")) == 2


def test_a_stop_while_the_model_is_loaded_is_heard(train: Trainer):
    there = lambda path: (path / "status.json").exists()  # noqa: E731
    assert train.interrupt("run", there, signal.SIGTERM, steps=1000) == 75
    status = json.loads((train.folder / "run/status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("preempted", 75)


def test_a_start_from_a_checkpoint_of_another_configuration_is_refused(
    halfway: Trainer, train: Trainer, tmp_path: Path
):
    source = copy(halfway, train).rename(tmp_path / "source") / "checkpoints/step-00000004"
    ended = train.end("run", steps=4, resume=source, seed=5)
    assert ended.code == 2
    assert f"{source} is of a run of another configuration: seed was 1 and is 5" in ended.err
    assert "run_dir" not in ended.err


def test_the_branch_goes_on_when_the_checkpoint_it_began_at_is_gone(halfway: Trainer, train: Trainer, tmp_path: Path):
    source = copy(halfway, train).rename(tmp_path / "source")
    settings = {"resume": source / "checkpoints/step-00000004", "allow_change": "[steps]", "eval__every": 0}
    train("run", steps=6, **settings)
    shutil.rmtree(source)
    train("run", steps=8, **settings)
    assert sorted(metrics(tmp_path / "run")) == [5, 6, 7, 8]


def test_status_tells_how_the_last_start_ended_and_where_the_run_stands(halfway: Trainer, train: Trainer):
    run_dir = copy(halfway, train)
    assert train.end("run", steps=4, seed=9, resume=run_dir / "checkpoints/step-00000002").code == 2
    status = json.loads((run_dir / "status.json").read_text())
    assert (status["state"], status["exit_code"], status["step"]) == ("failed", 2, 4)
    assert "seed was 1 and is 9" in status["reason"]
    assert status["last_checkpoint"] == "step-00000004"
    running = lambda path: json.loads((path / "status.json").read_text())["state"] == "running"  # noqa: E731
    assert train.interrupt("run", running, signal.SIGKILL, steps=4) == -signal.SIGKILL


def test_other_data_is_refused(train: Trainer, corpus: Path, tmp_path: Path):
    grown = tmp_path / "train"
    shutil.copytree(corpus / "train", grown)
    settings = {"steps": 2, "data__path": grown, "eval__every": 0}
    train("run", **settings)
    shutil.copy(next((corpus / "validation").glob("*.parquet")), grown)
    ended = train.end("run", **settings)
    assert ended.code == 2
    assert "the data is not what" in ended.err


def test_an_allowed_change_of_steps_and_rate_continues_the_run(halfway: Trainer, train: Trainer):
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


def test_a_used_directory_is_moved_aside_when_it_is_to_be_overwritten(halfway: Trainer, train: Trainer):
    run_dir = copy(halfway, train)
    before = digest(run_dir)
    ended = train.end("run", steps=2, resume="never", overwrite="true", seed=7)
    assert ended.code == 0, ended.err
    moved = train.folder / "run.replaced-1"
    assert f"the run that was in {run_dir} is now {moved}" in ended.out
    assert digest(moved) == before
    assert (sorted(metrics(moved)), sorted(metrics(run_dir))) == ([1, 2, 3, 4], [1, 2])
    assert [found.step for found in list_checkpoints(run_dir / "checkpoints")] == [2]


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


def test_a_second_run_in_one_directory_names_the_first(train: Trainer, tmp_path: Path):
    import fcntl
    import os

    (tmp_path / "run").mkdir()
    with (tmp_path / "run/.lock").open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write(json.dumps({"pid": os.getpid(), "host": "here", "since": "2026-11-21 10:00:00"}))
        held.flush()
        ended = train.end("run", steps=1)
    assert ended.code == 7
    assert f"in use by another run (pid {os.getpid()} on here since 2026-11-21 10:00:00)" in ended.err
