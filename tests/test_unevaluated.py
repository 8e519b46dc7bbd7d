"""Settings of eval.* that a run cannot honour, because it scores nothing or has no held-out set."""

from pathlib import Path

import pytest

from tests.conftest import Trainer
from whisper_ft.config.parse import given_settings, load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.unevaluated import lines_about_no_evaluation, refuse_unevaluated
from whisper_ft.runtime.errors import UsageError

SETS = ["--eval.sets", "[{name: en, path: a}]"]
GIVEN = [
    ("metric", "loss"),
    ("at_start", "true"),
    ("with_loss", "true"),
    ("every", "100"),
    ("patience", "3"),
    ("num_beams", "2"),
    ("normalizer", "golden"),
    ("temperature_fallback", "true"),
]


def check(*arguments: str) -> list[str]:
    """The lines about a run without evaluation, if it is not refused."""
    config, given = load_config(TrainingConfig, [*arguments]), given_settings(TrainingConfig, [*arguments])
    refuse_unevaluated(config, given)
    return list(lines_about_no_evaluation(config, given))


@pytest.mark.long
@pytest.mark.parametrize(("name", "value"), GIVEN)
def test_a_setting_of_evaluations_is_refused_where_nothing_is_evaluated(name: str, value: str):
    with pytest.raises(UsageError, match=f"--eval.{name} ") as refused:
        check(f"--eval.{name}", value)
    assert "--eval.path" in str(refused.value)
    assert check(f"--eval.{name}", value, "--eval.path", "b") == []
    assert check(f"--eval.{name}", value, "--eval.split", "test") == []


@pytest.mark.parametrize("name", ["metric", "patience", "greater_is_better", "min_delta", "max_utterances"])
def test_a_setting_of_the_held_out_set_is_refused_where_there_are_only_other_sets(name: str):
    value = {"metric": "cer", "greater_is_better": "true", "min_delta": "0.1"}.get(name, "2")
    with pytest.raises(UsageError, match=f"--eval.{name} "):
        check(*SETS, f"--eval.{name}", value)


@pytest.mark.parametrize(("name", "value"), [("at_start", "true"), ("with_loss", "true"), ("normalizer", "golden")])
def test_a_setting_of_all_sets_has_its_effect_without_a_held_out_set(name: str, value: str):
    assert check(*SETS, f"--eval.{name}", value) == []


def test_an_evaluation_that_is_switched_off_names_the_settings_without_effect():
    (line,) = check("--eval.path", "b", "--eval.metric", "cer", "--eval.every", "0")
    assert "eval.metric, eval.path" in line
    assert check("--eval.every", "0") == []
    assert check() == []
    sets = [*SETS[:1], "[{name: en, path: a, every: 5}]", "--eval.every", "0"]
    assert check(*sets) == []
    (line,) = check(*sets, "--eval.path", "b", "--eval.patience", "3", "--eval.normalizer", "golden")
    assert line.endswith("eval.path, eval.patience"), "the normaliser is that of the sets, too"


def test_train_py_refuses_such_a_setting_in_one_line_and_says_what_is_switched_off(train: Trainer, tmp_path: Path):
    ended = train.end("refused", eval__path="", eval__metric="loss")
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert "eval." in ended.err
    assert not (tmp_path / "refused/checkpoints").exists()
    ended = train.end("off", steps=1, eval__every=0)
    assert ended.code == 0
    assert "eval.every is 0" in ended.out
