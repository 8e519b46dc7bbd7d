"""Tables of an evaluation for a terminal."""

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from whisper_ft.reports.long_form_note import long_form_note
from whisper_ft.reports.text import duration, percent, percent_range, points, points_range, visible
from whisper_ft.runtime.printable import counted
from whisper_ft.scoring.analysis import Analysis
from whisper_ft.scoring.bootstrap import LEVEL, Difference
from whisper_ft.scoring.comparison import SystemComparison, p_value
from whisper_ft.scoring.edit_distance import ErrorCount
from whisper_ft.scoring.hallucination import Check
from whisper_ft.scoring.runaway import Runaway
from whisper_ft.scoring.scores import CHARACTERS, Scores
from whisper_ft.scoring.side_by_side import SystemRates
from whisper_ft.scoring.slices import Slicing
from whisper_ft.scoring.unheard import unheard_note

MAX_GROUPS = 12  # slices of a breakdown in a table or on the page; summary.json has them all
MAX_CHANGES = 3  # utterances that changed most, each way


def wer_line(scores: Scores, runaway: Runaway) -> str:
    """Return the WER in the form that Kaldi's tools print: `%WER 20.00 [ 12 / 60, 3 ins, 4 del, 5 sub ]`.

    It is the WER of the normalised texts, in any language; `n/a` if no reference has a word.

    Notes follow if the audio of some utterances could not be read, and if some transcripts are runaway ones.
    """
    count = scores.words
    percentage = "n/a" if count.rate is None else f"{100 * count.rate:.2f}"
    counts = f"{count.insertions} ins, {count.deletions} del, {count.substitutions} sub"
    noted = "; ".join(filter(None, [unheard_note(scores), runaway_note(scores, runaway)]))
    return f"%WER {percentage} [ {count.errors} / {count.reference_length}, {counts} ]" + (noted and f" ({noted})")


def runaway_note(scores: Scores, runaway: Runaway) -> str:
    """Return the rate without runaway transcripts, and their share of all errors; "" if there are none."""
    if not runaway.utterances:
        return ""
    name, share = scores.headline[0].upper(), percent(runaway.error_share, 0)
    return (
        f"{runaway.utterances:,} of {scores.scored_utterances:,} transcripts repeat themselves or reach the token "
        f"limit; they make {share} of all errors; {name} without them: {percent(runaway.others.rate)}"
    )


def score_table(scores: Scores, title: str, seconds: float, analysis: Analysis) -> Table:
    """Make the table of the error rates; `seconds` is the duration of the evaluation.

    Further rows show the rates under the other normalisers. The caption has intervals and notes.
    """
    table = _table(title)
    table.add_column("text")
    for name in ("WER", "CER", "words", "sub", "del", "ins"):
        table.add_column(name, justify="right", no_wrap=True)

    def add(text: str, words: ErrorCount, chars: ErrorCount, style: str) -> None:
        kinds = (words.reference_length, words.substitutions, words.deletions, words.insertions)
        table.add_row(text, percent(words.rate), percent(chars.rate), *(f"{count:,}" for count in kinds), style=style)

    add("normalised", scores.words, scores.chars, "bold")
    add("as written", scores.words_orthographic, scores.chars_orthographic, "dim")
    for variant in analysis.normalizer_rows[1:]:
        if variant.name == "none" and variant.words == scores.words_orthographic:
            continue  # the line above says the same
        add(escape(visible(variant.name)), variant.words, variant.chars, "dim")
    size = f"{counted(scores.utterances, 'utterance')} in {seconds:,.1f} s"
    size = "; ".join(filter(None, [size, unheard_note(scores)]))
    table.caption = escape("\n".join([size, *_intervals(analysis), *notes(scores, analysis.runaway)]))
    return table


def tables(scores: Scores, title: str, seconds: float, analysis: Analysis) -> list[Table]:
    """Make the tables of an evaluation; `seconds` is its duration.

    They are the scores, the breakdowns with two or more slices, the hallucination checks that flagged something, and
    the comparison if there is one.
    """
    all_tables = [score_table(scores, title, seconds, analysis)]
    all_tables += [slicing_table(slicing, scores.unit) for slicing in analysis.slicings if len(slicing.groups) > 1]
    seen = [check for check in analysis.checks if check.flagged]
    all_tables += [checks_table(seen)] if seen else []
    return all_tables + ([comparison_table(analysis.comparison)] if analysis.comparison else [])


def slicing_table(slicing: Slicing, unit: str | None) -> Table:
    """Make the table of the rates by language, duration or another column, with at most MAX_GROUPS slices."""
    table = _table(f"by {escape(slicing.by)}")
    table.add_column(escape(slicing.by), overflow="fold")
    name = "CER" if unit == CHARACTERS else "WER"
    for column in (name, f"{LEVEL:.0%} interval", "utterances", "characters" if unit == CHARACTERS else "words"):
        table.add_column(column, justify="right")
    for group in slicing.groups[:MAX_GROUPS]:
        count = group.count
        cells = (percent(count.rate), percent_range(group.interval) or ("few" if group.few else ""))
        sizes = (f"{group.utterances:,}", f"{count.reference_length:,}")
        group_name = "not known" if group.name is None else group.name
        table.add_row(escape(visible(group_name)), *cells, *sizes, style="dim" if group.few else None)
    rest = len(slicing.groups) - MAX_GROUPS
    table.caption = f"and {rest:,} more in summary.json" if rest > 0 else None
    return table


