"""Error rates of a test set: totals, units, orthographic rates, records and the summary."""

import gc
import json
import math
import tracemalloc

import jiwer
import pytest

from normalizers import get_normalizer
from tests.test_edit_distance import random_pairs
from whisper_ft.scoring import scores as scoring
from whisper_ft.scoring.edit_distance import ErrorCount
from whisper_ft.scoring.scores import Prediction, count_word_errors, score
from whisper_ft.scoring.unicode_text import without_optional_spaces

AS_WRITTEN, LOWER, GOLDEN = (get_normalizer(name) for name in ("none", "lower", "golden"))
CHARACTERS = get_normalizer("none", "zh")


def predictions(*pairs: tuple[str, str]) -> list[Prediction]:
    return [Prediction(f"u{i}", ref, hyp, audio_seconds=2.0, hyp_tokens=5) for i, (ref, hyp) in enumerate(pairs)]


@pytest.mark.parametrize("block", [1, 3, 20])
def test_the_block_size_changes_no_score(block, monkeypatch):
    compared = predictions(*random_pairs(20), ("", "speech of nobody"), ("a b", ""), ("", ""))
    expected = score(compared, AS_WRITTEN)
    monkeypatch.setattr(scoring, "BLOCK_UTTERANCES", block)
    assert score(compared, AS_WRITTEN) == expected


@pytest.mark.long
def test_scoring_needs_no_memory_beyond_its_rows_that_grows_with_the_set(monkeypatch):
    monkeypatch.setattr(scoring, "BLOCK_UTTERANCES", 100)
    few, many = random_pairs(200), random_pairs(2000)
    score(predictions(*few), AS_WRITTEN)  # imports what scoring needs

    def extra_memory(compared: list[Prediction]) -> int:
        gc.disable()  # otherwise earlier tests decide when the library's reference cycles are freed
        tracemalloc.start()
        try:
            scores = score(compared, AS_WRITTEN)
            kept, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            gc.enable()
        assert scores.utterances == len(compared)
        return peak - kept

    of_many, of_few = extra_memory(predictions(*many)), extra_memory(predictions(*few))
    assert of_many < 2 * of_few


def test_corpus_rates_and_error_totals_are_those_of_jiwer():
    pairs = random_pairs(1000)
    refs, hyps = (list(texts) for texts in zip(*pairs, strict=True))
    ours = score(predictions(*pairs), AS_WRITTEN)
    words, chars = jiwer.process_words(refs, hyps), jiwer.process_characters(refs, hyps)
    assert (ours.wer, ours.cer) == (words.wer, chars.cer)
    for count, theirs in ((ours.words, words), (ours.chars, chars)):
        assert count.errors == theirs.substitutions + theirs.deletions + theirs.insertions
        assert count.reference_length == theirs.hits + theirs.substitutions + theirs.deletions


def test_each_row_has_its_own_counts_and_they_add_up_to_the_totals():
    pairs = random_pairs(50)
    scores = score(predictions(*pairs), AS_WRITTEN)
    for row, (ref, hyp) in zip(scores.rows, pairs, strict=True):
        assert row.words.rate == jiwer.wer(ref, hyp)
        assert row.chars.rate == jiwer.cer(ref, hyp)
    assert sum((row.words for row in scores.rows), start=ErrorCount()) == scores.words
    assert sum((row.chars for row in scores.rows), start=ErrorCount()) == scores.chars


def test_the_rate_is_that_of_the_corpus_and_not_the_mean_of_utterances():
    perfect = "a b c d e f g h i j"
    scores = score(predictions(*[(perfect, perfect)] * 99, ("a", "a" + " x" * 30)), AS_WRITTEN)
    assert scores.wer == 30 / 991  # the mean over utterances would be 30 %


def test_empty_references_are_left_out_of_the_rates_and_reported():
    only_punctuation = predictions(("a b", "a b"), ("", "thank you"), ("...", "hm"), ("  ", ""))
    scores = score(only_punctuation, GOLDEN)
    assert (scores.wer, scores.cer) == (0.0, 0.0)
    assert (scores.utterances, scores.scored_utterances, scores.empty_references) == (4, 1, 3)
    assert scores.words_on_empty_references == 3
    assert (scores.wer_orthographic, scores.words_orthographic.reference_length) == (0.0, 2)
    assert [row.record()["wer"] for row in scores.rows] == [0.0, None, None, None]


def test_an_empty_hypothesis_counts_as_deletions():
    scores = score(predictions(("a b", ""), ("c d", "c d")), AS_WRITTEN)
    assert scores.words == ErrorCount(hits=2, deletions=2)
    assert scores.empty_hypotheses == 1


@pytest.mark.parametrize("pairs", [[], [("", ""), ("", "a")]], ids=["nothing", "only empty references"])
def test_without_a_reference_word_there_is_no_rate_and_still_a_summary(pairs: list[tuple[str, str]]):
    summary = score(predictions(*pairs), AS_WRITTEN).summary()
    assert (summary["wer"], summary["cer"], summary["ser"], summary["words"]) == (None, None, None, 0)
    assert summary["utterances"] == len(pairs)
    json.dumps(summary, allow_nan=False)


