"""The start page of a folder of runs: state, curves and results, live, and the pages that a browser may have."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.browser import chromium, needs_browser, playwright, serve
from tests.conftest import Trainer
from tests.serving import Serving, serving
from whisper_ft.runtime.atomic import write_json
from whisper_ft.web.run_pages import page_file, pages_in
from whisper_ft.web.run_state import run_state, thinned

__all__ = ["playwright"]  # a fixture


@pytest.fixture(scope="module")
def runs(shared: Path, corpus: Path, micro_whisper: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, of which one trains, with reports of evaluations and files that are no pages."""
    whole = Trainer(shared, corpus, micro_whisper, shared).reference()
    folder = tmp_path_factory.mktemp("runs")
    for name in ("first", "second"):
        shutil.copytree(whole, folder / name)
    status = json.loads((folder / "second/status.json").read_text())
    write_json(folder / "second/status.json", status | {"state": "running"})
    for place, wer in (("first/test", 0.25), ("first/sets/noisy", 0.5), ("start/test", 0.9)):
        (folder / place).mkdir(parents=True)
        (folder / place / "report.html").write_text(
            "<!DOCTYPE html><title>report</title><script>document.title = origin</script>"
        )
        write_json(folder / place / "summary.json", {"wer": wer, "cer": wer / 2, "utterances": 12, "words": "x" * 9})
    (folder / "second/plots").mkdir()
    (folder / "second/plots/curves.html").write_text("<!DOCTYPE html><title>curves</title>")
    (folder / "second/doctor.html").write_text("<!DOCTYPE html><title>check</title>")
    (folder / "second/checkpoints/report.html").write_text("in a folder without pages")
    (folder / "secret.html").write_text("no page of ours")
    return folder


@pytest.fixture(scope="module")
def server(runs: Path) -> Any:
    with serving(runs) as server:
        yield server


@pytest.mark.long
def test_the_state_and_the_results_of_each_run_are_told(server: Serving, runs: Path):
    answer = server.get("/api/runs").json()
    first, second = answer["runs"]
    assert (first["name"], first["state"], second["state"]) == ("first", "finished", "running")
    rows = [json.loads(line) for line in (runs / "first/metrics.jsonl").read_text().splitlines()]
    logged = [row for row in rows if "loss" in row]
    evaluated = [row for row in rows if "wer" in row]
    assert first["loss"] == [[row["step"], row["loss"]] for row in logged]
    assert [row["wer"] for row in first["evaluations"]] == [row["wer"] for row in evaluated]
    assert first["step"] == rows[-1].get("step", first["step"])
    assert [(page["name"], page["wer"], page["utterances"]) for page in first["pages"]] == [
        ("sets/noisy", 0.5, 12),
        ("test", 0.25, 12),
    ]
    assert [(page["name"], page["kind"]) for page in second["pages"]] == [("", "data"), ("plots", "curves")]
    assert "<title>check</title>" in server.get(second["pages"][0]["address"]).text
    assert [page["name"] for page in answer["pages"]] == ["start/test"]
    assert "words" not in first["pages"][0]


def test_a_run_that_goes_on_is_told_with_its_new_figures(server: Serving, runs: Path):
    before = server.get("/api/runs").json()["runs"][1]
    with (runs / "second/metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": before["step"] + 1, "loss": 0.125, "lr": 1e-5}) + "\n" + '{"step": 99, "lo')
    after = server.get("/api/runs").json()["runs"][1]
    assert after["step"] == before["step"] + 1
    assert (after["last"]["loss"], after["last"]["utterances_per_second"]) == (0.125, None)


def test_pages_are_shown_without_any_right_and_nothing_else_is(server: Serving):
    page = server.get("/runs/page/first/test/report.html")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "sandbox allow-scripts;" in policy
    assert "allow-same-origin" not in policy
    assert "default-src 'none'" in policy
    for path in (
        "first/config.yaml", "first/test/summary.json", "secret.html", "../secret.html", "first/../../secret.html",
        "%2e%2e/secret.html", "first/test", "", "/etc/passwd", "none/report.html", "a%00/report.html",
    ):  # fmt: skip
        assert server.get(f"/runs/page/{path}").status_code == 404, path


def test_a_link_leads_out_of_no_folder(tmp_path: Path):
    (tmp_path / "served").mkdir()
    (tmp_path / "report.html").write_text("outside")
    (tmp_path / "served/linked").symlink_to(tmp_path)
    assert pages_in(tmp_path / "served") == []
    assert page_file(tmp_path / "served", "linked/report.html") is None


def test_a_folder_of_runs_begins_with_the_overview_and_a_single_run_with_the_page(server: Serving, runs: Path):
    assert "runs.js" in server.get("/").text
    assert "page.js" in server.get("/try").text
    with serving(runs / "first") as single:
        assert "page.js" in single.get("/").text
        assert [run["name"] for run in single.get("/api/runs").json()["runs"]] == ["first"]
        assert [page["name"] for page in single.get("/api/runs").json()["runs"][0]["pages"]] == ["sets/noisy", "test"]
        assert single.get("/runs/page/test/report.html").status_code == 200


def test_what_is_missing_or_damaged_leaves_the_rest(tmp_path: Path):
    (tmp_path / "status.json").write_text("{")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": null}\n[]\nnonsense\n')
    (tmp_path / "report.html").write_text("")
    (tmp_path / "summary.json").write_text("[1]")
    state = run_state(tmp_path)
    assert (state["state"], state["step"], state["loss"], state["best"]) == ("unknown", 1, [], None)
    assert [page.figures for page in pages_in(tmp_path)] == [{}]
    assert run_state(tmp_path / "none")["step"] == 0


def test_a_long_curve_is_thinned_to_means():
    points = [(step, float(step % 2)) for step in range(10_000)]
    short = thinned(points, 100)
    assert (len(short), short[-1][0]) == (100, 9_999)
    assert all(abs(value - 0.5) < 0.02 for _, value in short)
    assert thinned(points[:7], 100) == points[:7]


@pytest.mark.long
@pytest.mark.usefixtures("playwright")
@pytest.mark.parametrize("width", [390, pytest.param(1280, marks=pytest.mark.matrix)])
def test_the_overview_in_a_browser(runs: Path, playwright: Any, tmp_path: Path, width: int):
    with serve(runs, tmp_path / "corrections") as address, chromium(playwright) as browser:
        page = browser.new_page(viewport={"width": width, "height": 900})
        problems: list[str] = []
        elsewhere: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: elsewhere.append(request.url))
        page.goto(address)
        page.get_by_role("heading", name="first").wait_for()
        assert page.locator("section.run").count() == 3
        assert page.locator(".state.running").count() == 1
        assert page.get_by_role("img").count() >= 2, "curves with a name"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        with (runs / "second/metrics.jsonl").open("a") as file:
            file.write("\n" + json.dumps({"step": 1234, "loss": 0.0625, "lr": 1e-5}) + "\n")
        page.get_by_text("step 1,234").wait_for()  # without a reload
        page.get_by_role("link", name="check of the data").click()
        page.wait_for_url("**/runs/page/second/doctor.html")
        assert page.title() == "check"
        page.go_back()
        page.get_by_role("link", name="test", exact=True).first.click()
        page.wait_for_url("**/runs/page/**")
        assert page.title() == "null", "its script runs as of no site"
        assert problems == []
        assert all(url.startswith((address, "data:")) for url in elsewhere)


for mark in needs_browser:
    test_the_overview_in_a_browser = mark(test_the_overview_in_a_browser)
