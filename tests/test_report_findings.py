import io
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console

from normalizers import get_normalizer
from tests.test_report import HOSTILE, text_of
from whisper_ft.reports.evaluation.alignment import whole_letters
from whisper_ft.reports.evaluation.audio_clips import CLIP_BYTES, PAGE_BYTES, Audio, media_type, smaller
from whisper_ft.reports.evaluation.charts import rates_in_order
from whisper_ft.reports.evaluation.report import write_report
from whisper_ft.reports.evaluation.tables import tables
from whisper_ft.scoring.analysis import Analysis
from whisper_ft.scoring.bootstrap import Interval
from whisper_ft.scoring.edit_distance import ErrorCount, align
from whisper_ft.scoring.scores import Prediction, Scores, score
from whisper_ft.scoring.slices import Slice, Slicing

LOWER = get_normalizer("lower")


def sample(factor: int = 1) -> list[Prediction]:
    """120 utterances of 30 speakers in 2 languages; every fifth with errors, a few with every sign of hallucination."""
    rows = []
    for n in range(120):
        ref = "раз два тры чатыры пяць шэсць"
        hyp = ref if n % 5 else " ".join(ref.split()[factor:])
        rows.append(Prediction(f"u{n}", ref, hyp, 1.0 + n % 4, 9, False, "be" if n % 3 else "sv", f"speaker {n % 30}"))
    rows.append(Prediction("silent", "", "дзякуй за прагляд", 2.0, 4))
    rows.append(Prediction("looped", "адзін", "дзякуй " * 60, 2.0, 444, True, "be", "speaker 1"))
    rows.append(Prediction("latin", "раз два", "thank you", 2.0, 3, False, "be", "speaker 1"))
    return rows


@pytest.fixture(scope="module")
def scores() -> Scores:
    return score(sample(), get_normalizer("golden", language="be"))


@pytest.fixture(scope="module")
def findings(scores: Scores) -> Analysis:
    golden, none, basic = (get_normalizer(name, language="be") for name in ("golden", "none", "whisper-basic"))
    rows = [
        replace(row.prediction, columns={"accent": None if number % 2 else "<north>"})
        for number, row in enumerate(scores.rows)
    ]
    other = ("<b>other</b>", score(sample(factor=4), golden))
    return Analysis.of(score(rows, golden), [none, basic], ["accent"], other, name="runs/best")


def page(folder: Path, scores: Scores, findings: Analysis, audio: Audio | None = None) -> str:
    write_report(folder / "report.html", scores, "test", {}, findings, audio)
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_shows_every_finding(tmp_path: Path, scores: Scores, findings: Analysis):
    text = text_of(page(tmp_path, scores, findings)).replace("\u00a0", " ")
    interval = findings.confidence.wer
    assert interval is not None
    for shown in (
        f"95% interval {100 * interval.low:.1f} – {100 * interval.high:.1f}%",
        "1,000 resamples of 30 speakers",
        "whisper-basic",
        "By duration",
        "By language",
        "The 12 worst of 31",
        "<north>",
        "not known",
        "'дзякуй' 60 times in a row",
        "8 of 8 letters are Latin, not Cyrillic",
        "444 tokens",
        "Compared with <b>other</b>",
        "runs/best makes fewer errors",
        "24 better",
        "3 fewer errors",
    ):
        assert shown in text, shown


def test_the_console_shows_every_finding(scores: Scores, findings: Analysis, capsys):
    for table in tables(scores, "test", 1.0, findings):
        Console(width=200).print(table)
    text = " ".join(capsys.readouterr().out.replace("\u00a0", " ").split())
    for shown in ("95% intervals: WER", "whisper-basic", "by speaker", "and 19 more in summary.json", "Wrong script"):
        assert shown in text, shown
    assert "runs/best against <b>other</b>" in text


def test_a_column_is_as_high_as_its_rate_and_one_of_few_words_does_not_set_the_scale():
    slices = [
        Slice(name, 1, 1, count, count, 1.0, count, few, interval)
        for name, count, few, interval in (
            ("a", ErrorCount(hits=8, substitutions=2), False, Interval(0.1, 0.4)),
            ("b", ErrorCount(hits=9, substitutions=1), False, None),
            ("<c>", ErrorCount(substitutions=1, insertions=2), True, None),
        )
    ]
    elements = rates_in_order(Slicing("speaker", tuple(slices)), "WER").elements
    bars = [(bar.attributes["class"], float(bar.attributes["height"])) for bar in elements if bar.tag == "rect"]
    assert bars == [("rate", 55.0), ("rate", 27.5), ("few", 110.0)]  # 110 is the whole height: the end of the interval
    above = [element.text for element in elements if element.tag == "text" and "class" not in element.attributes]
    assert above == ["20.0", "10.0", "300.0"]


