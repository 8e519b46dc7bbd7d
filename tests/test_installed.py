"""The root's evaluate.py never hides the PyPI package from whisper_ft.runtime.installed_package, in any kind of start.

The launches run in a copy of the house: a folder with an evaluate.py of its own beside whisper_ft.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType

import pytest

from whisper_ft.runtime.installed_package import evaluate, import_package

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = str(distribution("evaluate").locate_file("evaluate/__init__.py"))

SCRIPT = """
import os
from multiprocessing import get_context

from whisper_ft.runtime.installed_package import evaluate
import evaluate as bare
import probe

if __name__ == "__main__":
    found = [evaluate.__file__, bare.__file__]
    for method in os.environ["WORKERS"].split():
        with get_context(method).Pool(1) as pool:
            found.append(pool.apply(probe.file_in_this_process))
    probe.write(found)
"""
PROBE = """
import json
import os
from pathlib import Path


def file_in_this_process():
    from whisper_ft.runtime.installed_package import evaluate
    assert evaluate.Metric and evaluate.save
    return evaluate.__file__


def write(found):
    Path(os.environ["FOUND"], f"{os.getpid()}.json").write_text(json.dumps(found))
"""
TEST = """
import probe


def test_it():
    probe.write([probe.file_in_this_process()])
"""

PYTHON = [sys.executable]
ACCELERATE = [*PYTHON, "-m", "accelerate.commands.launch"]
TWO = ["--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]  # on the CPU, by ACCELERATE_USE_CPU
TORCHRUN = [*PYTHON, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
PYTEST = [*PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
NAMED = "import evaluate, probe; probe.write([evaluate.__file__])"

# mode: (command, given in the house; processes that report; further environment)
LAUNCHES: dict[str, tuple[list[str], int, dict[str, str]]] = {
    "python with workers of each kind": ([*PYTHON, "evaluate.py"], 1, {"WORKERS": "fork spawn forkserver"}),
    "python -m with a spawned worker": ([*PYTHON, "-m", "evaluate"], 1, {"WORKERS": "spawn"}),
    "python -c that imports the script": ([*PYTHON, "-c", NAMED], 1, {}),
    "safe path": ([*PYTHON, "evaluate.py"], 1, {"PYTHONSAFEPATH": "1", "PYTHONPATH": "HOUSE"}),
    "another folder": ([*PYTHON, "HOUSE/evaluate.py"], 1, {}),
    "accelerate launch x1": ([*ACCELERATE, "--cpu", "--num_processes", "1", "evaluate.py"], 1, {}),
    "accelerate launch x2": ([*ACCELERATE, *TWO, "evaluate.py"], 2, {"ACCELERATE_USE_CPU": "true"}),
    "torchrun x2": ([*TORCHRUN, "evaluate.py"], 2, {}),
    "pytest, prepend": ([*PYTEST, "--import-mode=prepend", "test_found.py"], 1, {}),
    "pytest, importlib": ([*PYTEST, "--import-mode=importlib", "test_found.py"], 1, {}),
}


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the project's root: a script evaluate.py next to whisper_ft."""
    house = tmp_path_factory.mktemp("house")
    (house / "whisper_ft/runtime").mkdir(parents=True)
    for module in ("__init__.py", "runtime/__init__.py", "runtime/installed_package.py"):
        shutil.copy(ROOT / "whisper_ft" / module, house / "whisper_ft" / module)
    (house / "evaluate.py").write_text(SCRIPT)
    (house / "probe.py").write_text(PROBE)
    (house / "test_found.py").write_text(TEST)
    (house / "pytest.ini").write_text("[pytest]")
    # evaluate wants transformers for its pipelines only and does without; a start then takes 1 s and not 4 s.
    (house / "transformers.py").write_text("raise ImportError('left out of this test')")
    return house


def launch(mode: str, house: Path, reports: Path) -> list[list[str]]:
    """Files of the package that each process of a launch found."""
    command, _, variables = LAUNCHES[mode]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST"))}
    variables = {key: value.replace("HOUSE", str(house)) for key, value in variables.items()}
    done = subprocess.run(
        [part.replace("HOUSE", str(house)) for part in command],
        cwd=reports if mode == "another folder" else house,
        env=inherited | {"FOUND": str(reports), "WORKERS": "", "OMP_NUM_THREADS": "1"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return [json.loads(path.read_text()) for path in reports.glob("*.json")]


# The others start the same imports in further ways.
OFTEN = ("python with workers of each kind", "safe path", "accelerate launch x2", "pytest, importlib")


@pytest.mark.long
@pytest.mark.parametrize(
    "mode", [mode if mode in OFTEN else pytest.param(mode, marks=pytest.mark.matrix) for mode in LAUNCHES]
)
def test_the_package_is_found_by(mode: str, house: Path, tmp_path: Path):
    _, processes, variables = LAUNCHES[mode]
    reports = launch(mode, house, tmp_path)
    assert len(reports) == processes
    assert {file for files in reports for file in files} == {PACKAGE}
    for files in reports:
        assert len(files) >= 1 + len(variables.get("WORKERS", "").split())


@pytest.mark.matrix
def test_the_package_is_found_where_the_projects_own_script_hides_it():
    code = (
        "from whisper_ft.runtime.installed_package import evaluate; import evaluate as bare; "
        "print(evaluate.__file__, bare is evaluate)"
    )
    done = subprocess.run([*PYTHON, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [PACKAGE, "True"]


def test_the_package_is_found_in_this_run_of_pytest():
    assert evaluate.__file__ == PACKAGE
    assert import_package("evaluate") is evaluate is sys.modules["evaluate"]


def test_a_script_that_holds_the_name_gives_way(house: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(house)
    monkeypatch.syspath_prepend("")  # the current folder, as under python -c
    monkeypatch.setitem(sys.modules, "evaluate", ModuleType("evaluate"))
    before = list(sys.path)
    assert import_package("evaluate").__file__ == PACKAGE
    assert sys.modules["evaluate"].__file__ == PACKAGE
    assert sys.path == before


def test_a_folder_of_results_named_like_the_package_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "evaluate").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "evaluate")
    assert import_package("evaluate").__file__ == PACKAGE


def test_a_package_that_is_missing_is_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "whisper_ft_missing.py").write_text("")  # only a script has that name
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="pip install whisper_ft_missing"):
        import_package("whisper_ft_missing")


def test_a_package_that_fails_leaves_things_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "whisper_ft_broken").mkdir()
    (tmp_path / "whisper_ft_broken" / "__init__.py").write_text("raise RuntimeError('broken')")
    monkeypatch.syspath_prepend(str(tmp_path))
    script = ModuleType("whisper_ft_broken")
    monkeypatch.setitem(sys.modules, "whisper_ft_broken", script)
    with pytest.raises(RuntimeError, match="broken"):
        import_package("whisper_ft_broken")
    assert sys.modules["whisper_ft_broken"] is script
