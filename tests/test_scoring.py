import gc
import json
import math
import os
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

import jiwer
import pytest

from whisper_ft.scoring import scores as scoring
from whisper_ft.scoring.edit_distance import ErrorCount, align, count_errors
from whisper_ft.scoring.scores import Prediction, score
from whisper_ft.scoring.summary import save_summary
from whisper_ft.scoring.wer_metric import word_errors

ALPHABET = ["a", "b", "ab", "ba", "раз'яднаць", "é", "שלום", "2", "ў", "😀"]


def as_it_is(text: str) -> str:
    return text


def lower(text: str) -> str:
    return text.lower()


class Characters:
    unit = "characters"

    def __call__(self, text: str) -> str:
        return text.replace(" ", "")


def predictions(*pairs: tuple[str, str]) -> list[Prediction]:
    return [Prediction(f"u{i}", ref, hyp, audio_seconds=2.0, hyp_tokens=5) for i, (ref, hyp) in enumerate(pairs)]


def random_pairs(count: int) -> list[tuple[str, str]]:
    dice = random.Random(20)
    pairs = []
    for _ in range(count):
        ref = dice.choices(ALPHABET, k=dice.randint(1, 12))
        hyp = [dice.choice(ALPHABET) if dice.random() < 0.2 else word for word in ref if dice.random() > 0.1]
        hyp += dice.choices(ALPHABET, k=dice.choice([0, 0, 0, 1, 6]))
        pairs.append((" ".join(ref), " ".join(hyp)))
    return pairs


@pytest.mark.parametrize("at_once", [1, 3, 20])
def test_how_many_are_compared_at_once_alters_no_score(at_once, monkeypatch):
    compared = predictions(*random_pairs(20), ("", "speech of nobody"), ("a b", ""), ("", ""))
    whole = score(compared, as_it_is)
    monkeypatch.setattr(scoring, "AT_ONCE", at_once)
    assert score(compared, as_it_is) == whole


def test_what_scoring_takes_beside_its_rows_does_not_grow_with_the_set(monkeypatch):
    monkeypatch.setattr(scoring, "AT_ONCE", 100)
    few, many = random_pairs(200), random_pairs(2000)
    score(predictions(*few), as_it_is)  # loads what it needs

    def beside(compared: list[Prediction]) -> int:
        gc.disable()  # or it would depend on the tests before when cycles of the library are freed
        tracemalloc.start()
        try:
            scores = score(compared, as_it_is)
            kept, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            gc.enable()
        assert scores.utterances == len(compared)
        return peak - kept

    of_many, of_few = beside(predictions(*many)), beside(predictions(*few))
    assert of_many < 2 * of_few


def test_corpus_rates_and_error_totals_are_those_of_jiwer():
    pairs = random_pairs(1000)
    refs, hyps = (list(texts) for texts in zip(*pairs, strict=True))
    ours = score(predictions(*pairs), as_it_is)
    words, chars = jiwer.process_words(refs, hyps), jiwer.process_characters(refs, hyps)
    assert (ours.wer, ours.cer) == (words.wer, chars.cer)
    for count, theirs in ((ours.words, words), (ours.chars, chars)):
        assert count.errors == theirs.substitutions + theirs.deletions + theirs.insertions
        assert count.reference_length == theirs.hits + theirs.substitutions + theirs.deletions


def test_each_row_has_its_own_counts_and_they_add_up_to_the_totals():
    pairs = random_pairs(50)
    scores = score(predictions(*pairs), as_it_is)
    for row, (ref, hyp) in zip(scores.rows, pairs, strict=True):
        assert row.words.rate == jiwer.wer(ref, hyp)
        assert row.chars.rate == jiwer.cer(ref, hyp)
    assert sum((row.words for row in scores.rows), start=ErrorCount()) == scores.words
    assert sum((row.chars for row in scores.rows), start=ErrorCount()) == scores.chars


def test_the_rate_is_that_of_the_corpus_and_not_the_mean_of_utterances():
    perfect = "a b c d e f g h i j"
    scores = score(predictions(*[(perfect, perfect)] * 99, ("a", "a" + " x" * 30)), as_it_is)
    assert scores.wer == 30 / 991  # the mean over utterances would be 30 %


def test_the_counts_of_a_known_pair():
    counts = count_errors(list("abcdefg"), list("axcefgh"))  # b became x, d is missing, h is new
    assert counts == ErrorCount(hits=5, substitutions=1, deletions=1, insertions=1)
    assert (counts.errors, counts.reference_length, counts.rate) == (3, 7, 3 / 7)


def test_a_count_without_a_reference_has_no_rate_but_adds_up():
    silence = ErrorCount(insertions=2)
    assert silence.rate is None
    assert (silence + ErrorCount(hits=4)).rate == 0.5


def test_the_alignment_shows_exactly_the_errors_that_were_counted():
    for ref, hyp in random_pairs(200):
        pairs = align(ref.split(), hyp.split())
        assert [left for left, _ in pairs if left] == ref.split()
        assert [right for _, right in pairs if right] == hyp.split()
        assert sum(left != right for left, right in pairs) == count_errors(ref.split(), hyp.split()).errors


def test_empty_references_are_left_out_of_the_rates_and_reported():
    only_punctuation = predictions(("a b", "a b"), ("", "thank you"), ("...", "hm"), ("  ", ""))
    scores = score(only_punctuation, lambda text: text.replace(".", ""))
    assert (scores.wer, scores.cer) == (0.0, 0.0)
    assert (scores.utterances, scores.scored_utterances, scores.empty_references) == (4, 1, 3)
    assert scores.words_on_empty_references == 3
    assert (scores.wer_orthographic, scores.words_orthographic.reference_length) == (0.0, 2)
    assert [row.record()["wer"] for row in scores.rows] == [0.0, None, None, None]


