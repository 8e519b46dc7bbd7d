"""Resume: changes that are allowed, changes that are refused, and the state that a run is left in."""

import fcntl
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.conftest import Trainer, digest, logged, metrics
from whisper_ft.checkpoint.format import list_checkpoints
from whisper_ft.cli.replay.step_rows import configuration, replay

FINISHED = {"steps": 4}  # settings of the finished run that most tests copy and continue


def events(run_dir: Path, name: str) -> list[int]:
    """Steps of an event in metrics.jsonl."""
    rows = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [row["step"] for row in rows if row.get("event") == name]


def source_elsewhere(train: Trainer) -> Path:
    """A finished run outside of the directory of the run that begins at one of its checkpoints."""
    return train.copy_reference("source", **FINISHED)


@pytest.mark.long
def test_another_configuration_is_refused_with_the_way_out(train: Trainer):
    train.copy_reference(**FINISHED)
    for changed, facts in (({"seed": 5}, ("seed", "1", "5")), ({"optim__lr": 5e-4}, ("--allow_change '[optim.lr]'",))):
        message = str(train.refusal("run", **FINISHED | changed))
        assert all(fact in message for fact in facts)
        assert "\n" not in message
    ended = train.end("run", **FINISHED, seed=5)
    assert (ended.code, len(ended.err.strip().splitlines())) == (2, 1)


@pytest.mark.long
@pytest.mark.parametrize(
    "refused",
    [
        pytest.param({"resume": "never", "seed": 7}, marks=pytest.mark.matrix),
        pytest.param({"data__path": "{validation}"}, marks=pytest.mark.matrix),
        {"model__name": "{broken}", "allow_change": "[model.dropout]", "model__dropout": 0},
    ],
    ids=["a fresh run", "other data", "a broken model"],
)
def test_a_refused_start_leaves_the_run_as_it_was(
    train: Trainer, corpus: Path, tmp_path: Path, refused: dict[str, object]
):
    run_dir = train.copy_reference(**FINISHED)
    config, ids = (run_dir / "config.yaml").read_text(), replay(configuration(run_dir, None), 4)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/config.json").write_text("{}")
    places = {"validation": corpus / "validation", "broken": tmp_path / "broken"}
    refused = {name: str(value).format(**places) for name, value in refused.items()}
    assert train.end("run", **FINISHED | refused).code == 2
    assert (run_dir / "config.yaml").read_text() == config
    assert replay(configuration(run_dir, None), 4) == ids
    train("run", **FINISHED)


@pytest.mark.long
def test_an_allowed_change_that_was_never_saved_does_not_bind_the_run(train: Trainer):
    """config.yaml has the settings of the last accepted start; the newest checkpoint decides."""
    run_dir = train.copy_reference(**FINISHED)
    changed = {"steps": 40, "allow_change": "[steps]", "save__every": 0, "eval__every": 0}
    begun = lambda path: "steps: 40" in (path / "config.yaml").read_text()  # noqa: E731
    assert train.interrupt("run", begun, signal.SIGKILL, **changed) == -signal.SIGKILL
    before = digest(run_dir)
    train("run", **FINISHED)
    assert digest(run_dir) == before


def test_a_run_from_a_named_checkpoint_goes_on_where_it_was_interrupted(train: Trainer, tmp_path: Path):
    """The same command twice is the same as once: it does not go back to the named checkpoint."""
    source = source_elsewhere(train)
    start_at = {"resume": source / "checkpoints/step-00000002", "allow_change": "[steps]"}
    settings = {**start_at, "steps": 10, "eval__every": 0}
    whole = train("whole", **settings)
    assert train.interrupt("run", logged(5), signal.SIGKILL, **settings) == -signal.SIGKILL
    train("run", **settings)
    assert events(tmp_path / "run", "resumed")[0] == 2
    assert events(tmp_path / "run", "resumed")[1] >= 4
    assert digest(tmp_path / "run") == digest(whole)
    newest = json.loads((tmp_path / "run/checkpoints/step-00000010/manifest.json").read_text())
    assert newest["parent"] == "step-00000008"


