import json

import pytest
from rich.console import Console

from normalizers import get_normalizer
from whisper_ft.reports.evaluation.tables import comparison_table
from whisper_ft.scoring.comparison import SystemComparison, compare
from whisper_ft.scoring.normalizer import Normalizer
from whisper_ft.scoring.scores import Prediction, Scores, score

LOWER = get_normalizer("lower")
CHARACTERS = get_normalizer("none", "zh")
REFS = {f"u{number}": "a b c d" for number in range(60)}


def system(hyps: dict[str, str], normalize: Normalizer = LOWER, refs: dict[str, str] = REFS) -> Scores:
    """Scores of a system that makes no error except in the transcripts `hyps`."""
    return score([Prediction(name, ref, hyps.get(name, ref), 2.0, 4) for name, ref in refs.items()], normalize)


def compared(
    first: dict[str, str], second: dict[str, str], names: tuple[str, str] = ("old", "new")
) -> SystemComparison:
    return compare(system(first), system(second), names)


def printed(comparison: SystemComparison, capsys) -> str:
    Console(width=200).print(comparison_table(comparison))
    return " ".join(capsys.readouterr().out.split())


def test_every_scored_utterance_is_better_worse_or_the_same():
    first = {"u0": "a b c", "u1": "x y", "u2": "a b c d", "u3": "a x c d", "empty": "noise"}
    second = {"u0": "a b c d", "u1": "a b c d", "u2": "x y z d", "u3": "a b c x", "u4": "a b c d e"}
    refs = REFS | {"empty": ""}
    result = compare(system(first, refs=refs), system(second, refs=refs))
    assert [(change.first.prediction.id, change.more_errors) for change in result.better] == [("u1", -4), ("u0", -1)]
    assert [(change.second.prediction.id, change.more_errors) for change in result.worse] == [("u2", 3), ("u4", 1)]
    assert result.same_errors == len(REFS) - 4
    summary = json.loads(json.dumps(result.summary(), allow_nan=False))
    assert (summary["better"], summary["worse"], summary["most_improved"]) == (2, 2, ["u1", "u0"])
    changes = sum(change.more_errors for change in (*result.better, *result.worse))
    assert result.second.words.errors - result.first.words.errors == changes


def test_a_large_difference_has_a_direction_and_a_small_one_is_not_significant(capsys):
    bad = dict.fromkeys(list(REFS)[:20], "a b c")
    better = compared(bad, {})
    assert "new makes fewer errors: 8.33 points of WER (p = 0.002)" in printed(better, capsys)
    assert "20 better, 0 worse, 40" in printed(better, capsys)
    assert "new makes more errors: 8.33 points" in printed(compared({}, bad), capsys)
    small = compared({"u0": "a b c"}, {"u1": "a b c", "u2": "a b c"})
    assert small.headline[1] is not None
    assert not small.headline[1].is_significant
    assert "not significant" in printed(small, capsys)


@pytest.mark.parametrize("refs", [{}, {"a": ""}, {"a": "x y"}], ids=["nothing", "no reference", "one utterance"])
def test_the_verdict_says_that_no_test_is_possible(refs: dict[str, str], capsys):
    result = compare(system({}, refs=refs), system({"a": "x"}, refs=refs))
    difference = result.headline[1]
    assert (difference and difference.p_value) is None
    verdict = "No test is possible" if "x y" in refs.values() else "No comparison"
    assert verdict in printed(result, capsys)
    json.dumps(result.summary(), allow_nan=False)


def test_a_language_without_spaces_is_compared_by_its_characters():
    refs = {"a": "今天天气", "b": "我喜歡你"}
    result = compare(system({"a": "今天天"}, CHARACTERS, refs), system({"a": "今"}, CHARACTERS, refs))
    assert result.headline == ("CER", result.test.cer)
    assert [change.more_errors for change in result.worse] == [2]


def test_names_are_shown_as_text(capsys):
    text = printed(compared({"u0": "a"}, {}, ("[red]old[/] \x1b[2J", "[/oops]")), capsys)
    assert "[red]old[/] ␛[2J" in text
    assert "[/oops] against [red]old[/]" in text
