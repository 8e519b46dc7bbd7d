"""Architecture: every module in a wing, imports that point down, one meaning for a name, functions that fit a screen.

tests/house.py holds the floors and reads the code; docs/house.md shows them.
"""

import tomllib
from collections import defaultdict
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.house import (
    LEAVES,
    PACKAGE,
    PROGRAMS,
    ROOT,
    cycle_in,
    floor_of,
    functions,
    imported_names,
    imports,
    modules,
    page,
    public_classes,
    wing_of,
)

MAX_FILE_LINES = 400  # a module is one noun; 300 is the aim
MAX_FUNCTION_LINES = 45  # what a screen shows
LOOP, MAX_LOOP_LINES = "train", 60  # the whole training loop is one function, so that it is read in one piece
TABLE_FILES = {"normalizers.py"}  # a delivered file of its own: its length is its tables of languages

IN_PACKAGE = [name for name in modules() if name.split(".")[0] == PACKAGE]
AT_ROOT = [name for name in modules() if name.split(".")[0] != PACKAGE]


def test_every_module_of_the_package_lives_in_a_wing():
    directly_below = {path.name for path in (ROOT / PACKAGE).glob("*.py")}
    assert directly_below <= {"__init__.py", "__main__.py"}
    for folder in {path.parent for path in (ROOT / PACKAGE).glob("*/**/*.py")}:
        floor_of(folder.relative_to(ROOT / PACKAGE).parts[0])


@pytest.mark.parametrize("module", IN_PACKAGE)
def test_a_module_imports_from_its_wing_and_from_wings_below(module: str):
    wing = wing_of(module)
    targets = sorted(imports()[module])
    if module.endswith(".__main__"):  # a program: it hands the leaves on as arguments
        targets = [name for name in targets if name not in LEAVES]
    assert not [name for name in targets if name in AT_ROOT], "the package never imports the files at the root"
    if module == PACKAGE:
        assert not targets
    elif wing:
        wings = {wing_of(name) for name in targets if name != PACKAGE} - {wing}
        assert not [name for name in wings if floor_of(name) >= floor_of(wing)]


def test_no_imports_form_a_cycle():
    assert not cycle_in(imports())


def test_a_cycle_is_found():
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert not cycle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()})


@pytest.mark.parametrize("module", AT_ROOT)
def test_a_file_at_the_root_is_a_program_or_a_leaf(module: str):
    assert module in PROGRAMS + LEAVES
    if module in LEAVES:  # the collator shares window, batch and padding with the package
        assert {wing_of(name) for name in imports()[module]} <= ({"data"} if module == "collator" else set())


@pytest.mark.parametrize("module", sorted(modules()))
def test_the_package_evaluate_is_only_imported_through_installed_package(module: str):
    if module != f"{PACKAGE}.runtime.installed_package":
        assert "evaluate" not in {name.split(".")[0] for name in imported_names(modules()[module])}


def test_no_module_has_a_name_that_says_nothing():
    words = {word for name in IN_PACKAGE for word in name.split(".")}
    assert not {"utils", "util", "helpers", "misc", "common", "manager"} & words


def test_no_public_class_name_stands_twice():
    assert not {name: homes for name, homes in public_classes().items() if len(homes) > 1}


def test_no_two_files_of_the_package_have_one_name():
    """Settings and commands have the name of their subject: `config/data.py` configures `data/`."""
    homes: dict[str, list[str]] = defaultdict(list)
    for name in IN_PACKAGE:
        path = modules()[name]
        has_subject_elsewhere = path.parent in (ROOT / PACKAGE / "config", ROOT / PACKAGE / "cli")
        if path.name not in ("__init__.py", "__main__.py") and not has_subject_elsewhere:
            homes[path.name].append(name)
    assert not {file: names for file, names in homes.items() if len(names) > 1}


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_file_is_longer_than_a_module_should_be():
    long = {str(path.relative_to(ROOT)): lines_of(path) for path in modules().values() if path.name not in TABLE_FILES}
    assert not {name: lines for name, lines in long.items() if lines > MAX_FILE_LINES}


def test_every_function_fits_a_screen():
    long = [(place, lines) for place, lines in functions() if lines > MAX_FUNCTION_LINES]
    loop = [lines for place, lines in long if place.startswith("train.py") and place.endswith(f" {LOOP}")]
    assert all(lines <= MAX_LOOP_LINES for lines in loop)
    assert not [place for place, _ in long if not (place.startswith("train.py") and place.endswith(f" {LOOP}"))]


def test_the_page_of_the_house_shows_what_is_checked():
    assert (ROOT / "docs/house.md").read_text(encoding="utf-8") == page(), (
        "run: .venv/bin/python -m tests.house > docs/house.md"
    )


def test_every_package_is_delivered():
    """A folder without `__init__.py`, or outside of the patterns, would be missing in the wheel."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    for folder in {path.parent for path in (ROOT / PACKAGE).rglob("*.py")}:
        assert (folder / "__init__.py").exists()
        name = ".".join(folder.relative_to(ROOT).parts)
        assert any(fnmatch(name, pattern) for pattern in patterns)
