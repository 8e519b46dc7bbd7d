import json

import jiwer
import numpy as np
import pytest

from whisper_ft.scoring import bootstrap as bootstrap
from whisper_ft.scoring.bootstrap import Interval, confidence, interval_of, paired_test
from whisper_ft.scoring.edit_distance import ErrorCount, total
from whisper_ft.scoring.scores import Prediction, ScoredRow, Scores, score

TRUE_RATE = 0.2


def counted(errors: list[int], words: list[int], speakers: list[str | None]) -> Scores:
    """A scored set of these counts; characters as words."""
    rows = []
    for number, (wrong, length, speaker) in enumerate(zip(errors, words, speakers, strict=True)):
        count = ErrorCount(hits=length - wrong, substitutions=wrong)
        prediction = Prediction(f"u{number}", "", "", 1.0, 1, speaker=speaker)
        rows.append(ScoredRow(prediction, "x", "x", count, count))
    whole = total(row.words for row in rows)
    return Scores(tuple(rows), whole, whole, whole, whole)


def simulated(dice: np.random.Generator, speakers: int, each: int, known: bool = True) -> Scores:
    """Speakers who differ in how hard they are, all in all TRUE_RATE."""
    hardness = np.repeat(dice.beta(4, 16, speakers), each)
    words = dice.integers(5, 20, speakers * each)
    names = [f"s{number}" if known else None for number in np.repeat(np.arange(speakers), each)]
    return counted(dice.binomial(words, hardness).tolist(), words.tolist(), names)


def held(scores: Scores) -> bool:
    """Whether the interval holds the true rate."""
    interval = confidence(scores).wer
    assert interval is not None
    return interval.low <= TRUE_RATE <= interval.high


def test_of_a_hundred_intervals_of_utterances_about_95_hold_the_truth():
    dice = np.random.default_rng(1)
    coverage = np.mean([held(simulated(dice, speakers=150, each=1)) for _ in range(200)])
    assert 0.90 <= coverage <= 0.99


def test_intervals_by_speaker_hold_the_truth_where_those_by_utterance_do_not():
    by_speaker, by_utterance = [], []
    for seed in range(150):
        by_speaker.append(held(simulated(np.random.default_rng(seed), speakers=30, each=20)))
        by_utterance.append(held(simulated(np.random.default_rng(seed), speakers=30, each=20, known=False)))
    assert 0.90 <= np.mean(by_speaker) <= 0.99
    assert np.mean(by_utterance) < 0.75


def test_it_is_said_what_was_drawn():
    words, errors = [10] * 40, [1, 2] * 20
    known = [f"s{number % 25}" for number in range(40)]
    assert str(confidence(counted(errors, words, known)).drawn) == "1,000 resamples of 25 speakers"
    some = confidence(counted(errors, words, [*known[:30], *[None] * 10])).drawn
    assert str(some) == "1,000 resamples of 25 speakers and 10 utterances without one"
    one_speaker = confidence(counted(errors, words, ["s"] * 40)).summary()
    assert (one_speaker["by"], one_speaker["units"]) == ("utterance", 40)
    assert "few: the true interval is wider" in str(confidence(counted(errors, words, ["a", "b"] * 20)).drawn)


def test_the_interval_is_the_same_on_every_machine_and_however_much_is_drawn_at_once(monkeypatch):
    scores = counted([0, 1, 2, 3, 4, 5, 0], [10, 9, 8, 7, 6, 5, 4], [None] * 7)
    found = confidence(scores)
    assert found.wer == Interval(pytest.approx(3 / 26), pytest.approx(0.568151105651105))
    monkeypatch.setattr(bootstrap, "AT_ONCE", 20)
    assert confidence(scores) == found
    assert confidence(scores, seed=21) != found


def test_the_interval_of_a_part_is_that_of_the_part_alone():
    scores = counted([0, 1, 2, 3], [10, 9, 8, 7], [None] * 4)
    assert interval_of(scores.rows, [row.words for row in scores.rows]) == confidence(scores).wer
    assert interval_of(scores.rows[:1], [scores.rows[0].words]) is None