def checks_table(checks: list[Check]) -> Table:
    """Make the table of the hallucination checks, with the first flagged utterance of each.

    Each check must have flagged one.
    """
    table = _table("signs of hallucination")
    table.add_column("sign")
    table.add_column("utterances", justify="right")
    table.add_column("for example", overflow="fold")
    for check in checks:
        first = check.flagged[0]
        example = f"{first.row.prediction.id}: {first.evidence}"
        table.add_row(check.title, f"{len(check.flagged):,}", escape(visible(example)))
    return table


def comparison_table(comparison: SystemComparison) -> Table:
    """Make the table of two systems, their difference, and the utterances that changed most."""
    first, second = (visible(name) for name in comparison.names)
    table = _table(f"{second} against {first}")
    table.add_column("rate")
    for column in (first, second, "change", f"{LEVEL:.0%} interval", "p"):
        table.add_column(escape(column), justify="right", overflow="fold")
    for name, difference in (("WER", comparison.test.wer), ("CER", comparison.test.cer)):
        table.add_row(name, *_difference(difference))
    lines = [visible(comparison.verdict)]
    better, worse = len(comparison.better), len(comparison.worse)
    lines.append(f"Utterances: {better:,} better, {worse:,} worse, {comparison.same_errors:,} with as many errors.")
    for title, changes in (("Most improved", comparison.better), ("Most worsened", comparison.worse)):
        named = [f"{change.first.prediction.id} ({change.more_errors:+,})" for change in changes[:MAX_CHANGES]]
        lines += [visible(f"{title}: {', '.join(named)}")] if named else []
    lines.append(f"p and interval from {comparison.test.resampling}.")
    table.caption = escape("\n".join(lines))
    return table


def side_by_side_table(systems: Sequence[SystemRates], title: str) -> Table:
    """Make the table of several systems on one set, each with its difference from the first one."""
    first, table = systems[0], _table(title)
    name = first.scores.headline[0].upper()
    interval = f"{LEVEL:.0%} interval"
    table.add_column("adapter", overflow="fold")
    for column in ("WER", "CER", f"{interval} of {name}", f"change to {visible(first.name)}", interval, "p"):
        table.add_column(escape(column), justify="right", overflow="fold")
    for system in systems:
        own = system.confidence.cer if system.scores.unit == CHARACTERS else system.confidence.wer
        rates = [percent(system.scores.words.rate), percent(system.scores.chars.rate), percent_range(own)]
        compared = [""] * 3 if system.difference is None else _difference(system.difference)[2:]
        table.add_row(escape(visible(system.name)), *rates, *compared)
    table.caption = f"change, its interval and p from {first.confidence.resampling}, the same ones for all"
    return table


def sets_table(sets: Mapping[str, Scores], title: str) -> Table:
    """Make a table with the rates of each set, one set a row, in the order of the evaluation."""
    table = _table(title)
    table.add_column("set", overflow="fold")
    for column in ("WER", "CER", "with an error", "utterances", "audio"):
        table.add_column(column, justify="right")
    for name, scores in sets.items():
        rates = [percent(scores.words.rate), percent(scores.chars.rate), percent(scores.ser)]
        table.add_row(escape(visible(name)), *rates, f"{scores.utterances:,}", duration(scores.audio_seconds))
    return table


def notes(scores: Scores, runaway: Runaway) -> list[str]:
    """Return sentences about facts that distort or explain the rates; [] if there are none."""
    lines = [f"{note}." for note in [runaway_note(scores, runaway)] if note]
    lines += [f"Long recordings: {note}." for note in [long_form_note(scores.summary())] if note]
    if scores.loss is not None:
        without = f"; {scores.without_loss:,} utterances have none" if scores.without_loss else ""
        lines.append(f"Loss of the references: {scores.loss:.4f} nats per token{without}.")
    if not scores.scored_utterances:
        lines.append("No reference has a word after normalisation: there is no error rate.")
    if scores.empty_references:
        lines.append(
            f"Empty references: {scores.empty_references:,}, left out of WER and CER. "
            f"Words that the model wrote on them: {scores.words_on_empty_references:,}."
        )
    if scores.token_limit_hits:
        lines.append(f"Hypotheses cut by the token limit: {scores.token_limit_hits:,}.")
    if scores.fallback_windows:
        lines.append(f"Windows whose text was written at a higher temperature: {scores.fallback_windows:,}.")
    if scores.no_speech_windows:
        lines.append(f"Windows taken for silence, with the empty text: {scores.no_speech_windows:,}.")
    if scores.empty_hypotheses:
        lines.append(f"Empty hypotheses: {scores.empty_hypotheses:,}, each word of their references counts as deleted.")
    if scores.problems:
        reasons = ", ".join(f"{visible(reason)} {count:,}" for reason, count in scores.problems.items())
        lines.append(f"Damaged or cut audio, scored all the same: {reasons}.")
    return lines


def _intervals(analysis: Analysis) -> list[str]:
    """Return a line with the confidence intervals of both rates; no line if there are none."""
    confidence = analysis.confidence
    if not confidence.wer:
        return []
    ends = f"WER {percent_range(confidence.wer)}, CER {percent_range(confidence.cer)}"
    return [f"{LEVEL:.0%} intervals: {ends}; {confidence.resampling}."]


def _difference(difference: Difference | None) -> list[str]:
    if difference is None:
        return ["n/a"] * 5
    rates = [percent(difference.first), percent(difference.second), points(difference.change)]
    p = "" if difference.p_value is None else p_value(difference.p_value)
    return [*rates, points_range(difference.interval), p]


def _table(title: str) -> Table:
    return Table(title=escape(visible(title)), title_justify="left", caption_justify="left")
