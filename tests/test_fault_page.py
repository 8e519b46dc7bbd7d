"""docs/faults.md names tests that are there."""

import ast
import re

import pytest

from tests.conftest import ROOT

NAMED = sorted(set(re.findall(r"`(test_\w+\.py)::(\w+)`", (ROOT / "docs/faults.md").read_text(encoding="utf-8"))))


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_every_test_that_the_page_of_faults_names_is_there(file: str):
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {name for of, name in NAMED if of == file} <= there


def test_every_fault_on_the_page_names_a_test():
    lines = (ROOT / "docs/faults.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| fault")]
    assert len(rows) > 40
    assert not [row for row in rows if not re.search(r"`test_\w+\.py::\w+`", row)]
    assert len(NAMED) > 50