@pytest.mark.long
def test_going_back_to_the_best_keeps_where_it_began_and_goes_on_there(train: Trainer):
    run_dir = train.copy_reference(**FINISHED)
    began = json.loads((run_dir / "best.json").read_text())["step"]
    settings = {"resume": "best", "allow_change": "[steps]", "eval__every": 0, "steps": 14}
    assert train.interrupt("run", logged(11), signal.SIGKILL, **settings) == -signal.SIGKILL
    assert began in [saved.step for saved in list_checkpoints(run_dir / "checkpoints")]
    train("run", **settings)
    assert events(run_dir, "resumed")[-2] == began
    assert events(run_dir, "resumed")[-1] >= 10


@pytest.mark.long
def test_the_checkpoint_a_run_began_at_may_vanish_while_it_trains(train: Trainer):
    source = source_elsewhere(train)
    settings = {"resume": source / "checkpoints/step-00000004", "allow_change": "[steps]", "steps": 1000}

    def removed(run_dir: Path) -> bool:
        if logged(6)(run_dir):
            shutil.rmtree(source, ignore_errors=True)
        return not source.exists()

    assert train.interrupt("run", removed, signal.SIGTERM, **settings, eval__every=0, save__every=0) == 75


@pytest.mark.long
def test_a_run_cannot_be_made_shorter_than_it_is(train: Trainer):
    run_dir = train.copy_reference(**FINISHED)
    ended = train.end("run", steps=3, allow_change="[steps]")
    assert ended.code == 2
    assert all(fact in ended.err for fact in ("step 4", "3 steps"))
    assert len(list_checkpoints(run_dir / "checkpoints")) == 2


