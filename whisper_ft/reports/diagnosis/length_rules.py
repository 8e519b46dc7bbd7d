"""Rules about a run that learned too little: warm-up, scale of an adapter, learning rate, number of steps."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from whisper_ft.reports.diagnosis.loss_curve import number
from whisper_ft.reports.diagnosis.rate_rules import RATE_TOO_HIGH, usual_rate
from whisper_ft.reports.diagnosis.run_facts import RunFacts
from whisper_ft.reports.diagnosis.run_finding import RunFinding
from whisper_ft.reports.text import percent

EXPLAINED = {RATE_TOO_HIGH, "truncated_labels", "other_domain", "suppressed_characters"}
"""Kinds that explain a poor rate at the end of a run that may be long enough."""
LONG_WARMUP = 0.35  # share of a run; 0.1 is usual, 0.2 the most that an adapter bears
MOSTLY_WARMUP = 0.6  # share of a run that is too long, whatever the result
SMALL_SCALE, LARGE_SCALE = 0.25, 8.0  # alpha / r of an adapter; 1 or 2 is usual
SMALL_ROOT_SCALE, LARGE_ROOT_SCALE = 1.0, 64.0  # alpha / sqrt(r) with adapter.rslora; 8 to 16 is usual
LOW_SHARE = 0.2  # of the usual rate for a model
MANY_PASSES = 5  # over the data; a rate at which a loss still falls steadily after so many is low
FELL_LITTLE = 0.6  # relative fall of the training loss over a run; a higher rate makes it fall further in many passes
MEMORY_PASSES = 2  # over the data, after which the training loss falls by memory
LATE = 0.25  # share of the run at whose end the loss is compared
FALLING = ((0.15, 0.25), (0.4, 0.08), (0.9, 0.03))
"""Main rate above which, and relative fall of the loss in the last quarter from which, a run ended too early."""
FALLING_UNSEEN = 0.3  # the same fall, without an evaluation
UNMOVED = 0.1  # relative fall of the loss in a whole run that hardly learned
UNMOVED_STEPS = 30
FEW_STEPS = 50  # updates; the shortest recipe has 200
ROOM = 0.2  # main rate above which a run that hardly learned is worth a word
GAP = 1.5  # ratio of held-out to training loss; more is no lack of steps


class LateFall(NamedTuple):
    """Fall of a loss over the last quarter of a run."""

    name: str
    before: float
    after: float

    @property
    def share(self) -> float:
        """Fall relative to the loss before."""
        return 1 - self.after / self.before


def learned_too_little(facts: RunFacts, known: Sequence[str]) -> Iterator[RunFinding]:
    """Yield the reason why a run learned too little, one finding at most beside that of an adapter's scale.

    A run that goes on is judged by its settings alone.
    """
    is_judged = facts.is_over and not EXPLAINED & {*known}
    is_short = is_judged and (_still_falling(facts) or _hardly_moved(facts) or _hardly_began(facts))
    signs = list(_signs(facts)) if is_short else []
    scale = _adapter_scale(facts, signs, unstable=RATE_TOO_HIGH in known)
    warmup = _warmup(facts, signs)
    yield from (finding for finding in (scale, warmup) if finding)
    if signs and not (scale or warmup):
        yield _rate_too_low(facts, signs) or _too_few_steps(facts, signs)


def late_fall(facts: RunFacts) -> LateFall | None:
    """Return the fall of the held-out loss over the last quarter, or else of the main rate, or of the training loss.

    A figure of the held-out set is taken if it was evaluated in the second half of the run, before its end. The
    training loss says nothing after two passes over the data, because it then falls by memory.
    """
    end = facts.step
    rates = [(row["step"], rate) for row in facts.evaluations if (rate := facts.rate(row))]
    for name, points in (("held-out loss", facts.held_out_losses), (f"held-out {facts.headline.upper()}", rates)):
        if any(0.5 * end <= step < 0.95 * end for step, _ in points) and points[-1][0] >= 0.95 * end:
            steps, values = zip(*points, strict=True)
            return LateFall(name, math.exp(float(np.interp((1 - LATE) * end, steps, np.log(values)))), values[-1])
    passes = facts.passes(end)
    middle, last = facts.loss.between(0.65 * end, 0.8 * end), facts.loss.between(0.9 * end, end)
    if middle is None or last is None or (passes is not None and passes > MEMORY_PASSES):
        return None
    return LateFall("training loss", middle, last)


def _still_falling(facts: RunFacts) -> bool:
    fall = late_fall(facts)
    if fall is None or _has_gap(facts):
        return False
    rate = facts.last_rate
    if rate is None:
        return fall.share >= FALLING_UNSEEN
    return any(rate > least and fall.share >= share for least, share in FALLING)


def _hardly_moved(facts: RunFacts) -> bool:
    """Return True if the training loss fell by less than a tenth, although there was room for more."""
    rate, blocks = facts.last_rate, facts.loss.blocks()
    if facts.step < UNMOVED_STEPS or len(blocks) < 2 or (rate is not None and rate < ROOM):
        return False
    start, losses = facts.start_loss, facts.held_out_losses
    held_out_fell = bool(start and losses and 1 - losses[-1][1] / start >= UNMOVED)
    return _fall_of_run(facts) < UNMOVED and not held_out_fell


def _hardly_began(facts: RunFacts) -> bool:
    """Return True for a run of a few updates that did not see all of its data, although there was room for more."""
    rate, passes = facts.last_rate, facts.passes(facts.step)
    is_short = facts.step < FEW_STEPS and passes is not None and passes < 1 and facts.step == facts.planned_steps
    return is_short and rate is not None and rate > ROOM


def _fall_of_run(facts: RunFacts) -> float:
    """Return the relative fall of the training loss from the first block to the last; 0 for a short log."""
    blocks = facts.loss.blocks()
    return 1 - blocks[-1].mean / blocks[0].mean if blocks else 0.0


def _has_gap(facts: RunFacts) -> bool:
    losses, train = facts.held_out_losses, facts.loss.near(facts.step)
    return bool(losses and train and losses[-1][1] > GAP * train)


def _signs(facts: RunFacts) -> Iterator[str]:
    fall, rate = late_fall(facts), facts.last_rate
    if fall is not None:
        yield (
            f"the {fall.name} was {fall.before:.3g} at three quarters of the run and {fall.after:.3g} at the end, "
            f"{percent(fall.share, 0)} less"
        )
    blocks = facts.loss.blocks()
    if blocks:
        yield f"the training loss went from {blocks[0].mean:.3g} to {blocks[-1].mean:.3g} in {facts.step:,} steps"
    if rate is not None:
        yield f"the held-out {facts.headline.upper()} is {percent(rate)} at the end"
    if (passes := facts.passes(facts.step)) is not None:
        yield f"each row was used {passes:.2g} times"


def _adapter_scale(facts: RunFacts, signs: Sequence[str], *, unstable: bool) -> RunFinding | None:
    """Return a finding about the scale of an adapter, or about a rate that suits all weights but not an adapter."""
    alpha, r = number(facts.setting("adapter.alpha")), number(facts.setting("adapter.r"))
    if not facts.has_adapter or alpha is None or not r:
        return None
    root = bool(facts.setting("adapter.rslora", False))
    scale = alpha / (math.sqrt(r) if root else r)
    low, high = (SMALL_ROOT_SCALE, LARGE_ROOT_SCALE) if root else (SMALL_SCALE, LARGE_SCALE)
    formula = "alpha / sqrt(r)" if root else "alpha / r"
    usual = 2 * (math.sqrt(r) if root else r)
    shown = f"adapter.alpha {alpha:g} and adapter.r {r:g} give the scale {formula} = {scale:.3g}"
    if low <= scale <= high:
        return None
    is_small = scale < low
    effect = "hardly has an effect" if is_small else "is strong, so small updates change much"
    return RunFinding(
        "adapter_scale",
        "serious" if signs or unstable else "notice",
        f"The scale of the adapter is unusual: its product {effect}.",
        (shown, f"usual is {formula} from {low:g} to {high:g}", *signs),
        (
            f"set adapter.alpha: {usual:.3g} for adapter.r {r:g}",
            "a new run is needed: a resumed one keeps the scale",
        ),
    )


def _warmup(facts: RunFacts, signs: Sequence[str]) -> RunFinding | None:
    """Return a finding about a warm-up that takes much of the run."""
    steps, given = facts.planned_steps, number(facts.setting("schedule.warmup"))
    if not steps or given is None:
        return None
    warmup = given * steps if given < 1 else given
    share = warmup / steps
    if share < LONG_WARMUP or (share < MOSTLY_WARMUP and not signs):
        return None
    peak, logged = facts.peak_rate, [number(row.get("lr")) for row in facts.history.logged.rows]
    highest = max((rate for rate in logged if rate is not None), default=None)
    evidence = [f"schedule.warmup is {warmup:,.0f} of {steps:,} updates, {percent(share, 0)}"]
    if peak and highest is not None and warmup >= steps:
        evidence.append(f"the rate never reached optim.lr {peak:g}; the highest was {highest:.3g}")
    return RunFinding(
        "warm_up_too_long",
        "serious" if signs or warmup >= steps else "notice",
        "The warm-up is too long: most of the run had a rate far below optim.lr, and little time to decay.",
        (*evidence, *signs),
        ("set schedule.warmup: 0.1 (a share of the run), or 0.05 for an adapter",),
    )


def _rate_too_low(facts: RunFacts, signs: Sequence[str]) -> RunFinding | None:
    """Return a finding about a low rate: far below the usual one, or after many passes over the data."""
    peak, usual, passes = facts.peak_rate, usual_rate(facts), facts.passes(facts.step)
    if peak is None:
        return None
    reasons = []
    if usual is not None and peak < LOW_SHARE * usual:
        reasons.append(f"optim.lr is {peak:g}; {usual:g} is usual for {'an adapter' if facts.has_adapter else 'it'}")
    elif passes is not None and passes >= MANY_PASSES and _fall_of_run(facts) < FELL_LITTLE:
        reasons.append(f"optim.lr is {peak:g}, and {passes:.2g} passes over the data were not enough for it")
    elif not (_hardly_moved(facts) and usual is None):
        return None
    return RunFinding(
        "rate_too_low",
        "serious",
        "The learning rate is probably too low: the loss fell slowly and was still falling at the end.",
        (*signs, *reasons),
        (
            f"raise optim.lr: {usual:g}" if usual and peak < usual else f"raise optim.lr: {3 * peak:.2g}",
            "or train for more steps (steps, epochs)",
        ),
    )


def _too_few_steps(facts: RunFacts, signs: Sequence[str]) -> RunFinding:
    return RunFinding(
        "too_few_steps",
        "serious",
        "The run was too short: the model was still improving when it ended.",
        tuple(signs),
        (
            f"train longer: --steps {2 * facts.step} or more. A new run is best, because its rate falls over its whole "
            "length; the same command with --allow_change '[steps]' continues this one",
        ),
    )
