"""Real runs with each optimizer: killed and resumed they end as if nothing had happened, also after a change of it."""

import shutil
import signal
from typing import Any

import pytest

from tests.conftest import Trainer, digest, logged

SETTINGS = {"eval__every": 0, "optim__weight_decay": 0.1, "optim__layer_decay": 0.8}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.matrix) for name in ("adamw_8bit", "adafactor")]
)  # adamw is what all other tests use, sgd is below; paged needs a GPU
def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(train: Trainer, name: str):
    settings: dict[str, Any] = SETTINGS | {"optim__name": name}
    whole = train("whole", **settings)
    assert train.interrupt("run", logged(5), signal.SIGKILL, **settings) == -signal.SIGKILL
    assert digest(train("run", **settings)) == digest(whole)


@pytest.mark.matrix
def test_another_optimizer_starts_with_empty_moments_and_keeps_its_own(train: Trainer):
    run_dir = train("run", **SETTINGS, steps=2)
    whole = shutil.copytree(run_dir, train.folder / "whole")
    other = SETTINGS | {"optim__name": "sgd", "steps": 8, "allow_change": "[optim.name, steps]"}
    facts = ("moments", "adamw", "sgd")
    ended = train.end("whole", **other)
    assert ended.code == 0, ended.err
    assert any(all(fact in line for fact in facts) for line in ended.out.splitlines())
    assert train.interrupt("run", logged(5), signal.SIGKILL, **other) == -signal.SIGKILL
    ended = train.end("run", **other)
    assert ended.code == 0, ended.err
    assert not any(all(fact in line for fact in facts) for line in ended.out.splitlines())
    assert digest(run_dir) == digest(whole)
