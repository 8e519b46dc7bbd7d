"""Rules about the labels: another way of writing than the held-out set, characters never written, a wrong language."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from whisper_ft.reports.diagnosis.character_classes import CharacterCounts, count_characters, is_punctuation
from whisper_ft.reports.diagnosis.language_letters import Mismatch, mismatch
from whisper_ft.reports.diagnosis.run_facts import RunFacts
from whisper_ft.reports.diagnosis.run_finding import RunFinding
from whisper_ft.reports.diagnosis.transcript_rules import TRUNCATED_LABELS, example
from whisper_ft.reports.text import percent
from whisper_ft.runtime.printable import counted
from whisper_ft.scoring.hallucination import run_checks
from whisper_ft.scoring.scores import ScoredRow, Scores

WELL_READABLE = 0.3  # CER above which single letters may be missing by chance
BARELY_READABLE = 1.0  # CER up to which transcripts still show if they have capitals and punctuation
READABLE = 0.6  # CER above which the way of writing of the transcripts cannot be judged
LEAST = 8  # characters of a class; fewer may be missing by chance
LEAST_DIGITS = 4
FEWER = 0.25  # ratio of a class in one text to that in the other
LETTER_SHARE = 0.004  # of the letters of the references, for a letter that is never written
WRONG_SCRIPT_SHARE = 0.1  # of the transcripts
DETECTED_SHARE = 0.5  # of the utterances, for a language that the model detects
CLASSES = {
    "capitals": ("capital letters", "case"),
    "punctuation": ("punctuation", "punctuation"),
    "digits": ("digits", "numbers"),
}
"""Name of each class of characters in words, and name of the convention."""


def never_written(facts: RunFacts, known: Sequence[str]) -> Iterator[RunFinding]:
    """Yield a finding if the references hold characters that generation suppresses."""
    missing = suppressed_in_references(facts)
    if not missing or facts.last_texts is None:
        return
    shown = ", ".join(f"{sign!r} {counted(count, 'time')}" for sign, count in missing.items())
    signs = set(missing)
    rows = [row for row in facts.last_texts.rows if signs & set(row.prediction.ref)]
    yield RunFinding(
        "suppressed_characters",
        "serious",
        "The references hold characters that the model may never write, because generation suppresses them.",
        (
            f"in the references, and in no transcript: {shown}",
            f"model.suppress is {facts.setting('model.suppress', 'not recorded')!r}",
            *(example(row) for row in rows[:1]),
        ),
        (
            "set model.suppress: auto, which releases the signs that the training transcripts contain, or none",
            "or remove these signs from transcripts and references (data.normalizer)",
        ),
    )


def suppressed_in_references(facts: RunFacts) -> dict[str, int]:
    """Return the suppressed characters in the held-out references that no transcript has, with their number."""
    scores = facts.last_texts
    if scores is None or not facts.suppressed:
        return {}
    refs = count_characters(row.prediction.ref for row in scores.rows).each
    hyps = count_characters(row.prediction.hyp for row in scores.rows).each
    found = {sign: refs[sign] for sign in sorted(facts.suppressed) if refs[sign] >= 2 and not hyps[sign]}
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def another_convention(facts: RunFacts, known: Sequence[str]) -> Iterator[RunFinding]:
    """Yield a finding if labels are written in another way than the references: case, punctuation, numbers.

    The transcripts show it if they can be read, or if the settings rewrite the labels. The sampled training transcripts
    show it in any case.
    """
    scores = facts.last_texts
    if scores is None or scores.cer is None:
        return
    rows = [row for row in scores.rows if row.is_scored]
    refs = count_characters(row.prediction.ref for row in rows)
    hyps = count_characters(row.prediction.hyp for row in rows)
    rewrite = facts.setting("data.normalizer", "keep") != "keep"
    left_out = {"punctuation"} if TRUNCATED_LABELS in known else set()  # the sign at the end is cut off with the end
    lost = set(suppressed_in_references(facts)) if "suppressed_characters" in known else set()
    found: dict[str, str] = {}
    if facts.sample is not None and not rewrite:
        texts, references = [one.text for one in facts.sample.texts], [row.prediction.ref for row in rows]
        rare = {kind for kind in CLASSES if not _is_common(kind, texts, references)}
        found |= _differences(count_characters(texts), refs, "training transcripts", left_out | rare)
    if scores.cer <= (BARELY_READABLE if rewrite else READABLE):
        without = refs._replace(punctuation=refs.punctuation - sum(refs.each[sign] for sign in lost))
        found |= _differences(hyps, without, "transcripts", left_out | {*found})
    if scores.cer <= WELL_READABLE and (letters := _lost_letters(refs, hyps, lost)):
        found["letters"] = f"letters of the references that no transcript has: {', '.join(letters)}"
    if found:
        yield _convention(facts, scores, rows, found)


def _is_common(kind: str, texts: Sequence[str], references: Sequence[str]) -> bool:
    """Return True if a class of characters is in so many texts of one side that the other cannot lack it by chance."""
    ours, theirs = (sum(getattr(count_characters([text]), kind) > 0 for text in of) for of in (texts, references))
    expected = ours * len(references) / max(len(texts), 1), theirs * len(texts) / max(len(references), 1)
    return bool(max(expected) >= LEAST)


def _differences(ours: CharacterCounts, refs: CharacterCounts, name: str, left_out: set[str]) -> dict[str, str]:
    """Return a line for each class of characters that one side lacks, by the name of the convention."""
    return {
        convention: f"{words}: {getattr(refs, kind):,} in the references, {getattr(ours, kind):,} in the {name}"
        for kind, (words, convention) in CLASSES.items()
        if kind not in left_out and convention not in left_out
        if _differs(
            getattr(ours, kind),
            ours.letters,
            getattr(refs, kind),
            refs.letters,
            LEAST_DIGITS if kind == "digits" else LEAST,
        )
    }


def _differs(ours: int, our_letters: int, theirs: int, their_letters: int, least: int) -> bool:
    """Return True if one text has a class of characters that the other one lacks, relative to their letters."""
    if max(ours, theirs) < least or not our_letters or not their_letters:
        return False
    shares = sorted((ours / our_letters, theirs / their_letters))
    return shares[0] < FEWER * shares[1]


def _lost_letters(refs: CharacterCounts, hyps: CharacterCounts, lost: set[str]) -> list[str]:
    """Return the letters that the references have often and the transcripts never."""
    return [
        f"{letter} ({count:,} times)"
        for letter, count in refs.each.most_common()
        if letter.isalpha() and count >= max(LEAST, LETTER_SHARE * refs.letters)
        if not hyps.each[letter] and letter not in lost
    ]


def _convention(facts: RunFacts, scores: Scores, rows: Sequence[ScoredRow], found: Mapping[str, str]) -> RunFinding:
    worst = max(rows, key=lambda row: sum(map(_is_sign, row.prediction.ref)) - sum(map(_is_sign, row.prediction.hyp)))
    rates = f"the WER is {percent(scores.wer_orthographic)} as written, {percent(scores.wer)} normalised"
    rewrite = facts.setting("data.normalizer", "keep")
    cause = [f"data.normalizer is {rewrite}, so the labels are rewritten"] if rewrite != "keep" else []
    return RunFinding(
        "labels_convention",
        "serious",
        f"The labels are written in another way than the held-out set: {', '.join(found)}.",
        (*found.values(), rates, *cause, *_training_texts(facts), example(worst)),
        (
            "set data.normalizer: keep, if the transcripts have these characters"
            if cause
            else "write the training transcripts as the references are written, or the other way round",
            "or score by a normaliser under which both are equal: eval.normalizer, docs/normalisation.md",
        ),
    )


def _is_sign(character: str) -> bool:
    return character.isupper() or character.isdigit() or is_punctuation(character)


def _training_texts(facts: RunFacts) -> Iterator[str]:
    """Yield a line about the sampled training transcripts."""
    if facts.sample is None or not facts.sample.texts:
        return
    counts = count_characters(one.text for one in facts.sample.texts)
    shares = (counts.capitals, counts.punctuation, counts.digits)
    capitals, punctuation, digits = (1000 * count / max(counts.letters, 1) for count in shares)
    yield (
        f"{counted(len(facts.sample.texts), 'sampled training transcript')}: {capitals:.0f} capitals, "
        f"{punctuation:.0f} punctuation signs and {digits:.0f} digits for 1,000 letters"
    )


def wrong_language(facts: RunFacts, known: Sequence[str]) -> Iterator[RunFinding]:
    """Yield a finding if texts are not in the language whose token they have, or transcripts are in another script."""
    labels, script, detected = list(_wrong_labels(facts)), list(_wrong_script(facts)), list(_detected(facts))
    evidence = [*(line for line, _ in labels), *script, *detected]
    if not evidence:
        return
    is_certain = bool(script) or any(certain for _, certain in labels)
    yield RunFinding(
        "wrong_language",
        "serious" if is_certain else "notice",
        "The language token is probably not that of the speech.",
        tuple(evidence),
        (
            "set data.language (or language of a source or set) to the language that is spoken",
            "if Whisper has no token for the language, that of a related one is right, the same in decoding",
        ),
    )


def _wrong_labels(facts: RunFacts) -> Iterator[tuple[str, bool]]:
    """Yield a line for each set whose texts do not fit its language by their letters.

    The bool is True if another language of Whisper fits. If none does, the language has no token of its own.
    """
    if facts.setting("data.task") == "translate":  # the texts are English under the token of another language
        return
    given = facts.setting("data.language")
    texts: dict[tuple[str, str], list[str]] = {}
    for one in facts.sample.texts if facts.sample else ():
        texts.setdefault(("training transcripts", one.language or str(given)), []).append(one.text)
    sets = {"held-out references": facts.last_texts, **{f"set {name}": of for name, of in facts.set_texts.items()}}
    for name, scores in sets.items():
        for row in scores.rows if scores else ():
            language = row.prediction.language or (given if name == "held-out references" else None)
            texts.setdefault((name, str(language)), []).append(row.prediction.ref)
    for (name, language), of_language in texts.items():
        if found := mismatch(language, of_language):
            yield _line(name, language, found), bool(found.candidates)


def _line(name: str, language: str, found: Mismatch) -> str:
    fits = f"; letters of {', '.join(found.candidates)}" if found.candidates else ""
    return f"{name} under the token <|{language}|>: {found.reason}{fits}"


def _given_language(facts: RunFacts) -> str | None:
    """Return the language of the held-out set by Whisper's code, as its rows have it."""
    rows = facts.last_texts.rows if facts.last_texts else ()
    languages = Counter(row.prediction.language for row in rows if row.prediction.language)
    return languages.most_common(1)[0][0] if languages else None


