import json
import math
import random
from dataclasses import replace

import pytest

from whisper_ft.scoring.bootstrap import confidence
from whisper_ft.scoring.edit_distance import ErrorCount, total
from whisper_ft.scoring.scores import Prediction, Scores, score
from whisper_ft.scoring.slices import SECONDS, by_column, by_duration, slicings


class Characters:
    unit = "characters"

    def __call__(self, text: str) -> str:
        return text


def some_scores() -> Scores:
    dice = random.Random(7)
    rows = []
    for number in range(300):
        ref = " ".join(dice.choices("abcde", k=dice.randint(0, 12)))
        hyp = " ".join(dice.choice("abx") if dice.random() < 0.3 else word for word in ref.split())
        seconds = dice.choice([math.nan, 0.0, 1.99, 2.0, 7.0, 12.0, 29.9, 30.0, 100.0])
        language, speaker = dice.choice(["be", "sv", None]), dice.choice(["s1", "s2", "", None])
        rows.append(Prediction(f"u{number}", ref, hyp, seconds, 3, False, language, speaker))
    return score(rows, str.lower)


def test_the_groups_of_every_breakdown_add_up_to_the_whole():
    predictions = [row.prediction for row in some_scores().rows]
    accents = [len(row.ref) % 3 if number < 200 else None for number, row in enumerate(predictions)]
    known = zip(predictions, accents, strict=True)
    scores = score([replace(row, columns={"accent": accent}) for row, accent in known], str.lower)
    found = slicings(scores, ["accent", "hit_token_limit", "speaker"])
    assert {group.name for group in found[3].groups} == {"0", "1", "2", None}
    assert [breakdown.by for breakdown in found] == ["duration", "language", "speaker", "accent", "hit_token_limit"]
    for breakdown in found:
        groups = breakdown.groups
        assert total(group.words for group in groups) == scores.words
        assert total(group.chars for group in groups) == scores.chars
        assert sum(group.utterances for group in groups) == scores.utterances
        assert sum(group.scored_utterances for group in groups) == scores.scored_utterances
        assert math.fsum(group.audio_seconds for group in groups) == pytest.approx(scores.audio_seconds)
        assert len({group.name for group in groups}) == len(groups)
        json.dumps(breakdown.summary(), allow_nan=False)


def test_lengths_are_in_the_order_of_time_and_a_bucket_begins_with_its_lower_end():
    found = by_duration(some_scores())
    names = ["0 – 2 s", "2 – 5 s", "5 – 10 s", "10 – 15 s", "20 – 30 s", "30 s and more", None]
    assert [group.name for group in found.groups] == names
    for seconds in SECONDS:
        rows = [Prediction("a", "x", "x", seconds, 1)]
        (group,) = by_duration(score(rows, str.lower)).groups
        assert (group.name or "").startswith(f"{seconds} ")


def test_groups_of_few_words_are_marked_and_stand_last_without_an_interval():
    rows = [
        Prediction(f"a{n}", "x y z w v", "x y z w v" if n % 2 else "x y z w", 1.0, 1, speaker="a") for n in range(20)
    ]
    rows += [Prediction(f"b{n}", "x y z w v", "x y z", 1.0, 1, speaker="b") for n in range(40)]
    rows += [Prediction("c", "x y", "", 1.0, 1, speaker="c"), Prediction("d", "x", "", 1.0, 1)]
    found = by_column(score(rows, str.lower), "speaker").groups
    assert [(group.name, group.few) for group in found] == [("b", False), ("a", False), ("c", True), (None, True)]
    assert [group.interval is None for group in found] == [False, False, True, True]
    assert found[1].count == ErrorCount(hits=90, deletions=10)
    alone = score([row for row in rows if row.speaker == "a"], str.lower)
    assert found[1].interval == confidence(alone).wer


def test_a_language_without_spaces_is_judged_by_its_characters():
    rows = [Prediction("a", "今天天气" * 200, "今天天好" * 200, 1.0, 1)]
    (group,) = by_duration(score(rows, Characters())).groups
    assert (group.count, group.few) == (group.chars, False)  # 800 characters, but one word


def test_a_column_that_no_utterance_has_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"no column 'gendr' \(they have: .*speaker.*\)"):
        by_column(some_scores(), "gendr")


def test_an_empty_set_has_breakdowns_too():
    assert [breakdown.groups for breakdown in slicings(score([], str.lower), ["language"])] == [(), ()]