@pytest.mark.parametrize("size", [0, 1])
def test_without_two_units_there_is_no_interval_and_no_test(size: int):
    scores = counted([1] * size, [4] * size, [None] * size)
    summary = confidence(scores).summary()
    assert (summary["wer"], summary["cer"]) == (None, None)
    json.dumps(summary, allow_nan=False)
    difference = paired_test(scores, scores).wer
    assert difference is None or (difference.change, difference.p_value, difference.interval) == (0.0, None, None)


def with_errors(dice: np.random.Generator, hardness: np.ndarray, words: np.ndarray) -> Scores:
    return counted(dice.binomial(words, hardness).tolist(), words.tolist(), [None] * len(words))


def p_values(better: float, runs: int) -> list[float]:
    """Of two systems on the same hard and easy utterances, the second with `better` times the errors."""
    dice, found = np.random.default_rng(3), []
    for _ in range(runs):
        words, hardness = dice.integers(5, 20, 150), dice.beta(1, 4, 150)
        first, second = (with_errors(dice, hardness * factor, words) for factor in (1.0, better))
        difference = paired_test(first, second).wer
        assert difference is not None
        assert difference.p_value is not None
        found.append(difference.p_value)
    return found


def test_two_equal_systems_are_told_apart_by_mistake_about_5_times_of_100():
    assert 0.02 <= np.mean([p < 0.05 for p in p_values(better=1.0, runs=250)]) <= 0.085


def test_a_better_system_is_recognised():
    assert np.mean([p < 0.05 for p in p_values(better=0.75, runs=40)]) > 0.9


def test_the_test_and_the_interval_agree_and_the_sign_says_which_is_better():
    dice = np.random.default_rng(4)
    words, hardness = dice.integers(5, 20, 200), dice.beta(1, 4, 200)
    worse, better = with_errors(dice, hardness, words), with_errors(dice, hardness * 0.5, words)
    found = paired_test(worse, better).wer
    assert found is not None
    assert found.interval is not None
    assert found.change == found.second - found.first < 0
    assert found.interval.low < found.change < found.interval.high < 0
    assert found.is_significant
    assert found.better == 1.0
    back = paired_test(better, worse).wer
    assert back is not None
    assert (back.change, back.better, back.p_value) == (-found.change, 0.0, found.p_value)


def test_a_system_compared_with_itself_shows_nothing():
    scores = counted([0, 1, 2, 3], [10, 9, 8, 7], [None] * 4)
    found = paired_test(scores, scores).wer
    assert found is not None
    assert (found.change, found.interval, found.p_value, found.better) == (0.0, Interval(0.0, 0.0), 1.0, 0.5)


def predictions(*rows: tuple[str, str, str]) -> list[Prediction]:
    return [Prediction(name, ref, hyp, 1.0, 1) for name, ref, hyp in rows]


def test_utterances_are_matched_by_id_and_the_rates_are_those_of_jiwer():
    refs = {"a": "x y z", "b": "раз'яднаць іх", "c": "", "d": "q"}
    hyps = {"a": ("x z", "x y z"), "b": ("раз'яднаць", "яднаць іх усіх"), "c": ("noise", ""), "d": ("q", "p q")}
    first = score(predictions(*[(name, refs[name], hyps[name][0]) for name in "abcd"]), str.lower)
    second = score(predictions(*[(name, refs[name], hyps[name][1]) for name in "dcba"]), str.lower)
    found = paired_test(first, second)
    for metric, theirs in ((found.wer, jiwer.wer), (found.cer, jiwer.cer)):
        assert metric is not None
        rates = [theirs([refs[name] for name in "abd"], [hyps[name][at] for name in "abd"]) for at in (0, 1)]
        assert [metric.first, metric.second] == pytest.approx(rates)


def test_what_cannot_be_compared_is_named():
    whole = score(predictions(("a", "x", "x"), ("b", "y", "y"), ("c", "z", "z")), str.lower)
    part = score(predictions(("b", "y", "y")), str.lower)
    with pytest.raises(ValueError, match="2 are missing from the second: 'a', 'c'"):
        paired_test(whole, part)
    with pytest.raises(ValueError, match="2 are missing from the first: 'a', 'c'"):
        paired_test(part, whole)
    other = score(predictions(("a", "x", "x"), ("b", "Y", "y"), ("c", "z", "z")), lambda text: text)
    with pytest.raises(ValueError, match="same references, but 1 differ: 'b'; score both with one normaliser"):
        paired_test(whole, other)
