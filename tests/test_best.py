"""best/: the model of the lowest rate, in runs that are stopped, continued, forked and damaged.

The rate of these runs falls: they are scored in characters (a Thai set by name), and a tiny model soon learns some.
"""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import Trainer, digest, logged, metrics

LEARNS = {
    "steps": 48,
    "optim__lr": 5e-3,
    "schedule__warmup": 4,
    "model__dropout": 0,
    "data__language": "th",
    "labels__leading_space": "never",  # its first word is then learnt sooner
    "eval__max_new_tokens": 30,
    "save__every": 4,
}


def learned(train: Trainer) -> Path:
    """A finished run, evaluated at steps 32, the first where anything is right, and 48."""
    return train.reference(**LEARNS, eval__every=32)


def copied(train: Trainer, name: str = "run") -> Path:
    """A copy of it, to be continued."""
    return train.copy_reference(name, **LEARNS, eval__every=32)


def best(run_dir: Path) -> dict[str, Any]:
    return dict(json.loads((run_dir / "best.json").read_text()))


def is_the_model_of(run_dir: Path, step: int) -> bool:
    """True where best/ holds the weights of a step's checkpoint."""
    saved = load_file(run_dir / f"checkpoints/step-{step:08d}/model.safetensors")
    published = load_file(run_dir / "best/model.safetensors")
    return all(torch.equal(saved[name], value) for name, value in published.items())


def steps_kept(run_dir: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (run_dir / "checkpoints").glob("step-*"))


@pytest.mark.long
def test_each_better_model_replaces_the_one_before(train: Trainer):
    run_dir = train("run", **LEARNS, eval__every=8)
    rates = {step: row["cer"] for step, row in metrics(run_dir, having="cer").items()}
    assert len({round(rate, 6) for rate in rates.values()}) >= 3, "the rate should fall at least twice"
    lowest = min(rates.values())
    assert best(run_dir) == {
        "step": min(step for step, rate in rates.items() if rate == lowest),
        "metric": "cer",
        "model": "whole",
        "value": lowest,
    }
    assert is_the_model_of(run_dir, best(run_dir)["step"])


@pytest.mark.matrix
def test_best_and_its_checkpoint_stay_while_later_steps_are_saved(train: Trainer):
    """Stopped at about step 39: two newer checkpoints are there, best/ is still that of step 32."""
    assert train.interrupt("run", logged(38), signal.SIGTERM, **LEARNS, eval__every=32) == 75
    run_dir = train.folder / "run"
    newest = json.loads((run_dir / "status.json").read_text())["step"]
    assert best(run_dir)["step"] == 32
    assert len(steps_kept(run_dir)) == 3
    assert {32, newest} <= set(steps_kept(run_dir))
    assert is_the_model_of(run_dir, 32)
    train("run", **LEARNS, eval__every=32)
    for part in ("best/model.safetensors", "final/model.safetensors", "best.json"):
        assert digest(run_dir, part) == digest(learned(train), part)


@pytest.mark.long
def test_best_follows_the_checkpoint_before_a_damaged_one(train: Trainer):
    run_dir = copied(train)
    assert best(run_dir)["step"] == 48
    (run_dir / "checkpoints/step-00000048/model.safetensors").write_bytes(b"")
    ended = train.end("run", **LEARNS, eval__every=0)
    assert ended.code == 0, ended.err
    assert best(run_dir)["step"] == 32
    assert is_the_model_of(run_dir, 32)


@pytest.mark.long
def test_a_changed_evaluation_judges_best_anew_and_keeps_it_until_then(train: Trainer):
    run_dir = copied(train)
    before = best(run_dir)
    ended = train.end(
        "run", **LEARNS | {"eval__max_utterances": 3}, eval__every=32, allow_change="[eval.max_utterances]"
    )
    assert ended.code == 0, ended.err
    assert metrics(run_dir, having="cer")[48]["utterances"] == 3
    assert (best(run_dir)["step"], is_the_model_of(run_dir, 48)) == (48, True)
    assert best(run_dir)["value"] != before["value"]


@pytest.mark.matrix
def test_a_change_made_without_evaluations_is_noticed_at_the_next_one(train: Trainer):
    run_dir = copied(train)
    fewer = LEARNS | {"eval__max_utterances": 3}
    changes = {"allow_change": "[steps, eval.max_utterances]"}
    train("run", **fewer | {"steps": 50}, eval__every=0, **changes)
    assert best(run_dir)["step"] == 48, "nothing was judged, so nothing has a better claim"
    ended = train.end("run", **fewer | {"steps": 52}, eval__every=32, **changes)
    assert ended.code == 0, ended.err
    assert best(run_dir)["step"] == 52


@pytest.mark.long
def test_another_held_out_set_at_the_same_path_is_noticed(train: Trainer, corpus: Path, tmp_path: Path):
    held_out = tmp_path / "held-out"
    shutil.copytree(corpus / "validation", held_out)
    settings = LEARNS | {"eval__path": held_out, "steps": 4, "eval__every": 2}
    run_dir = train("run", **settings)

    def evaluations() -> int:
        """How often the last step was evaluated."""
        rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
        return len([row for row in rows if row.get("step") == 4 and "cer" in row])

    moved = tmp_path / "elsewhere"
    held_out.rename(moved)
    ended = train.end("run", **settings | {"eval__path": moved})
    assert ended.code == 0, ended.err
    assert evaluations() == 1, "the same set at another place is the same set"
    shutil.copytree(corpus / "test", held_out)
    ended = train.end("run", **settings)
    assert ended.code == 0, ended.err
    assert evaluations() == 2


@pytest.mark.matrix
def test_a_fork_of_another_run_takes_its_best_along(train: Trainer, tmp_path: Path):
    source = copied(train, "source")
    fork = train("fork", **LEARNS, eval__every=0, resume=source / "checkpoints/step-00000044")
    assert best(fork) == best(source) | {"step": 32, "value": metrics(source, having="cer")[32]["cer"]}
    assert digest(fork, "best/config.json") == digest(source, "best/config.json")
    assert digest(fork) == digest(source)
    shutil.rmtree(source)
    train("fork", **LEARNS | {"steps": 50}, eval__every=0, allow_change="[steps]")
    assert best(fork)["step"] == 32


@pytest.mark.long
def test_a_best_that_is_nowhere_is_judged_anew(train: Trainer, tmp_path: Path):
    source = copied(train, "source")
    shutil.rmtree(source / "checkpoints/step-00000032")
    settings = LEARNS | {"resume": source / "checkpoints/step-00000044"}
    ended = train.end("fork", **settings, eval__every=32)
    assert ended.code == 0, ended.err
    assert (best(train.folder / "fork")["step"], is_the_model_of(train.folder / "fork", 48)) == (48, True)


@pytest.mark.matrix
def test_a_stopped_evaluation_is_the_first_thing_a_resumed_run_does(train: Trainer, corpus: Path):
    """An evaluation of seconds: 40 utterances one by one, of 100 tokens each."""
    run_dir = train.folder / "run"
    slow = LEARNS | {"eval__path": corpus / "train", "eval__max_utterances": 40, "eval__max_new_tokens": 100}
    assert train.interrupt("run", logged(32), signal.SIGTERM, **slow, eval__every=32, eval__batch_size=1) == 75
    assert json.loads((run_dir / "status.json").read_text())["step"] == 32
    assert not metrics(run_dir, having="cer")
    train("run", **slow, eval__every=32, eval__batch_size=40)
    assert sorted(metrics(run_dir, having="cer")) == [32, 48]
    assert is_the_model_of(run_dir, best(run_dir)["step"])
