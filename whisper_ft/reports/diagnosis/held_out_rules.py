"""Rules that compare the training loss with the held-out set: overfitting, another domain, leakage, patience, noise."""

from collections.abc import Iterator, Sequence

from whisper_ft.reports.diagnosis.length_rules import late_fall
from whisper_ft.reports.diagnosis.loss_curve import number
from whisper_ft.reports.diagnosis.rate_rules import RATE_TOO_HIGH
from whisper_ft.reports.diagnosis.run_facts import RunFacts
from whisper_ft.reports.diagnosis.run_finding import RunFinding
from whisper_ft.reports.diagnosis.transcript_rules import TRUNCATED_LABELS
from whisper_ft.reports.text import percent, percent_range
from whisper_ft.runtime.printable import counted
from whisper_ft.scoring.bootstrap import Interval, confidence, paired_test
from whisper_ft.scoring.scores import CHARACTERS, Scores

OTHER_DOMAIN = "other_domain"

RISE = 1.15  # ratio of the last held-out loss to the lowest one
MEMORISED = 0.5  # ratio of training to held-out loss of a model that knows its data by heart
DEEPLY_MEMORISED = 0.2  # the same, without a rise of the held-out loss
MEMORISING_PASSES = 8  # over the data
STILL_BETTER = 0.97  # ratio of the last rate to that at the lowest loss; below it the model still got better
EARLY_GAPS = ((3.0, 2.0), (6.0, 3.0))
"""Passes over the data up to which, and ratio of held-out to training loss from which, the sets differ in kind."""
EARLY_GAP_NATS = 0.3
LITTLE_GAIN = 0.8  # ratio of the rate to that of the start model
FAMILIAR = 0.9  # ratio of held-out to training loss of a set that is part of the training data
FAMILIAR_RATE = 0.02  # main rate
FAMILIAR_PASSES = 3
FEW_WORDS = 100  # words (or characters) of a set that is too small for any choice
WIDE = 0.5  # width of the interval, relative to the rate
HIGH_RATE = 0.5  # learning rate at the end, relative to its peak


def overfitting(facts: RunFacts, known: Sequence[str]) -> Iterator[RunFinding]:
    """Yield a finding if the held-out loss rises, or stays high, while the model learns its data by heart."""
    losses, train, passes = facts.held_out_losses, facts.loss.near(facts.step), facts.passes(facts.step)
    if {RATE_TOO_HIGH, TRUNCATED_LABELS, OTHER_DOMAIN} & {*known} or len(losses) < 2 or train is None:
        return
    low_step, low = min(losses, key=lambda pair: pair[1])
    last_step, last = losses[-1]
    rises = last_step > low_step and last >= RISE * low and train <= MEMORISED * last
    is_deep = train <= DEEPLY_MEMORISED * last and passes is not None and passes >= MEMORISING_PASSES
    if not rises and not (is_deep and late_fall_is_small(facts)):
        return
    rates = {row["step"]: facts.rate(row) for row in facts.evaluations}
    then, now = rates.get(low_step), rates.get(last_step)
    if then is not None and now is not None and (now < STILL_BETTER * then or now < FAMILIAR_RATE):
        return  # Whisper's WER often still falls while its loss rises
    name, used = facts.headline.upper(), "" if passes is None else f"; each row was used {passes:.0f} times"
    yield RunFinding(
        "overfitting",
        "serious",
        "The model learns its training data by heart: that no longer helps on the held-out set.",
        (
            f"the training loss is {train:.3g} at the end, the held-out loss {last:.3g}{used}",
            f"the held-out loss was lowest at step {low_step:,} ({low:.3g})",
            f"the held-out {name} was {percent(then)} then and is {percent(now)}",
        ),
        (
            f"train for about {low_step:,} steps, or set eval.patience",
            "use more data; or model.dropout 0.1, augment.* and model.freeze [encoder]",
        ),
    )


def late_fall_is_small(facts: RunFacts) -> bool:
    """Return True unless the held-out loss still fell by 5 % in the last quarter."""
    fall = late_fall(facts)
    return fall is None or fall.share < 0.05