@pytest.mark.long
def test_a_stop_while_the_model_is_loaded_is_heard(train: Trainer):
    there = lambda path: (path / "status.json").exists()  # noqa: E731
    assert train.interrupt("run", there, signal.SIGTERM, steps=1000) == 75
    status = json.loads((train.folder / "run/status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("preempted", 75)


@pytest.mark.long
def test_a_start_from_a_checkpoint_of_another_configuration_is_refused(train: Trainer):
    source = source_elsewhere(train) / "checkpoints/step-00000004"
    ended = train.end("run", **FINISHED, resume=source, seed=5)
    assert ended.code == 2
    assert all(fact in ended.err for fact in (str(source), "seed", "1", "5"))
    assert "run_dir" not in ended.err


@pytest.mark.long
def test_the_branch_goes_on_when_the_checkpoint_it_began_at_is_gone(train: Trainer, tmp_path: Path):
    source = source_elsewhere(train)
    settings = {"resume": source / "checkpoints/step-00000004", "allow_change": "[steps]", "eval__every": 0}
    train("run", steps=6, **settings)
    shutil.rmtree(source)
    train("run", steps=8, **settings)
    assert sorted(metrics(tmp_path / "run")) == [5, 6, 7, 8]


@pytest.mark.long
def test_status_tells_how_the_last_start_ended_and_where_the_run_stands(train: Trainer):
    run_dir = train.copy_reference(**FINISHED)
    assert train.end("run", **FINISHED, seed=9, resume=run_dir / "checkpoints/step-00000002").code == 2
    status = json.loads((run_dir / "status.json").read_text())
    assert (status["state"], status["exit_code"], status["step"]) == ("failed", 2, 4)
    assert all(fact in status["reason"] for fact in ("seed", "1", "9"))
    assert status["last_checkpoint"] == "step-00000004"
    running = lambda path: json.loads((path / "status.json").read_text())["state"] == "running"  # noqa: E731
    assert train.interrupt("run", running, signal.SIGKILL, **FINISHED) == -signal.SIGKILL


def test_other_data_is_refused(train: Trainer, corpus: Path, tmp_path: Path):
    grown = tmp_path / "train"
    shutil.copytree(corpus / "train", grown)
    settings = {"steps": 2, "data__path": grown, "eval__every": 0}
    run_dir = train("run", **settings)
    shutil.copy(next((corpus / "validation").glob("*.parquet")), grown / "train-00002-of-00003.parquet")
    ended = train.end("run", **settings)
    assert ended.code == 2
    assert str(run_dir / "checkpoints/step-00000002") in ended.err


@pytest.mark.long
def test_an_allowed_change_of_steps_and_rate_continues_the_run(train: Trainer):
    run_dir = train.copy_reference(**FINISHED)
    ended = train.end("run", steps=6, optim__lr=5e-4, allow_change="[steps, optim.lr]")
    assert ended.code == 0, ended.err
    assert "LR at step 4: saved 0.0005, now " in ended.out
    (change,) = (line for line in ended.out.splitlines() if line.startswith("optim.lr"))
    assert "0.001" in change
    assert "0.0005" in change
    assert sorted(metrics(run_dir)) == [1, 2, 3, 4, 5, 6]


def test_a_finished_run_started_again_changes_nothing(train: Trainer):
    run_dir = train.copy_reference(**FINISHED)
    before, log = digest(run_dir), (run_dir / "metrics.jsonl").read_bytes()
    train("run", **FINISHED)
    assert digest(run_dir) == before
    assert (run_dir / "metrics.jsonl").read_bytes() == log, "no step is done, so none is resumed"


def test_a_used_directory_is_refused_when_a_fresh_run_is_asked_for(train: Trainer):
    run_dir = train.copy_reference(**FINISHED)
    ended = train.end("run", **FINISHED, resume="never")
    assert ended.code == 2
    assert str(run_dir) in ended.err


@pytest.mark.long
def test_a_used_directory_is_moved_aside_when_it_is_to_be_overwritten(train: Trainer):
    run_dir = train.copy_reference(**FINISHED)
    before = digest(run_dir)
    ended = train.end("run", steps=2, resume="never", overwrite="true", seed=7)
    assert ended.code == 0, ended.err
    moved = train.folder / "run.replaced-1"
    assert str(moved) in ended.out
    assert digest(moved) == before
    assert (sorted(metrics(moved)), sorted(metrics(run_dir))) == ([1, 2, 3, 4], [1, 2])
    assert [saved.step for saved in list_checkpoints(run_dir / "checkpoints")] == [2]


def test_a_damaged_checkpoint_is_passed_over_and_the_run_ends_the_same(train: Trainer):
    """One bit of the weights, or one of a setting in the record, which the user would seem to have changed."""
    run_dir = train.copy_reference(**FINISHED)
    expected = digest(run_dir)
    for name, now in (("model.safetensors", b""), ("trainer.json", b'"seed": 3')):
        path = run_dir / "checkpoints/step-00000004" / name
        whole = path.read_bytes()
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        path.write_bytes(whole.replace(b'"seed": 1', now) if now else flipped)
        assert path.read_bytes() != whole
        ended = train.end("run", **FINISHED)
        assert ended.code == 0, ended.err
        (line,) = (line for line in ended.out.splitlines() if "step-00000004 is not usable" in line)
        assert path.name in line
        assert "sha256" in line
        assert digest(run_dir) == expected


@pytest.mark.long
def test_when_all_checkpoints_are_damaged_the_run_does_not_start_from_zero(train: Trainer):
    run_dir = train.copy_reference(**FINISHED)
    for manifest in run_dir.glob("checkpoints/*/manifest.json"):
        manifest.write_text("{")
    assert train.end("run", **FINISHED).code == 3
    assert json.loads((run_dir / "status.json").read_text())["exit_code"] == 3


@pytest.mark.long
def test_best_is_made_anew_from_its_checkpoint_when_it_is_gone(train: Trainer):
    run_dir = train.copy_reference(**FINISHED)
    before = digest(run_dir, "best/model.safetensors")
    shutil.rmtree(run_dir / "best")
    train("run", **FINISHED)
    assert digest(run_dir, "best/model.safetensors") == before


@pytest.mark.long
def test_best_of_the_earlier_run_is_what_a_resumed_one_has_to_beat(train: Trainer):
    """A run whose state knows a best of 0 % keeps it, whatever comes later."""
    run_dir = train.copy_reference(**FINISHED)
    best_before = json.loads((run_dir / "best.json").read_text())
    train("run", steps=6, allow_change="[steps]", eval__every=1)
    later = metrics(run_dir, having="wer")
    best = json.loads((run_dir / "best.json").read_text())
    assert best["value"] == min([best_before["value"], *(later[step]["wer"] for step in (5, 6))])
    if all(later[step]["wer"] >= best_before["value"] for step in (5, 6)):
        assert best == best_before


@pytest.mark.long
def test_a_second_run_in_one_directory_names_the_first(train: Trainer, tmp_path: Path):
    (tmp_path / "run").mkdir()
    with (tmp_path / "run/.lock").open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write(json.dumps({"pid": os.getpid(), "host": "here", "since": "2026-11-21 10:00:00"}))
        held.flush()
        ended = train.end("run", steps=1)
    assert ended.code == 7
    assert all(fact in ended.err for fact in (f"pid {os.getpid()}", "here", "2026-11-21 10:00:00"))
