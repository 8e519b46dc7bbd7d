"""Memory that a GPU or a machine does not have: one line with the settings to try, and exit code 9."""

import json
from pathlib import Path

import pytest
import torch

from tests.conftest import Trainer, ranks, run_script, script_in
from whisper_ft.config.adapter import AdapterConfig
from whisper_ft.config.evaluation import DecodingConfig
from whisper_ft.config.memory_advice import with_advice
from whisper_ft.config.optimization import OptimConfig
from whisper_ft.config.scoring import EvaluationConfig
from whisper_ft.config.training import BatchConfig, ModelConfig, TrainingConfig
from whisper_ft.runtime.device_memory import memory_errors
from whisper_ft.runtime.errors import DecodingMemoryError, OutOfMemoryError, UsageError

ASKS_IN_A_STEP = """
import torch, train
def asks(*_):
    return torch.empty(1 << 50, dtype=torch.uint8)  # a petabyte, more than any process can address
train.cross_entropy_sum = asks
train.main()
"""
ASKS_IN_AN_EVALUATION = """
import torch, train
from transformers.models.whisper.modeling_whisper import WhisperEncoder
forward = WhisperEncoder.forward
def asks(self, *arguments, **named):
    return forward(self, *arguments, **named) if self.training else torch.empty(1 << 50)
WhisperEncoder.forward = asks
train.main()
"""
SHORT = {"steps": 4, "save__every": 0}


def status(run_dir: Path) -> tuple[str, int, str]:
    fields = json.loads((run_dir / "status.json").read_text())
    return fields["state"], fields["exit_code"], fields["reason"]


def test_a_step_without_memory_is_a_line_with_the_settings_to_try_and_code_9(train: Trainer):
    ended = run_script(ASKS_IN_A_STEP, *train.arguments("run", **SHORT))
    assert (ended.code, len(ended.err.strip().splitlines())) == (9, 1), ended.err
    facts = ["1125899906842624 bytes", "--batch.per_device 2 (is 4", "gradient_checkpointing true", "--precision bf16"]
    places = [ended.err.find(fact) for fact in facts]
    assert places == sorted(places), "in the order in which to try them"
    assert places[0] > 0
    state, code, reason = status(train.folder / "run")
    assert (state, code) == ("failed", 9)
    assert ended.err == f"error: {reason}\n"
    assert "Traceback" not in ended.err


def test_a_rank_without_memory_is_the_reason_of_all_in_the_status_too(train: Trainer, tmp_path: Path):
    arguments = train.arguments("run", **SHORT, eval__every=0)
    main, other = ranks(("train.py", arguments), (script_in(tmp_path, ASKS_IN_A_STEP), arguments))
    assert (main.code, other.code) == (9, 9), main.err + other.err
    assert main.err.startswith("error: rank 1: out of memory in training")
    assert (len(main.err.strip().splitlines()), other.err) == (1, "")
    assert status(train.folder / "run")[1] == 9


@pytest.mark.long
def test_an_evaluation_without_memory_names_its_own_settings(train: Trainer):
    ended = run_script(ASKS_IN_AN_EVALUATION, *train.arguments("run", **SHORT, eval__batch_size=6))
    assert ended.code == 9, ended.err
    assert "--eval.batch_size 3 (is 6)" in ended.err
    assert "per_device" not in ended.err


CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.12 GiB is "
    "free. Including non-PyTorch memory, this process has 77.98 GiB memory in use. See documentation."
)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError(CUDA), RuntimeError(f"rank 1: OutOfMemoryError: {CUDA}")],
    ids=["of this rank", "of another"],
)
def test_the_line_has_the_size_that_was_asked_and_what_is_free(error: RuntimeError):
    with pytest.raises(OutOfMemoryError) as told, memory_errors("in training"):
        raise error
    assert all(fact in str(told.value) for fact in ("in training", "2.00 GiB", "79.11 GiB", "1.12 GiB is free"))
    assert "documentation" not in str(told.value)


@pytest.mark.parametrize("error", [RuntimeError("a shape is wrong"), UsageError("out of memory"), MemoryError("x")])
def test_other_errors_pass_through(error: Exception):
    with pytest.raises(type(error)) as passed, memory_errors("in training"):
        raise error
    assert passed.value is error


def test_only_settings_that_can_still_be_lowered_are_named():
    lowest = TrainingConfig(
        batch=BatchConfig(per_device=1),
        model=ModelConfig(gradient_checkpointing=True, freeze=["encoder"]),
        precision="bf16",
        optim=OptimConfig(name="adafactor"),
        adapter=AdapterConfig(kind="lora", base="nf4"),
    )
    line = str(with_advice(OutOfMemoryError("out of memory"), lowest))
    assert "--" not in line
    assert "a smaller model" in line
    beams = EvaluationConfig(decoding=DecodingConfig(batch_size=8, num_beams=5))
    line = str(with_advice(DecodingMemoryError("out of memory"), beams))
    assert "--decoding.batch_size 4 (is 8); --decoding.num_beams 1 (is 5)" in line
