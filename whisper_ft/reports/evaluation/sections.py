"""The sections of the page that show findings: normalisations, breakdowns, signs of hallucination, a comparison."""

from collections.abc import Sequence

from whisper_ft.reports.evaluation.bars import bar, change, rates, shares
from whisper_ft.reports.evaluation.sound import Sound
from whisper_ft.reports.evaluation.text import isolated, percent, percent_range, points, points_range, written
from whisper_ft.reports.evaluation.utterances import KEY, alignment
from whisper_ft.scoring.bootstrap import LEVEL, Difference
from whisper_ft.scoring.comparison import Change, SystemComparison, p_value
from whisper_ft.scoring.hallucination import Check
from whisper_ft.scoring.normalizer_table import NormalizerRow
from whisper_ft.scoring.scores import CHARACTERS, ScoredRow, Scores
from whisper_ft.scoring.slices import Slice, Slicing

SHOWN_GROUPS = 12
SHOWN_SUSPECTS = 20
SHOWN_CHANGES = 10

ABOUT = {  # what a normaliser is for, by its name
    "golden": "no word becomes another",
    "none": "as written: case and punctuation count",
    "lower": "without case",
    "unpunctuated": "without punctuation",
    "whisper-basic": "as in Whisper's paper; it deletes the vowel signs of many scripts",
    "whisper-english": "as in Whisper's paper, for English",
}


def normalisations(variants: Sequence[NormalizerRow]) -> str:
    """The same transcripts under several normalisers; the first is the headline."""
    if len(variants) < 2:
        return ""
    rows = "".join(
        f"<tr{' class=' + chr(34) + 'first' + chr(34) if index == 0 else ''}><th>{isolated(variant.name)}"
        f"<small>{ABOUT.get(variant.name, '')}</small></th><td>{percent(variant.words.rate)}</td>"
        f'<td>{percent(variant.chars.rate)}</td><td class="more">{variant.scored_utterances:,}</td></tr>'
        for index, variant in enumerate(variants)
    )
    head = '<tr><th>normaliser</th><td>WER</td><td>CER</td><td class="more">utterances</td></tr>'
    return f"<section><h2>Under each normaliser</h2><table><thead>{head}</thead><tbody>{rows}</tbody></table></section>"


def breakdowns(found: Sequence[Slicing], scores: Scores) -> str:
    """Each breakdown as a card; those in their own order have a picture, the others a bar for each group."""
    cards = "".join(_breakdown(breakdown, scores) for breakdown in found if len(breakdown.groups) > 1)
    return f"<section><h2>Where the errors are</h2>{cards}</section>" if cards else ""


def _breakdown(breakdown: Slicing, scores: Scores) -> str:
    unit = "characters" if scores.unit == CHARACTERS else "words"
    name, groups = "CER" if unit == "characters" else "WER", breakdown.groups
    shown = groups[:SHOWN_GROUPS]
    _, overall = scores.headline
    most = max((_reach(group) for group in groups if not group.few), default=0.0)
    most = most or max((_reach(group) for group in groups), default=0.0)
    rows = "".join(_group(group, most, None if breakdown.ordered else overall) for group in shown)
    head = (
        f'<tr><th></th><td class="bar"></td><td>{name}</td><td class="more">{LEVEL:.0%} interval</td>'
        f'<td>utterances</td><td class="more">{unit}</td></tr>'
    )
    kind = "groups ordered" if breakdown.ordered else "groups"
    table = f'<table class="{kind}"><thead>{head}</thead><tbody>{rows}</tbody></table>'
    if breakdown.ordered:
        columns = [(_short(group), group.count.rate, group.interval, group.few) for group in groups]
        picture = rates(f"{name} by {breakdown.by}", f"{name} in %, by {breakdown.by} in seconds", columns)
        table = f'<div class="beside">{picture}{table}</div>'
    below = _below(breakdown, shown)
    return f'<div class="card"><h3>By {isolated(breakdown.by)}</h3>{table}{below}</div>'


def _group(group: Slice, most: float, overall: float | None) -> str:
    count = group.count
    name = "<i>not known</i>" if group.name is None else isolated(group.name)
    drawing = bar(count.rate, group.interval, most, overall, group.few)
    faint = ' class="few"' if group.few else ""
    return (
        f'<tr{faint}><th>{name}</th><td class="bar">{drawing}</td><td>{percent(count.rate)}</td>'
        f'<td class="more">{percent_range(group.interval)}</td><td>{group.utterances:,}</td>'
        f'<td class="more">{count.reference_length:,}</td></tr>'
    )


def _below(breakdown: Slicing, shown: Sequence[Slice]) -> str:
    """What the table does not show, and what is faint in it."""
    said, judged = "", [group for group in breakdown.groups if group.name is not None and not group.few]
    if len(shown) < len(breakdown.groups):
        said += f"The {len(shown):,} worst of {len(breakdown.groups):,}; all are in summary.json. "
        ordered = sorted(group.count.rate or 0.0 for group in judged)
        if ordered:
            said += f"Median {percent(ordered[len(ordered) // 2])}, best {percent(ordered[0])}. "
    if any(group.few for group in shown):
        said += "Faint: too few words to judge by. "
    if not breakdown.ordered:
        said += "The dotted line is the rate of all."
    return f'<p class="soft">{said}</p>' if said else ""


