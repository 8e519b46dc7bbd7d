"""Rules about transcripts: loops, text on silence, ends that are missing, and a model that ignores audio."""

import math
from collections.abc import Iterator, Sequence

from whisper_ft.reports.diagnosis.loss_curve import number
from whisper_ft.reports.diagnosis.rate_rules import FEW_TEXTS, NOT_LEARNED, RATE_TOO_HIGH, different_share
from whisper_ft.reports.diagnosis.run_facts import RunFacts
from whisper_ft.reports.diagnosis.run_finding import RunFinding
from whisper_ft.reports.text import clipped, percent
from whisper_ft.runtime.printable import counted
from whisper_ft.scoring.edit_distance import deleted_places
from whisper_ft.scoring.hallucination import run_checks
from whisper_ft.scoring.runaway import SIGNS, Runaway
from whisper_ft.scoring.scores import CHARACTERS, ScoredRow, Scores

TRUNCATED_LABELS = "truncated_labels"
LEARNED_TOO_LITTLE = ("too_few_steps", "rate_too_low", "warm_up_too_long", "adapter_scale")
"""Kinds after which loops and missing text are no causes of their own, because such a model writes anything."""
LOOPS = 3  # runaway transcripts
LOOP_SHARE = 0.02  # of a set
INVENTED_WORDS = 10  # words a minute where nothing is said
SHORT = 0.85  # ratio of the length of the transcripts to that of the references
DELETED = 0.08  # deletions, relative to the length of the references
MOSTLY_DELETED = 0.5  # share of the errors that are deletions
RIGHT = 0.6  # share of the written words that are right; a model that knows little also leaves out words
AT_END = 0.75  # share of the deletions in the second half of the references; half of them are there by chance
UNDERSTOOD = 0.75  # main rate above which the transcripts are too wrong to see why
FEWER_TOKENS = 0.8  # label tokens a second of training audio, relative to the held-out set
FAR_FEWER_TOKENS, MUCH_SHORTER = 0.7, 0.75
"""Label tokens a second, and length of the transcripts, that show cut labels even if the words are mostly wrong."""
SHOWN_CHARACTERS = 80  # of a transcript in a line of evidence
LONG_ROWS = ("too_long", "label_too_long")  # reason codes of rows that do not fit into a window


def example(row: ScoredRow) -> str:
    """Return reference and transcript of an utterance in one line, cut to a few words."""
    ref, hyp = (clipped(text, SHOWN_CHARACTERS) for text in (row.prediction.ref, row.prediction.hyp))
    return f"{row.prediction.id}: reference {ref!r}, transcript {hyp!r}"


def loops(facts: RunFacts, known: Sequence[str]) -> Iterator[RunFinding]:
    """Yield a finding about runaway transcripts and text invented where nothing is said, in any evaluated set."""
    evidence, is_silence = [], False
    sets = {"held-out set": facts.last_texts, **{f"set {name}": texts for name, texts in facts.set_texts.items()}}
    for name, scores in sets.items():
        if scores is None:
            continue
        if line := _invented(scores):
            evidence.append(f"{name}: {line}")
            is_silence = True
        is_untrained = name == "held-out set" and any(kind in known for kind in (RATE_TOO_HIGH, *LEARNED_TOO_LITTLE))
        evidence += [f"{name}: {line}" for line in _runaway(scores)] if not is_untrained else []
    if not evidence:
        return
    remedy = (
        "train on silence: labels.no_speech_share 0.05, with labels.no_speech_path if there are recordings",
        "decode with decoding.no_speech_threshold 0.6, and decoding.temperature_fallback true against loops",
    )
    yield RunFinding(
        "loops",
        "serious",
        "The model repeats itself, or writes text where nothing is said.",
        tuple(evidence),
        remedy if is_silence else (*remedy[1:], "look for cut or wrong transcripts: `python -m whisper_ft doctor`"),
    )


def _invented(scores: Scores) -> str:
    """Return a line about words on empty references; "" if there are few."""
    rows = [row for row in scores.rows if not row.is_scored]
    seconds = math.fsum(row.prediction.audio_seconds for row in rows if math.isfinite(row.prediction.audio_seconds))
    invented = [row for row in rows if row.hyp_norm]
    words = sum(row.words.insertions for row in rows)
    if not invented or words < INVENTED_WORDS * seconds / 60:
        return ""
    text = clipped(invented[0].prediction.hyp, SHOWN_CHARACTERS)
    return (
        f"{words:,} words in {counted(len(invented), 'utterance')} of {len(rows):,} without speech, such as "
        f"{invented[0].prediction.id}: {text!r}"
    )


def _runaway(scores: Scores) -> Iterator[str]:
    checks = run_checks(scores)
    runaway = Runaway.of(scores, checks)
    if runaway.utterances < max(LOOPS, LOOP_SHARE * scores.scored_utterances):
        return
    yield (
        f"{runaway.utterances:,} of {scores.scored_utterances:,} transcripts repeat themselves or reach the token "
        f"limit, {percent(runaway.error_share, 0)} of all errors; without them the rate is "
        f"{percent(runaway.others.rate)}"
    )
    flagged = [item for check in checks if check.name in SIGNS for item in check.flagged]
    text = clipped(flagged[0].row.prediction.hyp, SHOWN_CHARACTERS)
    yield f"for example {flagged[0].row.prediction.id}: {text!r} ({flagged[0].evidence})"


