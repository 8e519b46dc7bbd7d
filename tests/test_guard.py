"""Guards against forgetting, without a model: figures, verdicts, and the evaluations that they exclude."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normalizers import get_normalizer
from whisper_ft.checkpoint.set_history import SetHistory
from whisper_ft.checkpoint.state import TrainState
from whisper_ft.config.parse import load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.reports.curves.guard_rows import guard_rows
from whisper_ft.reports.curves.history import read_history
from whisper_ft.reports.curves.overview import curves_page
from whisper_ft.reports.curves.panel import panels_of
from whisper_ft.reports.guard_text import GuardRow, limit_line, note, warning_line
from whisper_ft.runtime.errors import UsageError
from whisper_ft.scoring.bootstrap import paired_test
from whisper_ft.scoring.guard import (
    BETTER,
    RATIOS,
    Guard,
    GuardRule,
    excluded_steps,
    figures_of,
    metric_named,
    paired_interval,
    stopping_verdict,
    worse_by,
)
from whisper_ft.scoring.scores import Prediction, Scores, score
from whisper_ft.tracking.console import set_table
from whisper_ft.tracking.console.set_table import SetTrend
from whisper_ft.training.evaluation import refuse_unknown_names

GOLDEN = get_normalizer("golden", language="en")
REFERENCES = ["one two three four", "five six seven", "eight nine ten eleven twelve", "thirteen fourteen", "", "..."]
WORSE = ["one two three", "Five. six seven", "eight nine ten eleven twelve", "thirteen forty", "you", "thank you"]


def scores_of(texts: Sequence[str], references: Sequence[str] = REFERENCES, **fields: Any) -> Scores:
    rows = [
        Prediction(str(number), reference, text, 30.0, 5, loss=float(len(text)), label_tokens=4, **fields)
        for number, (reference, text) in enumerate(zip(references, texts, strict=True))
    ]
    return score(rows, GOLDEN)


PERFECT = [*REFERENCES[:4], "", ""]


def test_every_ratio_adds_up_to_the_figure_of_the_summary():
    """The interval is of the figure that is shown: its parts give the same number."""
    known = {"is_speech": True, "tokens": 3, "avg_logprob": -0.5, "no_speech_prob": 0.1, "compression_ratio": 1.0}
    windows = [{**known, "temperature": 0.0, "begin": at, "timestamps": at != 10.0} for at in (0.0, 10.0, 20.0)]
    timed = scores_of(WORSE, window_confidence=windows, ref_segments=[(0, 28, "one two three"), (29, 30, "four")])
    seen = set[str]()
    for scores in (scores_of(WORSE), scores_of(PERFECT), timed):
        figures = figures_of(scores)
        for metric in RATIOS.keys() & figures.keys():
            parts = [RATIOS[metric](row, scores) for row in scores.rows]
            value = sum(part[0] for part in parts) / sum(part[1] for part in parts)
            assert value == pytest.approx(figures[metric]), metric
            seen.add(metric)
    assert seen == RATIOS.keys()
    late = figures_of(timed)["late_deletions"]
    assert late
    assert late < 1


def test_the_interval_of_a_rate_is_that_of_the_paired_test():
    before, now = scores_of(PERFECT), scores_of(WORSE)
    test = paired_test(before, now)
    for metric, difference in {"wer": test.wer, "cer": test.cer}.items():
        interval = paired_interval(before, now, metric)
        assert interval is not None
        assert difference is not None
        assert difference.interval is not None
        assert (interval.low, interval.high) == pytest.approx((difference.interval.low, difference.interval.high))
        assert interval.low <= difference.change <= interval.high
    assert paired_interval(before, now, "deletions") is None, "a count"


def test_invented_words_are_counted_by_the_minute_of_the_rows_without_text():
    assert scores_of(PERFECT).invented_words_per_minute == 0
    assert scores_of(WORSE).invented_words_per_minute == 3, "three words in twice 30 s"
    assert scores_of(WORSE[:4], REFERENCES[:4]).invented_words_per_minute is None


def test_case_and_punctuation_count_in_the_orthographic_rates_alone():
    before, now = scores_of(PERFECT), scores_of(["One, two, three, four!", *PERFECT[1:]])
    assert Guard("en", "wer", 0.0).compare(before, now).worse_by == 0
    assert Guard("en", "wer_orthographic", 0.0).compare(before, now).is_outside


@pytest.mark.parametrize("metric", BETTER)
def test_worse_is_positive_in_the_direction_of_each_figure(metric: str):
    better, worse = (0.5, 0.25) if metric in ("hits", "timestamps") else (0.25, 0.5)
    assert worse_by(better, worse, metric) == 0.25
    assert worse_by(worse, better, metric) == -0.25
    assert worse_by(better, better, metric) == 0
    for unknown in (None, math.nan):
        assert worse_by(better, unknown, metric) == math.inf


def test_every_figure_of_a_set_has_a_direction_or_describes_the_set():
    numbers = {name for name, value in scores_of(WORSE).summary().items() if isinstance(value, int | float)}
    described = {"utterances", "scored_utterances", "words", "chars", "empty_references", "audio_seconds"}
    described |= {"unheard", "utterances_without_loss", "no_speech_windows"}
    assert numbers - BETTER.keys() == described


@pytest.mark.parametrize(("before", "now", "outside"), [(0.11, 0.12, False), (0.02, 0.03, False), (0.1, 0.1101, True)])
def test_a_change_of_just_the_limit_is_inside(before: float, now: float, outside: bool):
    verdict = Guard("en", "wer", 0.01).verdict({"wer": before}, {"wer": now})
    assert verdict.is_outside is outside
    assert verdict.change == pytest.approx(now - before)
    assert verdict.limit == pytest.approx(before + 0.01)


def test_a_verdict_is_words_and_json():
    guard = Guard("en", "wer", 0.01, "no_best")
    verdict = guard.compare(scores_of(PERFECT), scores_of(WORSE))
    summary = json.loads(json.dumps(verdict.summary(), allow_nan=False))
    assert (summary["outside"], summary["guard"], summary["rule"]) == (True, "wer", "no_best")
    assert summary["worse_by"] == pytest.approx(2 / 14)
    assert all(text in warning_line(verdict) for text in ("en", "WER 14.29%", "+14.29", "+1.00", "docs/forgetting.md"))
    assert verdict.interval is not None
    low, high = (f"{100 * end:+.2f}" for end in (verdict.interval.low, verdict.interval.high))
    assert all(text in note(verdict) for text in ("+14.29", low, high, "+1.00", "outside"))
    assert "at most 1.00%" in limit_line(verdict)
    row = GuardRow.of("en", {"step": 3, "wer": verdict.now, **summary})
    assert row is not None
    assert (row.start, row.now, row.is_outside) == ("0.00%", "14.29%", True)
    lost = replace(verdict, now=None)
    assert lost.is_outside
    assert json.loads(json.dumps(lost.summary(), allow_nan=False))["worse_by"] is None
    assert "n/a" in warning_line(lost)
    share = Guard("talks", "timestamps", 0.05).verdict({"timestamps": 1.0}, {"timestamps": 0.2})
    assert "at least 95.00%" in limit_line(share)


def test_the_console_shows_the_change_and_its_limit():
    guard = Guard("en", "wer", 0.01, "no_best")
    before, now = scores_of(PERFECT), scores_of(WORSE)
    trends = [SetTrend("en", now, [], guard.compare(before, now)), SetTrend("de", now, [])]
    first, second = set_table.lines(2, 4, trends)
    assert "; guard +14.29 (" in first
    assert first.endswith(" of +1.00, outside")
    assert "guard" not in second
    for sets, columns in ((trends, 8), (trends[1:], 7)):
        assert len(set_table.table(2, 4, sets).columns) == columns


def test_a_metric_is_named_by_its_set():
    assert [metric_named("auto", unit) for unit in ("words", "characters")] == ["wer", "cer"]  # type: ignore[arg-type]
    assert metric_named("loss", "words") == "eval_loss"
    for name in ("utterances", "bleu", "unit"):
        with pytest.raises(ValueError, match=name):
            metric_named(name, "words")


def judged(steps: Sequence[tuple[float, float]], limit: float, rule: GuardRule = "no_best") -> TrainState:
    """The state of a run whose evaluations, at steps 1, 2 and so on, have these figures: held-out set and guard."""
    guard = Guard("en", "wer", limit, rule)
    state = TrainState(set_history=SetHistory().with_figures(0, {"en": {"wer": 0.5}}))
    for step, (value, guarded) in enumerate(steps, start=1):
        history = state.set_history.with_figures(step, {"en": {"wer": guarded}})
        state = replace(state, step=step, set_history=history)
        excluded = excluded_steps([guard], history.figures, [step])
        state = state.after_evaluation("wer", value, is_excluded=bool(excluded))
    return state


RATE = st.integers(0, 20).map(lambda points: points / 20)
RUN = st.lists(st.tuples(RATE, RATE), max_size=8)


@given(RUN, RATE, RATE)
def test_a_changed_limit_gives_the_choice_of_a_run_with_that_limit_from_the_start(
    steps: list[tuple[float, float]], then: float, now: float
):
    state, whole = judged(steps, then), judged(steps, now)
    excluded = excluded_steps([Guard("en", "wer", now, "no_best")], state.set_history.figures, range(1, len(steps) + 1))
    again = state.judged_anew(excluded, [], "wer")
    assert again == whole
    assert again.out_of_patience(2) == whole.out_of_patience(2)
    assert again.best_steps(3) == whole.best_steps(3)
    fit = [(value, step) for step, (value, guarded) in enumerate(steps, 1) if guarded <= 0.5 + now + 1e-9]
    assert (again.best and (again.best.value, again.best.step)) == min(fit, default=None)


@given(RUN, RATE, st.randoms())
def test_the_order_in_which_figures_come_does_not_matter(steps: list[tuple[float, float]], limit: float, order: Any):
    history = [(0, {"wer": 0.5}), *((step, {"wer": guarded}) for step, (_, guarded) in enumerate(steps, 1))]
    shuffled = list(history)
    order.shuffle(shuffled)
    guards = [Guard("en", "wer", limit, "no_best")]
    places = range(1, len(steps) + 1)
    assert excluded_steps(guards, {"en": history}, places) == excluded_steps(guards, {"en": shuffled}, places)


def test_a_guard_that_warns_excludes_nothing_and_only_one_that_stops_ends_a_run():
    history = {"en": [(0, {"wer": 0.1}), (4, {"wer": 0.3}), (8, {"wer": 0.1})]}
    for rule, excluded in {"warn": (), "no_best": (4, 6), "stop": (4, 6)}.items():
        guards = [Guard("en", "wer", 0.1, rule)]  # type: ignore[arg-type]
        assert excluded_steps(guards, history, [2, 4, 6, 8]) == excluded, "the newest figure at or before the step"
        assert [stopping_verdict(guards, history, step) is not None for step in (2, 4, 8)] == [
            False,
            rule == "stop",
            False,
        ]
    unmeasured = {"en": [(4, {"wer": 0.3})]}
    assert excluded_steps([Guard("en", "wer", 0.1, "stop")], unmeasured, [4]) == (), "without the start model"


def test_an_evaluation_without_weights_gives_way_to_the_next_best():
    state = judged([(0.3, 0.9), (0.4, 0.5), (0.5, 0.5)], limit=0.0)
    assert (state.best and state.best.step, state.excluded) == (2, (1,))
    loose = state.judged_anew([], [1], "wer")
    assert (loose.best and loose.best.step, loose.excluded) == (2, ())
    assert loose.judged_anew([], [], "wer").best_steps(1) == [1]


def test_a_state_with_figures_survives_json_and_an_older_one_has_none():
    state = judged([(0.3, 0.9), (0.4, math.nan)], limit=0.0)
    assert state.set_history.of("en")[-1] == (2, {"wer": None}), "JSON has no NaN"
    assert TrainState.from_json(json.loads(json.dumps(state.to_json()))) == state
    old = {name: value for name, value in state.to_json().items() if name not in ("set_history", "excluded")}
    assert TrainState.from_json(old).set_history == SetHistory()
    assert state.reset_set("en").set_history.of("en") == ()
    for wrong in (
        {},
        {"figures": {"en": [[1, {"wer": "x"}]]}, "start_weights": None},
        {"figures": 3, "start_weights": 1},
    ):
        with pytest.raises(ValueError, match="set_history"):
            TrainState.from_json({**state.to_json(), "set_history": wrong})


@pytest.mark.parametrize(
    ("one", "more", "facts"),
    [
        ("rule: no_best", "", ["eval.sets: en", "rule", "no_best", "max_worse"]),
        ("metric: wer", "", ["eval.sets: en", "metric", "wer", "max_worse"]),
        ("max_worse: -0.1", "", ["max_worse", "-0.1"]),
        ("max_worse: .inf", "", ["max_worse", "inf"]),
        ("max_worse: .nan", "", ["max_worse", "nan"]),
        ("max_worse: a lot", "", ["eval.sets", "a lot"]),
        ("max_worse: 1, rule: halt", "", ["rule", "halt"]),
        ("max_worse: 1, every: 0", "", ["eval.sets: en", "max_worse", "every"]),
        ("max_worse: 1", "--eval.every 0", ["eval.sets: en", "max_worse", "eval.every"]),
        ("max_worse: 1, rule: no_best", "--eval.path=", ["no_best", "eval.path"]),
        ("max_worse: 1, metric: bleu", "", ["eval.sets: en: metric", "bleu", "wer"]),
        ("max_worse: 1, metric: utterances", "", ["eval.sets: en: metric", "utterances"]),
        ("max_worse: 1, metric: timestamps", "", ["eval.sets: en: metric", "timestamps", "long"]),
        ("max_worse: 1, metric: loss", "--eval.with_loss false", ["eval.sets: en: metric", "loss", "eval.with_loss"]),
        ("max_worse: 1, metric: loss, long: given", "", ["eval.sets: en: metric", "loss", "long"]),
    ],
)
def test_a_guard_that_cannot_work_is_refused_in_one_line(one: str, more: str, facts: list[str]):
    argv = ["--data.path", "x", "--eval.path", "y", "--eval.sets", f"[{{name: en, path: z, {one}}}]"]
    if more == "--eval.path=":
        argv = [*argv[:2], *argv[4:]]
    else:
        argv += more.split()
    with pytest.raises(UsageError) as refused:
        refuse_unknown_names(load_config(TrainingConfig, argv), get_normalizer)
    assert all(fact in str(refused.value) for fact in facts), str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_guard_may_stop_a_run_without_a_held_out_set():
    argv = ["--data.path", "x", "--eval.sets", "[{name: en, path: z, max_worse: 0.01, rule: stop}]"]
    config = load_config(TrainingConfig, argv)
    refuse_unknown_names(config, get_normalizer)
    assert config.eval.sets[0].rule == "stop"


def test_curves_show_the_figure_of_a_guard_with_its_limit_and_the_start_model(tmp_path: Path):
    guard = Guard("en", "wer", 0.05, "no_best")
    rows: list[dict[str, Any]] = []
    for step, rate in ((0, 0.1), (10, 0.12), (20, 0.3)):
        verdict = guard.verdict({"wer": 0.1}, {"wer": rate}).summary()
        row = {"step": step, "en/wer": rate, "en/cer": rate / 2}
        rows.append(row | {f"en/{name}": value for name, value in verdict.items()})
    rows.append({"event": "start_model", "step": 0, "de/wer": 0.3, "de/cer": 0.2})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    history = read_history(tmp_path)
    (panel,) = [panel for panel in panels_of([history]) if panel.guard]
    assert panel.fields == ("wer", "limit", "reference")
    assert list(panel.curve(history).values("limit")) == pytest.approx([0.15] * 3)
    assert [row["step"] for row in history.sets["en"].rows] == [0, 10, 20]
    page = curves_page({"run": history}, "Run", 0.0)
    assert "outside" in page
    assert [(row.name, row.is_outside) for row in guard_rows(history, 15)] == [("en", False)]
    assert [(row.name, row.is_outside) for row in guard_rows(history, 25)] == [("en", True)]
