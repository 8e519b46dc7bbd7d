"""The report of an evaluation in a real browser: search, filters, order, keyboard, names for assistive technology."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from normalizers import get_normalizer
from tests.test_report import window
from tests.test_report_findings import encoded, sample
from whisper_ft.reports.evaluation.report import write_report
from whisper_ft.scoring.analysis import Analysis
from whisper_ft.scoring.scores import score

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A report of 122 utterances, opened from its file in Chromium; what the page asks for and complains of is kept."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    rows = [
        replace(row, columns={"accent": "north" if n % 2 else None}, window_confidence=[window(-0.1 * (n % 7))])
        for n, row in enumerate(sample())
    ]
    scores = score(rows, get_normalizer("golden", language="be"))
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, scores, "test", {}, Analysis.of(scores, columns=["accent"]), lambda name: encoded("WAV"))
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.complaints, page.requests = [], []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(path.as_uri())
        yield page
        browser.close()


@pytest.fixture(autouse=True)
def reset(report: Any) -> None:
    report.get_by_role("button", name="Reset").click()


def shown(report: Any) -> list[str]:
    """Ids of the utterances on the page, in their order."""
    return report.locator("#utterances > article:visible h3 > bdi").all_text_contents()


@pytest.mark.long
def test_the_page_runs_under_its_own_policy_and_asks_for_nothing(report: Any):
    assert report.complaints == []
    assert {address.split(":")[0] for address in report.requests} <= {"file", "data"}
    assert len(shown(report)) == 122


@pytest.mark.long
def test_search_finds_ids_and_texts_and_the_slash_leads_to_it(report: Any):
    report.get_by_role("button", name="Reset").focus()
    report.keyboard.press("/")
    report.keyboard.type("THANK You")
    report.get_by_text("1 of 122 shown").wait_for()
    assert shown(report) == ["latin"]
    report.keyboard.press("Escape")
    assert len(shown(report)) == 122
    report.get_by_label("Search").fill("u119")
    report.get_by_text("1 of 122 shown").wait_for()
    assert shown(report) == ["u119"]


def test_filters_by_sign_and_column_narrow_each_other(report: Any):
    report.get_by_label("Sign").select_option("loops")
    assert shown(report) == ["looped"]
    report.get_by_label("Sign").select_option("*")
    assert set(shown(report)) == {"looped", "latin"}
    report.get_by_label("Sign").select_option("")
    report.get_by_label("language").select_option("=sv")
    assert len(shown(report)) == 40
    report.get_by_label("accent").select_option(label="not known (61)")
    assert 0 < len(shown(report)) < 40


def test_the_order_changes_and_comes_back(report: Any):
    first = shown(report)
    report.get_by_label("Order").select_option("place")
    assert shown(report)[:3] == ["u0", "u1", "u2"]
    report.get_by_label("Order").select_option("unsure")
    assert shown(report)[0] == "u20"  # of those with the least confidence, the one with an error
    report.get_by_label("Order").select_option("worst")
    assert shown(report) == first


def test_every_control_has_a_name_and_the_keyboard_reaches_it(report: Any):
    unnamed = report.evaluate(
        "[...document.querySelectorAll('input, select, button, audio, svg[role=img]')]"
        ".filter((one) => !(one.labels?.[0]?.textContent || one.getAttribute('aria-label') || one.textContent).trim())"
        ".length"
    )
    assert unnamed == 0
    names = []
    for _ in range(12):
        report.keyboard.press("Tab")
        names.append(report.evaluate("document.activeElement.tagName"))
    assert {"AUDIO", "SUMMARY"} & set(names) or "SELECT" in names
    assert report.locator("nav[aria-label=Contents] a").count() >= 4


def test_a_clip_is_played_from_the_page_itself(report: Any):
    seconds = report.evaluate(
        "new Promise((done, failed) => { const clip = document.querySelector('#utterances audio');"
        "clip.preload = 'auto'; clip.onloadedmetadata = () => done(clip.duration);"
        "clip.onerror = () => failed(clip.error.message); clip.load(); })"
    )
    assert seconds == pytest.approx(0.1)
