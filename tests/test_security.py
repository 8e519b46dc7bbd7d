"""Pickles and tokens: unsafe files are not read, and secrets are not written."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import Trainer
from whisper_ft.config import yaml12
from whisper_ft.config.parse import load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.models.whisper import load_whisper
from whisper_ft.runtime.errors import UsageError

CANARY = "hf_canaryCANARYcanary0123456789"


@pytest.mark.long
def test_no_token_of_the_environment_is_in_anything_a_run_writes_or_says(
    train: Trainer, monkeypatch: pytest.MonkeyPatch
):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, CANARY)
    ended = train.end("run", steps=2, eval__every=1, save__every=1)
    assert ended.code == 0, ended.err
    assert CANARY not in ended.out + ended.err
    files = [path for path in (train.folder / "run").rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if CANARY.encode() in path.read_bytes()]
    assert not [path for path in files if path.suffix in {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".py"}]


def test_a_few_bytes_of_yaml_cannot_become_gigabytes():
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join(9 * [f'*{before}'])}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(yaml12.Error, match="aliases are not allowed"):
        yaml12.load(bomb)


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!python/name:os.system", "!custom"])
def test_yaml_makes_no_objects(tag: str):
    with pytest.raises(yaml12.Error):
        yaml12.load(f"a: {tag} ['true']\n")


def test_a_setting_named_like_a_token_is_refused_and_not_repeated(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(json.dumps({"hf_token": CANARY}))
    with pytest.raises(UsageError, match="unknown setting 'hf_token'") as refused:
        load_config(TrainingConfig, ["--config", str(tmp_path / "a.yaml")])
    assert CANARY not in str(refused.value)


def test_weights_that_are_a_pickle_are_refused_and_never_read(tmp_path: Path, micro_whisper: Path):
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    model = tmp_path / "model"
    shutil.copytree(micro_whisper, model)
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    load_whisper(str(model))
    weights = model / "model.safetensors"
    torch.save(load_file(weights), model / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(UsageError, match="its weights are a pickle, which may hold a program and is not read"):
        load_whisper(str(model))
    assert not (tmp_path / "executed").exists()
