"""The screen of a run: figures that fit, evaluations that can be read without colours, and modes for every place."""

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from normalizers import get_normalizer
from tests.conftest import ROOT, Trainer, command, environment
from whisper_ft.checkpoint.state import TrainState
from whisper_ft.scoring.scores import Prediction, Scores, score
from whisper_ft.tracking.console.eta import Eta, clock
from whisper_ft.tracking.console.eval_table import sparkline
from whisper_ft.tracking.console.plain_progress import PlainProgress
from whisper_ft.tracking.console.step_line import fitted, step_figures
from whisper_ft.tracking.tracker import Tracker

ROW = {
    "step": 300, "loss": 2.6591, "lr": 2.75e-3, "grad_norm": 1.23, "loss_scale": 65536.0, "skipped": 3, "unusable": 2,
    "utterances_per_second": 124.2, "data_wait": 0.04, "audio_hours": 12.4, "memory_gb": 23.4,
}  # fmt: skip
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A pseudo-terminal; `text` is everything that was written to it."""

    def __init__(self) -> None:
        self._near, far = pty.openpty()
        self.file = os.fdopen(far, "w", encoding="utf-8")
        self.raw = b""

    def take(self, seconds: float = 0.0) -> None:
        while select.select([self._near], [], [], seconds)[0]:
            self.raw += os.read(self._near, 1 << 16)

    def wait_for(self, part: str) -> None:
        deadline = time.monotonic() + 30
        while part not in self.text:
            assert time.monotonic() < deadline, self.text
            time.sleep(0.05)

    @property
    def text(self) -> str:
        self.file.flush()
        self.take()
        return self.raw.decode()

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in re.split(r"[\r\n]+", CONTROL.sub("", self.text))]

    def close(self) -> None:
        self.file.close()
        os.close(self._near)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Terminal]]:
    """Makes sys.stdout a terminal of so many columns."""
    opened = []

    def make(columns: int) -> Terminal:
        opened.append(Terminal())
        monkeypatch.setattr(sys, "stdout", opened[-1].file)
        for name, value in {"COLUMNS": str(columns), "LINES": "24", "TERM": "xterm-256color"}.items():
            monkeypatch.setenv(name, value)
        for name in ("CI", "NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name, raising=False)
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def scores(*texts: tuple[str, str], language: str = "be", first_id: str = "clip-0", rules: str = "golden") -> Scores:
    predictions = [
        Prediction(id=first_id if number == 0 else f"clip-{number}", ref=ref, hyp=hyp, audio_seconds=1.0, hyp_tokens=1)
        for number, (ref, hyp) in enumerate(texts)
    ]
    return score(predictions, get_normalizer(rules, language=language))


def evaluate(tracker: Tracker, state: TrainState, result: Scores) -> TrainState:
    state = state.after_evaluation(*result.figure("auto"))
    tracker.log_evaluation(state, result, {}, "fp32")
    return state


HALF = ("брат не хоча", "брат хоча")


@pytest.mark.parametrize("width", [20, 40, 60, 100, 300])
def test_figures_fill_lines_that_fit_and_none_is_broken(width: int):
    figures = step_figures(ROW, 3600.0)
    lines = [line.plain for line in fitted(figures, width)]
    assert all(cell_len(line) <= width for line in lines)
    shown = re.split(r"  +", "  ".join(lines))
    assert shown == [label + value for label, value in figures]
    assert (width == 300) == (len(lines) == 1)


def test_each_figure_of_a_logged_step_is_shown():
    shown = "  ".join(label + value for label, value in step_figures(ROW, 4000))
    assert shown == (
        "loss 2.6591  lr 2.75e-03  grad 1.23  scale 65536  124 utt/s  12.40 h audio  wait 4%  mem 23.4 GB  "
        "skipped 3  unusable 2  ETA 1:06:40"
    )
    lost = ROW | {"loss": None, "grad_norm": None, "audio_hours": None}
    assert "loss not finite" in "  ".join(label + value for label, value in step_figures(lost, None))


@pytest.mark.long
def test_a_real_run_in_a_narrow_terminal_moves_a_bar_and_draws_nothing_wider(train: Trainer):
    screen, columns = Terminal(), 60
    fcntl.ioctl(screen.file, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    argv = command("train.py", 1, *train.arguments("seen", steps=4, eval__every=2))
    here = {name: value for name, value in environment(1).items() if name not in ("CI", "COLUMNS", "LINES", "NO_COLOR")}
    run = subprocess.Popen(argv, cwd=ROOT, env=here | {"TERM": "xterm"}, stdout=screen.file, stderr=screen.file)
    while run.poll() is None:
        screen.take(0.2)
    assert run.returncode == 0, screen.text
    drawn = [line for line in screen.lines if re.match(r"training (?!data)|loss | +(WER|CER|SER|ref|hyp) ", line)]
    assert {line.split()[0] for line in drawn} >= {"training", "loss", "WER", "ref", "hyp"}
    assert max(map(cell_len, drawn)) <= columns
    assert any("4/4" in line and "ETA 0:00" in line for line in drawn)
    assert screen.text.count("\x1b[?25h") == 1, "the cursor is back"
    screen.close()


def test_what_is_counted_has_a_bar_of_its_own_and_leaves_the_figures_as_they_were(
    tmp_path: Path, terminal: Callable[[int], Terminal]
):
    screen = terminal(60)
    tracker = Tracker(tmp_path, 1200, enabled=True)
    with tracker.live(299):
        tracker.move_bar(300)
        tracker.log_step(ROW)
        with tracker.progress_bar("evaluating the validation set of a long name", 12) as advance:
            advance(5, "WER so far 31.4%")
            screen.wait_for("so far")  # drawn five times a second
        counted = len(screen.lines)
        tracker.move_bar(301)
        screen.wait_for("301/1200")
    assert any(re.match(r"evaluating the .*…? .* 5/12 ", line) for line in screen.lines[:counted])
    assert not [line for line in screen.lines[counted:] if "so far" in line or "5/12" in line]
    assert max(map(cell_len, screen.lines)) <= 60


def test_a_terminal_gets_a_bar_and_ci_and_pipes_get_plain_lines(
    tmp_path: Path, terminal: Callable[[int], Terminal], monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    screen = terminal(100)
    for mode, ci, moves in [("auto", "", True), ("auto", "true", False), ("live", "true", True), ("plain", "", False)]:
        monkeypatch.setenv("CI", ci)
        tracker = Tracker(tmp_path, 1200, enabled=True, screen=mode)  # type: ignore[arg-type]
        with tracker.live(0):
            assert tracker.is_live == moves, (mode, ci)
    monkeypatch.undo()
    piped = Tracker(tmp_path, 1200, enabled=True, screen="live")
    with piped.live(299):
        assert not piped.is_live
        piped.move_bar(300)
        piped.log_step(ROW)
    out = capsys.readouterr().out
    assert "warning: --log.screen live: there is no terminal" in out
    assert re.search(r"^step 300/1200  loss 2\.6591  .*  ETA \d+:\d\d$", out, re.MULTILINE)
    assert screen.text.count("training") > 0


@pytest.mark.long
def test_quiet_prints_only_warnings_and_the_last_line(train: Trainer, tmp_path: Path):
    ended = train.end("quiet", steps=2, log__screen="quiet")
    *before, last = ended.out.splitlines()
    assert last == f"finished at step 2; the model to use is in {tmp_path / 'quiet' / 'best'}"
    assert all(line.startswith("warning:") for line in before)
    assert ended.code == 0
    assert ended.err == ""


def test_quiet_lets_warnings_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tracker = Tracker(tmp_path, 10, enabled=True, screen="quiet")
    tracker.say("resumed")
    tracker.say("warning: the disk is slow")
    tracker.say("finished", always=True)
    evaluate(tracker, TrainState(step=3), scores(HALF))
    assert capsys.readouterr().out == "warning: the disk is slow\nfinished\n"


def test_without_colours_the_differences_are_still_marked(
    tmp_path: Path, terminal: Callable[[int], Terminal], monkeypatch: pytest.MonkeyPatch
):
    screen = terminal(60)
    monkeypatch.setenv("NO_COLOR", "1")
    tracker = Tracker(tmp_path, 1200, enabled=True)
    evaluate(tracker, TrainState(step=300), scores(HALF, ("зіма", ""), ("так і не", "так та не")))
    assert {"  ref брат [не] хоча", "  hyp брат хоча", "  ref [зіма]", "  hyp (nothing)"} <= set(screen.lines)
    assert {"  ref так [і] не", "  hyp так [та] не"} <= set(screen.lines)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", screen.text)
    monkeypatch.delenv("NO_COLOR")
    evaluate(Tracker(tmp_path, 1200, enabled=True), TrainState(step=300), scores(HALF))
    assert re.search(r"\x1b\[1;36m\[не\]", screen.text)


def test_hostile_and_right_to_left_texts_leave_the_terminal_alone(tmp_path: Path, terminal: Callable[[int], Terminal]):
    screen = terminal(60)
    texts = [("ذهب الولد", "ذهب الوالد"), ("a [/b] \x1b]0;x\x07 \u202e b", "a \x9b31m [bold] b")]
    result = scores(*texts, language="ar", first_id="\x1b[2Jقصاصة", rules="none")
    evaluate(Tracker(tmp_path, 1200, enabled=True), TrainState(step=300), result)
    shown = CONTROL.sub("", screen.text.replace("\x1b[2J", "HOSTILE"))
    assert not set(shown) & set("\x1b\x07\x9b\u202e")
    assert "HOSTILE" not in shown
    for line in screen.lines:
        if any("\u0600" <= sign <= "\u06ff" for sign in line):
            assert re.fullmatch(r" +(ref|hyp|WER \d+%) .*[\u0600-\u06ff]\]?", line), "nothing stands behind the text"


def test_letters_keep_their_marks_where_characters_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    result = scores(("ผมชื่อสมชาย", "ผมชือสมหญิง"), language="th")
    evaluate(Tracker(tmp_path, 10, enabled=True), TrainState(step=3), result)
    out = capsys.readouterr().out
    assert "CER 45%" in out
    assert "ref ผม[ชื่]อสม[ชาย]" in out


def test_a_long_text_is_cut_and_says_so(tmp_path: Path, terminal: Callable[[int], Terminal]):
    screen = terminal(60)
    evaluate(Tracker(tmp_path, 10, enabled=True), TrainState(step=3), scores(("слова " * 90, "слава " * 90)))
    texts = [line for line in screen.lines if "сл" in line]
    assert 4 <= len(texts) <= 6
    assert max(map(cell_len, texts)) <= 60
    assert sum(line.endswith("…") for line in texts) == 2


def test_the_same_utterances_are_shown_at_each_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    shown = []
    for wrong in ("а", "б"):
        evaluate(Tracker(tmp_path, 10, enabled=True), TrainState(step=3), scores(*[("слова", wrong)] * 20))
        shown.append(re.findall(r"clip-\d+", capsys.readouterr().out))
    assert shown == [["clip-3", "clip-10", "clip-16"]] * 2


def test_the_trend_goes_on_over_a_resume_and_forgets_a_branch(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "predictions").mkdir()
    state = evaluate(Tracker(tmp_path, 40, enabled=True), TrainState(step=10), scores(HALF, HALF, ("так", "не")))
    evaluate(Tracker(tmp_path, 40, enabled=True), replace(state, step=20), scores(("так", "не")))  # given up
    resumed = Tracker(tmp_path, 40, enabled=True)
    state = evaluate(resumed, replace(state, step=20), scores(HALF))
    evaluate(resumed, replace(state, step=30), scores(HALF, ("так", "не")))
    out = capsys.readouterr().out
    assert "step 20/40  WER 33.33%  CER 25.00%  on 1 utterance; the best so far; WER ▼ −9.52 since step 10  █▁" in out
    assert "; best wer 33.33% at step 20; WER ▲ +16.67 since step 20  ▅▁█" in out
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20, 20, 30]


def test_each_set_has_its_own_trend_which_a_change_of_the_set_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "predictions").mkdir()
    tracker = Tracker(tmp_path, 40, enabled=True)
    half, none = {"th": scores(HALF), "en": scores(HALF)}, {"th": scores(HALF), "en": scores(("так", "не"))}
    tracker.log_evaluation(TrainState(), None, half, "fp32")
    state = TrainState(step=10).after_sets(none)
    tracker.log_evaluation(state, None, none, "fp32")
    state = replace(state.reset_set("en"), step=20).after_sets(half)
    tracker.log_evaluation(state, None, half, "fp32")
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"step {n}/40  {name}" for n in (0, 10, 20) for name in half]
    shown = [line.partition("; ")[2] for line in lines]
    assert shown == [
        "",
        "",
        "WER = 0.00 since step 0  ▅▅",
        "WER ▲ +66.67 since step 0  ▁█",
        "WER = 0.00 since step 10  ▅▅▅",
        "",
    ]
    assert len(list(tmp_path.glob("predictions/*/*.jsonl"))) == 6


def test_a_terminal_gets_a_table_of_the_sets(tmp_path: Path, terminal: Callable[[int], Terminal]):
    screen = terminal(80)
    (tmp_path / "predictions").mkdir()
    sets = {"read": scores(HALF), "thai": scores(("น้ำ", "น้ำ"), language="th")}
    Tracker(tmp_path, 40, enabled=True).log_evaluation(TrainState(step=10).after_sets(sets), None, sets, "fp32")
    assert any(re.match(r" *read +WER +33\.33% +first ", line) for line in screen.lines)
    assert any(re.match(r" *thai +CER +0\.00% +first ", line) for line in screen.lines)
    assert max(map(cell_len, screen.lines)) <= 80


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.8, 0.4, 0.0], "█▅▁"),
        ([0.5, 0.5], "▅▅"),
        ([None, 0.2, float("nan")], "·▅·"),
        ([], ""),
        ([1, 2] * 20, "▁█" * 8),
    ],
)
def test_a_trend_is_drawn_between_its_lowest_and_highest(values: list[float | None], shown: str):
    assert sparkline(values) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "–"), (0.4, "0:00"), (59.6, "1:00"), (4000, "1:06:40"), (172_800, "2 d 0 h"), (172_799, "47:59:59")],
)
def test_a_time_is_shown_for_people(seconds: float | None, shown: str):
    assert clock(seconds) == shown


def test_a_long_evaluation_shows_in_a_plain_log_that_it_moves(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    seconds, lines = iter([0.0, 10.0, 31.0, 40.0, 62.0, 90.0]), list[str]()
    progress = PlainProgress(lines.append, "evaluating", 2000, lambda: next(seconds))
    for done, text in ((100, "WER so far 40.0%"), (200, "WER so far 30.0%"), (100, ""), (100, ""), (1500, "")):
        progress(done, text)
    assert lines == [
        "evaluating: 300 of 2,000  ETA 2:56  WER so far 30.0%",
        "evaluating: 500 of 2,000  ETA 3:06",
    ]  # at 31 s and at 62 s; the end has a line of its own
    with Tracker(tmp_path, steps=0, enabled=True).progress_bar("evaluating", 3) as advance:
        advance(1)
    assert capsys.readouterr().out == "", "a short one prints nothing"


def test_the_time_left_counts_all_that_was_done_and_only_this_start():
    ahead = Eta(step=100, steps=110)
    assert ahead.seconds(100) is None
    time.sleep(0.02)  # an evaluation, say
    left = ahead.seconds(101)
    assert left is not None
    assert left >= 9 * 0.02
    assert ahead.seconds(110) == 0


def test_an_encoding_without_the_letters_and_a_reader_that_left_stop_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    near, far = os.pipe()
    with open(far, "w", encoding="ascii") as out:
        monkeypatch.setattr(sys, "stdout", out)
        tracker = Tracker(tmp_path, 10, enabled=True)
        evaluate(tracker, TrainState(step=3), scores(HALF))
        out.flush()
        assert b"ref ???? [??] ????" in os.read(near, 1 << 16)
        os.close(near)
        for _ in range(3):
            tracker.say("nobody hears this")
    assert capfd.readouterr().err.count("training goes on") == 1
