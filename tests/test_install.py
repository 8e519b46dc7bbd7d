"""The ways to install: the notebook, the image and the console script agree with the programs."""

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import ROOT
from whisper_ft import COMMANDS
from whisper_ft.cli.launch import main
from whisper_ft.config.parse import load_config
from whisper_ft.config.scoring import EvaluationConfig
from whisper_ft.config.training import TrainingConfig

NOTEBOOK = ROOT / "notebooks/colab.ipynb"


def cells() -> list[str]:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["metadata"]["accelerator"]) == (4, "GPU")
    assert all(cell["outputs"] == [] for cell in notebook["cells"] if cell["cell_type"] == "code")
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def commands() -> list[list[str]]:
    """The commands of the notebook, also those in comments."""
    text = "\n".join(cells()).replace("\\\n", " ")
    lines = re.findall(r"^(?:# )?!(whisper-ft .*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in lines]


def test_the_settings_of_the_notebook_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (written,) = (cell for cell in cells() if cell.startswith("%%writefile colab.yaml"))
    (tmp_path / "colab.yaml").write_text(written.split("\n", 1)[1])
    monkeypatch.chdir(tmp_path)
    for name, cls in (("train", TrainingConfig), ("evaluate", EvaluationConfig)):
        (argv,) = (argv[1:] for argv in commands() if argv[0] == name)
        load_config(cls, argv)


def test_the_notebook_needs_no_make_and_its_commands_exist():
    assert {argv[0] for argv in commands()} == {"doctor", "train", "evaluate", "transcribe", "export", "publish"}
    assert {argv[0] for argv in commands()} <= set(COMMANDS)
    assert not any("make " in cell for cell in cells())


def test_the_image_holds_what_a_run_needs_and_no_data():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER ")] == ["USER trainer"]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {".git", ".venv", "runs", "my-data"} <= set(ignored)
    (extras,) = re.findall(r"\.\[([\w,]+)\]", "\n".join(lines))
    project = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras.split(","))


def test_train_and_evaluate_are_commands_that_launch(capsys: pytest.CaptureFixture[str]):
    from whisper_ft.cli import evaluate, train

    assert train.main(["--dry_run", "--config", str(ROOT / "configs/demo.yaml")]) == 0
    assert evaluate.main(["--dry_run", "--model", "x"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert f"{ROOT}/train.py --config" in first
    assert f"{ROOT}/evaluate.py --model x" in second
    assert main(["--dry_run", "--config", "x"]) == 0
    assert f"{ROOT}/train.py --config x" in capsys.readouterr().out


def test_without_a_clone_train_says_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    from whisper_ft.cli import launch, train

    monkeypatch.setattr(launch, "ROOT", tmp_path)
    assert train.main(["--config", "x"]) == 2
    assert "clone the project" in capsys.readouterr().err
