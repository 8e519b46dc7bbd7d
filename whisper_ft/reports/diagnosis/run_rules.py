"""Rules about the run as a whole: failure, unusable rows, changes on resume, batch and clipping, no gain at all."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from whisper_ft.config.tree import flatten
from whisper_ft.reports.diagnosis.loss_curve import number
from whisper_ft.reports.diagnosis.rate_rules import RATE_TOO_HIGH, is_worse_than_start
from whisper_ft.reports.diagnosis.run_facts import RunFacts
from whisper_ft.reports.diagnosis.run_finding import RunFinding
from whisper_ft.reports.text import percent
from whisper_ft.runtime import exit_codes
from whisper_ft.runtime.printable import counted

NEAR_LIMIT = 0.5  # of data.max_unusable_share
FEW_ROWS = 3  # unusable rows that are worth a word
TINY_BATCH = 4  # utterances in a step
LEAST_BATCH = 2  # utterances, with which any run is noisy
NOISY = 0.3  # standard deviation of the logarithm of a step's loss
CLIPPED_BY = 100.0  # ratio of the usual gradient norm to optim.clip_norm; 10 to 30 is usual for Whisper
CLIPPED_SGD = 3.0  # the same for sgd, whose updates are as long as the clipped gradient
FREE = (
    *("run_dir", "resume", "overwrite", "allow_change", "device", "rank_timeout", "batch.per_device", "data.path"),
    *("steps", "epochs"),
)
"""Settings whose change on resume alters nothing that is learned until then."""
FREE_SECTIONS = ("log.", "track.", "save.", "average.", "eval.", "data.workers", "data.prefetch", "data.cache_gb")
REMEDIES = {
    exit_codes.USAGE: "change the setting that the reason names",
    exit_codes.RESUME_REFUSED: "`python -m whisper_ft checkpoint verify RUN` names the damaged files (docs/run.md)",
    exit_codes.BAD_DATA: "look at quarantine.jsonl, and check the data: `python -m whisper_ft doctor`",
    exit_codes.NON_FINITE: "lower optim.lr, or use precision: bf16, in a new run",
    exit_codes.DISK: "free some space, and run the same command again",
    exit_codes.LOCKED: "end the other process, or choose another run_dir",
    exit_codes.OUT_OF_MEMORY: "lower batch.per_device; `python -m whisper_ft estimate` tells what fits",
}
"""Remedy for each exit code of a failed run."""


def failed(facts: RunFacts, known: Sequence[str]) -> Iterator[RunFinding]:
    """Yield a finding for a run that ended with an error."""
    if facts.status.get("state") != "failed":
        return
    code = facts.status.get("exit_code")
    reason = str(facts.status.get("reason") or "no reason was recorded")
    yield RunFinding(
        "failed",
        "serious",
        f"The run failed at step {facts.step:,} with exit code {code}.",
        (reason,),
        (REMEDIES.get(code, "run the same command again; docs/faults.md lists the cases"),),  # type: ignore[arg-type]
    )


def unusable_rows(facts: RunFacts, known: Sequence[str]) -> Iterator[RunFinding]:
    """Yield a finding if a notable part of the training rows could not be used."""
    counts = facts.record.state.counts if facts.record else None
    rejected = counts.unusable_rows if counts else facts.rejected.total()
    size, limit = number(facts.setting("batch.size")), number(facts.setting("data.max_unusable_share", 0.01))
    if rejected < FEW_ROWS or size is None or limit is None:
        return
    seen = min(facts.step * size, facts.rows or math.inf)
    if rejected < NEAR_LIMIT * limit * seen:
        return
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in facts.rejected.most_common(5))
    yield RunFinding(
        "unusable_rows",
        "notice",
        f"{counted(rejected, 'training row')} could not be used.",
        (
            f"{percent(rejected / seen)} of {seen:,.0f} rows; the run stops above {percent(limit)} "
            "(data.max_unusable_share), from 20 rows on",
            *([f"by reason: {reasons}"] if reasons else []),
        ),
        ("quarantine.jsonl names the rows; `python -m whisper_ft doctor` explains each reason",),
    )


def changed_on_resume(facts: RunFacts, known: Sequence[str]) -> Iterator[RunFinding]:
    """Yield a finding if a resumed run went on with other data, another held-out set, or other settings."""
    lines = [*_changed_held_out(facts), *_changed_records(facts)]
    if not lines:
        return
    resumed = ", ".join(f"{step:,}" for step in facts.history.resumed)
    yield RunFinding(
        "changed_on_resume",
        "notice",
        "The run was resumed with other data or settings, so its figures before and after cannot be compared.",
        (*([f"resumed at step {resumed}"] if resumed else []), *lines),
        ("compare evaluations from after the change only, or score both models by evaluate.py on one set",),
    )


def _changed_held_out(facts: RunFacts) -> Iterator[str]:
    """Yield a line for each evaluation with another set or normaliser than the one before."""
    rows = facts.history.evaluated.rows
    for before, now in pairwise(rows):
        for name in ("utterances", "words", "chars"):
            then, value = before.get(name), now.get(name)
            if then is not None and value is not None and then != value:
                yield f"the held-out set had {then:,} {name} at step {before['step']:,}, {value:,} at {now['step']:,}"
                break
        normalizers = [(row.get("normalizer") or {}).get("fingerprint") for row in (before, now)]
        if None not in normalizers and normalizers[0] != normalizers[1]:
            yield f"the normaliser changed between the steps {before['step']:,} and {now['step']:,}"


def _changed_records(facts: RunFacts) -> Iterator[str]:
    """Yield a line for each difference between the checkpoints that are left."""
    for before, now in pairwise(facts.records):
        at = f"between the steps {before.state.step:,} and {now.state.step:,}"
        then, value = before.data.get("digest"), now.data.get("digest")
        if then is not None and value is not None and then != value:
            yield f"the training data changed {at}: {before.data.get('rows')} rows, then {now.data.get('rows')}"
        first, second = flatten(before.config), flatten(now.config)
        for name in sorted({*first} & {*second}):
            if first[name] != second[name] and name not in FREE and not name.startswith(FREE_SECTIONS):
                yield f"{name} was {first[name]} and is {second[name]}, {at}"


def noisy_updates(facts: RunFacts, known: Sequence[str]) -> Iterator[RunFinding]:
    """Yield a finding if a step has too few utterances to learn from, by the noise of its loss."""
    size, noise = number(facts.setting("batch.size")), facts.loss.noise
    if size is None or facts.setting("pack.enabled") or len(facts.loss) < 10:
        return
    if size > TINY_BATCH or (size > LEAST_BATCH and noise < NOISY):
        return
    yield RunFinding(
        "batch_too_small",
        "serious" if known else "notice",
        f"A step has only {counted(int(size), 'utterance')}, so its gradient is mostly noise.",
        (f"the loss of a step differs from its neighbours by a factor of {math.exp(noise):.2g}, on average",),
        ("raise batch.size: 16 or more; batch.per_device stays, and the passes of a step are added up",),
    )


def clipped_gradients(facts: RunFacts, known: Sequence[str]) -> Iterator[RunFinding]:
    """Yield a finding if every gradient is cut to a small part."""
    limit = number(facts.setting("optim.clip_norm"))
    norms = [norm for row in facts.history.logged.rows if (norm := number(row.get("grad_norm"))) is not None]
    most = CLIPPED_SGD if facts.setting("optim.name") == "sgd" else CLIPPED_BY
    if not limit or len(norms) < 4 or float(np.median(norms)) < most * limit:
        return
    usual = float(np.median(norms))
    yield RunFinding(
        "gradient_clipped",
        "notice",
        "Every gradient is clipped to a small part of its length.",
        (f"optim.clip_norm is {limit:g}; the gradient norm of half of the logged steps is above {usual:.3g}",),
        (f"set optim.clip_norm: {usual:.2g}, and lower optim.lr if the loss then jumps",),
    )


def no_gain(facts: RunFacts, known: Sequence[str]) -> Iterator[RunFinding]:
    """Yield a finding if the model is worse than the start model, and no other rule knows why."""
    if known or not facts.is_over or not is_worse_than_start(facts) or RATE_TOO_HIGH in known:
        return
    name = facts.headline.upper()
    yield RunFinding(
        "worse_than_start",
        "serious",
        "The model is worse than the start model, for a reason that these files do not tell.",
        (f"the held-out {name} was {percent(facts.rate(facts.start))} and is {percent(facts.last_rate)}",),
        (
            "look at the worst utterances: ./launch.sh evaluate.py --model RUN writes report.html",
            "check the data: `python -m whisper_ft doctor`",
        ),
    )
