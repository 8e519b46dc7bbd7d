import base64
import hashlib
import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from normalizers import get_normalizer
from whisper_ft.checkpoint.state import TrainState
from whisper_ft.reports.evaluation.alignment import worst_rows
from whisper_ft.reports.evaluation.cards import MAX_FLAGGED, MAX_ROWS
from whisper_ft.reports.evaluation.report import write_report
from whisper_ft.reports.evaluation.tables import score_table, wer_line
from whisper_ft.reports.html.page import TEMPLATES
from whisper_ft.runtime.errors import DataError
from whisper_ft.scoring.analysis import Analysis
from whisper_ft.scoring.bootstrap import confidence
from whisper_ft.scoring.normalizer_table import normalizer_table
from whisper_ft.scoring.runaway import Runaway
from whisper_ft.scoring.scores import Prediction, Scores, score
from whisper_ft.scoring.unheard import refuse_unheard
from whisper_ft.tracking.console.eval_table import line

LOWER = get_normalizer("lower")
CHARACTERS = get_normalizer("none", "zh")
HOSTILE = [
    ("<script>alert(1)</script>", "</p><img src=http://evil.example/x onerror=alert(1)>"),
    ('"><svg/onload=alert(1)>', "&lt;b&gt; ]]> <!-- --> &amp;"),
    ("a\0b \x1b[31mc\x07 \ufffe", "\ud83d d\u2028e \x85"),
    ("שלום עולם", "\u202eשלום\u202d עולם\u2066"),
    ("слова " * 20_000, "x" * 100_000),
    ("", "thank <b>you</b>"),
]


def scored(*pairs: tuple[str, str], normalize=LOWER) -> Scores:
    return score([Prediction(f"u{i}", ref, hyp, 2.0, 5) for i, (ref, hyp) in enumerate(pairs)], normalize)


def rates_only(scores: Scores) -> Analysis:
    """Without slices and checks, which take seconds for texts of 100,000 characters."""
    return Analysis(confidence(scores), normalizer_table(scores, []), (), ())


def window(logprob: float) -> dict[str, object]:
    """Record of a window with one token, as predictions.jsonl has it."""
    figures = {"avg_logprob": logprob, "no_speech_prob": 0.0, "compression_ratio": 1.0, "temperature": 0.0}
    return figures | {"tokens": 1, "is_speech": True}


def page(folder: Path, scores: Scores, title: str = "test", facts: dict[str, str] | None = None) -> str:
    write_report(folder / "report.html", scores, title, facts or {}, rates_only(scores))
    return (folder / "report.html").read_text(encoding="utf-8")


def text_of(html: str) -> str:
    return " ".join("".join(ET.fromstring(html).itertext()).split())


def test_the_page_shows_the_headline_and_the_counts(tmp_path: Path):
    text = text_of(page(tmp_path, scored(("a b c d e", "a x d e f"), ("f", "f")), "be test", {"Model": "runs/best"}))
    for shown in ("be test", "50.00%", "3 errors in 6 words", "1 substituted", "1 deleted", "1 inserted"):
        assert shown in text
    assert "Model" in text
    assert "runs/best" in text


@pytest.mark.long
@pytest.mark.parametrize(
    "normalize", [LOWER, pytest.param(CHARACTERS, marks=pytest.mark.matrix)], ids=["words", "characters"]
)
def test_hostile_transcripts_stay_text(tmp_path: Path, normalize):
    rows = [
        Prediction(f"<i>{i}\0", ref, hyp, math.nan, 5, True, language='"><b>', speaker="<u>", problem="<script>")
        for i, (ref, hyp) in enumerate(HOSTILE)
    ]
    html = page(tmp_path, score(rows, normalize), "<script>title</script>", {"<b>": "</dl><script>"})
    tags = [element.tag for element in ET.fromstring(html).iter()]  # also says that the page is well-formed
    assert not {"img", "u"} & set(tags)
    assert tags.count("script") == 1  # our own
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]", html)
    assert "a␀b" in html
    assert len(html) < 110_000  # long texts are cut, and the page says so
    assert "characters)" in html