def test_a_repeated_id_is_refused_by_name():
    twice = [*predictions(("a", "a"), ("b", "b")), *predictions(("a", "a"))]
    with pytest.raises(ValueError, match="'u0'"):
        score(twice, AS_WRITTEN)


def test_orthographic_rates_count_case_and_punctuation_not_spaces():
    composed, decomposed = "Caf\u00e9  au lait.", "Cafe\u0301 au\u00a0lait."
    assert score(predictions((composed, decomposed)), AS_WRITTEN).wer_orthographic == 0.0
    scores = score(predictions(("Au Lait", "au lait")), LOWER)
    assert (scores.wer, scores.wer_orthographic) == (0.0, 1.0)


def test_characters_count_single_inner_spaces():
    scores = score(predictions(("a  b", "ab ")), AS_WRITTEN)
    assert scores.chars == ErrorCount(hits=2, deletions=1)
    assert scores.cer == jiwer.cer("a b", "ab")


def test_the_normaliser_sets_the_unit_of_the_headline():
    scores = score(predictions(("今 天", "今 日")), CHARACTERS)
    assert scores.summary()["unit"] == "characters"
    assert scores.errors_of(scores.rows[0]) == scores.rows[0].chars == ErrorCount(hits=1, substitutions=1)
    assert score([], AS_WRITTEN).summary()["unit"] == "words"


def test_the_summary_carries_counts_flags_and_problems():
    rows = [
        Prediction("a", "x y", "x z", 1.5, 4, hit_token_limit=True),
        Prediction("b", "x y", "", math.nan, 0, problem="undecodable"),
        Prediction("c", "x", "x", 2.5, 1, problem="too_long", language="be", speaker="s1"),
    ]
    summary = score(rows, AS_WRITTEN).summary()
    expected = {
        "wer": 3 / 5,
        "utterances": 3,
        "words": 5,
        "substitutions": 1,
        "deletions": 2,
        "insertions": 0,
        "token_limit_hits": 1,
        "problems": {"too_long": 1, "undecodable": 1},
        "audio_seconds": 4.0,
        "ser": 2 / 3,
    }
    assert {key: summary[key] for key in expected} == expected
    json.dumps(summary, allow_nan=False)


def test_a_record_is_safe_for_json_and_utf8_whatever_the_texts():
    hostile = Prediction("\ud800id", "a\0\ud83d b", "\u2028c", math.inf, 3, problem="\udfff")
    scores = score([hostile], AS_WRITTEN)
    record = json.loads(json.dumps(scores.rows[0].record(), allow_nan=False, ensure_ascii=False).encode())
    assert (record["id"], record["ref"], record["audio_seconds"]) == ("\ufffdid", "a\0\ufffd b", None)
    assert {"id", "ref", "hyp", "ref_norm", "hyp_norm", "words", "substitutions", "chars"} <= record.keys()
    json.dumps(scores.summary(), allow_nan=False, ensure_ascii=False).encode()


def test_rows_keep_the_order_of_the_predictions():
    rows = predictions(*random_pairs(20))
    assert [row.prediction for row in score(rows[::-1], AS_WRITTEN).rows] == rows[::-1]


def test_a_space_in_a_transcript_is_no_error_in_a_language_without_spaces():
    golden = get_normalizer("golden", "zh")
    scores = score([Prediction("a", "我喜歡", "我 喜 歡", 1.0, 3)], golden)
    assert scores.headline == ("cer", 0.0)
    assert score([Prediction("a", "b c", "bc", 1.0, 3)], LOWER).headline == ("wer", 1.0)


@pytest.mark.parametrize("name", ["golden", "none", "whisper-basic"])
def test_a_space_between_latin_words_or_numbers_counts_in_a_language_without_spaces(name: str):
    normalize = get_normalizer(name, "zh")
    for ref, hyp, errors in (
        ("我用 machine learning 做", "我用machine learning做", 0),
        ("我用 machine learning 做", "我用machinelearning做", 1),
        ("有 12 34 个", "有12 34个", 0),
        ("有 12 34 个", "有1234个", 1),
        ("iphone 15 发布", "iphone15 发布", 1),
    ):
        scores = score([Prediction("a", ref, hyp, 1.0, 3)], normalize)
        assert scores.chars.errors == errors, (ref, hyp)


@pytest.mark.parametrize("language", ["zh", "ja", "th", "my"])
def test_a_normalised_text_has_no_space_that_does_not_count(language: str):
    for text in ("我 用 Machine Learning 做 1 2", "ไป Siam Paragon 3 ชั้น", "rock 'n roll 50 % C++ 我", "नमस्ते दुनिया 我"):
        normalised = get_normalizer("golden", language)(text)
        assert without_optional_spaces(normalised) == normalised


def test_the_summary_records_the_normaliser():
    golden = get_normalizer("golden", "be")
    summary = score([], golden).summary()
    identity = ("name", "language", "version", "fingerprint")
    assert summary["normalizer"] == {field: getattr(golden, field) for field in identity}
    assert list(summary)[:2] == ["unit", "normalizer"]


def test_word_errors_of_single_utterances_add_up_to_those_of_the_set():
    rows = predictions(*random_pairs(50), ("", "noise"), ("...", "hm"), ("a \ud83d", "A"))
    counts = [count_word_errors(row, GOLDEN) for row in rows]
    assert sum(counts, start=ErrorCount()) == score(rows, GOLDEN).words
