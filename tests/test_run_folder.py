"""Folders of runs, as other programs see them: recognised, read as they were written, and named without their paths."""

import tarfile
from pathlib import Path

import pytest

from whisper_ft.checkpoint.checkpoint_manifest import MANIFEST
from whisper_ft.checkpoint.record import TRAINER
from whisper_ft.config.run_configuration import saved_configuration
from whisper_ft.training.run_folder import holds_model, is_run, model_of, public_name


def written(folder: Path, *names: str) -> Path:
    """A folder with empty files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["config.yaml", "status.json"], True),
        (["config.yaml", "best.json"], True),
        (["config.yaml"], False),  # of another program
        (["config.yaml", "status.json/a"], False),
        (["status.json"], False),
        ([], False),
    ],
)
def test_a_run_has_settings_and_a_state_or_a_best_model(names: list[str], expected: bool, tmp_path: Path):
    assert is_run(written(tmp_path, *names)) == expected


def test_the_model_of_a_run_is_the_first_one_that_is_there(tmp_path: Path):
    run = written(tmp_path, "config.yaml", "final/config.json", "best/README.md")
    assert model_of(str(run)) == str(run / "final")
    written(run, "best/config.json")
    assert model_of(str(run)) == str(run / "best")
    assert not holds_model(run)
    assert model_of("openai/whisper-base") == "openai/whisper-base"


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("home/runs/mine", "mine"),
        ("home/runs/mine/best", "mine/best"),
        ("home/runs/mine/average", "mine/average"),
        ("home/runs/mine/best/../final", "mine/final"),
        ("home/runs/mine/checkpoints/step-00000002", "mine/checkpoints/step-00000002"),
        ("home/whisper", "whisper"),
        ("home/best", "best"),
        ("home/step-00000002", "step-00000002"),
    ],
)
def test_the_name_of_a_model_has_its_run_and_no_other_folder(place: str, name: str, tmp_path: Path):
    files = [f"{part}/config.json" for part in ("best", "final", "average")]
    files += [f"checkpoints/step-00000002/{part}" for part in (MANIFEST, TRAINER)]
    written(tmp_path / "home/runs/mine", "config.yaml", "status.json", *files)
    written(
        tmp_path / "home",
        "whisper/config.json",
        "best/config.json",
        *(f"step-00000002/{one}" for one in (MANIFEST, TRAINER)),
    )
    assert public_name(str(tmp_path / place)) == name


@pytest.mark.parametrize(
    ("model", "name"),
    [("openai/whisper-base", "openai/whisper-base"), ("https://me:secret@host/model", "https://***@host/model")],
)
def test_a_name_that_is_no_folder_stays_without_its_credentials(model: str, name: str):
    assert public_name(model) == name


def test_newer_settings_of_an_old_run_have_the_values_of_their_time(tmp_path: Path):
    with tarfile.open(Path(__file__).parent / "data/run-before-the-wings.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    config = saved_configuration(tmp_path / "run")
    assert (config.model.suppress, config.labels.leading_space, config.eval.with_loss) == ("keep", "never", False)
