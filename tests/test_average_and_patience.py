"""Averaged weights, early stopping, and other metrics than WER: part of the state of a run, so resumed like it."""

import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from normalizers import get_normalizer
from tests.conftest import Trainer, digest, logged, metrics
from tests.test_best import LEARNS, best, steps_kept
from whisper_ft.config.evaluation import EvalConfig
from whisper_ft.config.training import TrainingConfig
from whisper_ft.runtime.errors import UsageError
from whisper_ft.training.evaluation import refuse_unknown_names

AVERAGED = {"steps": 7, "save__every": 2, "eval__every": 0, "average__of": "last", "average__checkpoints": 3}


def weights(run_dir: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run_dir / f"checkpoints/step-{step:08d}/model.safetensors")


def is_the_mean_of(run_dir: Path, steps: list[int]) -> bool:
    parts = [weights(run_dir, step) for step in steps]
    average = load_file(run_dir / "average/model.safetensors")
    means = {name: sum(part[name].double() for part in parts) / len(parts) for name in average}
    return all(torch.equal(average[name], mean.float()) for name, mean in means.items())


@pytest.mark.matrix
def test_the_last_checkpoints_are_averaged_also_after_a_stop(train: Trainer):
    whole = train.copy_reference("whole", **AVERAGED)
    assert set(steps_kept(whole)) >= {4, 6, 7}
    assert is_the_mean_of(whole, [4, 6, 7])
    assert "steps 4, 6, 7" in (whole / "average/README.md").read_text()

    assert train.interrupt("stopped", logged(5), signal.SIGTERM, **AVERAGED) == 75, "saves at another step"
    assert digest(train("stopped", **AVERAGED), "average/model.safetensors") == digest(
        whole, "average/model.safetensors"
    )

    (whole / "checkpoints/step-00000006/model.safetensors").write_bytes(b"")
    ended = train.end("whole", **AVERAGED)
    assert ended.code == 0
    assert any("average" in line and "step-00000006" in line for line in ended.out.splitlines())


@pytest.mark.long
def test_the_best_checkpoints_are_kept_and_averaged_and_the_mean_is_scored(train: Trainer):
    run_dir = train("run", **LEARNS | {"save__every": 0}, eval__every=8, average__of="best", average__checkpoints=2)
    rates = {step: row["cer"] for step, row in metrics(run_dir, having="cer").items()}
    two = sorted(sorted(rates, key=lambda step: (rates[step], step))[:2])
    assert set(steps_kept(run_dir)) >= set(two)
    assert is_the_mean_of(run_dir, two)
    assert "cer on the held-out set: 0." in (run_dir / "average/README.md").read_text()


@pytest.mark.long
def test_patience_ends_a_run_and_starting_it_again_changes_nothing(train: Trainer):
    """The rate that is to grow falls: the first evaluation stays the best."""
    settings = {"steps": 40, "eval__every": 2, "eval__max_utterances": 2, "eval__metric": "hits"}
    settings |= {"eval__greater_is_better": True, "eval__patience": 2, "save__every": 0}
    ended = train.end("run", **settings)
    assert ended.code == 0, ended.err
    assert "eval.patience" in ended.out
    run_dir = train.folder / "run"
    assert max(metrics(run_dir)) == 6
    assert best(run_dir) == {"step": 2, "metric": "hits", "value": 0, "model": "whole"}
    assert json.loads((run_dir / "status.json").read_text())["state"] == "finished"
    before = digest(run_dir)
    train("run", **settings)
    assert max(metrics(run_dir)) == 6
    assert digest(run_dir) == before


@pytest.mark.parametrize(
    ("metric", "greater_is_better", "fact"),
    [("hits", False, "greater_is_better true"), ("wer", True, "greater_is_better false"), ("utterances", False, "wer")],
)
def test_a_metric_that_would_choose_the_worst_model_is_refused(metric: str, greater_is_better: bool, fact: str):
    config = TrainingConfig(eval=EvalConfig(metric=metric, greater_is_better=greater_is_better, every=1, path="a"))
    with pytest.raises(UsageError, match=fact) as refused:
        refuse_unknown_names(config, get_normalizer)
    assert "--eval.metric" in str(refused.value)


@pytest.mark.long
def test_another_metric_needs_to_be_allowed_and_judges_best_anew(train: Trainer):
    settings = {"steps": 2, "eval__every": 2, "eval__max_utterances": 2}
    train("run", **settings)
    assert best(train.folder / "run")["metric"] == "wer"
    assert "--allow_change '[eval.metric]'" in str(train.refusal("run", **settings, eval__metric="ser"))
    ended = train.end("run", **settings, eval__metric="ser", allow_change="[eval.metric]")
    assert ended.code == 0, ended.err
    assert best(train.folder / "run")["metric"] == "ser"


@pytest.mark.long
@pytest.mark.parametrize("metric", ["bleu", pytest.param("normalizer", marks=pytest.mark.matrix)])
def test_a_metric_that_no_evaluation_has_is_refused_with_those_it_has(train: Trainer, metric: str):
    ended = train.end("run", eval__metric=metric)
    assert ended.code == 2
    assert all(fact in ended.err for fact in ("--eval.metric", repr(metric), "auto, wer, cer,"))
