"""Two models side by side: marked differences, and a blind test whose answers are counted with an interval."""

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("starlette", reason="needs the extra [web]")
from starlette.applications import Starlette
from starlette.testclient import TestClient

from whisper_ft.reports.html.palette import DARK, LIGHT
from whisper_ft.runtime.errors import UsageError
from whisper_ft.web.api_error import ApiError, answer_error
from whisper_ft.web.blind_test import BlindTest, Votes, wilson_interval
from whisper_ft.web.differences import MAX_TOKENS, difference_summary
from whisper_ft.web.page_routes import page_routes


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    routes = page_routes(tmp_path / "kept", str)
    return TestClient(Starlette(routes=routes, exception_handlers={ApiError: answer_error}))


@pytest.mark.parametrize(
    ("first", "second", "stretches", "changed"),
    [
        ("Good mourning", "Good morning", [("same", "Good", "Good"), ("changed", " mourning", " morning")], 1),
        ("Good morning.", "good morning", [("spelling", "Good morning.", "good morning")], 0),
        ("a b", "a b c", [("same", "a b", "a b"), ("second_only", "", " c")], 1),
        ("a — b", "a b", [("same", "a", "a"), ("spelling", " —", ""), ("same", " b", " b")], 0),
        ("你好世界", "你们好世界", [("same", "你", "你"), ("second_only", "", "们"), ("same", "好世界", "好世界")], 1),
        ("", "a", [("second_only", "", "a")], 1),
        ("", "", [], 0),
    ],
)
def test_differences_are_marked_word_by_word(
    first: str, second: str, stretches: list[tuple[str, str, str]], changed: int
):
    summary = difference_summary(first, second)
    assert [(item["kind"], item["first"], item["second"]) for item in summary["stretches"]] == stretches
    assert summary["changed"] == changed


@given(st.text(), st.text())
def test_stretches_make_up_both_texts(first: str, second: str):
    stretches = difference_summary(first, second)["stretches"]
    assert "".join(item["first"] for item in stretches) == first.rstrip()
    assert "".join(item["second"] for item in stretches) == second.rstrip()


def test_a_text_of_days_is_refused():
    with pytest.raises(UsageError):
        difference_summary("a " * (MAX_TOKENS + 1), "a")


# Values of Newcombe 1998, table I, method 3.
@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_wilsons(successes: int, trials: int, low: float, high: float):
    interval = wilson_interval(successes, trials)
    assert interval is not None
    assert (interval.low, interval.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_without_answers_there_is_no_interval():
    assert wilson_interval(0, 0) is None
    assert Votes(equal=4).summary()["share"] is None


def test_answers_count_for_their_models_in_any_order(tmp_path: Path):
    test = BlindTest(tmp_path / "kept")
    assert test.tally("tuned", "start") == Votes()
    test.add("tuned", "start", "first", ("a", "b"))
    test.add("start", "tuned", "second", ("b", "a"))
    test.add("start", "tuned", "first", ("b", "a"))
    test.add("tuned", "another", "first", ("a", "c"))
    assert test.add("tuned", "start", "equal", ("a", "\ud83d")) == Votes(first=2, second=1, equal=1)


def test_a_pair_of_texts_has_one_answer_also_by_clicks_at_the_same_time(tmp_path: Path):
    test = BlindTest(tmp_path / "kept")
    clicks = [threading.Thread(target=test.add, args=("tuned", "start", "first", ("a", "b"), "one")) for _ in range(8)]
    for click in clicks:
        click.start()
    for click in clicks:
        click.join()
    assert test.add("start", "tuned", "first", ("b", "a"), "one") == Votes(second=1), "the first answer counts"
    assert test.add("start", "tuned", "first", ("b", "a"), "two") == Votes(first=1, second=1)
    assert BlindTest(tmp_path / "kept").add("start", "tuned", "first", ("b", "a"), "two") == Votes(first=1, second=1)


@pytest.mark.parametrize(("first", "second", "better"), [("a", "b", "a"), ("a", "a", "first"), ("", "b", "first")])
def test_an_answer_about_nothing_is_refused(tmp_path: Path, first: str, second: str, better: str):
    with pytest.raises(UsageError):
        BlindTest(tmp_path).add(first, second, better, ("", ""))
    assert not list(tmp_path.iterdir())


def test_many_equal_answers_decide(tmp_path: Path):
    assert Votes(first=17, second=2).summary()["is_decided"]
    assert not Votes(first=3, second=0).summary()["is_decided"]


def test_routes_compare_and_count(client: TestClient):
    answer = client.post("/api/differences", json={"first": "a b", "second": "a c"})
    assert answer.json()["changed"] == 1
    vote = {"first": "tuned", "second": "start", "better": "second", "texts": ["a b", "a c"]}
    for pair in ({"pair": "1"}, {"pair": "1"}, {}, {}):
        counts = client.post("/api/blind_test", json=vote | pair).json()
    assert counts["second"] == 3
    tally = client.get("/api/blind_test", params={"first": "start", "second": "tuned"}).json()
    assert (tally["first"], tally["second"], tally["share"]) == (3, 0, 1.0)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/differences", b"{", 400),
        ("/api/differences", b'{"first": "a"}', 400),
        ("/api/differences", b'{"first": 1, "second": 2}', 400),
        ("/api/differences", b"[" * 100_000, 400),
        ("/api/differences", b" " * 5_000_000, 413),
        ("/api/blind_test", b'{"first": "a", "second": "b", "better": "first", "texts": 3}', 400),
        ("/api/blind_test", b'{"first": "a", "second": "b", "better": "c", "texts": ["", ""]}', 400),
        ("/api/blind_test", b'{"first": "a", "second": "b", "better": "first", "texts": ["", ""], "pair": 1}', 400),
    ],
)
def test_a_body_that_cannot_be_used_is_refused(client: TestClient, path: str, body: bytes, status: int):
    answer = client.post(path, content=body)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_the_page_has_the_colours_of_the_reports(client: TestClient):
    style = client.get("/static/palette.css")
    assert style.headers["content-type"].startswith("text/css")
    assert LIGHT.css() in style.text
    assert DARK.css() in style.text
