"""Help and unknown names: the settings that matter first, every group, and the names that the Trainer has for ours."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from whisper_ft.config.help import FIRST_HELP, help_text
from whisper_ft.config.parse import load_config
from whisper_ft.config.pseudolabel import PseudolabelConfig
from whisper_ft.config.resume_policy import rules
from whisper_ft.config.scoring import EvaluationConfig
from whisper_ft.config.trainer_names import TRAINER_NAMES
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import leaves
from whisper_ft.runtime.errors import UsageError


def test_every_setting_has_a_help_text_and_a_resume_rule():
    assert set(rules().values()) <= {"exact", "change", "free"}
    everything = help_text(TrainingConfig, "train.py", "all")
    for name, _ in leaves(TrainingConfig):
        entry = everything.split(f"  --{name} ", 1)[-1].split("\n  --")[0]
        assert entry.count(" ") > 5, f"{name} has no help"


@pytest.mark.parametrize("cls", [TrainingConfig, EvaluationConfig, PseudolabelConfig])
def test_help_begins_with_examples_and_ten_settings_and_names_every_group(cls: Any):
    first = FIRST_HELP[cls.__name__]
    lines = help_text(cls, "x.py").splitlines()
    assert [line.split()[0][2:] for line in lines if line.startswith("  --")][:10] == list(first.settings)
    assert (len(first.settings), len(first.examples)) == (10, 3)
    assert len(lines) < 80
    listed = {line.split()[0] for line in lines if line.startswith("  ") and line.split()}
    assert {name.split(".")[0] for name, _ in leaves(cls) if "." in name} | {"general", "--gpus"} <= listed


def test_the_commands_in_the_help_are_valid():
    for cls in (TrainingConfig, EvaluationConfig):
        for command, _ in FIRST_HELP[cls.__name__].examples:
            words = [word for word in shlex.split(command) if word not in ("python", "evaluate.py", "./launch.sh")]
            load_config(cls, [word.replace("configs/mine", str(ROOT / "configs/demo")) for word in words])


def test_help_of_one_group_or_setting_shows_no_other():
    shown = help_text(TrainingConfig, "train.py", "save")
    assert [line.split()[0] for line in shown.splitlines() if line.startswith("  --")] == [
        f"--{name}" for name, _ in leaves(TrainingConfig) if name.startswith("save.")
    ]
    assert help_text(TrainingConfig, "train.py", "optim.lr").count("\n  --") == 1
    with pytest.raises(UsageError, match="did you mean 'optim'"):
        load_config(TrainingConfig, ["--help", "optm"])


def test_names_of_the_trainer_are_refused_with_ours():
    """Every name of Seq2SeqTrainingArguments that the table has; the page for users has the same table."""
    names = {name for name, _ in leaves(TrainingConfig)}
    for name, other in TRAINER_NAMES.items():
        for argv in (["--" + name, "x"], ["--" + name.replace("_", "-") + "=x"]):
            with pytest.raises(UsageError) as refused:
                load_config(TrainingConfig, argv)
            assert (repr(other.ours) if other.ours else other.note) in str(refused.value)
            assert "docs/from-trainer.md" in str(refused.value)
        assert other.ours is None or other.ours in names
    table = (ROOT / "docs/from-trainer.md").read_text(encoding="utf-8")
    for name, other in TRAINER_NAMES.items():
        setting = f"`{other.ours}`" if other.ours else "none"
        assert f"| `{name}` | {setting} | {other.note} |" in table, name


def test_every_argument_of_the_trainer_that_users_set_is_known():
    import transformers

    fields = {field.name for field in dataclasses.fields(transformers.Seq2SeqTrainingArguments)}
    ours = {name.rsplit(".", 1)[-1] for name, _ in leaves(TrainingConfig)}
    issue = "learning_rate per_device_train_batch_size max_steps num_train_epochs warmup_steps output_dir"
    assert set(issue.split()) | {"gradient_accumulation_steps"} <= fields & set(TRAINER_NAMES)
    known = [name for name in fields if name in TRAINER_NAMES or name in ours]
    assert len(known) >= 65


@pytest.mark.parametrize(
    ("cls", "name", "ours"),
    [(EvaluationConfig, "per_device_eval_batch_size", "decoding.batch_size"), (EvaluationConfig, "output_dir", "out")],
)
def test_names_of_the_trainer_lead_to_settings_of_the_same_program(cls: Any, name: str, ours: str):
    with pytest.raises(UsageError, match=f"did you mean '{ours}'"):
        load_config(cls, [f"--{name}", "3"])


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--model", "openai/whisper-tiny"], "did you mean --model.name openai/whisper-tiny?"),
        (["--data=my.jsonl"], "did you mean --data.path my.jsonl?"),
        (["--eval", "x/y"], "did you mean --eval.path x/y?"),
        (["--optim", "adamw_torch"], "did you mean --optim.name adamw_torch?"),
        (["--batch", "8"], "did you mean --batch.size 8?"),
        (["--adapter", "lora"], "did you mean --adapter.kind lora?"),
        (["--augment", "true"], "--help augment lists them"),
    ],
)
def test_a_section_given_one_value_is_refused_with_the_setting_that_is_meant(
    argv: list[str], told: str, tmp_path: Path
):
    with pytest.raises(UsageError) as refused:
        load_config(TrainingConfig, argv)
    assert told in str(refused.value)
    section, value = " ".join(argv).replace("=", " ").removeprefix("--").split(" ")
    path = tmp_path / "a.yaml"
    path.write_text(f"{section}: {value}")
    with pytest.raises(UsageError) as refused:
        load_config(TrainingConfig, ["--config", str(path)])
    assert str(refused.value).startswith(f"{path}: ")
