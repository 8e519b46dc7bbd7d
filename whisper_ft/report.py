"""The evaluation as people read it: one HTML page that needs nothing else, a console table, one line to grep."""

import base64
import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from html import escape
from itertools import groupby
from pathlib import Path

from rich.markup import escape as escape_markup
from rich.table import Table

from whisper_ft.durable import write_text
from whisper_ft.scoring import CHARACTERS, ErrorCount, ScoredRow, Scores, align

SHOWN_ROWS = 500  # a page of 10,000 would be slow on a phone; predictions.jsonl has them all
SHOWN_INVENTED_ROWS = 50
SHOWN_MISTAKES = 10
SHOWN_PAIRS = 200  # aligned words of one utterance: 30 s hold about 100, a hallucinated loop far more
SHOWN_TOKEN_CHARACTERS = 60
SHOWN_TEXT_CHARACTERS = 1500
RUN_CHARACTERS = 10  # correct characters between two places where a line may break, when the unit is characters

STYLE = """
:root { color-scheme: light dark; --paper: #f6f5f2; --card: #fff; --ink: #1f1e1b; --soft: #66635c; --line: #e3e0d9;
  --hit: #4c9a79; --sub: #d98a1f; --del: #cf3f36; --ins: #3b78c9;
  --sub-paper: #fcefd9; --del-paper: #fbe3e1; --ins-paper: #e0ebfa;
  --sub-ink: #7a4600; --del-ink: #931d16; --ins-ink: #134a8e; }
@media (prefers-color-scheme: dark) { :root { --paper: #161618; --card: #1f1f22; --ink: #eceae5; --soft: #a5a29a;
  --line: #36363b; --hit: #4f9e7e; --sub: #d8932f; --del: #df5a50; --ins: #5a93dd;
  --sub-paper: #43310f; --del-paper: #4a1f1d; --ins-paper: #1b3352;
  --sub-ink: #ffd696; --del-ink: #ffb9b3; --ins-ink: #b9d6ff; } }
* { box-sizing: border-box; margin: 0; }
body { background: var(--paper); color: var(--ink); max-width: 1040px; margin: auto; padding: 32px 20px 64px;
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin-bottom: 20px; }
h2 { font-size: 1.05rem; margin-bottom: 12px; }
h3 { font-size: .95rem; }
section { margin-top: 36px; }
small, .soft, dt, .axis { color: var(--soft); font-weight: 400; }
small, .soft { font-size: .85rem; }
ul, ol { list-style: none; padding: 0; }
i { display: inline-block; width: .7em; height: .7em; border-radius: 2px; margin-inline-end: .4em; }
i.hit { background: var(--hit); } i.sub { background: var(--sub); } i.del { background: var(--del); }
i.ins { background: var(--ins); }
rect.hit { fill: var(--hit); } rect.sub { fill: var(--sub); } rect.del { fill: var(--del); }
rect.ins { fill: var(--ins); }
.headline, article, .columns > section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.headline { margin-top: 0; padding: 24px; display: grid; grid-template-columns: auto auto 1fr; gap: 20px 48px; }
.rate h2 { color: var(--soft); margin: 0; font-size: .95rem; letter-spacing: .06em; }
.rate strong { font-size: 3.4rem; line-height: 1.1; letter-spacing: -.03em; font-weight: 650; white-space: nowrap; }
.rate p { font-size: .9rem; }
.headline dl { display: grid; grid-template-columns: auto auto; gap: 12px 28px; align-self: center; justify-self: end; }
dt { font-size: .85rem; }
.headline dd { font-size: 1.2rem; font-weight: 600; }
.shares { grid-column: 1 / -1; }
.shares svg { display: block; background: var(--line); width: 100%; height: 14px; border-radius: 7px; }
.shares ul { display: flex; flex-wrap: wrap; gap: 4px 24px; margin-top: 10px; font-size: .9rem; }
.notes { margin-top: 20px; padding: 12px 24px; border-radius: 12px; font-size: .92rem;
  background: var(--sub-paper); color: var(--sub-ink); }
.notes li { padding: 2px 0; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); gap: 20px;
  margin-top: 20px; }
.columns > section { margin: 0; padding: 20px 24px; display: flex; flex-direction: column; }
.histogram { width: 100%; max-width: 520px; margin: auto; }
.histogram text { font-size: 11px; text-anchor: middle; fill: var(--ink); }
.histogram .axis { fill: var(--soft); }
.histogram path { stroke: var(--line); }
.facts > div { display: grid; grid-template-columns: minmax(90px, 30%) 1fr; gap: 12px; padding: 5px 0;
  border-top: 1px solid var(--line); font-size: .92rem; }
.facts > div:first-child { border: 0; }
.mistakes { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 220px), 1fr)); gap: 20px; }
.mistakes h3 { margin-bottom: 6px; }
.mistakes li { padding: 2px 0; }
.mistakes b { display: inline-block; min-width: 3em; color: var(--soft); font-weight: 400; }
article { padding: 12px 16px; margin-top: 10px; border-inline-start: 4px solid var(--line);
  content-visibility: auto; contain-intrinsic-size: auto 130px; }
article.good { border-inline-start-color: var(--hit); }
article.fair { border-inline-start-color: var(--sub); }
article.poor { border-inline-start-color: var(--del); }
article h3 { font-weight: 400; display: flex; flex-wrap: wrap; gap: 2px 10px; align-items: baseline; }
article h3 small { margin-inline-start: auto; }
article em { font-style: normal; font-size: .78rem; padding: 0 8px; border-radius: 9px;
  background: var(--sub-paper); color: var(--sub-ink); }
.key i + i { margin-inline-start: 1em; }
.aligned { margin: 8px -4px 4px; }
.aligned > span { display: inline-grid; vertical-align: top; margin: 2px 0; max-width: 100%; }
.aligned > span > * { padding: 0 4px; min-height: 1.5em; white-space: pre-wrap; text-decoration: none; }
.aligned .hit :last-child { color: var(--soft); }
.aligned del { border-radius: 4px 4px 0 0; } .aligned ins { border-radius: 0 0 4px 4px; }
.aligned .sub > * { background: var(--sub-paper); color: var(--sub-ink); }
.aligned .del > * { background: var(--del-paper); color: var(--del-ink); border-radius: 4px; }
.aligned .ins > * { background: var(--ins-paper); color: var(--ins-ink); border-radius: 4px; }
.aligned .del > del { text-decoration: line-through; }
summary { cursor: pointer; color: var(--soft); font-size: .85rem; width: fit-content; }
.written { margin-top: 4px; font-size: .92rem; }
.written > * { display: block; }
@media (max-width: 720px) {
  body { padding: 20px 14px 48px; }
  .headline { grid-template-columns: 1fr 1fr; padding: 18px; gap: 18px 12px; }
  .rate strong { font-size: min(2.5rem, 8.2vw); }
  .columns > section { padding: 16px; }
  .headline dl { grid-column: 1 / -1; justify-self: stretch; }
  article h3 small { margin-inline-start: 0; flex-basis: 100%; }
}
"""