def another_domain(facts: RunFacts, known: Sequence[str]) -> Iterator[RunFinding]:
    """Yield a finding if the held-out loss is far above the training loss before any row can be known by heart."""
    if TRUNCATED_LABELS in known:
        return
    for step, held_out in facts.held_out_losses:
        passes, train = facts.passes(step), facts.loss.near(step)
        if passes is None or train is None:
            continue
        least = next((ratio for limit, ratio in EARLY_GAPS if passes <= limit), None)
        has_learned = facts.start_loss is None or train < facts.start_loss
        if least is None or held_out < max(least * train, train + EARLY_GAP_NATS) or not has_learned:
            continue
        evidence = [
            f"at step {step:,}, after {passes:.2g} passes over the data, the training loss is {train:.3g} and the "
            f"held-out loss {held_out:.3g}"
        ]
        start, now = facts.rate(facts.start), facts.last_rate
        if start is not None and now is not None:
            little = ", hardly better" if now >= LITTLE_GAIN * start else ""
            name = facts.headline.upper()
            evidence.append(
                f"the held-out {name} was {percent(start)} under the start model and is {percent(now)}{little}"
            )
        yield RunFinding(
            OTHER_DOMAIN,
            "serious",
            "The held-out set is of another kind than the training data: sound, speakers, subject or language.",
            (*evidence, *_unknown_words(facts)),
            (
                "add training data like the held-out set, or choose a held-out set like the later use",
                "for other sound (telephone, rooms, noise): augment.waveform; docs/augmentation.md",
                "listen to both: `python -m whisper_ft doctor --out DIR` plays samples",
            ),
        )
        return


def _unknown_words(facts: RunFacts) -> Iterator[str]:
    """Yield a line about words of the held-out set that the sample of the training data lacks."""
    scores = facts.last_texts
    if facts.sample is None or scores is None or scores.unit == CHARACTERS:
        return
    heard = {word.strip('.,!?;:«»“”"()').casefold() for one in facts.sample.texts for word in one.text.split()}
    words = [word for row in scores.rows for word in row.ref_norm.split()]
    unknown = [word for word in words if word not in heard]
    if words and len(unknown) > 0.2 * len(words):
        yield (
            f"{percent(len(unknown) / len(words), 0)} of the held-out words are not in "
            f"{counted(len(facts.sample.texts), 'sampled training transcript')}, such as {', '.join(unknown[:5])}"
        )


def leakage(facts: RunFacts, known: Sequence[str]) -> Iterator[RunFinding]:
    """Yield a finding if recordings are in both sets, or if the held-out set behaves like training data."""
    sample = facts.sample
    if sample is not None and sample.leaks:
        yield _leak(
            "serious",
            (f"{sample.leaked_rows:,} of {counted(sample.held_out_rows, 'held-out row')}", *sample.leaks),
        )
        return
    losses, train, passes = facts.held_out_losses, facts.loss.near(facts.step), facts.passes(facts.step)
    rate = facts.last_rate
    if sample is not None and sample.held_out_rows:
        shared = sample.shared_sentences / sample.held_out_rows
        if shared >= 0.5:
            line = f"{percent(shared, 0)} of the held-out sentences are in the training data, read by anybody"
            yield _leak("notice", (line,))
        return
    if not losses or train is None or passes is None or rate is None or passes < FAMILIAR_PASSES:
        return
    if losses[-1][1] <= FAMILIAR * train and rate <= FAMILIAR_RATE and not _is_harder(facts):
        line = (
            f"after {passes:.2g} passes the held-out loss is {losses[-1][1]:.3g}, below the training loss "
            f"{train:.3g}, and the {facts.headline.upper()} is {percent(rate)}"
        )
        yield _leak("notice", (line,))


def _leak(severity: str, evidence: tuple[str, ...]) -> RunFinding:
    return RunFinding(
        "leakage",
        "serious" if severity == "serious" else "notice",
        "The held-out set seems to be in the training data, so its rates are too good to be true.",
        evidence,
        (
            "remove these recordings from one of the sets, or divide the data by recording and speaker (prepare)",
            "`python -m whisper_ft doctor --config RUN/config.yaml --leakage full` compares all rows and their sound",
        ),
    )


