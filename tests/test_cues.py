"""Subtitles as real programs write them: SubRip, WebVTT and TextGrid, and the line of each fault."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_ft.data.formats.cues import read_cues
from whisper_ft.data.formats.text_grid import read_tiers
from whisper_ft.data.types import RejectedError

Cues = list[tuple[float, float, str]]


def spoken(text: str) -> Cues:
    return [(cue.start, cue.end, cue.text) for cue in read_cues(text)]


TWO: Cues = [(1.5, 3.0, "Добры дзень!"), (3.25, 4.0, "Як справы?")]


PLAIN = """1
00:00:01,500 --> 00:00:03,000
Добры дзень!

2
00:00:03,250 --> 00:00:04,000
Як справы?
"""
STYLED = """1
00:00:01,500 --> 00:00:03,000 X1:40 X2:600 Y1:20 Y2:50
{\\an8}<i>Добры</i>

<b>дзень!</b>
2
00:00:03,250 --> 00:00:04,000
<font color="#ffffff">Як</font>\\Nсправы?
"""
UNSORTED = """2
00:00:03,250 --> 00:00:04,000
Як справы?

1
00:00:01,500 --> 00:00:03,000
Добры дзень!

3
00:00:03,250 --> 00:00:04,000
Як справы?
"""
WEBVTT = """\ufeffWEBVTT - a talk
Kind: captions
Language: be

NOTE
by --> hand
of two

STYLE
::cue { color: red }

first
00:00:01.500 --> 00:00:03.000 align:start position:0%
<c.yellow>Добры</c>&nbsp;<lang be>дзень!</lang>

WEBVTT