@pytest.mark.long
def test_the_page_runs_its_own_script_alone_and_loads_nothing(tmp_path: Path):
    html = page(tmp_path, scored(*HOSTILE, ("a", "b")))

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            names = {name for name, _ in attributes}
            assert tag not in {
                "link",
                "img",
                "iframe",
                "object",
                "embed",
                "base",
                "form",
                "use",
                "image",
            }
            assert not names & {"src", "xlink:href", "srcset", "style", "action"}
            assert all(value.startswith("#") for name, value in attributes if name == "href")  # the contents
            assert not any(name.startswith("on") for name in names)

    Reader().feed(html)
    style = html.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe-inline" not in policy[1]
    own = (TEMPLATES / "find_utterances.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy[1]
    assert html.count("<script") == html.count(f"<script>{own}</script>") == 1


def test_the_contents_lead_to_every_section(tmp_path: Path):
    scores = scored(("a b", "a c"), ("d", "d"))
    write_report(tmp_path / "report.html", scores, "test", {}, Analysis.of(scores))
    root = ET.parse(tmp_path / "report.html").getroot()
    links = [str(link.get("href")).removeprefix("#") for link in root.iter("a")]
    assert links == ["rates", "signs", "utterances"]
    assert set(links) == {section.get("id") for section in root.iter("section")} - {None}


def test_a_card_has_the_values_that_filters_and_order_need(tmp_path: Path):
    rows = [
        Prediction("a", "x y", "x z", 2.0, 5, False, "be", "anna", columns={"accent": "<north>"}),
        Prediction("b", "x", "", 1.5, 5, False, "sv", "anna", window_confidence=[window(math.log(0.5))]),
        Prediction("c", "x", "дзякуй " * 50, 9.0, 444, True, "sv", "anna", columns={"accent": None}),
    ]
    scores = score(rows, LOWER)
    write_report(tmp_path / "report.html", scores, "test", {}, Analysis.of(scores))
    root = ET.parse(tmp_path / "report.html").getroot()
    cards = {card.get("data-place"): card.attrib for card in root.iter("article") if card.get("data-place")}
    assert cards["1"]["data-confidence"] == "0.5"
    assert "data-confidence" not in cards["0"]
    assert {"loops", "token_limit"} <= set(cards["2"]["data-signs"].split())
    menus = {menu.get("data-field"): menu for menu in root.iter("select") if menu.get("data-field")}
    names = ["".join(label.find("span").itertext()) for label in root.iter("label")]  # type: ignore[union-attr]
    assert names == ["Search", "Sign", "language", "accent", "Order"]  # all have one speaker
    fields = dict(zip(names[1:4], menus, strict=True))
    assert [option.text for option in menus[fields["accent"]].iter("option")] == ["all", "not known (2)", "<north> (1)"]
    assert cards["0"][f"data-{fields['accent']}"] == "<north>"
    assert "=" + cards["1"][f"data-{fields['language']}"] in [o.get("value") for o in menus[fields["language"]]]


def test_transcripts_take_their_direction_from_their_own_first_letter(tmp_path: Path):
    root = ET.fromstring(page(tmp_path, scored(("שלום עולם", "שלום"))))
    directed = [element for element in root.iter() if element.get("dir") == "auto"]
    texts = [" ".join("".join(element.itertext()).split()) for element in directed]
    assert len(texts) == 3  # aligned, reference as written, hypothesis as written
    assert all(text.startswith("שלום") for text in texts)


def test_the_difference_of_every_word_is_marked(tmp_path: Path):
    root = ET.fromstring(page(tmp_path, scored(("a b c", "a x c d"))))
    (aligned,) = [element for element in root.iter("p") if element.get("class") == "aligned"]
    cells = [(cell.get("class"), *("".join(part.itertext()) for part in cell)) for cell in aligned]
    assert cells == [("hit", "a", "a"), ("sub", "b", "x"), ("hit", "c", "c"), ("ins", "", "d")]


def test_the_worst_utterances_come_first_and_the_page_says_where_it_stops(tmp_path: Path):
    pairs = [("a b", "a b"), ("a b", "x b"), ("a b", "x y"), ("a", "x y z"), ("", "noise"), ("c d e", "x y z")]
    scores = scored(*pairs)
    assert [row.prediction.id for row in worst_rows(scores, 4)] == ["u3", "u5", "u2", "u1"]
    assert "worst of" not in page(tmp_path, scores)

    scores = scored(*pairs * 200)
    write_report(tmp_path / "report.html", scores, "test", {}, Analysis.of(scores))
    many = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"The {MAX_ROWS:,} worst of 1,000" in many
    sections = {section.findtext("h2"): section for section in ET.fromstring(many).iter("section")}
    assert len(sections["Utterances, worst first"].findall("article")) == MAX_ROWS
    flagged = [len(check.findall("details/article")) for check in sections["Signs of hallucination"].findall(".//div")]
    assert MAX_FLAGGED in flagged, "some of the 200 with words on an empty reference"
    assert f"and {200 - MAX_FLAGGED} more" in many


def test_every_scored_utterance_is_in_the_histogram_once(tmp_path: Path):
    root = ET.fromstring(page(tmp_path, scored(("a b", "a b"), ("a b", "a"), ("a", "x y"), ("a", "b"), ("", "b"))))
    (drawing,) = [element for element in root.iter("svg") if element.get("class") == "histogram"]
    texts = [(text.text or "", text.get("class")) for text in drawing.iter("text")]
    counts = [text for text, kind in texts if kind is None]
    labels = [text for text, kind in texts if kind == "axis"]
    shown = {label: count for label, count in zip(labels, counts, strict=False) if count}
    assert shown == {"0": "1", "50": "1", "100": "1", ">100": "1"}


def test_what_distorts_the_rates_is_said_on_the_page_and_in_the_console(tmp_path: Path, capsys):
    rows = [
        Prediction("a", "x y", "x", 1.0, 444, hit_token_limit=True),
        Prediction("b", "", "thank you", 1.0, 2),
        Prediction("c", "x", "", 1.0, 0, problem="undecodable"),
    ]
    scores = score(rows, LOWER)
    Console(width=200).print(score_table(scores, "test", 1.5, rates_only(scores)))
    for text in (text_of(page(tmp_path, scores)), " ".join(capsys.readouterr().out.split())):
        for said in ("Empty references: 1", "model wrote on them: 2", "token limit: 1", "Empty hypotheses: 1"):
            assert said in text
        assert "undecodable 1" in text


def test_a_set_without_reference_words_has_a_page_too(tmp_path: Path):
    for scores in (scored(), scored(("", "a"))):
        assert "n/a" in text_of(page(tmp_path, scores))
        assert wer_line(scores, Runaway()) == "%WER n/a [ 0 / 0, 0 ins, 0 del, 0 sub ]"


def test_a_language_without_spaces_is_judged_by_its_characters(tmp_path: Path):
    html = page(tmp_path, scored(("今天天气", "今天气好"), normalize=CHARACTERS))
    assert html.index("<h2>CER</h2>") < html.index("<h2>WER</h2>")
    assert "Utterances by CER" in html


def test_a_report_takes_the_place_of_the_last_one_and_leaves_nothing_beside_it(tmp_path: Path):
    for title in ("first", "second"):
        html = page(tmp_path / "out", scored(("a", "b")), title)
    assert "second" in html
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["report.html"]


def test_the_line_to_grep_is_that_of_kaldi():
    scores = scored(("a b c d e", "a x d e f"))
    assert wer_line(scores, Runaway()) == "%WER 60.00 [ 3 / 5, 1 ins, 1 del, 1 sub ]"


def test_the_headline_says_of_how_many_utterances_no_audio_could_be_read(tmp_path: Path, capsys):
    lost = Prediction("a", "b", "x", 0.0, 1, problem="missing_file")
    cut = Prediction("c", "b", "b", 3.0, 1, problem="too_long")
    scores = score([lost, cut, Prediction("d", "b", "b", 3.0, 1)], LOWER)
    assert scores.summary()["unheard"] == 1
    Console(width=200).print(score_table(scores, "test", 1.5, rates_only(scores)))
    for text in (wer_line(scores, Runaway()), capsys.readouterr().out, line(TrainState(step=3), 9, scores, [])):
        assert "1 of 3 utterances" in " ".join(text.split())
    with pytest.raises(DataError, match="missing_file 1"):
        refuse_unheard(score([lost], LOWER), "set")
    refuse_unheard(score([lost, cut], LOWER), "set")


def test_the_console_table_shows_markup_and_control_characters_as_text(capsys):
    scores = scored(("a b", "a c"))
    Console(width=120).print(score_table(scores, "[red]be[/] \x1b[2J[/oops]", 12.34, rates_only(scores)))
    shown = capsys.readouterr().out
    assert "[red]be[/] ␛[2J[/oops]" in shown
    assert "50.00%" in shown
    assert "12.3" in shown