def _reach(group: Slice) -> float:
    return max(group.count.rate or 0.0, group.interval.high if group.interval else 0.0)


def _short(group: Slice) -> str:
    return "?" if group.name is None else group.name.removesuffix(" s and more").replace(" – ", "–").removesuffix(" s")


def signs(found: Sequence[Check], scores: Scores, sound: Sound) -> str:
    """Each kind of sign with its count, and its utterances to unfold."""
    cards = "".join(_sign(sign, scores, sound) for sign in found)
    return f'<section><h2>Signs of hallucination</h2><div class="signs">{cards}</div></section>' if cards else ""


def _sign(sign: Check, scores: Scores, sound: Sound) -> str:
    count = len(sign.flagged)
    share = f"{100 * count / scores.utterances:.2f}% of the utterances" if count else "in no utterance"
    top = f'<strong>{count:,}</strong><div><h3>{sign.title}</h3><p class="soft">{share}</p></div>'
    shown = "".join(
        f"<article><h3>{isolated(suspect.row.prediction.id)}<small>{isolated(suspect.evidence)}</small></h3>"
        f"{sound.player(suspect.row.prediction.id)}"
        f"{written('Reference', suspect.row.prediction.ref)}{written('Model', suspect.row.prediction.hyp)}</article>"
        for suspect in sign.flagged[:SHOWN_SUSPECTS]
    )
    rest = count - SHOWN_SUSPECTS
    more = f'<p class="soft">… and {rest:,} more; their ids are in summary.json.</p>' if rest > 0 else ""
    listed = f"<details><summary>show</summary>{shown}{more}</details>" if count else ""
    kind = "sign seen" if count else "sign"
    return f'<div class="{kind}"><div class="top">{top}</div><p class="soft">{isolated(sign.rule)}</p>{listed}</div>'


def comparison(found: SystemComparison | None) -> str:
    """The two systems, their difference with its interval, and the utterances that changed most."""
    if found is None:
        return ""
    name, difference = found.headline
    if difference is None:
        return f'<section class="compared"><h2>Compared</h2><p>{isolated(found.verdict)}</p></section>'
    significant = difference.is_significant
    kind = ("hit" if difference.change < 0 else "del") if significant else "even"
    parts = [
        ("hit", "better", len(found.better)),
        ("even", "with as many errors", found.same_errors),
        ("del", "worse", len(found.worse)),
    ]
    picture = change(difference.change, difference.interval, kind) if difference.interval else ""
    axis = '<p class="ends soft"><span>← fewer errors</span><span>more errors →</span></p>' if picture else ""
    return (
        f'<section class="compared"><h2>Compared with {isolated(found.names[0])}</h2>'
        f'<div class="card"><p class="verdict {kind}">{isolated(found.verdict)}</p>'
        f'<div class="pair">{_numbers(name, difference, found)}<div class="drawn">{picture}{axis}</div></div>'
        f'{shares("utterances", parts)}<p class="soft">Interval and p from {found.test.resampling}.</p></div>'
        f'<div class="changes">{_changes("Most improved", found.better, found)}'
        f"{_changes('Most worsened', found.worse, found)}</div></section>"
    )


def _numbers(name: str, difference: Difference, found: SystemComparison) -> str:
    p = "" if difference.p_value is None else f"<div><dt>p</dt><dd>{p_value(difference.p_value)}</dd></div>"
    interval = f"<small>{points_range(difference.interval)}</small>" if difference.interval else ""
    return (
        f"<dl><div><dt>{isolated(found.names[0])}</dt><dd>{percent(difference.first)}</dd></div>"
        f"<div><dt>{isolated(found.names[1])}</dt><dd>{percent(difference.second)}</dd></div>"
        f"<div><dt>change in points of {name}</dt><dd>{points(difference.change)}{interval}</dd></div>{p}</dl>"
    )


def _changes(title: str, changes: Sequence[Change], found: SystemComparison) -> str:
    if not changes:
        return ""
    cards = "".join(_change(change, found) for change in changes[:SHOWN_CHANGES])
    rest = f" <small>{SHOWN_CHANGES} of {len(changes):,}</small>" if len(changes) > SHOWN_CHANGES else ""
    return f"<details><summary><b>{title}</b>{rest}</summary>{KEY}{cards}</details>"


def _change(change: Change, found: SystemComparison) -> str:
    level = "good" if change.more_errors < 0 else "poor"
    size, direction = abs(change.more_errors), "fewer" if change.more_errors < 0 else "more"
    said = f"{size:,} {direction} error{'s' if size > 1 else ''}"

    def shown(name: str, row: ScoredRow) -> str:
        return f"<small>{isolated(name)}</small>{alignment(row, found.first.unit)}"

    return (
        f'<article class="{level}"><h3><strong>{said}</strong> {isolated(change.first.prediction.id)}</h3>'
        f"{shown(found.names[0], change.first)}{shown(found.names[1], change.second)}</article>"
    )
