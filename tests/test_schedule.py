"""The learning rate is a function of the step alone."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_ft.optim.schedule import due, lr_factor, steps_of

KINDS = ("linear", "cosine", "constant", "wsd")


@pytest.mark.parametrize("kind", KINDS)
def test_warm_up_rises_in_equal_parts_and_never_asks_for_zero(kind: str):
    factors = [lr_factor(step, 100, kind, warmup=4, decay=20) for step in range(5)]
    assert factors == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


@pytest.mark.parametrize(
    ("kind", "step", "factor"),
    [
        ("linear", 10, 1.0),
        ("linear", 55, 0.5),
        ("linear", 99, 1 / 90),
        ("cosine", 10, 1.0),
        ("cosine", 55, 0.5),
        ("cosine", 99, 0.5 * (1 - math.cos(math.pi / 90))),
        ("constant", 99, 1.0),
        ("wsd", 79, 1.0),
        ("wsd", 80, 1.0),
        ("wsd", 90, 0.5),
        ("wsd", 99, 0.05),
    ],
)
def test_the_shapes(kind: str, step: int, factor: float):
    assert lr_factor(step, 100, kind, warmup=10, decay=20) == pytest.approx(factor)


@given(st.sampled_from(KINDS), st.integers(1, 500), st.integers(0, 600), st.integers(0, 600), st.integers(0, 2000))
def test_every_factor_of_every_run_is_above_zero_and_at_most_one(
    kind: str, steps: int, warmup: int, decay: int, step: int
):
    assert 0 < lr_factor(step, steps, kind, warmup, decay) <= 1


@pytest.mark.parametrize(("duration", "steps"), [(0, 0), (0.1, 100), (0.25, 250), (1, 1), (500.0, 500)])
def test_a_duration_is_steps_or_below_one_a_share(duration: float, steps: int):
    assert steps_of(duration, 1000) == steps


def test_something_is_due_every_so_often_and_at_the_end():
    assert [step for step in range(1, 11) if due(step, 4, last=step == 10)] == [4, 8, 10]
    assert not due(10, 0, last=True)
