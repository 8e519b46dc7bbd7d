"""Figures of long recordings, deletions at the ends of windows and valid timestamps, and the warning about them."""

from dataclasses import replace
from pathlib import Path

import pytest

from normalizers import get_normalizer
from tests.test_eval_sets import rows_of
from whisper_ft.checkpoint.state import TrainState
from whisper_ft.reports.long_form_note import long_form_note
from whisper_ft.scoring.long_form_figures import count_timed_deletions
from whisper_ft.scoring.scores import Prediction, Scores, score
from whisper_ft.tracking.tracker import Tracker
from whisper_ft.training.long_form_watch import warning_about

GOLDEN, CHINESE = get_normalizer("golden", language="be"), get_normalizer("golden", language="zh")
FIGURES = ("deletion_rate", "late_deletions", "timestamps")

WINDOWS = [{"begin": 0.0}, {"begin": 20.0}, {"begin": 50.0}]
TEXTS = [(0.0, 17.0, "a b c d"), (17.3, 19.8, "e f"), (20.1, 46.0, "g h"), (46.3, 49.9, "i"), (50.0, 52.0, "k l")]


@pytest.mark.parametrize(
    ("hypothesis", "late", "deleted"),
    [
        ("a b c d e f g h i k l", 0, 0),
        ("a b c d g h i k l", 1, 2),  # e is at 17.925 s, f at 19.175 s, and the last tenth begins at 18 s
        ("a b c d f g h i k l", 0, 1),
        ("a b c d e g h i k l", 1, 1),
        ("b c d e f g h i k l", 0, 1),
        ("a b c d e f g h k l", 1, 1),
        ("a b c d e f g h i k", 0, 1),  # l at 51.5 s of a window until 60 s
        ("", 2, 11),
        ("x a b c d e f g h i k l y z", 0, 0),
    ],
)
def test_deletions_in_the_last_tenth_of_windows_are_counted(hypothesis: str, late: int, deleted: int):
    assert count_timed_deletions(TEXTS, WINDOWS, 60.0, hypothesis, GOLDEN) == (late, deleted)


def test_scripts_without_spaces_are_counted_by_characters_and_nothing_without_times():
    texts = [(0.0, 10.0, "你好 世界"), (10.0, 20.0, "一二三四")]
    assert count_timed_deletions(texts, [{"begin": 0.0}], 20.0, "你好世界一二三", CHINESE) == (1, 1)
    assert count_timed_deletions(None, WINDOWS, 60.0, "a", GOLDEN) is None
    assert count_timed_deletions(texts, None, 20.0, "a", GOLDEN) is None


def long_prediction(name: str, hyp: str, valid: bool | None = True, speaker: str | None = None) -> Prediction:
    window = {"avg_logprob": None, "no_speech_prob": None, "compression_ratio": None, "temperature": 0.0}
    windows = [{**window, **each, "tokens": 3, "is_speech": True, "timestamps": valid} for each in WINDOWS]
    ref = " ".join(text for _, _, text in TEXTS)
    return Prediction(
        name, ref, hyp, 60.0, 9, speaker=speaker, windows=3, window_confidence=windows, ref_segments=TEXTS
    )


def test_the_figures_of_a_set_are_in_its_summary_and_come_back_from_its_records():
    whole = " ".join(text for _, _, text in TEXTS)
    predictions = [
        long_prediction("a", "a b c d e g h i k l"),
        long_prediction("b", whole[2:], valid=False),
        long_prediction("c", whole, valid=None),
    ]
    scores = score(predictions, GOLDEN)
    expected = {"deletion_rate": 2 / 33, "late_deletions": 0.5, "timestamps": 0.5}
    assert {name: scores.summary()[name] for name in FIGURES} == pytest.approx(expected)
    assert not {*FIGURES} & score([Prediction("a", "b", "b", 1.0, 1)], GOLDEN).summary().keys()
    assert "ref_segments" not in score([Prediction("a", "b", "b", 1.0, 1)], GOLDEN).rows[0].record()