2
00:00:03.250 --> 00:00:04.000
<ruby>Як<rt>yak</rt></ruby> справы?
"""


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        "\ufeff" + PLAIN.replace("Добры ", "Добры\n").replace("03,250", "03,25").replace("\n", "\r\n"),
        "1\r00:01.500-->00:03\rДобры дзень!\r\r\r2\r0:3.25 --> 0:4.0  \rЯк справы?\r",
        PLAIN.replace("1\n00", "00").replace("\n2\n", "\n"),
        STYLED,
        PLAIN.replace("\n", "\n\n"),
        UNSORTED,
        "WEBVTT\n\n00:01.500 --> 00:03.000\nДобры дзень!\n\n00:03.250 --> 00:04.000\nЯк справы?",
        WEBVTT,
    ],
    ids=["plain", "BOM and CRLF", "CR", "no counters", "styles", "doubled", "unsorted", "vtt", "vtt with all"],
)
def test_the_same_cues_however_they_are_written(text: str):
    assert spoken(text) == TWO


def test_a_text_that_is_a_number_is_no_counter():
    text = "1\n00:00:01,000 --> 00:00:02,000\n1984\n\n2\n00:00:03,000 --> 00:00:04,000\n12\n"
    assert [said for _, _, said in spoken(text)] == ["1984", "12"]


def test_hours_above_99_and_signs_of_html_are_read():
    assert spoken("1\n100:00:01,000 --> 100:00:02,000\nA &amp; B &lt; C\n") == [(360_001.0, 360_002.0, "A & B < C")]


def test_cues_that_overlap_or_end_before_they_begin_are_given_as_they_are_and_empty_ones_left_out():
    cues = [("01", "05", "adzin"), ("02", "03", "<i></i>"), ("04", "02", "dva")]
    text = "".join(f"{n}\n00:00:{a},000 --> 00:00:{b},000\n{said}\n\n" for n, (a, b, said) in enumerate(cues))
    assert spoken(text) == [(1.0, 5.0, "adzin"), (4.0, 2.0, "dva")]
    assert [cue.line for cue in read_cues(text)] == [2, 10]


def test_lines_of_captions_that_scroll_are_read_once():
    text = (
        "WEBVTT\nKind: captions\n\n00:00:00.160 --> 00:00:02.389 align:start position:0%\n \n"
        "hello<00:00:01.000><c> world</c>\n\n00:00:02.389 --> 00:00:02.399 align:start\nhello world\n \n\n"
        "00:00:02.399 --> 00:00:05.000\nhello world\nthis<00:00:03.000><c> is</c>\n"
    )
    assert [said for _, _, said in spoken(text)] == ["hello world", "this is"]


def subrip(*cues: tuple[float, float, str]) -> str:
    return "".join(f"{n}\n00:00:{a:06.3f} --> 00:00:{b:06.3f}\n{text}\n\n" for n, (a, b, text) in enumerate(cues, 1))


def test_captions_that_scroll_are_known_without_the_times_of_their_words():
    lines = [f"радок {n}" for n in range(8)]
    cues = []
    for n, (before, line) in enumerate(zip(["", *lines], lines, strict=False)):
        cues += [(3 * n, 3 * n + 2.99, f"{before}\n{line}".strip()), (3 * n + 2.99, 3 * n + 3, line)]
    assert [(a, b, text) for a, b, text in spoken(subrip(*cues))] == [
        (3 * n, round(3 * n + 2.99, 2), line) for n, line in enumerate(lines)
    ]
    refrain = [(n, n + 0.9, text) for n, text in enumerate(["так", "так", "не", "так", "не", "не", "так"])]
    assert spoken(subrip(*refrain)) == refrain
    chant = [(n, n + 0.9, "так!") for n in range(9)]
    assert spoken(subrip(*chant)) == chant


def test_cues_that_are_shown_on_while_the_next_begins_end_there_if_most_are():
    cues = [(2 * n, 2 * n + 3.5, f"радок {n}") for n in range(8)]
    assert spoken(subrip(*cues)) == [(a, min(a + 2, b) if a < 14 else b, text) for a, b, text in cues]
    few = [(2 * n, 2 * n + (3.5 if n in (1, 4) else 1.5), f"радок {n}") for n in range(8)]
    assert spoken(subrip(*few)) == few


def test_the_voice_of_a_cue_is_its_speaker():
    first = "WEBVTT\n\n00:01.000 --> 00:02.000\n<v.loud Ala Kupala>Так\n\n"
    text = f"{first}00:03.000 --> 00:04.000\n<v A>Не.</v> <v B>Так.</v>\n"
    assert [(cue.speaker, cue.text) for cue in read_cues(text)] == [("Ala Kupala", "Так"), (None, "Не. Так.")]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("just a text\nof two lines\n", 1),
        ("1\n00:00:01,000 --> 00:00:02,000\nso\n\n2\n00:00:03,000 -> 00:00:04,000\nno\n", 6),
        ("1\n00:00:01,000 --> 00:00:02,000\nso\n\n2\n00:00:x --> 00:00:05,000\n", 6),
        ("1\n00:00:01,000 --> 00:61:02,000\nso\n", 2),
        ("1\n-00:00:01,000 --> 00:00:02,000\nso\n", 2),
        ("\n\nHello.\n\n1\n00:00:01,000 --> 00:00:02,000\nso\n", 3),
        ("WEBVTT\n\n00:01.000 --> 00:02.000\nso\n\nlost text\n", 6),
        ("WEBVTT\n", 2),
    ],
)
def test_a_text_that_is_no_subtitle_is_refused_with_its_line(text: str, line: int):
    with pytest.raises(RejectedError) as refused:
        read_cues(text)
    assert refused.value.reason == "bad_label"
    assert refused.value.detail.startswith(f"line {line}: ")


LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 4.5
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "sentence"
        xmin = 0
        xmax = 4.5
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 1.5
            text = ""
        intervals [2]:
            xmin = 1.5
            xmax = 3
            text = "Добры ""дзень""!"
        intervals [3]:
            xmin = 3.25
            xmax = 4
            text = "Як
справы?"
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 4.5
        points: size = 1
        points [1]:
            number = 2
            mark = "click"
"""
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
4.5
<exists>
2
"IntervalTier"
"sentence"
0
4.5
3
0
1.5
""
1.5
3
"Добры ""дзень""!"
3.25
4
"Як справы?"
"TextTier" ! points
"clicks"
0
4.5
1
2
"click"
"""


@pytest.mark.parametrize("text", [LONG, SHORT, LONG.replace("\n", "\r\n"), SHORT.replace("\n", "\r")])
def test_both_forms_of_a_text_grid_are_the_same_tiers(text: str):
    (tier,) = read_tiers(text)
    assert tier.name == "sentence"
    assert [part[:3] for part in tier.intervals] == [(1.5, 3.0, 'Добры "дзень"!'), (3.25, 4.0, "Як справы?")]


def test_a_text_grid_without_tiers_has_none():
    assert read_tiers('File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n4.5\n<absent>\n') == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("no grid at all\n", 1),
        ('"ooTextFile"\n"PitchTier"\n0\n1\n', 2),
        (LONG.replace("xmax = 3\n", 'xmax = "3"\n'), 21),
        (LONG.replace('"IntervalTier"', '"OtherTier"'), 10),
        (LONG[:700], 35),
        (SHORT.replace('"click"', '"click'), 28),
        (SHORT.replace("\n3\n0\n", "\n1e999\n0\n"), 12),
    ],
)
def test_a_text_grid_that_is_damaged_is_refused_with_its_line(text: str, line: int):
    with pytest.raises(RejectedError) as refused:
        read_tiers(text)
    assert refused.value.reason == "bad_label"
    assert refused.value.detail.startswith(f"line {line}: ")


@given(
    st.sampled_from([PLAIN, STYLED, WEBVTT, LONG, SHORT]),
    st.lists(
        st.tuples(st.integers(0, 700), st.integers(0, 9), st.sampled_from(["", "\n", '"', "-->", "9", "<v ", "\x00"]))
    ),
)
def test_a_damaged_file_is_read_or_refused_and_nothing_else(text: str, changes: list[tuple[int, int, str]]):
    for place, length, inserted in changes:
        text = text[:place] + inserted + text[place + length :]
    for read in (read_cues, read_tiers):
        with suppress(RejectedError):
            read(text)
