"""The evaluation as one HTML page that needs nothing else."""

from collections.abc import Mapping
from pathlib import Path

from whisper_ft.reports.evaluation import bars, sections, utterances
from whisper_ft.reports.evaluation.console import notes
from whisper_ft.reports.evaluation.sound import Audio, Sound
from whisper_ft.reports.evaluation.style import STYLE
from whisper_ft.reports.evaluation.text import duration, isolated, percent, percent_range, visible
from whisper_ft.reports.html.page import html_page
from whisper_ft.runtime.atomic import write_text
from whisper_ft.scoring.analysis import Analysis
from whisper_ft.scoring.bootstrap import LEVEL, Interval
from whisper_ft.scoring.scores import CHARACTERS, Scores


def write_report(
    path: Path,
    scores: Scores,
    title: str,
    facts: Mapping[str, str],
    findings: Analysis | None = None,
    audio: Audio | None = None,
) -> None:
    """Write the page under this name, complete or not at all. It loads nothing, runs nothing and is well-formed XML.

    `audio` gives the encoded file of an utterance by its id, or None; the clips of the worst ones are put into the page
    until it is full. It is asked only for those that are shown.
    """
    content = "\n".join(_sections(scores, title, facts, findings, Sound(audio)))
    page = html_page(visible(title), STYLE, content, "" if audio is None else "media-src data:")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)


def _sections(
    scores: Scores, title: str, facts: Mapping[str, str], findings: Analysis | None, sound: Sound
) -> list[str]:
    """The page from top to bottom."""
    # Before the signs of hallucination, which stand above them: what there is room for is the worst utterances.
    cards = utterances.utterances(scores, sound)
    signs = sections.signs(findings.checks, scores, sound) if findings else utterances.invented(scores)
    beside = sections.normalisations(findings.normalizer_rows) if findings else ""
    return [
        f"<header><h1>{isolated(title)}</h1></header>",
        "<main>",
        _headline(scores, findings),
        _notes_section(scores),
        sections.comparison(findings.comparison) if findings else "",
        f'<div class="columns">{_histogram(scores)}{beside}{_facts(facts)}</div>',
        sections.breakdowns(findings.slicings, scores) if findings else "",
        *([signs] if findings else []),
        utterances.mistakes(scores),
        cards,
        *([] if findings else [signs]),
        "</main>",
    ]


def _notes_section(scores: Scores) -> str:
    items = "".join(f"<li>{isolated(note)}</li>" for note in notes(scores))
    return f'<ul class="notes">{items}</ul>' if items else ""


def _headline(scores: Scores, findings: Analysis | None) -> str:
    found = findings.confidence if findings else None
    rates = [
        ("WER", "words", scores.words, scores.words_orthographic, found.wer if found else None),
        ("CER", "characters", scores.chars, scores.chars_orthographic, found.cer if found else None),
    ]
    if scores.unit == CHARACTERS:
        rates.reverse()
    big = "".join(
        f'<div class="rate"><h2>{name}</h2><strong>{percent(count.rate)}</strong>{_interval(interval)}'
        f"<p>{count.errors:,} errors in {count.reference_length:,} {unit}</p>"
        f'<p class="soft">{percent(written.rate)} as written</p></div>'
        for name, unit, count, written, interval in rates
    )
    _, unit, count, _, _ = rates[0]
    tiles = [
        ("Utterances", f"{scores.utterances:,}"),
        ("With an error (SER)", percent(scores.ser)),
        (unit.capitalize(), f"{count.reference_length:,}"),
        ("Audio", duration(scores.audio_seconds)),
    ]
    facts = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in tiles)
    kinds = [
        ("hit", "correct", count.hits),
        ("sub", "substituted", count.substitutions),
        ("del", "deleted", count.deletions),
        ("ins", "inserted", count.insertions),
    ]
    drawn = f'<p class="soft drawn">Intervals from {found.resampling}.</p>' if found and found.wer else ""
    return f'<section class="headline">{big}<dl>{facts}</dl>{bars.shares(unit, kinds)}{drawn}</section>'


def _interval(interval: Interval | None) -> str:
    return f'<p class="interval">{LEVEL:.0%} interval {percent_range(interval)}</p>' if interval else ""


def _histogram(scores: Scores) -> str:
    """How many utterances have which error rate: none, up to 10 %, …, up to 100 %, above."""
    labels = ["0", *(str(percent) for percent in range(10, 101, 10)), ">100"]
    sizes = [0] * len(labels)
    for row in scores.rows:
        if row.is_scored:
            count = scores.errors_of(row)
            tenths = -(-10 * count.errors // count.reference_length)  # rounded up, in whole numbers
            sizes[min(tenths, len(labels) - 1)] += 1
    name = "CER" if scores.unit == CHARACTERS else "WER"
    kinds = ["hit", *["sub"] * (len(labels) - 2), "del"]
    drawing = bars.histogram(f"Utterances by {name}", f"up to … % {name}", labels, sizes, kinds)
    return f"<section><h2>Utterances by {name}</h2>{drawing}</section>"


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(f"<div><dt>{isolated(name)}</dt><dd>{isolated(value)}</dd></div>" for name, value in facts.items())
    return f'<section><h2>How it was made</h2><dl class="facts">{rows}</dl></section>' if rows else ""
