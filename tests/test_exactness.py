"""Claims of docs/exactness.md: train.py beside the Trainer in the script's quick form, and the tests it names."""

import ast
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.exactness import QUICK_EXTENT, distance_share, measure, multiples
from tests.conftest import ROOT, run

PAGE = ROOT / "docs/exactness.md"
SLICED = [(1, 4), (2, 1), (2, 4)]  # processes, accumulations


def started(program: Sequence[str], processes: int, codes: tuple[int, ...]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of train.py, forked as in all tests."""
    ended = run(program[1], *program[2:], processes=processes)
    assert ended.code in codes, ended.err
    return ended.code, ended.out, ended.err


def measured(folder: Path, part: str) -> Any:
    """One part of the script's results."""
    return measure(folder, *QUICK_EXTENT, [part], started)[part]


Slices = dict[tuple[str, int, int], dict[str, Any]]


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Slices:
    """Two updates by system, processes and accumulations."""
    rows = measured(tmp_path_factory.mktemp("slices"), "slices")
    return {(row["system"], row["world"], row["accumulate"]): row for row in rows}


def assert_mentions(message: str, *facts: str) -> None:
    assert not [fact for fact in facts if fact not in message], message


def is_exact(row: dict[str, Any]) -> bool:
    """True if a run differs from one big batch only by the order of float32 sums."""
    figures = [row[f"{name}_{at}"] for name in ("loss", "grad_norm") for at in ("first", "furthest")]
    return figures == pytest.approx([1.0] * 4, rel=2e-6) and row["weights_off"] < 1e-5


@pytest.mark.matrix
def test_both_programs_do_the_same_where_nothing_is_sliced(slices: Slices):
    """So the differences below come from the slicing, not from inputs or optimizer."""
    ours, theirs = slices["ours", 1, 1], slices["trainer", 1, 1]
    for a, b in zip(ours["steps"], theirs["steps"], strict=True):
        assert a == pytest.approx(b, rel=1e-6)
    assert theirs["weights_off_ours"] < 1e-5


@pytest.mark.matrix
@pytest.mark.parametrize(("world", "accumulate"), SLICED)
def test_a_step_of_train_py_is_that_of_one_big_batch(slices: Slices, world: int, accumulate: int):
    assert is_exact(slices["ours", world, accumulate])


@pytest.mark.matrix
@pytest.mark.parametrize(("world", "accumulate"), SLICED)
def test_the_trainer_multiplies_the_gradient_and_weighs_tokens_unequally(slices: Slices, world: int, accumulate: int):
    """If this fails, that version of transformers has fixed the loss: measure again and correct the page."""
    as_it_comes, apart = (slices[name, world, accumulate] for name in ("trainer", "trainer_tokens_apart"))
    for row, factor in ((as_it_comes, world * accumulate), (apart, accumulate)):
        assert [row["loss_first"], row["grad_norm_first"]] == pytest.approx([factor] * 2, rel=0.02)
        assert row["weights_off"] > 1e-3


@pytest.mark.matrix
@pytest.mark.parametrize(("world", "accumulate"), SLICED)
def test_without_the_factor_the_trainer_is_a_mean_of_means(slices: Slices, world: int, accumulate: int):
    row = slices["trainer_means", world, accumulate]
    assert [row["loss_first"], row["grad_norm_first"]] == pytest.approx([1, 1], rel=0.02)
    assert row["weights_off"] > 1e-3


@pytest.mark.matrix
@pytest.mark.parametrize(("world", "accumulate"), SLICED)
def test_with_a_loss_that_counts_tokens_the_trainer_is_exact_too(slices: Slices, world: int, accumulate: int):
    assert is_exact(slices["trainer_loss_func", world, accumulate])


@pytest.mark.matrix
def test_a_resumed_trainer_passes_over_what_train_py_refuses_or_does(tmp_path: Path):
    results = measured(tmp_path, "resumes")
    ours, theirs = results["ours"], results["trainer"]
    for system in (ours, theirs):
        assert system["same"]["same_weights"]
        assert system["same"]["learning_rates"] == system["whole"]["learning_rates"]
    assert theirs["higher_rate"]["learning_rates"] == theirs["whole"]["learning_rates"], "the new rate is ignored"
    assert_mentions(ours["higher_rate"]["message"], "optim.lr", "0.001", "0.01")
    rates = zip(ours["higher_rate_allowed"]["learning_rates"], ours["whole"]["learning_rates"], strict=True)
    assert all(now == pytest.approx(10 * before) for now, before in rates)
    assert theirs["no_optimizer"]["learning_rates"][0] == 0, "the warm-up begins again"
    assert_mentions(ours["no_optimizer"]["message"], "optimizer.safetensors", "missing")
    assert {ours[way]["exit_code"] for way in ("higher_rate", "more_steps", "no_optimizer")} <= {2, 3}


def test_figures_are_multiples_of_one_big_batch_and_the_furthest_counts():
    whole = [{"loss": 2.0, "grad_norm": 4.0}, {"loss": 1.0, "grad_norm": 2.0}]
    steps = [{"loss": 4.0, "grad_norm": 4.0}, {"loss": 3.0, "grad_norm": 1.0}]
    assert multiples(steps, whole) == {
        "loss_first": 2.0,
        "loss_furthest": 3.0,
        "grad_norm_first": 1.0,
        "grad_norm_furthest": 0.5,
    }


def test_weights_are_off_by_a_share_of_the_way_they_went():
    begun, whole = {"w": torch.zeros(2)}, {"w": torch.tensor([3.0, 4.0])}
    assert distance_share(begun, whole, {"w": torch.tensor([3.0, 4.5])}) == pytest.approx(0.1)
    with pytest.raises(RuntimeError, match="not the same weights"):
        distance_share(begun, whole, {"v": torch.zeros(2)})


def test_the_page_names_tests_that_exist():
    named = re.findall(r"`(test_\w+\.py)::(\w+)`", PAGE.read_text(encoding="utf-8"))
    assert len(named) > 20
    for file, name in named:
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, f"{file}::{name}"
