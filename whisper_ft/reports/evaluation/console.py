"""The evaluation in a terminal."""

from rich.markup import escape
from rich.table import Table

from whisper_ft.reports.evaluation.text import percent, percent_range, points, points_range, visible
from whisper_ft.scoring.analysis import Analysis
from whisper_ft.scoring.bootstrap import LEVEL, Difference
from whisper_ft.scoring.comparison import SystemComparison, p_value
from whisper_ft.scoring.edit_distance import ErrorCount
from whisper_ft.scoring.hallucination import Check
from whisper_ft.scoring.scores import CHARACTERS, Scores
from whisper_ft.scoring.slices import Slicing

SHOWN_GROUPS = 12  # of a breakdown; the page shows as many, summary.json all
SHOWN_CHANGES = 3  # utterances that changed most, each way


def wer_line(scores: Scores) -> str:
    """The line that Kaldi's tools print: `%WER 20.00 [ 12 / 60, 3 ins, 4 del, 5 sub ]`."""
    count = scores.words
    percentage = "n/a" if count.rate is None else f"{100 * count.rate:.2f}"
    counts = f"{count.insertions} ins, {count.deletions} del, {count.substitutions} sub"
    return f"%WER {percentage} [ {count.errors} / {count.reference_length}, {counts} ]"


def table(scores: Scores, title: str, seconds: float, findings: Analysis | None = None) -> Table:
    """The scores for the console; `seconds` is what the evaluation took."""
    shown = _table(title)
    shown.add_column("text")
    for name in ("WER", "CER", "words", "sub", "del", "ins"):
        shown.add_column(name, justify="right", no_wrap=True)

    def add(text: str, words: ErrorCount, chars: ErrorCount, style: str) -> None:
        kinds = (words.reference_length, words.substitutions, words.deletions, words.insertions)
        shown.add_row(text, percent(words.rate), percent(chars.rate), *(f"{count:,}" for count in kinds), style=style)

    add("normalised", scores.words, scores.chars, "bold")
    add("as written", scores.words_orthographic, scores.chars_orthographic, "dim")
    for variant in findings.normalizer_rows[1:] if findings else ():
        if variant.name == "none" and variant.words == scores.words_orthographic:
            continue  # the line above says the same
        add(escape(visible(variant.name)), variant.words, variant.chars, "dim")
    size = f"{scores.utterances:,} utterances in {seconds:,.1f} s"
    shown.caption = escape("\n".join([size, *_intervals(findings), *notes(scores)]))
    return shown


def tables(scores: Scores, title: str, seconds: float, findings: Analysis) -> list[Table]:
    """All for the console: the scores, the breakdowns, the signs of hallucination that were seen, the comparison."""
    shown = [table(scores, title, seconds, findings)]
    shown += [breakdown_table(breakdown, scores.unit) for breakdown in findings.slicings if len(breakdown.groups) > 1]
    seen = [sign for sign in findings.checks if sign.flagged]
    shown += [signs_table(seen)] if seen else []
    return shown + ([comparison_table(findings.comparison)] if findings.comparison else [])


def breakdown_table(breakdown: Slicing, unit: str | None) -> Table:
    """One breakdown, at most SHOWN_GROUPS of it."""
    shown = _table(f"by {escape(breakdown.by)}")
    shown.add_column(escape(breakdown.by), overflow="fold")
    name = "CER" if unit == CHARACTERS else "WER"
    for column in (name, f"{LEVEL:.0%} interval", "utterances", "characters" if unit == CHARACTERS else "words"):
        shown.add_column(column, justify="right")
    for group in breakdown.groups[:SHOWN_GROUPS]:
        count = group.count
        cells = (percent(count.rate), percent_range(group.interval) or ("few" if group.few else ""))
        sizes = (f"{group.utterances:,}", f"{count.reference_length:,}")
        group_name = "not known" if group.name is None else group.name
        shown.add_row(escape(visible(group_name)), *cells, *sizes, style="dim" if group.few else None)
    rest = len(breakdown.groups) - SHOWN_GROUPS
    shown.caption = f"and {rest:,} more in summary.json" if rest > 0 else None
    return shown


def signs_table(signs: list[Check]) -> Table:
    """The signs of hallucination, with an utterance of each."""
    shown = _table("signs of hallucination")
    shown.add_column("sign")
    shown.add_column("utterances", justify="right")
    shown.add_column("for example", overflow="fold")
    for sign in signs:
        first = sign.flagged[0] if sign.flagged else None
        example = f"{first.row.prediction.id}: {first.evidence}" if first else ""
        shown.add_row(sign.title, f"{len(sign.flagged):,}", escape(visible(example)))
    return shown


def comparison_table(comparison: SystemComparison) -> Table:
    """Two systems, their difference, and the utterances that changed most."""
    first, second = (visible(name) for name in comparison.names)
    shown = _table(f"{second} against {first}")
    shown.add_column("rate")
    for column in (first, second, "change", f"{LEVEL:.0%} interval", "p"):
        shown.add_column(escape(column), justify="right", overflow="fold")
    for name, difference in (("WER", comparison.test.wer), ("CER", comparison.test.cer)):
        shown.add_row(name, *_difference(difference))
    lines = [visible(comparison.verdict)]
    better, worse = len(comparison.better), len(comparison.worse)
    lines.append(f"Utterances: {better:,} better, {worse:,} worse, {comparison.same_errors:,} with as many errors.")
    for told, changes in (("Most improved", comparison.better), ("Most worsened", comparison.worse)):
        named = [f"{change.first.prediction.id} ({change.more_errors:+,})" for change in changes[:SHOWN_CHANGES]]
        lines += [visible(f"{told}: {', '.join(named)}")] if named else []
    lines.append(f"p and interval from {comparison.test.resampling}.")
    shown.caption = escape("\n".join(lines))
    return shown


def notes(scores: Scores) -> list[str]:
    """What a reader must know before trusting the numbers, in plain text."""
    told = []
    if not scores.scored_utterances:
        told.append("No reference has a word after normalisation: there is no error rate.")
    if scores.empty_references:
        told.append(
            f"Empty references: {scores.empty_references:,}, left out of WER and CER. "
            f"Words that the model wrote on them: {scores.words_on_empty_references:,}."
        )
    if scores.token_limit_hits:
        told.append(f"Hypotheses cut by the token limit: {scores.token_limit_hits:,}.")
    if scores.empty_hypotheses:
        told.append(f"Empty hypotheses: {scores.empty_hypotheses:,}, each word of theirs counted as deleted.")
    if scores.problems:
        reasons = ", ".join(f"{visible(reason)} {count:,}" for reason, count in scores.problems.items())
        told.append(f"Damaged or cut audio, scored all the same: {reasons}.")
    return told


def _intervals(findings: Analysis | None) -> list[str]:
    """One line on how far the rates can be trusted."""
    if not findings or not findings.confidence.wer:
        return []
    found = findings.confidence
    ends = f"WER {percent_range(found.wer)}, CER {percent_range(found.cer)}"
    return [f"{LEVEL:.0%} intervals: {ends}; {found.resampling}."]


def _difference(difference: Difference | None) -> list[str]:
    if difference is None:
        return ["n/a"] * 5
    rates = [percent(difference.first), percent(difference.second), points(difference.change)]
    p = "" if difference.p_value is None else p_value(difference.p_value)
    return [*rates, points_range(difference.interval), p]


def _table(title: str) -> Table:
    return Table(title=escape(visible(title)), title_justify="left", caption_justify="left")
