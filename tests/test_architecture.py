"""The floors of the house: imports point down, and a new module needs a floor."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = [
    {
        "failure",
        "schedule",
        "loss",
        "rng",
        "state",
        "installed",
        "yaml12",
        "window",
        "fields",
        "share",
        "html_page",
        "script",
        "timestamps",
        "errors",
        "allocator",
        "background",
    },  # pure or nearly: no project imports
    {"config", "order", "durable", "agreement", "launcher", "generation", "metric", "workers"},
    {
        "sources",
        "labels",
        "audio",
        "augment",
        "greedy",
        "model",
        "optim",
        "checkpoint",
        "scoring",
        "summary",
        "resume_rules",
    }
    | {"trackers"},
    {"stream", "hearing", "parts", "tracking", "demo", "rundir", "commandline", "leakage", "plot"}
    | {"confidence", "hallucination", "variants", "predictions"},  # of predictions, without a model
    {"decoding", "published", "replay", "prepare", "doctor", "preflight", "averaging", "breakdown", "comparison"}
    | {"publish"},
    {"heldout", "findings"},
    {"run", "report"},
    {"continuation"},
]
PROGRAMS = {"train", "evaluate"}  # compose; the only ones that see everything
LEAVES = {"collator", "normalizers"}  # at the root, passed to the package as arguments

MODULES = sorted(path for path in (ROOT / "whisper_ft").rglob("*.py") if path != ROOT / "whisper_ft/__init__.py")
ROOT_FILES = sorted(ROOT.glob("*.py"))


def unit_of(path: Path) -> str:
    """Name of the module or subpackage directly under whisper_ft, or of the file at the root."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "whisper_ft" else parts[0]


def imported(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, wherever in it they stand."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor_of(unit: str) -> int:
    found = [number for number, floor in enumerate(FLOORS) if unit in floor]
    assert found, f"give the new module {unit!r} a floor, here and in docs/decisions/0001-the-house.md"
    return found[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_floors_below_its_own(path: Path):
    unit = unit_of(path)
    for name in imported(path):
        if path.name == "__main__.py":
            continue  # a program, as those at the root: `python -m whisper_ft.doctor`
        package, _, rest = name.partition(".")
        assert package not in PROGRAMS - {"evaluate"} | LEAVES, f"the package imports {package} from the root"
        if package == "whisper_ft" and rest.split(".")[0] != unit:
            below = rest.split(".")[0]
            assert floor_of(below) < floor_of(unit), (
                f"{unit} (floor {floor_of(unit)}) imports {below} (floor {floor_of(below)})"
            )


@pytest.mark.parametrize("path", ROOT_FILES, ids=lambda path: path.name)
def test_a_file_at_the_root_is_a_program_or_a_leaf(path: Path):
    assert path.stem in PROGRAMS | LEAVES
    if path.stem in LEAVES:
        assert not [name for name in imported(path) if name.split(".")[0] in PROGRAMS | LEAVES | {"whisper_ft"}]


@pytest.mark.parametrize("path", [*MODULES, *ROOT_FILES], ids=lambda path: str(path.relative_to(ROOT)))
def test_the_package_evaluate_is_only_imported_through_installed(path: Path):
    if unit_of(path) != "installed":
        assert not [name for name in imported(path) if name.split(".")[0] == "evaluate"]


def test_no_module_has_a_name_that_says_nothing():
    assert not {"utils", "util", "helpers", "misc", "common", "manager"} & {unit_of(path) for path in MODULES}


def test_every_package_is_delivered():
    delivered = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in ROOT.glob("whisper_ft/**/__init__.py")
    }
    assert set(delivered) == there
