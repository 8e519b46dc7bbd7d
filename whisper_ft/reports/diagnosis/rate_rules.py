"""Rules about a learning rate that is too high: a loss that jumps, skipped updates, and a model that got worse."""

import math
from collections.abc import Iterator, Sequence

from whisper_ft.reports.diagnosis.loss_curve import number
from whisper_ft.reports.diagnosis.run_facts import RunFacts
from whisper_ft.reports.diagnosis.run_finding import RunFinding
from whisper_ft.reports.text import percent
from whisper_ft.runtime.exit_codes import NON_FINITE
from whisper_ft.scoring.bootstrap import paired_test
from whisper_ft.scoring.scores import CHARACTERS

RATE_TOO_HIGH = "rate_too_high"

JUMP = 1.3  # ratio of a later block of the loss to the lowest one before it
JUMP_NATS = 0.15  # least size of a jump; a loss near 0 may double by chance
ABOVE_START = 1.2  # ratio of the training loss at the end to the held-out loss of the start model
SKIPPED_SHARE = 0.02  # of all updates; a loss scale that searches its value skips fewer
SKIPPED_LEAST = 5  # updates
CLEARLY_WORSE = 0.02  # of a rate, if there are no transcripts for a paired test
FLAT = 0.03  # relative fall of the loss in the second half of a run that does not learn any more
NOT_LEARNED = 0.9  # rate of a model that recognises next to nothing
FEW_TEXTS = 0.35  # share of different transcripts, below which the model hardly listens to the audio

USUAL_RATES = {384: 3e-5, 512: 3e-5, 768: 1e-5, 1024: 5e-6, 1280: 5e-6}
"""Peak rate for all weights by the width of OpenAI's models, as in docs/recipes.md."""
USUAL_ADAPTER_RATE = 1e-4
"""Peak rate for an adapter, as `optim.lr: auto` chooses it."""


def usual_rate(facts: RunFacts) -> float | None:
    """Return the usual peak rate for the model of a run; None for a model that is not one of OpenAI's sizes."""
    if facts.width not in USUAL_RATES:
        return None
    return USUAL_ADAPTER_RATE if facts.has_adapter else USUAL_RATES[facts.width]


def rate_too_high(facts: RunFacts, known: Sequence[str]) -> Iterator[RunFinding]:
    """Yield a finding if the weights were thrown about: by a jump, skipped updates, or a model worse than the start."""
    signs = [*_jump(facts), *_above_start(facts), *_skipped(facts)]
    if not {"truncated_labels", "other_domain"} & {*known}:
        signs += [*_stuck(facts), *_harmed(facts)]
    if not signs:
        return
    peak, usual = facts.peak_rate, usual_rate(facts)
    if peak is not None and usual is not None and peak > 3 * usual:
        signs.append(f"optim.lr is {peak:g}; {usual:g} is usual for this model")
    rates = "a third of it, then a tenth" if peak is None else f"such as {peak / 3:.2g}, then {peak / 10:.2g}"
    yield RunFinding(
        RATE_TOO_HIGH,
        "serious",
        "The learning rate is probably too high: the updates destroyed abilities of the model.",
        tuple(signs),
        (
            f"lower optim.lr: {rates}" + (f"; {usual:g} is usual" if usual else ""),
            "lengthen the warm-up a little, such as schedule.warmup 0.1, if the loss jumped at the beginning",
            "start a new run: a resumed one goes on from the damaged weights",
        ),
    )


def _jump(facts: RunFacts) -> Iterator[str]:
    rise = facts.loss.largest_rise()
    if rise is None or rise.ratio < JUMP or rise.high.mean - rise.low.mean < JUMP_NATS:
        return
    yield (
        f"the training loss rose from {rise.low.mean:.3g} (steps {rise.low.begin} to {rise.low.end}) to "
        f"{rise.high.mean:.3g} (steps {rise.high.begin} to {rise.high.end})"
    )


def _above_start(facts: RunFacts) -> Iterator[str]:
    """Yield a line if the model ends with a higher loss on its own training data than it began with elsewhere."""
    start, end = facts.start_loss, facts.loss.near(facts.step)
    smoothing = number(facts.setting("loss.label_smoothing")) or 0.0
    if start is None or end is None or smoothing or len(facts.loss) < 2:
        return
    later = [value for _, value in facts.held_out_losses]
    if end > ABOVE_START * start and (not later or min(later) > start):
        yield f"the start model had a held-out loss of {start:.3g}; the training loss is {end:.3g} at step {facts.step}"