def test_an_empty_hypothesis_counts_as_deletions():
    scores = score(predictions(("a b", ""), ("c d", "c d")), as_it_is)
    assert scores.words == ErrorCount(hits=2, deletions=2)
    assert scores.empty_hypotheses == 1


@pytest.mark.parametrize("pairs", [[], [("", ""), ("", "a")]], ids=["nothing", "only empty references"])
def test_without_a_reference_word_there_is_no_rate_and_still_a_summary(pairs: list[tuple[str, str]]):
    summary = score(predictions(*pairs), as_it_is).summary()
    assert (summary["wer"], summary["cer"], summary["ser"], summary["words"]) == (None, None, None, 0)
    assert summary["utterances"] == len(pairs)
    json.dumps(summary, allow_nan=False)


def test_an_utterance_scored_twice_is_refused_by_name():
    twice = [*predictions(("a", "a"), ("b", "b")), *predictions(("a", "a"))]
    with pytest.raises(ValueError, match=r"once.*'u0'"):
        score(twice, as_it_is)


def test_orthographic_rates_see_case_and_punctuation_but_neither_spaces_nor_the_unicode_form():
    composed, decomposed = "Caf\u00e9  au lait.", "Cafe\u0301 au\u00a0lait."
    assert score(predictions((composed, decomposed)), as_it_is).wer_orthographic == 0.0
    scores = score(predictions(("Au Lait", "au lait")), lower)
    assert (scores.wer, scores.wer_orthographic) == (0.0, 1.0)


def test_characters_count_single_inner_spaces():
    scores = score(predictions(("a  b", "ab ")), as_it_is)
    assert scores.chars == ErrorCount(hits=2, deletions=1)
    assert scores.cer == jiwer.cer("a b", "ab")


def test_the_normaliser_says_by_which_unit_to_judge():
    scores = score(predictions(("今 天", "今 日")), Characters())
    assert scores.summary()["unit"] == "characters"
    assert scores.errors_of(scores.rows[0]) == scores.rows[0].chars == ErrorCount(hits=1, substitutions=1)
    assert "unit" not in score([], as_it_is).summary()


def test_the_summary_carries_counts_flags_and_problems():
    rows = [
        Prediction("a", "x y", "x z", 1.5, 4, hit_token_limit=True),
        Prediction("b", "x y", "", math.nan, 0, problem="undecodable"),
        Prediction("c", "x", "x", 2.5, 1, problem="too_long", language="be", speaker="s1"),
    ]
    summary = score(rows, as_it_is).summary()
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
    scores = score([hostile], as_it_is)
    record = json.loads(json.dumps(scores.rows[0].record(), allow_nan=False, ensure_ascii=False).encode())
    assert (record["id"], record["ref"], record["audio_seconds"]) == ("\ufffdid", "a\0\ufffd b", None)
    assert {"id", "ref", "hyp", "ref_norm", "hyp_norm", "words", "substitutions", "chars"} <= record.keys()
    json.dumps(scores.summary(), allow_nan=False, ensure_ascii=False).encode()


def test_rows_keep_the_order_of_the_predictions():
    rows = predictions(*random_pairs(20))
    assert [row.prediction for row in score(rows[::-1], as_it_is).rows] == rows[::-1]


def test_the_metric_works_alone_and_refuses_lists_that_do_not_match():
    metric = word_errors()
    for _ in range(2):  # one object serves again
        assert metric.compute(predictions=["a b"], references=["a c"])["wer"] == 0.5
    with pytest.raises(ValueError, match="Mismatch"):
        word_errors().compute(predictions=["a"], references=["a", "b"])


def test_the_metric_writes_nothing_under_home(tmp_path: Path):
    code = (
        "from whisper_ft.metric import word_errors\n"
        "print(word_errors().compute(predictions=['a'], references=['b'])['wer'])"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1.0"
    assert not (tmp_path / "hf" / "metrics").exists()


@pytest.mark.parametrize("place", ["a repository", "a repository without a commit", "no repository", "no git"])
def test_the_summary_is_saved_whole_and_quietly_under_the_name_asked_for(tmp_path: Path, place, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    if "repository" in place and place != "no repository":
        subprocess.run(["git", "init", "-q"], check=True)
    if place == "a repository":
        author = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", *author, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    if place == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "out" / "summary.json"
    for wer in (0.5, None):  # the second takes the place of the first
        save_summary(path, {"wer": wer, "model": "мадэль"})
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert (saved["wer"], saved["model"]) == (None, "мадэль")
    assert {"_timestamp", "_evaluate_version", "_python_version", "_interpreter_path"} <= saved.keys()
    assert (saved["_git_commit_hash"] is not None) == (place == "a repository")
    assert [entry.name for entry in path.parent.iterdir()] == ["summary.json"]
    assert capfd.readouterr().err == ""


def test_a_summary_that_is_not_json_is_refused_before_anything_is_written(tmp_path: Path):
    path = tmp_path / "summary.json"
    path.write_text("before")
    with pytest.raises(ValueError):
        save_summary(path, {"wer": math.nan})
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]


def test_where_a_language_has_no_spaces_one_that_the_model_writes_is_no_error():
    def normalize(text: str) -> str:
        return text

    normalize.unit, normalize.name, normalize.version = "characters", "golden", "7"
    scores = score([Prediction("a", "我喜歡", "我 喜 歡", 1.0, 3)], normalize)
    assert scores.headline == ("cer", 0.0)
    assert scores.summary()["unit"] == "characters"
    assert scores.summary()["normalizer"] == {"name": "golden", "version": "7"}
    assert score([Prediction("a", "b c", "bc", 1.0, 3)], str.lower).headline == ("wer", 1.0)
