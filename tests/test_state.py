"""The state of a run: JSON both ways, and what counts as best."""

import json
import math

from whisper_ft.state import Best, TrainState


def at_step(step: int, best: Best | None = None) -> TrainState:
    return TrainState(step=step, best=best)


def test_a_state_survives_json():
    state = TrainState(step=7, skipped=1, utterances=112, unusable=2, label_tokens=999, best=Best(5, "wer", 0.25))
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
    counts = {"utterances": 4, "unusable": 0, "label_tokens": 40}
    state = TrainState().after_step(applied=False, **counts).after_step(applied=False, **counts)
    assert (state.step, state.skipped, state.skipped_in_a_row) == (2, 2, 2)
    state = state.after_step(applied=True, **counts)
    assert (state.step, state.skipped, state.skipped_in_a_row, state.utterances) == (3, 2, 0, 12)


def test_improved_holds_only_at_the_step_that_was_best():
    state = at_step(10).after_evaluation("wer", 0.5)
    assert not state.after_step(applied=True, utterances=1, unusable=0, label_tokens=1).improved