def worst(scores: Scores, n: int) -> list[ScoredRow]:
    """The `n` scored rows with the highest error rate, among equals those with more errors, then in their order."""

    def badness(row: ScoredRow) -> tuple[float, int]:
        count = scores.errors_of(row)
        return count.rate or 0.0, count.errors

    return sorted((row for row in scores.rows if row.is_scored), key=badness, reverse=True)[:n]


def wer_line(scores: Scores) -> str:
    """The line that Kaldi's tools print: `%WER 20.00 [ 12 / 60, 3 ins, 4 del, 5 sub ]`."""
    count = scores.words
    percent = "n/a" if count.rate is None else f"{100 * count.rate:.2f}"
    counts = f"{count.insertions} ins, {count.deletions} del, {count.substitutions} sub"
    return f"%WER {percent} [ {count.errors} / {count.reference_length}, {counts} ]"


def table(scores: Scores, title: str, seconds: float) -> Table:
    """The scores for the console; `seconds` is what the evaluation took."""
    shown = Table(title=escape_markup(_visible(title)), title_justify="left", caption_justify="left")
    shown.add_column("text")
    for name in ("WER", "CER", "words", "sub", "del", "ins", "utterances", "seconds"):
        shown.add_column(name, justify="right")
    for text, words, chars, style in (
        ("normalised", scores.words, scores.chars, "bold"),
        ("as written", scores.words_orthographic, scores.chars_orthographic, "dim"),
    ):
        kinds = (words.reference_length, words.substitutions, words.deletions, words.insertions)
        counts = [f"{count:,}" for count in (*kinds, scores.utterances)]
        shown.add_row(text, _percent(words.rate), _percent(chars.rate), *counts, f"{seconds:.1f}", style=style)
    shown.caption = escape_markup("\n".join(_notes(scores)))
    return shown


