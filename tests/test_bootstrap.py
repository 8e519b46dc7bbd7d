import json

import jiwer
import numpy as np
import pytest

from normalizers import get_normalizer
from whisper_ft.scoring import bootstrap
from whisper_ft.scoring.bootstrap import Interval, confidence, interval_of, paired_test
from whisper_ft.scoring.edit_distance import ErrorCount, total
from whisper_ft.scoring.normalizer import NormalizerIdentity
from whisper_ft.scoring.scores import Prediction, ScoredRow, Scores, score

LOWER = get_normalizer("lower")
TRUE_RATE = 0.2


def counted(errors: list[int], words: list[int], speakers: list[str | None]) -> Scores:
    """A scored set with these word counts, and the same counts of characters."""
    rows = []
    for number, (wrong, length, speaker) in enumerate(zip(errors, words, speakers, strict=True)):
        count = ErrorCount(hits=length - wrong, substitutions=wrong)
        prediction = Prediction(f"u{number}", "", "", 1.0, 1, speaker=speaker)
        rows.append(ScoredRow(prediction, "x", "x", count, count))
    whole = total(row.words for row in rows)
    return Scores(tuple(rows), whole, whole, whole, whole, "words", NormalizerIdentity.of(LOWER))


def simulated(dice: np.random.Generator, speakers: int, each: int, known: bool = True) -> Scores:
    """Speakers of different difficulty with the overall error rate TRUE_RATE."""
    hardness = np.repeat(dice.beta(4, 16, speakers), each)
    words = dice.integers(5, 20, speakers * each)
    names = [f"s{number}" if known else None for number in np.repeat(np.arange(speakers), each)]
    return counted(dice.binomial(words, hardness).tolist(), words.tolist(), names)


def covers(scores: Scores) -> bool:
    """True if the interval contains the true rate."""
    interval = confidence(scores).wer
    assert interval is not None
    return interval.low <= TRUE_RATE <= interval.high


def test_about_95_of_100_intervals_by_utterance_contain_the_true_rate():
    dice = np.random.default_rng(1)
    coverage = np.mean([covers(simulated(dice, speakers=150, each=1)) for _ in range(200)])
    assert 0.90 <= coverage <= 0.99


@pytest.mark.long
def test_intervals_by_speaker_are_right_where_those_by_utterance_are_not():
    by_speaker, by_utterance = [], []
    for seed in range(150):
        by_speaker.append(covers(simulated(np.random.default_rng(seed), speakers=30, each=20)))
        by_utterance.append(covers(simulated(np.random.default_rng(seed), speakers=30, each=20, known=False)))
    assert 0.90 <= np.mean(by_speaker) <= 0.99
    assert np.mean(by_utterance) < 0.75


def test_the_resampling_names_its_units():
    words, errors = [10] * 40, [1, 2] * 20
    known = [f"s{number % 25}" for number in range(40)]
    assert str(confidence(counted(errors, words, known)).resampling) == "1,000 resamples of 25 speakers"
    some = confidence(counted(errors, words, [*known[:30], *[None] * 10])).resampling
    assert str(some) == "1,000 resamples of 25 speakers and 10 utterances without one"
    one_speaker = confidence(counted(errors, words, ["s"] * 40)).summary()
    assert (one_speaker["by"], one_speaker["units"], one_speaker["one_speaker"]) == ("utterance", 40, True)
    assert "of one speaker, so the interval is too narrow" in str(
        confidence(counted(errors, words, ["s"] * 40)).resampling
    )
    for others in ([None] * 40, ["s"] * 39 + [None], known):
        assert "of one speaker" not in str(confidence(counted(errors, words, others)).resampling)
    assert str(confidence(counted([1, 2], [10, 10], [None, None])).resampling).startswith("1,000 resamples of 2 utt")
    assert "few: the true interval is wider" in str(confidence(counted(errors, words, ["a", "b"] * 20)).resampling)