@pytest.mark.long
@pytest.mark.parametrize(
    "audio",
    [pytest.param(None, marks=pytest.mark.matrix), lambda name: b"RIFF\0\0\0\0WAVE<script>"],
    ids=["silent", "with audio"],
)
def test_hostile_texts_stay_text_in_every_section(tmp_path: Path, audio: Audio | None):
    rows = [
        Prediction(
            f"<i>{n}\0",
            ref,
            hyp,
            0.1,
            5,
            True,
            language=f'"><b>{n}',
            speaker=f"<u>{n}",
            problem="<script>",
            columns={"<table>": f"<img src=x>{n}"},
        )
        for n, (ref, hyp) in enumerate(HOSTILE)
    ]
    scores = score(rows, LOWER)
    other = ("<script>\0", score([Prediction(row.id, row.ref, "x", 0.1, 1) for row in rows], LOWER))
    findings = Analysis.of(scores, [get_normalizer("none")], ["<table>"], other, name="</section>")
    html = page(tmp_path, scores, findings, audio)
    allowed = {"audio"} if audio else set()
    elements = list(ET.fromstring(html).iter())  # also says that the page is well-formed
    assert not {element.tag for element in elements} & ({"img", "u", "audio", "form"} - allowed)
    assert [element.tag for element in elements].count("script") == 1  # our own
    names = {name for element in elements if element.tag not in ("a", "audio") for name in element.attrib}
    assert all(str(element.get("href")).startswith("#") for element in elements if element.tag == "a")
    assert not names & {"src", "href", "style", "onerror", "onload"}
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]", html)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert ("media-src data:" in policy[1]) == (audio is not None)


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(1600, dtype=np.float32), 16_000, format=kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "named"), [("WAV", "audio/wav"), ("FLAC", "audio/flac"), ("OGG", "audio/ogg"), ("MP3", "audio/mpeg")]
)
def test_audio_is_named_by_what_it_is(kind: str, named: str):
    assert media_type(encoded(kind)) == named


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "PCM_16"), ("AIFF", "PCM_16"), ("WAV", "FLOAT")])
def test_a_clip_without_compression_is_played_from_flac_of_half_its_size(kind: str, subtype: str):
    sound = np.sin(np.arange(32_000) / 9)[:, None] * [0.5, 0.3]
    file = io.BytesIO()
    soundfile.write(file, sound, 16_000, format=kind, subtype=subtype)
    clip = smaller(file.getvalue())
    assert media_type(clip) == "audio/flac"
    assert 2 * len(clip) < len(file.getvalue())
    played, rate = soundfile.read(io.BytesIO(clip))
    assert (rate, len(played), played.ndim) == (16_000, 32_000, 1)
    np.testing.assert_allclose(played, sound.mean(axis=1), atol=1e-4)


@pytest.mark.parametrize("clip", [encoded("MP3"), encoded("OGG"), b"", b"RIFF\0\0\0\0WAVEtext", b"text"])
def test_other_clips_stay_as_they_are(clip: bytes):
    assert smaller(clip) == clip


def test_what_is_no_audio_is_not_put_into_the_page():
    assert (
        media_type(b"<svg onload='alert(1)'/>") is media_type(b"") is media_type(b"\xff") is media_type(b"RIFF") is None
    )


def test_the_worst_utterances_are_heard_until_the_page_is_full(tmp_path: Path, scores: Scores, findings: Analysis):
    clip = encoded("OGG")
    clip += bytes(CLIP_BYTES - len(clip))
    asked: list[str] = []

    def audio(name: str) -> bytes | None:
        asked.append(name)
        return None if name == "looped" else clip + b"\0" if name == "latin" else clip

    html = page(tmp_path, scores, findings, audio)
    room = PAGE_BYTES // CLIP_BYTES
    assert html.count("<audio ") == room
    assert f"Audio of {room}; that of {122 - 1 - room} had no room on the page." in text_of(html)
    assert asked[:2] == ["looped", "latin"]
    assert len(asked) == 2 + room + 1  # one more found no room, and reading audio for nothing takes time
    assert len(html) < 1.5 * PAGE_BYTES


def test_marks_stay_with_their_letters_where_characters_are_aligned():
    pairs = align("ที่บ้าน", "ที่บาน")  # the tone mark of บ้ is missing
    assert ("้", "") in pairs
    letters = whole_letters(pairs)
    assert letters == [("ที่", "ที่"), ("บ้", "บ"), ("า", "า"), ("น", "น")]


def test_what_the_model_put_in_has_no_say_in_the_direction_of_the_line(tmp_path: Path):
    scores = score([Prediction("a", "שלום עולם", "hello שלום עולם", 1.0, 1)], LOWER)
    html = page(tmp_path, scores, Analysis.of(scores))
    (line,) = [element for element in ET.fromstring(html).iter("p") if element.get("class") == "aligned"]
    assert line.get("dir") == "auto"
    undirected = "".join(part.text or "" for part in line.iter() if part.get("dir") is None)
    assert undirected.strip().startswith("שלום")


@pytest.mark.parametrize("rows", [[], [Prediction("a", "", "x", 1.0, 1)], [Prediction("a", "x", "x", 1.0, 1)]])
def test_a_set_too_small_for_any_finding_has_a_page_and_tables_too(tmp_path: Path, rows: list[Prediction]):
    scores = score(rows, LOWER)
    findings = Analysis.of(scores, other=("other", scores))
    ET.fromstring(page(tmp_path, scores, findings))
    assert len(tables(scores, "test", 1.0, findings)) >= 2
