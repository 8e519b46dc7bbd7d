import json

import pytest
from rich.console import Console

from whisper_ft.reports.evaluation.console import comparison_table
from whisper_ft.scoring.comparison import SystemComparison, compare
from whisper_ft.scoring.scores import Prediction, Scores, score

REFS = {f"u{number}": "a b c d" for number in range(60)}


class Characters:
    unit = "characters"

    def __call__(self, text: str) -> str:
        return text


def system(hyps: dict[str, str], normalize=str.lower, refs: dict[str, str] = REFS) -> Scores:
    """A system that makes no error but where `hyps` says what it wrote."""
    return score([Prediction(name, ref, hyps.get(name, ref), 2.0, 4) for name, ref in refs.items()], normalize)


def compared(
    first: dict[str, str], second: dict[str, str], names: tuple[str, str] = ("old", "new")
) -> SystemComparison:
    return compare(system(first), system(second), names)


def told(comparison: SystemComparison, capsys) -> str:
    Console(width=200).print(comparison_table(comparison))
    return " ".join(capsys.readouterr().out.split())


def test_every_scored_utterance_is_better_worse_or_the_same_and_the_greatest_changes_come_first():
    first = {"u0": "a b c", "u1": "x y", "u2": "a b c d", "u3": "a x c d", "empty": "noise"}
    second = {"u0": "a b c d", "u1": "a b c d", "u2": "x y z d", "u3": "a b c x", "u4": "a b c d e"}
    refs = REFS | {"empty": ""}
    found = compare(system(first, refs=refs), system(second, refs=refs))
    assert [(change.first.prediction.id, change.more_errors) for change in found.better] == [("u1", -4), ("u0", -1)]
    assert [(change.second.prediction.id, change.more_errors) for change in found.worse] == [("u2", 3), ("u4", 1)]
    assert found.same_errors == len(REFS) - 4
    summary = json.loads(json.dumps(found.summary(), allow_nan=False))
    assert (summary["better"], summary["worse"], summary["most_improved"]) == (2, 2, ["u1", "u0"])
    changes = sum(change.more_errors for change in (*found.better, *found.worse))
    assert found.second.words.errors - found.first.words.errors == changes


def test_a_clear_difference_has_a_direction_and_a_small_one_is_left_to_chance(capsys):
    bad = dict.fromkeys(list(REFS)[:20], "a b c")
    better = compared(bad, {})
    assert "new makes fewer errors: 8.33 points of WER (p = 0.002)." in told(better, capsys)
    assert "Utterances: 20 better, 0 worse, 40 with as many errors." in told(better, capsys)
    assert "new makes more errors: 8.33 points" in told(compared({}, bad), capsys)
    small = compared({"u0": "a b c"}, {"u1": "a b c", "u2": "a b c"})
    assert "No difference can be told from chance" in told(small, capsys)


@pytest.mark.parametrize("refs", [{}, {"a": ""}, {"a": "x y"}], ids=["nothing", "no reference", "one utterance"])
def test_where_no_test_is_possible_it_is_said(refs: dict[str, str], capsys):
    found = compare(system({}, refs=refs), system({"a": "x"}, refs=refs))
    assert ("no test is possible" if "x y" in refs.values() else "nothing to compare") in told(found, capsys)
    json.dumps(found.summary(), allow_nan=False)


def test_a_language_without_spaces_is_compared_by_its_characters():
    refs = {"a": "今天天气", "b": "我喜歡你"}
    found = compare(system({"a": "今天天"}, Characters(), refs), system({"a": "今"}, Characters(), refs))
    assert found.headline == ("CER", found.test.cer)
    assert [change.more_errors for change in found.worse] == [2]


def test_names_are_shown_as_text(capsys):
    found = told(compared({"u0": "a"}, {}, ("[red]old[/] \x1b[2J", "[/oops]")), capsys)
    assert "[red]old[/] ␛[2J" in found
    assert "[/oops] against [red]old[/]" in found