def test_the_interval_is_the_same_on_every_machine_and_for_every_block_size(monkeypatch):
    scores = counted([0, 1, 2, 3, 4, 5, 0], [10, 9, 8, 7, 6, 5, 4], [None] * 7)
    result = confidence(scores)
    assert result.wer == Interval(pytest.approx(3 / 26), pytest.approx(0.568151105651105))
    monkeypatch.setattr(bootstrap, "BLOCK_UNITS", 20)
    assert confidence(scores) == result
    assert confidence(scores, seed=21) != result


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
    """p-values of tests between two systems, the second with `better` times the errors of the first."""
    dice, result = np.random.default_rng(3), []
    for _ in range(runs):
        words, hardness = dice.integers(5, 20, 150), dice.beta(1, 4, 150)
        first, second = (with_errors(dice, hardness * factor, words) for factor in (1.0, better))
        difference = paired_test(first, second).wer
        assert difference is not None
        assert difference.p_value is not None
        result.append(difference.p_value)
    return result


@pytest.mark.long
def test_equal_systems_differ_significantly_in_about_5_of_100_tests():
    assert 0.02 <= np.mean([p < 0.05 for p in p_values(better=1.0, runs=250)]) <= 0.085


def test_a_better_system_is_significantly_better():
    assert np.mean([p < 0.05 for p in p_values(better=0.75, runs=40)]) > 0.9


def test_the_test_and_the_interval_agree_and_the_sign_says_which_is_better():
    dice = np.random.default_rng(4)
    words, hardness = dice.integers(5, 20, 200), dice.beta(1, 4, 200)
    worse, better = with_errors(dice, hardness, words), with_errors(dice, hardness * 0.5, words)
    result = paired_test(worse, better).wer
    assert result is not None
    assert result.interval is not None
    assert result.change == result.second - result.first < 0
    assert result.interval.low < result.change < result.interval.high < 0
    assert result.is_significant
    assert result.better == 1.0
    back = paired_test(better, worse).wer
    assert back is not None
    assert (back.change, back.better, back.p_value) == (-result.change, 0.0, result.p_value)


def test_a_system_compared_with_itself_shows_nothing():
    scores = counted([0, 1, 2, 3], [10, 9, 8, 7], [None] * 4)
    result = paired_test(scores, scores).wer
    assert result is not None
    assert (result.change, result.interval, result.p_value, result.better) == (0.0, Interval(0.0, 0.0), 1.0, 0.5)


def predictions(*rows: tuple[str, str, str]) -> list[Prediction]:
    return [Prediction(name, ref, hyp, 1.0, 1) for name, ref, hyp in rows]


def test_utterances_are_matched_by_id_and_the_rates_are_those_of_jiwer():
    refs = {"a": "x y z", "b": "раз'яднаць іх", "c": "", "d": "q"}
    hyps = {"a": ("x z", "x y z"), "b": ("раз'яднаць", "яднаць іх усіх"), "c": ("noise", ""), "d": ("q", "p q")}
    first = score(predictions(*[(name, refs[name], hyps[name][0]) for name in "abcd"]), LOWER)
    second = score(predictions(*[(name, refs[name], hyps[name][1]) for name in "dcba"]), LOWER)
    result = paired_test(first, second)
    for metric, theirs in ((result.wer, jiwer.wer), (result.cer, jiwer.cer)):
        assert metric is not None
        rates = [theirs([refs[name] for name in "abd"], [hyps[name][at] for name in "abd"]) for at in (0, 1)]
        assert [metric.first, metric.second] == pytest.approx(rates)


def test_utterances_that_cannot_be_compared_are_named():
    whole = score(predictions(("a", "x", "x"), ("b", "y", "y"), ("c", "z", "z")), LOWER)
    part = score(predictions(("b", "y", "y")), LOWER)
    with pytest.raises(ValueError, match=r"3 utterances.*second.* has 1: 2 missing.*second.*'a', 'c'"):
        paired_test(whole, part)
    with pytest.raises(ValueError, match=r"2 missing from the first.*'a', 'c'"):
        paired_test(part, whole)
    other = score(predictions(("a", "x", "x"), ("b", "Y", "y"), ("c", "z", "z")), get_normalizer("none"))
    with pytest.raises(ValueError, match=r"^1 reference .*'b'.*normaliser"):
        paired_test(whole, other)
