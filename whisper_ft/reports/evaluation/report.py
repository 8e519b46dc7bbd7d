"""Report of an evaluation as one HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from whisper_ft.reports.evaluation import charts
from whisper_ft.reports.evaluation.alignment import Kind, frequent_mistakes, shown_token
from whisper_ft.reports.evaluation.audio_clips import Audio, AudioClips
from whisper_ft.reports.evaluation.card_filters import card_filters
from whisper_ft.reports.evaluation.cards import change_cards, flagged_cards, worst_cards
from whisper_ft.reports.evaluation.tables import MAX_GROUPS, notes
from whisper_ft.reports.guard_text import GuardRow
from whisper_ft.reports.html.page import render_page
from whisper_ft.reports.html.svg import share_bar
from whisper_ft.reports.text import percent
from whisper_ft.runtime.atomic import write_text
from whisper_ft.scoring.analysis import Analysis
from whisper_ft.scoring.bootstrap import LEVEL
from whisper_ft.scoring.comparison import SystemComparison, p_value
from whisper_ft.scoring.scores import CHARACTERS, Scores
from whisper_ft.scoring.slices import Slice, Slicing

MAX_MISTAKES = 10  # largest number of word pairs for each kind of error

ABOUT = {  # purpose of a normaliser, by its name
    "golden": "no word becomes another",
    "none": "as written: case and punctuation count",
    "lower": "without case",
    "unpunctuated": "without punctuation",
    "whisper-basic": "as in Whisper's paper; it deletes the vowel signs of many scripts",
    "whisper-english": "as in Whisper's paper, for English",
}


def write_report(
    path: Path,
    scores: Scores,
    title: str,
    facts: Mapping[str, str],
    analysis: Analysis,
    audio: Audio | None = None,
    guards: Sequence[GuardRow] = (),
) -> None:
    """Write the page atomically. It loads nothing and is well-formed XML. Its script finds and sorts utterances.

    `audio` returns the encoded file of an utterance by its id, or None. It is called for the utterances on the page.
    Clips are put into the page until it is full, beginning with the worst utterances. `guards` are the verdicts of the
    guards of the model's run.
    """
    clips = AudioClips(audio)
    # The worst utterances stand below the flagged ones, but come first here, so that their clips find room.
    worst = _worst(scores, analysis, clips)
    mistakes = frequent_mistakes(scores, MAX_MISTAKES)
    slicings = [_slicing(slicing, scores) for slicing in analysis.slicings if len(slicing.groups) > 1]
    page = render_page(
        "evaluation",
        title,
        policy="" if audio is None else "media-src data:",
        script="find_utterances.js",
        contents=_contents(analysis, guards, slicings, mistakes, bool(worst["cards"])),
        guards=guards,
        scores=scores,
        metric=scores.headline[0].upper(),
        unit="characters" if scores.unit == CHARACTERS else "words",
        level=f"{LEVEL:.0%}",
        **_headline(scores, analysis),
        comparison=_comparison(analysis.comparison) if analysis.comparison else None,
        histogram=charts.utterances_by_rate(scores),
        normalizer_rows=analysis.normalizer_rows,
        about=ABOUT,
        facts=facts,
        slicings=slicings,
        checks=[(check, flagged_cards(check, clips)) for check in analysis.checks],
        mistakes=mistakes,
        shown_token=shown_token,
        **worst,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)


def _worst(scores: Scores, analysis: Analysis, clips: AudioClips) -> dict[str, Any]:
    """Return the values for the worst utterances: their cards and filters, and the numbers of their clips."""
    cards = worst_cards(scores, analysis.checks, clips)
    return {
        "cards": cards,
        "filters": card_filters(cards, analysis.checks),
        "clips_included": clips.included,
        "clips_left_out": clips.left_out,
    }


def _headline(scores: Scores, analysis: Analysis) -> dict[str, Any]:
    """Return the values for the first card and the notes below it."""
    return {
        "rates": _rates(scores, analysis),
        "errors": _errors(scores),
        "resampling": analysis.confidence.resampling if analysis.confidence.wer else None,
        "notes": notes(scores, analysis.runaway),
    }


def _contents(
    analysis: Analysis,
    guards: Sequence[GuardRow],
    slicings: Sequence[object],
    mistakes: Mapping[Kind, Sequence[object]],
    has_cards: bool,
) -> list[tuple[str, str]]:
    """Return the sections that the page has, each as its id and name."""
    sections = [
        ("rates", "Error rates", True),
        ("compared", "Comparison", analysis.comparison is not None),
        ("guards", "Guards against forgetting", bool(guards)),
        ("slices", "Where the errors are", bool(slicings)),
        ("signs", "Signs of hallucination", bool(analysis.checks)),
        ("mistakes", "Most frequent mistakes", any(mistakes.values())),
        ("utterances", "Utterances", has_cards),
    ]
    return [(section, name) for section, name, is_there in sections if is_there]


def _rates(scores: Scores, analysis: Analysis) -> list[dict[str, object]]:
    """Return the two rates, the main one first."""
    confidence = analysis.confidence
    rates: list[dict[str, object]] = [
        {
            "name": "WER", "unit": "words", "count": scores.words,
            "as_written": scores.wer_orthographic, "interval": confidence.wer,
        },
        {
            "name": "CER", "unit": "characters", "count": scores.chars,
            "as_written": scores.cer_orthographic, "interval": confidence.cer,
        },
    ]  # fmt: skip
    return rates[::-1] if scores.unit == CHARACTERS else rates


def _errors(scores: Scores) -> dict[str, object]:
    count = scores.chars if scores.unit == CHARACTERS else scores.words
    parts = [
        ("hit", "correct", count.hits),
        ("sub", "substituted", count.substitutions),
        ("del", "deleted", count.deletions),
        ("ins", "inserted", count.insertions),
    ]
    unit = "characters" if scores.unit == CHARACTERS else "words"
    return {"length": count.reference_length, "parts": parts, "chart": share_bar(unit, parts)}


def _slicing(slicing: Slicing, scores: Scores) -> dict[str, object]:
    """Return the values for a table of slices. Ordered slices have one chart, others a bar each."""
    metric, overall = scores.headline
    shown = slicing.groups[:MAX_GROUPS]
    bars = charts.rate_bars(slicing, shown, None if slicing.ordered else overall)
    return {
        "by": slicing.by,
        "chart": charts.rates_in_order(slicing, metric.upper()) if slicing.ordered else None,
        "rows": list(zip(shown, bars, strict=True)),
        "note": _note_on_slices(slicing, shown),
    }


def _note_on_slices(slicing: Slicing, shown: Sequence[Slice]) -> str:
    """Return a note under the table; "" if there is nothing to say.

    It tells how many slices are shown, the median and best rate of all reliable ones, and the meaning of the marks.
    """
    sentences = []
    if len(shown) < len(slicing.groups):
        sentences.append(f"The {len(shown):,} worst of {len(slicing.groups):,}; all are in summary.json.")
        judged = [group for group in slicing.groups if group.name is not None and not group.few]
        if ordered := sorted(group.count.rate or 0.0 for group in judged):
            sentences.append(f"Median {percent(ordered[len(ordered) // 2])}, best {percent(ordered[0])}.")
    if any(group.few for group in shown):
        sentences.append("Faint: too few words for a reliable rate.")
    if not slicing.ordered:
        sentences.append("Dotted line: the rate of the whole set.")
    return " ".join(sentences)


def _comparison(comparison: SystemComparison) -> dict[str, object]:
    name, difference = comparison.headline
    parts = [
        ("hit", "better", len(comparison.better)),
        ("even", "with as many errors", comparison.same_errors),
        ("del", "worse", len(comparison.worse)),
    ]
    p = difference.p_value if difference else None
    return {
        "names": comparison.names,
        "metric": name,
        "verdict": comparison.verdict,
        "kind": charts.change_kind(comparison),
        "difference": difference,
        "p": None if p is None else p_value(p),
        "chart": charts.change_chart(comparison),
        "resampling": comparison.test.resampling,
        "parts": parts,
        "shares": share_bar("utterances", parts),
        "changes": [
            (title, len(changes), change_cards(changes, comparison))
            for title, changes in (("Most improved", comparison.better), ("Most worsened", comparison.worse))
            if changes
        ],
    }
