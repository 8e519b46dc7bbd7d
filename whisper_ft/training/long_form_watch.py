"""Watch over long recordings: a warning if a long set gets worse while the held-out set gets better.

A model that is fine-tuned on short clips may forget how to transcribe long recordings, and the held-out clips do not
show it.
"""

from collections.abc import Sequence

from whisper_ft.checkpoint.state import TrainState
from whisper_ft.reports.text import percent
from whisper_ft.scoring.bootstrap import Difference, paired_test
from whisper_ft.scoring.comparison import p_value
from whisper_ft.scoring.normalizer import Normalizer
from whisper_ft.scoring.scores import CHARACTERS, Prediction, Scores, score
from whisper_ft.tracking.tracker import Tracker


def warning_about(
    name: str, normalize: Normalizer, now: Scores, held_out: Scores, state: TrainState, tracker: Tracker
) -> str | None:
    """Return the warning about a long set; "" if there is no reason for it, None if nothing can be compared.

    Both sets are compared with their newest common evaluation before. The long set is worse if its headline rate rose
    and a paired bootstrap test finds the change significant. Main rank only.

    Parameters
        name: of the long set.
        normalize: its normaliser.
        now: its scores at this step.
        held_out: scores of the held-out set at this step.
        tracker: has the figures and transcripts of earlier evaluations.
    """
    common = {0, *(step for step, _ in state.evaluated)} & {*state.steps_of_set(name)}
    step = max((step for step in common if step < state.step), default=None)
    figure, rate = held_out.headline
    before = None if step is None else tracker.rate_at(step, figure)
    if step is None or before is None or rate is None:
        return None
    if rate >= before:
        return ""
    change = _change(tracker.predictions_at(step, name), now, normalize)
    if change is None:
        return None
    if change.change <= 0 or not change.is_significant:
        return ""
    assert change.p_value is not None
    return (
        f"warning: {name} got worse, from {now.headline[0].upper()} {percent(change.first)} at step {step} to "
        f"{percent(change.second)} (p = {p_value(change.p_value)}), while the held-out set got better, from "
        f"{percent(before)} to {percent(rate)}"
    )


def _change(before: Sequence[Prediction], now: Scores, normalize: Normalizer) -> Difference | None:
    """Compare the headline rate with that of earlier transcripts; None if these are missing or of other recordings."""
    try:
        test = paired_test(score(before, normalize), now)
    except ValueError:
        return None
    return test.cer if now.unit == CHARACTERS else test.wer