def _skipped(facts: RunFacts) -> Iterator[str]:
    skipped = [value for row in facts.history.logged.rows if (value := number(row.get("skipped"))) is not None]
    count = max([*skipped, float(facts.record.state.skipped if facts.record else 0)])
    if facts.status.get("exit_code") == NON_FINITE:
        reason = facts.status.get("reason") or "gradients stayed non-finite"
        yield f"the run ended with exit code {NON_FINITE}: {reason}"
    elif count >= SKIPPED_LEAST and count > SKIPPED_SHARE * max(facts.step, 1):
        yield f"{count:.0f} of {facts.step:,} updates were skipped, because their gradient was not finite"


def _stuck(facts: RunFacts) -> Iterator[str]:
    """Yield a line if the loss fell soon and then stayed, at full rate, while the model recognises nothing."""
    rate, blocks = facts.last_rate, facts.loss.blocks()
    if rate is None or rate < NOT_LEARNED or len(blocks) < 4 or not _ignores_audio(facts):
        return
    half = blocks[len(blocks) // 2 :]
    first, middle, last = blocks[0].mean, half[0].mean, half[-1].mean
    fell, falls = first - min(middle, last), 1 - last / middle
    noise = facts.loss.noise_of_mean(min(half[0].rows, half[-1].rows))
    if fell > 0.2 * first and falls < max(FLAT, 2 * noise):
        yield (
            f"the training loss fell to {middle:.3g} by step {half[0].begin} and hardly moved after that "
            f"({last:.3g} at the end), while the {facts.headline.upper()} is {percent(rate)}"
        )


def _ignores_audio(facts: RunFacts) -> bool:
    """Return True if the newest transcripts are few different texts; also True without transcripts."""
    return facts.last_texts is None or different_share(facts) < FEW_TEXTS


def different_share(facts: RunFacts) -> float:
    """Return the share of different texts among the newest transcripts, beside that of the references; 1 without any.

    A set in which many people read the same few sentences has few different references, too.
    """
    scores = facts.last_texts
    rows = [row for row in scores.rows if row.is_scored] if scores else []
    if len(rows) < 2:
        return 1.0
    return len({row.hyp_norm for row in rows}) / max(len({row.ref_norm for row in rows}), 1)


def _harmed(facts: RunFacts) -> Iterator[str]:
    """Yield a line if the training loss fell while the held-out set got worse than under the start model."""
    if not is_worse_than_start(facts) or not facts.loss:
        return
    losses, start_loss = facts.held_out_losses, facts.start_loss
    if losses and start_loss is not None and losses[-1][1] < 0.98 * start_loss:
        return  # the model predicts the references better, so its weights are no worse: loops, or another spelling
    passes = facts.passes(facts.step)
    if passes is not None and passes > 3 and losses and losses[-1][1] > 1.15 * min(value for _, value in losses):
        return  # overfitting
    name, first, end = facts.headline.upper(), facts.loss.values[0], facts.loss.near(facts.step)
    yield (
        f"the held-out {name} was {percent(facts.rate(facts.start))} under the start model and is "
        f"{percent(facts.last_rate)}, while the training loss went from {first:.3g} to {end:.3g}"
    )


def is_worse_than_start(facts: RunFacts) -> bool:
    """Return True if every evaluation has a higher main rate than the start model, and the newest one clearly so.

    A paired bootstrap test decides if there are transcripts of both.
    """
    start, rates = facts.rate(facts.start), [facts.rate(row) for row in facts.evaluations]
    known = [rate for rate in rates if rate is not None]
    if start is None or not known or min(known) <= start or not math.isfinite(start):
        return False
    before, now = facts.texts.get(0), facts.last_texts
    if before is None or now is None:
        return known[-1] > start + CLEARLY_WORSE
    try:
        test = paired_test(before, now)
    except ValueError:
        return known[-1] > start + CLEARLY_WORSE
    difference = test.cer if now.unit == CHARACTERS else test.wer
    return difference is not None and difference.change > 0 and difference.is_significant