def cut_texts(facts: RunFacts, known: Sequence[str]) -> Iterator[RunFinding]:
    """Yield a finding if transcripts lack a part of what was said, as after training on cut transcripts."""
    scores, rate = facts.last_texts, facts.last_rate
    if scores is None or rate is None:
        return
    rows = [row for row in scores.rows if row.is_scored]
    errors = scores.chars if scores.unit == CHARACTERS else scores.words
    length = sum(len(row.hyp_norm) for row in rows) / max(sum(len(row.ref_norm) for row in rows), 1)
    deleted = errors.deletions / max(errors.reference_length, 1)
    is_right = errors.hits >= RIGHT * (errors.hits + errors.substitutions + errors.insertions)
    is_missing = deleted >= DELETED and errors.deletions >= MOSTLY_DELETED * errors.errors
    at_end, pace = _share_at_end(rows, scores), _relative_pace(facts, rows)
    is_slow = pace is not None and pace < FEWER_TOKENS
    is_cut = rate <= UNDERSTOOD and is_right and length < SHORT and (at_end >= AT_END or is_slow)
    is_far_slower = pace is not None and pace < FAR_FEWER_TOKENS and length < MUCH_SHORTER
    if not is_missing or not (is_cut or is_far_slower):
        return
    worst = min(rows, key=lambda row: len(row.hyp_norm) / len(row.ref_norm))
    evidence = [
        f"the transcripts have {percent(length, 0)} of the length of the references; {errors.deletions:,} of "
        f"{errors.errors:,} errors are deletions, {percent(at_end, 0)} of them in the second half",
        example(worst),
    ]
    if is_slow and pace is not None:
        evidence.append(f"a second of training audio has {percent(pace, 0)} of the label tokens of the held-out set")
    if left_out := {code: facts.rejected[code] for code in LONG_ROWS if facts.rejected[code]}:
        shown = ", ".join(f"{count:,} {code}" for code, count in left_out.items())
        evidence.append(f"rows left out of training: {shown}")
    yield RunFinding(
        TRUNCATED_LABELS,
        "serious",
        "The model leaves out a part of what is said; the training transcripts are probably cut.",
        tuple(evidence),
        (
            "compare transcripts with their audio: `python -m whisper_ft doctor --out DIR` lists those that do not fit "
            "the length of their audio, and plays them",
            "cut recordings and texts together: `python -m whisper_ft prepare` (docs/long_recordings.md)",
        ),
    )


def _share_at_end(rows: Sequence[ScoredRow], scores: Scores) -> float:
    """Return the share of the deleted words (or characters) in the second half of their reference."""
    late = deletions = 0
    for row in rows:
        is_characters = scores.unit == CHARACTERS
        ref, hyp = (row.ref_norm, row.hyp_norm) if is_characters else (row.ref_norm.split(), row.hyp_norm.split())
        places = deleted_places(ref, hyp)
        deletions += len(places)
        late += sum(place + 0.5 >= len(ref) / 2 for place in places)
    return late / deletions if deletions else 0.0


def _relative_pace(facts: RunFacts, rows: Sequence[ScoredRow]) -> float | None:
    """Return the label tokens a second of the training data, relative to the held-out set; None if not known."""
    counts = facts.record.state.counts if facts.record else None
    labelled = [row.prediction for row in rows if row.prediction.label_tokens]
    seconds = math.fsum(one.audio_seconds for one in labelled if math.isfinite(one.audio_seconds))
    rate = 16_000  # samples a second, of every Whisper
    if counts is None or not counts.audio_samples or not seconds or number(facts.setting("labels.no_speech_share")):
        return None
    held_out = sum(one.label_tokens or 0 for one in labelled) / seconds
    return counts.label_tokens / (counts.audio_samples / rate) / held_out


def ignored_audio(facts: RunFacts, known: Sequence[str]) -> Iterator[RunFinding]:
    """Yield a finding if the model writes the same few texts for any audio, and no other rule knows why."""
    scores, rate = facts.last_texts, facts.last_rate
    if known or scores is None or rate is None or rate < NOT_LEARNED or not facts.is_over:
        return
    if (share := different_share(facts)) >= FEW_TEXTS:
        return
    rows = [row for row in scores.rows if row.is_scored]
    yield RunFinding(
        "audio_ignored",
        "serious",
        "The model hardly listens: it writes the same few texts for any audio.",
        (
            f"{percent(share, 0)} as many different transcripts as references; the {facts.headline.upper()} is "
            f"{percent(rate)}",
            *(example(row) for row in rows[:2]),
        ),
        (
            "look if texts belong to their audio: `python -m whisper_ft doctor --out DIR` plays samples",
            "if they do, train longer, or with another rate",
        ),
    )