def test_the_note_on_screen_page_and_card_has_the_figures_that_are_known():
    figures = {"deletion_rate": 0.031, "late_deletions": 0.18, "timestamps": 0.97}
    assert all(text in long_form_note(figures) for text in ("3.10%", "18%", "97%", "timestamps"))
    assert "timestamps" not in long_form_note({**figures, "timestamps": None, "late_deletions": None})
    assert long_form_note({"wer": 0.1}) == ""


WORDS = " ".join(text for _, _, text in TEXTS)


def long_scores(words: int) -> Scores:
    """Scores of twelve recordings of which the first `words` words were written, more or less."""
    hyps = [" ".join(WORDS.split()[: words - number % 2]) for number in range(12)]
    return score([long_prediction(f"r{number}", hyp) for number, hyp in enumerate(hyps)], GOLDEN)


def held_out_scores(wrong: int) -> Scores:
    return score([Prediction("u", "a b c d", " ".join("abcd"[wrong:]), 1.0, 4)], GOLDEN)


@pytest.mark.parametrize(
    ("held_out", "long", "warned"),
    [
        ((2, 1), (10, 6), True),
        ((2, 1), (10, 10), False),
        ((2, 1), (6, 10), False),
        ((1, 1), (10, 6), False),
        ((1, 2), (10, 6), False),
    ],
)
def test_a_long_set_that_gets_worse_while_the_held_out_set_gets_better_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], held_out: tuple[int, int], long: tuple[int, int], warned: bool
):
    (tmp_path / "predictions").mkdir()
    tracker = Tracker(tmp_path, steps=4, enabled=True, screen="quiet")
    state = TrainState(step=2, evaluated=((2, 0.5),), set_steps={"long": (2,)})
    before, now = (long_scores(words) for words in long)
    assert warning_about("long", GOLDEN, before, held_out_scores(held_out[0]), state, tracker) is None, "the first"
    tracker.log_evaluation(state, held_out_scores(held_out[0]), {"long": before}, "fp32")
    state = replace(state, step=4, evaluated=((2, 0.5), (4, 0.5)), set_steps={"long": (2, 4)})
    line = warning_about("long", GOLDEN, now, held_out_scores(held_out[1]), state, tracker)
    assert bool(line) == warned
    tracker.log_evaluation(state, held_out_scores(held_out[1]), {"long": now}, "fp32", {"long": line or ""})
    assert rows_of(tmp_path)[-1]["long/worse"] is warned
    shown = [text for text in capsys.readouterr().out.splitlines() if "warning" in text]
    assert len(shown) == warned
    assert all("long" in text for text in shown)


def test_a_change_within_the_noise_or_without_earlier_transcripts_is_not_told(tmp_path: Path):
    (tmp_path / "predictions").mkdir()
    tracker = Tracker(tmp_path, steps=4, enabled=True, screen="quiet")
    state = TrainState(step=2, evaluated=((2, 0.5),), set_steps={"long": (2,)})
    better = [long_prediction(f"r{n}", WORDS if n % 2 else WORDS[:9]) for n in range(12)]
    noisy = [long_prediction(f"r{n}", WORDS[:9] if n % 2 else WORDS) for n in range(11)]
    noisy.append(long_prediction("r11", WORDS[:5]))
    tracker.log_evaluation(state, held_out_scores(2), {"long": score(better, GOLDEN)}, "fp32")
    state = replace(state, step=4, evaluated=((2, 0.5), (4, 0.5)), set_steps={"long": (2, 4)})
    arguments = ("long", GOLDEN, score(noisy, GOLDEN), held_out_scores(1), state, tracker)
    assert warning_about(*arguments) == ""
    (tmp_path / "predictions/long/step-00000002.jsonl").unlink()
    assert warning_about(*arguments) is None
