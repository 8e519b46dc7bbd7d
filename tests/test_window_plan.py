"""Windows of a recording: nothing is torn, no word of a neighbour is heard, and each window is as full as it can be."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_ft.cli.prepare.window_plan import (
    MARGIN_SECONDS,
    PROMPT_CHARACTERS,
    ROUNDING,
    TOUCHING_SECONDS,
    SpokenPart,
    plan,
)

LIMIT = 30.0


def part(start: float, end: float, text: str = "", **fields: str) -> SpokenPart:
    return SpokenPart(start, end, text or f"{start:g}", f"a@{start:g}", **fields)


def spans(*parts: SpokenPart, max_gap: float | None = None) -> list[tuple[float, float]]:
    windows, _ = plan(parts, LIMIT, max_gap)
    return [(round(window.begin, 3), round(window.end, 3)) for window in windows]


times = st.lists(st.tuples(st.floats(-1.0, 9.0), st.floats(0.05, 35.0)), min_size=1, max_size=30)


@given(times, st.sampled_from([None, 2.0]), st.booleans())
def test_windows_of_any_recording_are_disjoint_whole_and_full(
    steps: list[tuple[float, float]], max_gap: float | None, two_languages: bool
):
    parts, last = [], 0.0
    for number, (gap, length) in enumerate(steps):
        start = max(last + gap, 0.0)
        language = "sv" if two_languages and number % 3 == 2 else "be"
        parts.append(SpokenPart(start, start + length, f"w{number}", f"a@{number}", language))
        last = start + length
    windows, left_out = plan(parts, LIMIT, max_gap)
    inside = [one for window in windows for one in window.parts]
    assert sorted([one.id for one in inside] + [one.id for one in left_out]) == sorted(one.id for one in parts)
    for window, following in pairwise(windows):
        assert window.end <= following.begin + 1e-9
    for window in windows:
        assert window.begin >= 0
        assert window.end - window.begin <= LIMIT + 2 * ROUNDING
        for other in parts:
            inside_seconds = min(other.end, window.end) - max(other.start, window.begin)
            if other in window.parts:
                assert inside_seconds >= other.end - other.start - TOUCHING_SECONDS
            else:
                assert inside_seconds <= TOUCHING_SECONDS
        assert len({one.language for one in window.parts}) == 1
        gaps = [b.start - max(a.end for a in window.parts[: n + 1]) for n, b in enumerate(window.parts[1:])]
        assert max_gap is None or max(gaps, default=0.0) <= max_gap + ROUNDING
    if max_gap is None and not two_languages and not left_out:
        for window, following in pairwise(windows):
            first = [following.parts[0]]
            for one in following.parts[1:]:
                if one.start < max(other.end for other in first) - TOUCHING_SECONDS:
                    first.append(one)
            assert max(one.end for one in first) - window.parts[0].start > LIMIT, "another would have fitted"


def test_as_many_whole_segments_as_fit_are_in_a_window():
    assert spans(part(1, 11), part(12, 20), part(21, 31), part(31.2, 40)) == [(1.0, 31.0), (31.1, 40.3)]


def test_a_window_begins_and_ends_a_little_around_its_segments_and_never_beyond_the_middle_of_a_gap():
    assert spans(part(0.1, 20), part(20.2, 40), part(45, 60)) == [(0.0, 20.1), (20.1, 40.3), (44.7, 60.3)]
    assert spans(part(5, 34.9)) == [(5 - 0.1, 34.9)], "only so much as the window has room for"
    assert MARGIN_SECONDS == 0.3


def test_segments_that_overlap_stay_together_and_those_that_touch_do_not():
    assert spans(part(0, 20), part(19, 29), part(29, 45)) == [(0.0, 29.0), (29.0, 45.3)]
    assert spans(part(0, 20), part(19.99, 40)) == [(0.0, 19.995), (19.995, 40.3)]


def test_a_long_segment_is_left_out_and_no_window_has_its_sound():
    windows, left_out = plan([part(0, 5), part(6, 40), part(40.1, 45)], LIMIT, None)
    assert [(one.id, one.reason) for one in left_out] == [("a@6", "too_long")]
    assert [(round(w.begin, 3), round(w.end, 3)) for w in windows] == [(0.0, 5.3), (40.05, 45.3)]
    assert windows[1].prompt == "0 6", "it was said all the same"


def test_a_segment_that_cannot_be_used_ends_a_window_and_is_no_previous_text():
    bad = part(6, 8)._replace(problem=("bad_label", "x"), text="")
    windows, left_out = plan([part(0, 5), bad, part(9, 12), part(11, 14)], LIMIT, None)
    assert [[one.text for one in window.parts] for window in windows] == [["0"], ["9", "11"]]
    assert windows[1].prompt == "0"
    assert [one.reason for one in left_out] == ["bad_label"]


@pytest.mark.parametrize(
    ("parts", "reasons"),
    [
        ([part(0, 20), part(19, 35)], ["overlap", "overlap"]),
        ([part(0, 20), part(5, 36)], ["overlap", "too_long"]),
        ([part(0, 5, language="be"), part(4, 8, language="sv")], ["overlap", "overlap"]),
        ([part(0, 5), part(4, 8)._replace(problem=("bad_label", "x"))], ["overlap", "bad_label"]),
    ],
)
def test_segments_that_overlap_and_cannot_be_in_one_window_are_left_out(parts: list[SpokenPart], reasons: list[str]):
    windows, left_out = plan(parts, LIMIT, None)
    assert not windows
    assert [one.reason for one in left_out] == reasons


def test_the_prompt_is_the_text_before_in_the_same_language_up_to_its_length():
    words = [part(n * 10, n * 10 + 9, f"слова-{n:03d}" * 5) for n in range(40)]
    windows, _ = plan(words, LIMIT, None)
    assert windows[0].prompt is None
    said = " ".join(one.text for one in words)
    for window in windows[1:]:
        assert window.prompt
        before = said[: said.index(window.parts[0].text)].strip()
        assert before.endswith(window.prompt)
        assert window.prompt.partition(" ")[0] in {one.text for one in words}, "it begins with a whole word"
    assert PROMPT_CHARACTERS - 60 < len(windows[-1].prompt or "") <= PROMPT_CHARACTERS
    other, _ = plan([part(0, 5, language="be"), part(6, 9, language="sv"), part(10, 12, language="be")], LIMIT, None)
    assert [window.prompt for window in other] == [None, None, "0"]


def test_scripts_without_spaces_are_joined_and_cut_without_them():
    windows, _ = plan([part(n * 10, n * 10 + 9, "東京都庁" * 50) for n in range(12)], LIMIT, None)
    assert windows[-1].prompt == ("東京都庁" * 250)[-PROMPT_CHARACTERS:]