def _wrong_script(facts: RunFacts) -> Iterator[str]:
    """Yield a line if many transcripts are in a script that the references do not use."""
    scores = facts.last_texts
    if scores is None:
        return
    check = next(check for check in run_checks(scores) if check.name == "wrong_script")
    flagged = [one for one in check.flagged if sum(map(str.isalpha, one.row.prediction.hyp)) >= LEAST]
    if len(flagged) >= max(2, WRONG_SCRIPT_SHARE * len(scores.rows)):
        first = flagged[0]
        yield (
            f"{len(flagged):,} of {len(scores.rows):,} transcripts are in another script: "
            f"{first.row.prediction.id}: {first.evidence}"
        )


def _detected(facts: RunFacts) -> Iterator[str]:
    """Yield a line if the start model detected another language in most utterances (eval.detect_language)."""
    scores = facts.texts.get(0)
    if heard := facts.heard.most_common(1):
        name, count = heard[0]
        given = _given_language(facts)
        if given and name != given and count > DETECTED_SHARE * facts.heard.total():
            yield f"the start model detects {name} in {count:,} of {facts.heard.total():,} clips, and {given} is set"
    if scores is None:
        return
    pairs = [(row.prediction.detected_language, row.prediction.language) for row in scores.rows]
    other = [found for found, given in pairs if found and given and found != given]
    if len(other) > DETECTED_SHARE * len(pairs):
        most = max(set(other), key=other.count)
        yield f"the start model detects another language in {len(other):,} of {len(pairs):,} utterances, mostly {most}"
