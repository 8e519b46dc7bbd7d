"""The state of a run: JSON both ways, and what counts as best."""

import json
import math
from dataclasses import replace

from whisper_ft.checkpoint.state import Best, Counts, TrainState


def at_step(step: int, best: Best | None = None) -> TrainState:
    return TrainState(step=step, best=best)


def test_a_state_survives_json():
    counts = Counts(utterances=112, unusable=2, label_tokens=999, audio_samples=16_000)
    state = TrainState(7, 1, 0, counts, evaluated=((5, 0.25), (7, None)), best=Best(5, "wer", 0.25))
    state = replace(state, set_steps={"en": (0, 5, 7), "th": ()})
    assert state.to_json()["utterances"] == 112, "the counts have the keys of every version so far"
    assert TrainState.from_json(json.loads(json.dumps(state.to_json()))) == state


def test_the_first_evaluation_is_the_best():
    state = at_step(10).after_evaluation("wer", 0.9)
    assert state.best == Best(10, "wer", 0.9)
    assert state.improved


def test_a_worse_evaluation_does_not_replace_the_best():
    state = at_step(20, Best(10, "wer", 0.2)).after_evaluation("wer", 0.3)
    assert state.best == Best(10, "wer", 0.2)
    assert not state.improved


def test_ties_keep_the_older():
    assert at_step(20, Best(10, "wer", 0.2)).after_evaluation("wer", 0.2).best == Best(10, "wer", 0.2)


def test_nan_and_nothing_to_compare_are_never_best():
    for value in (math.nan, None):
        assert at_step(20).after_evaluation("wer", value).best is None
        assert at_step(20, Best(10, "wer", 0.2)).after_evaluation("wer", value).best == Best(10, "wer", 0.2)


def test_a_skipped_update_is_a_step_and_a_good_one_ends_the_streak():
    counts = Counts(utterances=4, label_tokens=40)
    state = TrainState().after_step(counts, applied=False).after_step(counts, applied=False)
    assert (state.step, state.skipped, state.skipped_in_a_row) == (2, 2, 2)
    state = state.after_step(counts, applied=True)
    assert (state.step, state.skipped, state.skipped_in_a_row, state.counts.utterances) == (3, 2, 0, 12)


def test_steps_without_an_utterance_are_counted_until_one_is_trained_and_survive_json():
    state = TrainState().after_step(Counts(unusable=4), applied=True).after_step(Counts(unusable=4), applied=True)
    assert TrainState.from_json(state.to_json()).untrained_in_a_row == 2
    assert state.after_step(Counts(utterances=1, label_tokens=3), applied=True).untrained_in_a_row == 0
    before = {name: value for name, value in state.to_json().items() if name != "untrained_in_a_row"}
    assert TrainState.from_json(before).untrained_in_a_row == 0, "a state of an earlier version"


def test_a_set_is_known_by_its_steps_which_a_reset_forgets():
    state = at_step(4).after_sets(["en", "th"])
    assert (state.steps_of_set("en"), state.steps_of_set("other")) == ((0, 4), (0,)), "0 is the start model"
    later = replace(state.reset_set("en"), step=8).after_sets(["en"])
    assert (later.steps_of_set("en"), later.steps_of_set("th")) == ((8,), (0, 4))
    before = {name: value for name, value in later.to_json().items() if name != "set_steps"}
    assert TrainState.from_json(before).set_steps == {}, "a state of an earlier version"


def test_windows_of_a_run_from_before_they_were_counted_stay_unknown():
    before = {name: value for name, value in at_step(4).to_json().items() if name not in ("windows", "filled_samples")}
    state = TrainState.from_json(before).after_step(Counts(windows=3, filled_samples=7), applied=True)
    assert (state.counts.windows, state.counts.filled_samples) == (None, None)
    assert TrainState.from_json(state.to_json()) == state


def test_improved_holds_only_at_the_step_that_was_best():
    state = at_step(10).after_evaluation("wer", 0.5)
    assert not state.after_step(Counts(utterances=1, label_tokens=1), applied=True).improved


def evaluated(*values: float | None, **how: object) -> TrainState:
    """The state after evaluations at steps 10, 20, 30, ..."""
    state = TrainState()
    for number, value in enumerate(values, start=1):
        state = replace(state, step=10 * number).after_evaluation("wer", value, **how)  # type: ignore[arg-type]
    return state


def test_a_metric_may_be_better_when_it_is_greater():
    assert evaluated(0.5, 0.7, 0.6, greater_is_better=True).best == Best(20, "wer", 0.7)


def test_less_of_a_gain_than_min_delta_is_none():
    assert evaluated(0.5, 0.495, 0.489, min_delta=0.01).best == Best(30, "wer", 0.489), "measured from the best"
    assert evaluated(0.5, 0.491, min_delta=0.01).best == Best(10, "wer", 0.5)
    assert evaluated(0.5, 0.509, 0.52, min_delta=0.01, greater_is_better=True).best == Best(30, "wer", 0.52)


def test_patience_counts_evaluations_since_the_best():
    assert not evaluated(0.5, 0.6, 0.4, 0.5).out_of_patience(2)
    assert evaluated(0.5, 0.6, 0.4, 0.5, None).out_of_patience(2)
    assert not evaluated(0.5, 0.6, 0.7, 0.8).out_of_patience(None)
    assert evaluated(None, None).out_of_patience(2), "figures that cannot be compared are no better"
    assert not evaluated(None, 0.5).reset_best().out_of_patience(1)


def test_the_best_steps_are_in_order_and_of_equal_ones_the_older():
    assert evaluated(0.5, 0.4, None, 0.4, 0.3).best_steps(3) == [50, 20, 40]
    assert evaluated(0.5, 0.4, 0.6, greater_is_better=True).best_steps(2, greater_is_better=True) == [30, 10]