def write_report(path: Path, scores: Scores, title: str, facts: Mapping[str, str]) -> None:
    """Write the page under this name, complete or not at all. It loads nothing, runs nothing and is well-formed XML."""
    content = "\n".join([
        f"<header><h1>{_text(title)}</h1></header>",
        "<main>",
        _headline(scores),
        _notes_section(scores),
        f'<div class="columns">{_histogram(scores)}{_facts(facts)}</div>',
        _mistakes(scores),
        _utterances(scores),
        _invented(scores),
        "</main>",
    ])  # fmt: skip
    # No style without this hash, nothing else at all: what a transcript smuggles in could still neither run nor load.
    fingerprint = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{fingerprint}'; base-uri 'none'; form-action 'none'"
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta http-equiv="Content-Security-Policy" content="{policy}" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<meta name="color-scheme" content="light dark" />
<title>{escape(_visible(title))}</title>
<style>{STYLE}</style>
</head>
<body>
{content}
</body>
</html>
"""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)


def _notes(scores: Scores) -> list[str]:
    """What a reader must know before trusting the numbers, in plain text."""
    notes = []
    if not scores.scored_utterances:
        notes.append("No reference has a word after normalisation: there is no error rate.")
    if scores.empty_references:
        notes.append(
            f"Empty references: {scores.empty_references:,}, left out of WER and CER. "
            f"Words that the model wrote on them: {scores.words_on_empty_references:,}."
        )
    if scores.token_limit_hits:
        notes.append(f"Hypotheses cut by the token limit: {scores.token_limit_hits:,}.")
    if scores.empty_hypotheses:
        notes.append(f"Empty hypotheses: {scores.empty_hypotheses:,}, each word of theirs counted as deleted.")
    if scores.problems:
        reasons = ", ".join(f"{_visible(reason)} {count:,}" for reason, count in scores.problems.items())
        notes.append(f"Damaged or cut audio, scored all the same: {reasons}.")
    return notes


def _notes_section(scores: Scores) -> str:
    items = "".join(f"<li>{_text(note)}</li>" for note in _notes(scores))
    return f'<ul class="notes">{items}</ul>' if items else ""


def _headline(scores: Scores) -> str:
    rates = [
        ("WER", "words", scores.words, scores.words_orthographic),
        ("CER", "characters", scores.chars, scores.chars_orthographic),
    ]
    if scores.unit == CHARACTERS:
        rates.reverse()
    big = "".join(
        f'<div class="rate"><h2>{name}</h2><strong>{_percent(count.rate)}</strong>'
        f"<p>{count.errors:,} errors in {count.reference_length:,} {unit}</p>"
        f'<p class="soft">{_percent(written.rate)} as written</p></div>'
        for name, unit, count, written in rates
    )
    _, unit, count, _ = rates[0]
    tiles = [
        ("Utterances", f"{scores.utterances:,}"),
        ("With an error (SER)", _percent(scores.ser)),
        (unit.capitalize(), f"{count.reference_length:,}"),
        ("Audio", _duration(scores.audio_seconds)),
    ]
    facts = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in tiles)
    return f'<section class="headline">{big}<dl>{facts}</dl>{_shares(unit, count)}</section>'


def _shares(unit: str, count: ErrorCount) -> str:
    """One bar of hits and kinds of errors, with the numbers below it."""
    kinds = [
        ("hit", "correct", count.hits),
        ("sub", "substituted", count.substitutions),
        ("del", "deleted", count.deletions),
        ("ins", "inserted", count.insertions),
    ]
    scale = 1000 / max(1, sum(size for _, _, size in kinds))
    bars, left = "", 0.0
    for kind, _, size in kinds:
        bars += f'<rect class="{kind}" x="{left:.2f}" width="{size * scale:.2f}" height="10" />'
        left += size * scale
    label = f"{unit}: " + ", ".join(f"{size:,} {name}" for _, name, size in kinds)
    legend = "".join(f'<li><i class="{kind}"></i><b>{size:,}</b> {name}</li>' for kind, name, size in kinds)
    drawing = f'<svg viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" aria-label="{label}">{bars}</svg>'
    return f'<div class="shares">{drawing}<ul>{legend}</ul></div>'


def _histogram(scores: Scores) -> str:
    """How many utterances have which error rate: none, up to 10 %, …, up to 100 %, above."""
    labels = ["0", *(str(percent) for percent in range(10, 101, 10)), ">100"]
    sizes = [0] * len(labels)
    for row in scores.rows:
        if row.is_scored:
            count = scores.errors_of(row)
            tenths = -(-10 * count.errors // count.reference_length)  # rounded up, in whole numbers
            sizes[min(tenths, len(labels) - 1)] += 1
    bars = ""
    for index, (label, size) in enumerate(zip(labels, sizes, strict=True)):
        middle, height = 17 + 29 * index, 110 * size / max(1, *sizes)
        written = "" if not size else str(size) if size < 1000 else f"{size / 1000:.1f}k"
        kind = "hit" if index == 0 else "del" if index == len(labels) - 1 else "sub"
        bars += (
            f'<rect class="{kind}" x="{middle - 12}" y="{128 - height:.1f}" width="24" height="{height:.1f}" rx="2" />'
        )
        bars += f'<text x="{middle}" y="{123 - height:.1f}">{written}</text>'
        bars += f'<text class="axis" x="{middle}" y="143">{label}</text>'
    name = "CER" if scores.unit == CHARACTERS else "WER"
    bars += f'<path d="M2 128.5H352" /><text class="axis" x="177" y="160">up to … % {name}</text>'
    drawing = f'<svg class="histogram" viewBox="0 0 354 164" role="img" aria-label="Utterances by {name}">{bars}</svg>'
    return f"<section><h2>Utterances by {name}</h2>{drawing}</section>"


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in facts.items())
    return f'<section><h2>How it was made</h2><dl class="facts">{rows}</dl></section>' if rows else ""


def _mistakes(scores: Scores) -> str:
    """The mistakes made more than once, most frequent first."""
    kinds: dict[str, Counter[tuple[str, str]]] = {"sub": Counter(), "del": Counter(), "ins": Counter()}
    for row in scores.rows:
        if row.is_scored and row.ref_norm != row.hyp_norm:
            for pair in _pairs(row, scores.unit):
                if pair[0] != pair[1]:
                    kinds[_kind(pair)][pair] += 1
    lists = ""
    for kind, title in (("sub", "Substituted"), ("del", "Left out"), ("ins", "Put in")):
        items = "".join(
            f"<li><b>{count:,}×</b> {' → '.join(f'<bdi>{_token(token)}</bdi>' for token in pair if token)}</li>"
            for pair, count in kinds[kind].most_common(SHOWN_MISTAKES)
            if count > 1
        )
        lists += f'<div><h3><i class="{kind}"></i>{title}</h3><ol>{items}</ol></div>' if items else ""
    return f'<section><h2>Most frequent mistakes</h2><div class="mistakes">{lists}</div></section>' if lists else ""


def _utterances(scores: Scores) -> str:
    rows = worst(scores, SHOWN_ROWS)
    if not rows:
        return ""
    rest = scores.scored_utterances - len(rows)
    shown = f"The {len(rows):,} worst of {scores.scored_utterances:,}; all are in predictions.jsonl. " if rest else ""
    cards = "\n".join(_card(row, scores) for row in rows)
    return f"""<section><h2>Utterances, worst first</h2>
