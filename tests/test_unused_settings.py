"""Settings that a new run refuses, because they have no effect beside the value of another one."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Trainer
from whisper_ft.config import yaml12
from whisper_ft.config.parse import given_settings, load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import leaves, to_plain
from whisper_ft.config.unevaluated import lines_about_no_evaluation, refuse_unevaluated
from whisper_ft.config.unused_settings import DEPENDENCES, refuse_unused_settings
from whisper_ft.runtime.errors import UsageError
from whisper_ft.training.preflight import refuse_impossible

USELESS = [
    ("schedule.decay 0.1", ""),
    ("schedule.decay 0.2", ""),
    ("schedule.decay 0.1", "schedule.kind cosine"),
    ("optim.momentum 0.5", ""),
    ("optim.momentum 0.9", "optim.name adamw"),
    ("optim.momentum 0.5", "optim.name adafactor"),
    ("optim.betas [0.8,0.9]", "optim.name sgd"),
    ("optim.betas [0.8,0.9]", "optim.name adafactor"),
    ("optim.eps 1e-8", "optim.name sgd"),
    ("optim.eps 1e-8", "optim.name adafactor"),
    ("augment.time_mask_seconds 2", ""),
    ("augment.time_mask_share 0.1", "augment.frequency_masks 2"),
    ("augment.frequency_mask_bins 10", "augment.time_masks 2"),
    ("augment.time_masks 2", "augment.time_mask_seconds 0"),
    ("augment.time_masks 2", "augment.time_mask_share 0"),
    ("augment.frequency_masks 2", "augment.frequency_mask_bins 0"),
    ("data.prefetch 8", ""),
    ("data.prefetch 8", "data.workers 0"),
    ("average.checkpoints 3", ""),
    ("track.project mine", ""),
    ("track.name first", ""),
    ("track.project mine", "track.to [tensorboard]"),
    ("track.name first", "track.to [tensorboard]"),
    ("scaler.initial 1024", "precision fp32"),
    ("scaler.floor 0.5", "precision bf16"),
    ("scaler.growth_every 100", "precision bf16"),
    ("scaler.growth_every 100", "precision fp16 scaler.growth 1"),
]
"""Setting without effect, and the settings beside it."""
USEFUL = [
    "schedule.decay 0.1 schedule.kind wsd",
    "schedule.warmup 10 schedule.kind constant",
    "optim.momentum 0.5 optim.name sgd",
    "optim.betas [0.8,0.9] optim.eps 1e-8",
    "optim.betas [0.8,0.9] optim.eps 1e-8 optim.name adamw_8bit",
    "optim.betas [0.8,0.9] optim.eps 1e-8 optim.name paged_adamw_8bit",
    "augment.time_masks 2 augment.time_mask_seconds 0.5 augment.time_mask_share 0.1",
    "augment.frequency_masks 2 augment.frequency_mask_bins 9",
    "data.prefetch 8 data.workers 1",
    "average.checkpoints 3 average.of last",
    "track.project mine track.name first track.to [tensorboard,trackio]",
    "track.project mine track.to [wandb]",
    "scaler.initial 1024 scaler.growth_every 100 precision fp16",
    "scaler.initial 1024 scaler.growth_every 100",
    "scaler.growth 1 precision fp16",
]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    """Write a YAML file and return its path."""

    def to_file(text: str) -> str:
        path = tmp_path / "given.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return to_file


def arguments_of(pairs: str) -> list[str]:
    words = pairs.split()
    return [f"--{name}={value}" for name, value in zip(words[::2], words[1::2], strict=True)]


def check(*arguments: str) -> None:
    config, given = load_config(TrainingConfig, arguments), given_settings(TrainingConfig, arguments)
    refuse_unused_settings(config, given)
    refuse_unevaluated(config, given)
    assert list(lines_about_no_evaluation(config, given)) == []


@pytest.mark.parametrize(("useless", "beside"), USELESS)
def test_a_setting_without_effect_is_refused_with_the_argument_that_gives_it_one(useless: str, beside: str):
    with pytest.raises(UsageError, match=f"^--{useless.split()[0]} ") as refused:
        check(*arguments_of(useless), *arguments_of(beside))
    name, value = str(refused.value).partition("; set --")[2].partition(", or leave it out")[0].split()
    others = [one for one in arguments_of(beside) if not one.startswith(f"--{name}=")]
    check(*arguments_of(useless), *others, f"--{name}={value.strip(chr(39))}")


@pytest.mark.parametrize("pairs", USEFUL)
def test_a_setting_with_an_effect_is_not_refused(pairs: str):
    check(*arguments_of(pairs))


def test_the_table_names_settings_that_exist():
    names = {name for name, _ in leaves(TrainingConfig)}
    assert {one for row in DEPENDENCES for one in (*row.names, row.other)} <= names


@pytest.mark.parametrize(
    ("text", "arguments", "refused"),
    [
        ("optim: {name: sgd, momentum: 0.5}", [], False),
        ("optim: {name: sgd, momentum: 0.5}", ["--optim.name", "adamw"], True),
        ("optim: {betas: [0.8, 0.9]}", ["--optim.name", "sgd"], True),
        ("optim: {betas: [0.9, 0.98]}", ["--optim.name", "sgd"], False),  # the default: nobody chose it
        ("optim: {betas: [0.9, 0.98]}", ["--optim.name", "sgd", "--optim.betas", "[0.9, 0.98]"], True),
        ("data: {workers: 2, prefetch: 8}", ["--data.workers", "0"], True),
        ("eval: {every: 500}", [], False),
        ("eval: {every: 300}", [], True),
    ],
)
def test_a_file_counts_as_the_command_line_does_but_for_the_defaults_in_it(
    write: Callable[[str], str], text: str, arguments: list[str], refused: bool
):
    given = ["--config", write(text), *arguments]
    with pytest.raises(UsageError) if refused else nullcontext():
        check(*given)


def test_a_section_in_a_file_of_its_own_counts_too(write: Callable[[str], str]):
    with pytest.raises(UsageError, match=r"--optim\.momentum 0\.5"):
        check("--optim", write("{name: adamw, momentum: 0.5}"))


@pytest.mark.parametrize(
    "pairs", ["", "optim.name sgd optim.momentum 0.5", "precision fp16", "eval.every 0", "average.of last"]
)
def test_the_config_yaml_of_a_run_serves_again(write: Callable[[str], str], pairs: str):
    """It holds every setting, also of a run without a held-out set."""
    check("--config", write(yaml12.dump(to_plain(load_config(TrainingConfig, arguments_of(pairs))))))


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit", "adafactor", "sgd"])
@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_config_goes_with_every_optimizer(config: Path, name: str):
    check("--config", str(config), "--optim.name", name)


def test_train_py_refuses_it_in_one_line(train: Trainer, tmp_path: Path):
    ended = train.end("run", optim__momentum=0.5)
    assert ended.code == 2
    assert ended.err.startswith("error: --optim.momentum 0.5: ")
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_run_of_an_earlier_version_continues_with_such_settings(train: Trainer):
    train.copy_reference()
    kept: dict[str, Any] = {"data__prefetch": 8, "optim__momentum": 0.5, "allow_change": "[optim.momentum]"}
    arguments = train.arguments("run", **kept)
    refuse_impossible(load_config(TrainingConfig, arguments), given_settings(TrainingConfig, arguments))
    assert str(train.refusal("run", **kept, resume="never", overwrite="true")).startswith("--optim.momentum 0.5: ")
    assert str(train.refusal("new", **kept)).startswith("--optim.momentum 0.5: ")
