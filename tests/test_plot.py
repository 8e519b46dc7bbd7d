"""The curves show what counts of a run: joined over its starts, abandoned branches apart, nothing that a kill cut."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from whisper_ft.cli.plot import PAGE, PICTURE, main, run_names, summary_line
from whisper_ft.reports.curves.figure import LIGHT, curves_png, panel_svg
from whisper_ft.reports.curves.history import read_history
from whisper_ft.reports.curves.panel import ERRORS, PANELS, panels_of
from whisper_ft.reports.curves.smoothing import MAX_POINTS, smoothed, thinned


def step(number: int, **fields: Any) -> dict[str, Any]:
    row = {"step": number, "loss": 5 / number, "lr": 1e-3, "grad_norm": 1.0, "loss_scale": 1.0, "label_tokens": 100}
    return row | {"skipped": 0, "utterances_per_second": 50.0, "data_wait": 0.1} | fields


def evaluation(number: int, wer: float | None, **fields: Any) -> dict[str, Any]:
    return {"step": number, "wer": wer, "cer": wer and wer / 3, "unit": "words"} | fields


def resumed(number: int) -> dict[str, Any]:
    return {"event": "resumed", "step": number}


def run_of(folder: Path, *lines: dict[str, Any] | bytes) -> Path:
    """A run directory that wrote these lines, each a row or bytes as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines]
    (folder / "metrics.jsonl").write_bytes(b"".join(written))
    (folder / "status.json").write_text('{"state": "running"}')
    (folder / "config.yaml").write_text("steps: 60\n")
    return folder


@pytest.fixture
def resumed_run(tmp_path: Path) -> Path:
    """Killed after step 30 and resumed at 20, killed after 40 and resumed there, with evaluations on both branches."""
    first = [step(10), step(20), evaluation(20, 0.5), step(30, loss=9.0), evaluation(30, 0.1), b'{"step": 40, "lo\n']
    second = [resumed(20), step(30), evaluation(30, 0.4), step(40), resumed(40), step(50), evaluation(50, 0.3)]
    return run_of(tmp_path / "resumed", *first, *second)


def test_what_a_resume_went_back_behind_does_not_count(resumed_run: Path):
    run = read_history(resumed_run)
    assert [row["step"] for row in run.logged.rows] == [10, 20, 30, 40, 50]
    assert run.logged.values("loss")[2] == pytest.approx(5 / 30)
    assert [[row["step"] for row in branch] for branch in run.logged.abandoned] == [[20, 30]]
    assert [[row["wer"] for row in branch] for branch in run.evaluated.abandoned] == [[0.5, 0.1]]
    assert (run.lowest or {})["wer"] == 0.3, "0.1 is on an abandoned branch"
    assert (run.resumed, run.cut_lines, run.step) == ([20, 40], 1, 50)


def test_a_resume_whose_line_was_lost_is_seen_by_its_steps(tmp_path: Path):
    run = read_history(run_of(tmp_path / "run", step(10), step(20), step(30), step(20), step(30)))
    assert [row["step"] for row in run.logged.rows] == [10, 20, 30]
    assert len(run.logged.abandoned) == 1


def test_a_line_that_is_being_written_is_no_cut_one(tmp_path: Path):
    run = read_history(run_of(tmp_path / "run", step(10), b'{"step": 20, "loss": 0.2'))
    assert (len(run.logged.rows), run.cut_lines) == (1, 0)


def test_what_is_not_finite_is_a_gap(tmp_path: Path):
    run = read_history(
        run_of(tmp_path / "run", step(10), step(20, loss=None), b'{"step": 30, "loss": NaN}\n', step(40))
    )
    assert np.isnan(run.logged.values("loss")).tolist() == [False, True, True, False]
    steps, values, weights = (run.logged.values(name) for name in ("step", "loss", "label_tokens"))
    assert np.isnan(smoothed(steps, values, np.nan_to_num(weights), 0.5)[1]).tolist() == [False, True, True, False]


def test_smoothing_weighs_by_tokens_and_does_not_lag():
    steps = np.arange(100.0)
    line = smoothed(steps, 3 * steps, np.ones(100), 0.02)[1]
    assert line[20:80] == pytest.approx(3 * steps[20:80])
    two = smoothed(np.arange(2.0), np.array([0.0, 1.0]), np.array([1.0, 1e9]), 5.0)[1]
    assert two == pytest.approx([1, 1]), "nearly all tokens were in the second row"


def test_a_million_steps_are_thinned_and_no_peak_gets_lost():
    values = np.zeros(1_000_000)
    values[123_456] = 7
    steps, drawn = thinned(np.arange(1e6), values)
    assert len(drawn) <= MAX_POINTS
    assert drawn.max() == 7
    assert len(smoothed(np.arange(1e6), values, np.ones(len(values)), 0.01)[1]) <= MAX_POINTS
    assert steps[drawn.argmax()] == pytest.approx(123_456, abs=1e6 / MAX_POINTS * 2)