<p class="soft">{shown}In each pair of lines the normalised reference is above, what the model wrote below.</p>
<p class="soft key"><i class="sub"></i>substituted <i class="del"></i>deleted <i class="ins"></i>inserted</p>
{cards}</section>"""


def _card(row: ScoredRow, scores: Scores) -> str:
    p, count = row.prediction, scores.errors_of(row)
    level = "good" if not count.errors else "fair" if 2 * count.errors < count.reference_length else "poor"
    unit = "characters" if scores.unit == CHARACTERS else "words"
    details = [f"{count.errors:,} of {count.reference_length:,} {unit}", _duration(p.audio_seconds)]
    details += [_text(value) for value in (p.language, p.speaker) if value]
    flags = ["token limit"] if p.hit_token_limit else []
    flags += [_text(p.problem)] if p.problem else []
    marks = "".join(f"<em>{flag}</em>" for flag in flags)
    language = f' lang="{escape(_visible(p.language))}"' if p.language else ""
    return (
        f'<article class="{level}"><h3><strong>{_percent(count.rate)}</strong> {_text(p.id)}{marks}'
        f"<small>{' · '.join(details)}</small></h3>"
        f'<p class="aligned" dir="auto"{language}>{_aligned(row, scores.unit)}</p>'
        f"<details><summary>as written</summary>{_written('Reference', p.ref)}{_written('Model', p.hyp)}</details>"
        "</article>"
    )


def _aligned(row: ScoredRow, unit: str | None) -> str:
    """The pairs of one utterance, reference over hypothesis; characters are joined to runs of one kind."""
    pairs = _pairs(row, unit)
    if unit == CHARACTERS:
        pairs = [pair for kind, run in groupby(pairs, key=_kind) for pair in _joined(list(run), kind)]
    cells = []
    for pair in pairs[:SHOWN_PAIRS]:
        kind = _kind(pair)
        left, right = (_token(token) for token in pair)
        upper = f"<del>{left}</del>" if kind in ("sub", "del") else f"<span>{left}</span>"
        lower = f"<ins>{right}</ins>" if kind in ("sub", "ins") else f"<span>{right}</span>"
        cells.append(f'<span class="{kind}">{upper}{lower}</span>')
    if len(pairs) > SHOWN_PAIRS:
        cells.append(f"<small>… and {len(pairs) - SHOWN_PAIRS:,} more</small>")
    return (" " if unit != CHARACTERS else "").join(cells)


def _joined(run: list[tuple[str, str]], kind: str) -> Iterable[tuple[str, str]]:
    size = RUN_CHARACTERS if kind == "hit" else len(run)
    for start in range(0, len(run), size):
        part = run[start : start + size]
        yield "".join(left for left, _ in part), "".join(right for _, right in part)


def _pairs(row: ScoredRow, unit: str | None) -> list[tuple[str, str]]:
    if unit == CHARACTERS:
        return align(row.ref_norm, row.hyp_norm)
    return align(row.ref_norm.split(), row.hyp_norm.split())


def _kind(pair: tuple[str, str]) -> str:
    left, right = pair
    return "hit" if left == right else "del" if not right else "ins" if not left else "sub"


def _invented(scores: Scores) -> str:
    rows = [row for row in scores.rows if not row.is_scored and row.hyp_norm]
    shown = "".join(
        f"<article><h3>{_text(row.prediction.id)}<small>{row.words.insertions:,} words</small></h3>"
        f"{_written('Reference', row.prediction.ref)}{_written('Model', row.prediction.hyp)}</article>"
        for row in rows[:SHOWN_INVENTED_ROWS]
    )
    count = f'<p class="soft">{min(len(rows), SHOWN_INVENTED_ROWS):,} of {len(rows):,} utterances.</p>'
    return f"<section><h2>Words where the reference has none</h2>{count}{shown}</section>" if rows else ""


def _written(name: str, text: str) -> str:
    shown = escape(_visible(_clip(text, SHOWN_TEXT_CHARACTERS)))
    return f'<p class="written"><small>{name}</small><span dir="auto">{shown}</span></p>'


def _clip(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[:characters]}… (+{len(text) - characters:,} characters)"


def _token(token: str) -> str:
    shown = "\u2423" if token == " " else token  # an open box: a space alone would not show
    return escape(_visible(_clip(shown, SHOWN_TOKEN_CHARACTERS)))


def _text(text: str) -> str:
    """The text as HTML, isolated: right-to-left text in it does not reorder what stands around."""
    return f"<bdi>{escape(_visible(text))}</bdi>"


def _visible(text: str) -> str:
    """The text with pictures (␀, ␛) for the control characters, which neither HTML nor a console may get."""
    return re.sub("[^\t\n -~\u00a0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", _picture, text)


def _picture(control: re.Match[str]) -> str:
    code = ord(control[0])
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


def _percent(rate: float | None) -> str:
    return "n/a" if rate is None else f"{100 * rate:.2f}%"


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "unknown length"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min {int(seconds % 60)} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"
