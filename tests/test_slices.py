import json
import math
import random
from dataclasses import replace

import pytest

from normalizers import get_normalizer
from whisper_ft.scoring.bootstrap import confidence
from whisper_ft.scoring.edit_distance import ErrorCount, total
from whisper_ft.scoring.scores import Prediction, Scores, score
from whisper_ft.scoring.slices import DURATION_EDGES, by_column, by_duration, slicings

LOWER = get_normalizer("lower")
CHARACTERS = get_normalizer("none", "zh")


def some_scores() -> Scores:
    dice = random.Random(7)
    rows = []
    for number in range(300):
        ref = " ".join(dice.choices("abcde", k=dice.randint(0, 12)))
        hyp = " ".join(dice.choice("abx") if dice.random() < 0.3 else word for word in ref.split())
        seconds = dice.choice([math.nan, 0.0, 1.99, 2.0, 7.0, 12.0, 29.9, 30.0, 100.0])
        language, speaker = dice.choice(["be", "sv", None]), dice.choice(["s1", "s2", "", None])
        rows.append(Prediction(f"u{number}", ref, hyp, seconds, 3, False, language, speaker))
    return score(rows, LOWER)


def test_the_slices_of_every_slicing_add_up_to_the_set():
    predictions = [row.prediction for row in some_scores().rows]
    accents = [len(row.ref) % 3 if number < 200 else None for number, row in enumerate(predictions)]
    known = zip(predictions, accents, strict=True)
    scores = score([replace(row, columns={"accent": accent}) for row, accent in known], LOWER)
    results = slicings(scores, ["accent", "hit_token_limit", "speaker"])
    assert {group.name for group in results[3].groups} == {"0", "1", "2", None}
    assert [slicing.by for slicing in results] == ["duration", "language", "speaker", "accent", "hit_token_limit"]
    for slicing in results:
        groups = slicing.groups
        assert total(group.words for group in groups) == scores.words
        assert total(group.chars for group in groups) == scores.chars
        assert sum(group.utterances for group in groups) == scores.utterances
        assert sum(group.scored_utterances for group in groups) == scores.scored_utterances
        assert math.fsum(group.audio_seconds for group in groups) == pytest.approx(scores.audio_seconds)
        assert len({group.name for group in groups}) == len(groups)
        json.dumps(slicing.summary(), allow_nan=False)


def test_durations_are_in_order_and_a_bucket_contains_its_lower_edge():
    result = by_duration(some_scores())
    names = ["0 – 2 s", "2 – 5 s", "5 – 10 s", "10 – 15 s", "20 – 30 s", "30 s and more", None]
    assert [group.name for group in result.groups] == names
    for seconds in DURATION_EDGES:
        rows = [Prediction("a", "x", "x", seconds, 1)]
        (group,) = by_duration(score(rows, LOWER)).groups
        assert (group.name or "").startswith(f"{seconds} ")


def test_slices_with_few_words_are_marked_and_come_last_without_an_interval():
    rows = [
        Prediction(f"a{n}", "x y z w v", "x y z w v" if n % 2 else "x y z w", 1.0, 1, speaker="a") for n in range(20)
    ]
    rows += [Prediction(f"b{n}", "x y z w v", "x y z", 1.0, 1, speaker="b") for n in range(40)]
    rows += [Prediction("c", "x y", "", 1.0, 1, speaker="c"), Prediction("d", "x", "", 1.0, 1)]
    result = by_column(score(rows, LOWER), "speaker").groups
    assert [(group.name, group.few) for group in result] == [("b", False), ("a", False), ("c", True), (None, True)]
    assert [group.interval is None for group in result] == [False, False, True, True]
    assert result[1].count == ErrorCount(hits=90, deletions=10)
    alone = score([row for row in rows if row.speaker == "a"], LOWER)
    assert result[1].interval == confidence(alone).wer


def test_a_language_without_spaces_is_judged_by_its_characters():
    rows = [Prediction("a", "今天天气" * 200, "今天天好" * 200, 1.0, 1)]
    (group,) = by_duration(score(rows, CHARACTERS)).groups
    assert (group.count, group.few) == (group.chars, False)  # 800 characters, but one word


def test_an_unknown_column_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'gendr'.*speaker"):
        by_column(some_scores(), "gendr")


def test_an_empty_set_has_slicings_too():
    assert [slicing.groups for slicing in slicings(score([], LOWER), ["language"])] == [(), ()]
