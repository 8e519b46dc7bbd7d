"""The wheel: its files, its entry point, and a command run from it in another folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT, START_SECONDS

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "train.py", "evaluate.py", "collator.py", "normalizers.py")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built in a copy, because a build writes into its folder."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "whisper_ft", copy / "whisper_ft", ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    argv = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(out), str(copy)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=START_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    (file,) = out.glob("*.whl")
    return file


@pytest.mark.long
def test_the_wheel_holds_the_package_and_the_two_leaves_alone(wheel: Path):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = (path for path in (ROOT / "whisper_ft").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert names == {"collator.py", "normalizers.py", *(str(path.relative_to(ROOT)) for path in package)}


@pytest.mark.long
def test_the_wheel_names_its_command(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        lines = archive.read(name).decode().splitlines()
    assert "whisper-ft = whisper_ft.__main__:main" in lines


@pytest.mark.long
def test_a_command_of_the_wheel_runs_in_any_folder(wheel: Path, corpus: Path, micro_whisper: Path, tmp_path: Path):
    """The doctor, because it needs normalizers.py, a template and most of the package."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()
    settings = {"model.name": micro_whisper, "data.path": corpus / "validation", "data.normalizer": "golden"}
    options = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, "-m", "whisper_ft", "doctor", *options, "--data.language", "be", "--out", "out"],
        cwd=tmp_path / "elsewhere",
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "elsewhere/out/doctor.html").exists()