def _is_harder(facts: RunFacts) -> bool:
    """Return True if something raises the training loss alone: dropout, augmentation, or smoothed targets."""
    names = (
        "model.dropout",
        "loss.label_smoothing",
        "augment.time_masks",
        "augment.frequency_masks",
        "augment.waveform",
    )
    return any(facts.setting(name) for name in names) or bool(facts.setting("labels.no_speech_share"))


def early_end(facts: RunFacts, known: Sequence[str]) -> Iterator[RunFinding]:
    """Yield a finding if the patience ended a run whose rate was still high, or whose loss was still falling."""
    planned, patience, fall = facts.planned_steps, facts.setting("eval.patience"), late_fall(facts)
    if not facts.is_over or not patience or not planned or facts.step >= planned or RATE_TOO_HIGH in known:
        return
    if (reason := str(facts.status.get("reason") or "")) and "patience" not in reason:
        return  # a guard ended the run
    rates = [rate for row in facts.history.logged.rows if (rate := number(row.get("lr"))) is not None]
    is_high = bool(rates) and rates[-1] > HIGH_RATE * max(rates)
    is_falling = fall is not None and fall.name == "held-out loss" and fall.share > 0.02
    if not is_high and not is_falling:
        return
    evidence = [f"eval.patience {patience} ended the run at step {facts.step:,} of {planned:,}"]
    if is_high:
        evidence.append(f"the rate was still {rates[-1]:.3g} of {max(rates):.3g}; most of the gain comes when it falls")
    if is_falling and fall is not None:
        evidence.append(f"the held-out loss was still falling: {fall.before:.3g}, then {fall.after:.3g}")
    if interval := interval_of_rate(facts.last_texts):
        evidence.append(f"the interval of the newest rate is {percent_range(interval)}, so small steps are not seen")
    yield RunFinding(
        "early_end",
        "notice" if "overfitting" in known else "serious",
        "The patience ended the run too early.",
        tuple(evidence),
        (
            f"raise eval.patience or leave it out; the rate falls to 0 in a run planned for {facts.step:,} steps",
            "use more held-out utterances, so that an improvement is seen",
        ),
    )


def interval_of_rate(scores: Scores | None) -> Interval | None:
    """Return the confidence interval of the main rate; None without transcripts."""
    if scores is None:
        return None
    both = confidence(scores)
    return both.cer if scores.unit == CHARACTERS else both.wer


def evaluation_noise(facts: RunFacts, known: Sequence[str]) -> Iterator[RunFinding]:
    """Yield a finding if a small held-out set cannot tell the best evaluation from the newest one."""
    best, scores = facts.history.lowest, facts.last_texts
    if best is None or scores is None or not facts.evaluations or best["step"] == facts.evaluations[-1]["step"]:
        return
    length = (scores.chars if scores.unit == CHARACTERS else scores.words).reference_length
    interval, then, rate = interval_of_rate(scores), facts.texts.get(best["step"]), facts.last_rate
    if length >= FEW_WORDS or interval is None or then is None or not rate or facts.rate(best) == rate:
        return
    try:
        test = paired_test(then, scores)
    except ValueError:
        return
    difference = test.cer if scores.unit == CHARACTERS else test.wer
    if difference is None or difference.is_significant or interval.high - interval.low < WIDE * rate:
        return
    unit, name = "characters" if scores.unit == CHARACTERS else "words", facts.headline.upper()
    yield RunFinding(
        "evaluation_noise",
        "notice",
        "The held-out set is too small to tell which evaluation is the best.",
        (
            f"{counted(scores.scored_utterances, 'utterance')} with {length:,} {unit}; the interval of the newest "
            f"{name} is {percent_range(interval)}",
            f"best at step {best['step']:,} with {percent(facts.rate(best))}, {percent(rate)} at the end: no "
            "significant difference",
        ),
        ("use at least 100 held-out utterances, or more",),
    )