def test_the_loss_scale_is_drawn_only_where_there_is_one(tmp_path: Path):
    plain = read_history(run_of(tmp_path / "plain", step(10), step(20)))
    scaled = read_history(run_of(tmp_path / "fp16", step(10, loss_scale=65536.0), step(20, loss_scale=32768.0)))
    titles = [[panel.title for panel in panels_of(runs)] for runs in ([plain], [plain, scaled])]
    assert "Loss scale" not in titles[0]
    assert "Loss scale" in titles[1]
    assert "Error rates" not in titles[1], "nothing was evaluated"


def test_an_abandoned_branch_is_drawn_faint(resumed_run: Path):
    loss = panel_svg(PANELS[0], {"run": read_history(resumed_run)}, LIGHT, 0.0).decode()
    faint = [style for style in re.findall(r'style="([^"]*)"', loss) if "stroke-opacity: 0.55" in style]
    assert len(faint) == 1
    assert "stroke-dasharray" in faint[0]


@pytest.mark.long
def test_the_same_run_gives_the_same_bytes(resumed_run: Path):
    runs = {"run": read_history(resumed_run)}
    assert curves_png(runs, 0.01) == curves_png(runs, 0.01)
    assert panel_svg(ERRORS, runs, LIGHT, 0.01) == panel_svg(ERRORS, runs, LIGHT, 0.01)


@pytest.mark.long
def test_the_program_writes_a_picture_and_a_page_that_needs_nothing_else(resumed_run: Path, tmp_path: Path):
    other = run_of(tmp_path / '_<b>$x$&"', step(10), step(20))
    asked = [sys.executable, "-m", "whisper_ft.plot", str(resumed_run), str(other), "--out", str(tmp_path / "out")]
    ended = subprocess.run(asked, capture_output=True, text=True, cwd=ROOT)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "step 50 of 60" in ended.stdout
    assert "resumed at 20, 40" in ended.stdout
    assert "no evaluation" in ended.stdout
    with Image.open(tmp_path / "out" / PICTURE) as picture:
        assert picture.size[0] >= 1800, "sharp in print"
    page = (tmp_path / "out" / PAGE).read_text()
    tree = ElementTree.fromstring(page.replace("<!DOCTYPE html>", ""))
    assert other.name in "".join(tree.itertext())
    sources = [tag.get("src") or tag.get("srcset") or "" for tag in tree.iter() if tag.tag in ("img", "source")]
    assert len(sources) == 2 * len(panels_of([read_history(resumed_run)]))
    for source in sources:
        kind, _, content = source.partition(",")
        assert kind == "data:image/svg+xml;base64"
        ElementTree.fromstring(base64.b64decode(content))
    assert not re.search(r"<script|https?://(?!www\.w3\.org)", page)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["RUNS/none"], "there is no such folder"),
        (["RUNS"], "is no run directory"),
        (["RUNS/empty"], "nothing was logged yet"),
        (["RUNS/nulls"], "nothing was logged yet"),
        (["RUNS/one", "RUNS/empty"], "--out is missing"),
        (["RUNS/one", "RUNS/one", "--out", "RUNS/out"], "given twice"),
        (["RUNS/one", "--smoothing", "2"], "--smoothing must be from 0 to 0.5"),
        (["RUNS/one", "--outt", "x"], "unrecognized arguments: --outt"),
        ([], "required: RUN"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
):
    run_of(tmp_path / "one", step(10))
    run_of(tmp_path / "empty")
    run_of(tmp_path / "nulls", {"step": 1, "loss": None})
    assert main([argument.replace("RUNS", str(tmp_path)) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.long
def test_a_run_of_one_step_is_drawn_beside_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = run_of(tmp_path / "one", step(10), resumed(10))
    assert main([str(run)]) == 0
    assert {path.name for path in (run / "plots").iterdir()} == {PICTURE, PAGE}
    assert "running, step 10 of 60, loss 0.5, no evaluation" in capsys.readouterr().out


def test_rows_without_label_tokens_are_drawn_all_the_same(tmp_path: Path):
    rows = [{"step": number, "loss": 1 / number, "label_tokens": tokens} for number, tokens in ((1, None), (2, 0))]
    for kept in (rows, rows[:1], rows[1:]):
        assert curves_png({"run": read_history(run_of(tmp_path / "run", *kept))}, 0.01)


def test_an_empty_run_is_described_in_one_line(tmp_path: Path):
    assert summary_line(read_history(run_of(tmp_path / "empty"))) == "running, nothing logged yet"


def test_a_language_without_spaces_is_described_by_its_cer(tmp_path: Path):
    run = run_of(
        tmp_path / "ja", evaluation(10, 0.9, unit="characters"), evaluation(20, 0.96, cer=0.2, unit="characters")
    )
    assert "CER 20.00% at step 20" in summary_line(read_history(run))


def test_runs_of_the_same_name_are_told_apart():
    assert run_names([Path("/a/b/run"), Path("/a/c/run"), Path("/a/d")]) == ["b/run", "c/run", "d"]
