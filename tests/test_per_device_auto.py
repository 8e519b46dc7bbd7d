"""`batch.per_device: auto`: found by trying, without a trace in the weights, recorded, and the same on every rank."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import Trainer, digest, run_script
from whisper_ft.config import yaml12
from whisper_ft.config.parse import load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import with_values
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.host_memory import free_bytes, resident_bytes, resident_peak
from whisper_ft.training.learner import Learner, build_learner
from whisper_ft.training.memory.batch_trial import CAUTION, Trial, largest_that_runs, settle_per_device

AUTO = {"batch__per_device": "auto", "eval__every": 0, "save__every": 4}
NO_MEMORY = """
import torch, train
from whisper_ft.optim.loss import TokenLoss
def asks(*_):
    return torch.empty(1 << 50, dtype=torch.uint8)  # a petabyte, more than any process can address
TokenLoss.forward = asks
train.main()
"""


def recorded(run_dir: Path) -> int:
    return int(yaml12.load((run_dir / "config.yaml").read_text())["batch"]["per_device"])


def learner_of(train: Trainer, **settings: object) -> tuple[TrainingConfig, Learner]:
    config = load_config(TrainingConfig, train.arguments("unused", **AUTO, **settings))
    config = with_values(config, {"precision": "fp32", "optim.lr": 1e-3})
    return config, build_learner(config, torch.device("cpu"), None, print)


@given(st.integers(0, 70), st.integers(1, 64))
def test_doubling_and_halving_finds_the_largest_number_that_runs(largest: int, most: int):
    tried: list[int] = []

    def runs(size: int) -> bool:
        tried.append(size)
        return size <= largest

    assert largest_that_runs(runs, most) == min(largest, most)
    assert len(set(tried)) == len(tried) <= 13
    assert all(1 <= size <= most for size in tried)


@pytest.mark.long
def test_a_run_with_auto_is_the_run_with_the_number_written_out_to_the_last_bit(train: Trainer):
    auto = train("auto", **AUTO)
    written = train("written", **AUTO | {"batch__per_device": recorded(auto)})
    assert recorded(auto) == 8
    assert digest(auto) == digest(written)
    [checkpoint] = (auto / "checkpoints").glob("step-*8")
    assert json.loads((checkpoint / "trainer.json").read_text())["config"]["batch"]["per_device"] == 8


@pytest.mark.long
def test_a_resumed_run_keeps_the_recorded_number(train: Trainer):
    train("run", **AUTO | {"batch__per_device": 3, "steps": 4})
    ended = train.end("run", **AUTO | {"steps": 8}, allow_change="[steps]")
    assert ended.code == 0, ended.err
    assert "batch.per_device" not in ended.out, "nothing is tried again"
    assert recorded(train.folder / "run") == 3


@pytest.mark.long
def test_two_processes_take_the_same_number(train: Trainer):
    pair = train("pair", processes=2, **AUTO)
    assert recorded(pair) == 4, "the share of each"
    assert digest(pair) == digest(train("written", processes=2, **AUTO | {"batch__per_device": 4}))


@pytest.mark.long
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="full", marks=pytest.mark.matrix),
        pytest.param({"adapter__kind": "lora", "adapter__base": "nf4", "adapter__dropout": 0.1}, id="nf4"),
    ],
)
def test_a_trial_leaves_no_trace(train: Trainer, settings: dict[str, object]):
    config, learner = learner_of(train, model__dropout=0.3, model__layerdrop=0.2, **settings)
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    expected = torch.get_rng_state()
    settle_per_device(config, learner, Collectives(), print)
    assert all(torch.equal(value, before[name]) for name, value in learner.model.state_dict().items())
    assert all(parameter.grad is None for parameter in learner.parameters.values())
    assert not learner.optimizer.state
    assert torch.equal(torch.get_rng_state(), expected)
    assert not learner.model.training
    assert learner.model.model.encoder.layerdrop == learner.model.model.decoder.layerdrop == 0.2


@pytest.mark.long
def test_one_window_is_taken_where_no_memory_is_promised_for_two(train: Trainer):
    """One is run in any case: on a CPU, free memory is a guess of the kernel."""
    config, learner = learner_of(train)
    said: list[str] = []
    settled = settle_per_device(config, learner, Collectives(), said.append, room=0)
    assert (settled.batch.per_device, settled.batch.size) == (1, 8)
    assert ["1 window" in line for line in said] == [True]
    assert settle_per_device(settled, learner, Collectives(), said.append) == settled, "it is resolved once"


def test_a_larger_pass_is_run_only_where_the_smaller_one_promises_that_it_fits(train: Trainer):
    config, learner = learner_of(train)
    estimated = Trial(config, learner, 1, 0).estimate
    for most in (2, 4):
        room = estimated(most).total + CAUTION * (estimated(most).total - estimated(1).total)
        trial = Trial(config, learner, 1, int(room))
        trial.ran = 1, estimated(1).total
        assert trial.promises(most)
        assert not trial.promises(8 * most)


@pytest.mark.long
def test_one_window_too_many_is_a_line_with_advice_and_code_9(train: Trainer):
    ended = run_script(NO_MEMORY, *train.arguments("run", **AUTO))
    assert ended.code == 9, ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert all(fact in ended.err for fact in ("batch.per_device", "gradient_checkpointing true"))


@pytest.mark.long
def test_auto_is_accepted_by_a_packed_run(train: Trainer):
    packed = train("packed", **AUTO | {"pack__enabled": "true", "pack__block": 4, "steps": 2, "save__every": 2})
    assert 1 <= recorded(packed) <= 8


@pytest.mark.parametrize("version", [1, 2])
def test_free_memory_heeds_the_limits_of_control_groups(tmp_path: Path, version: int):
    mount, groups = tmp_path / "mount", tmp_path / "groups"
    top = mount / "memory" if version == 1 else mount
    own = top / "slurm/job_7"
    own.mkdir(parents=True)
    limit, used, stat = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        if version == 1
        else ("memory.max", "memory.current", "inactive_file")
    )
    groups.write_text("4:memory:/slurm/job_7\n1:name=systemd:/\n" if version == 1 else "0::/slurm/job_7\n")
    (own / limit).write_text("max\n" if version == 2 else f"{1 << 62}\n")
    (own.parent / limit).write_text("50000000\n")
    (own.parent / used).write_text("30000000\n")
    (own.parent / "memory.stat").write_text(f"anon 1\n{stat} 5000000\n")
    assert free_bytes(groups, mount) == 25_000_000
    (own.parent / used).write_text("90000000\n")
    assert free_bytes(groups, mount) == 0
    assert free_bytes(tmp_path / "none", mount) > 100_000_000


def test_the_peak_of_a_block_is_measured_after_a_higher_one_before_it():
    torch.ones(60_000_000).sum()
    start = resident_bytes()
    with resident_peak() as peak:
        torch.ones(20_000_000).sum()
    assert 70e6 < peak.bytes - start < 200e6
