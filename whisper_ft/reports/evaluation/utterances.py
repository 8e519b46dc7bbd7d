"""The sections of the page that show utterances and their words."""

from collections import Counter
from html import escape

from whisper_ft.reports.evaluation.alignment import aligned, kind_of, pairs_of, worst
from whisper_ft.reports.evaluation.sound import Sound
from whisper_ft.reports.evaluation.text import duration, isolated, percent, token_of, visible, written
from whisper_ft.scoring.scores import CHARACTERS, ScoredRow, Scores

SHOWN_ROWS = 500  # a page of 10,000 would be slow on a phone; predictions.jsonl has them all
SHOWN_INVENTED_ROWS = 50
SHOWN_MISTAKES = 10


def mistakes(scores: Scores) -> str:
    """The mistakes made more than once, most frequent first."""
    kinds: dict[str, Counter[tuple[str, str]]] = {"sub": Counter(), "del": Counter(), "ins": Counter()}
    for row in scores.rows:
        if row.is_scored and row.ref_norm != row.hyp_norm:
            for pair in pairs_of(row, scores.unit):
                if pair[0] != pair[1]:
                    kinds[kind_of(pair)][pair] += 1
    lists = ""
    for kind, title in (("sub", "Substituted"), ("del", "Left out"), ("ins", "Put in")):
        items = "".join(
            f"<li><b>{count:,}×</b> {' → '.join(f'<bdi>{token_of(token)}</bdi>' for token in pair if token)}</li>"
            for pair, count in kinds[kind].most_common(SHOWN_MISTAKES)
            if count > 1
        )
        lists += f'<div><h3><i class="{kind}"></i>{title}</h3><ol>{items}</ol></div>' if items else ""
    return f'<section><h2>Most frequent mistakes</h2><div class="mistakes">{lists}</div></section>' if lists else ""


def utterances(scores: Scores, sound: Sound) -> str:
    """The worst utterances, each with its alignment."""
    rows = worst(scores, SHOWN_ROWS)
    if not rows:
        return ""
    rest = scores.scored_utterances - len(rows)
    shown = f"The {len(rows):,} worst of {scores.scored_utterances:,}; all are in predictions.jsonl. " if rest else ""
    cards = "\n".join(card(row, scores, sound) for row in rows)
    if sound.left_out:
        shown += f"Audio of {sound.played:,}; that of {sound.left_out:,} had no room on the page. "
    return f"""<section><h2>Utterances, worst first</h2>
<p class="soft">{shown}In each pair of lines the normalised reference is above, what the model wrote below.</p>
{KEY}
{cards}</section>"""


KEY = (
    """<p class="soft key"><i class="sub"></i>substituted <i class="del"></i>deleted <i class="ins"></i>inserted</p>"""
)


def card(row: ScoredRow, scores: Scores, sound: Sound) -> str:
    """One utterance: its rate and what is known of it, its alignment, its audio, its texts as written."""
    p, count = row.prediction, scores.errors_of(row)
    level = "good" if not count.errors else "fair" if 2 * count.errors < count.reference_length else "poor"
    unit = "characters" if scores.unit == CHARACTERS else "words"
    details = [f"{count.errors:,} of {count.reference_length:,} {unit}", duration(p.audio_seconds)]
    details += [isolated(value) for value in (p.language, p.speaker) if value]
    flags = ["token limit"] if p.hit_token_limit else []
    flags += [isolated(p.problem)] if p.problem else []
    marks = "".join(f"<em>{flag}</em>" for flag in flags)
    return (
        f'<article class="{level}"><h3><strong>{percent(count.rate)}</strong> {isolated(p.id)}{marks}'
        f"<small>{' · '.join(details)}</small></h3>"
        f"{alignment(row, scores.unit)}{sound.player(p.id)}"
        f"<details><summary>as written</summary>{written('Reference', p.ref)}{written('Model', p.hyp)}</details>"
        "</article>"
    )


def alignment(row: ScoredRow, unit: str | None) -> str:
    """Reference over hypothesis, in the direction of the first letter of the reference and set in its language."""
    language = row.prediction.language
    named = f' lang="{escape(visible(language))}"' if language else ""
    return f'<p class="aligned" dir="auto"{named}>{aligned(row, unit)}</p>'


def invented(scores: Scores) -> str:
    """What the model wrote where the reference has nothing."""
    rows = [row for row in scores.rows if not row.is_scored and row.hyp_norm]
    shown = "".join(
        f"<article><h3>{isolated(row.prediction.id)}<small>{row.words.insertions:,} words</small></h3>"
        f"{written('Reference', row.prediction.ref)}{written('Model', row.prediction.hyp)}</article>"
        for row in rows[:SHOWN_INVENTED_ROWS]
    )
    count = f'<p class="soft">{min(len(rows), SHOWN_INVENTED_ROWS):,} of {len(rows):,} utterances.</p>'
    return f"<section><h2>Words where the reference has none</h2>{count}{shown}</section>" if rows else ""
