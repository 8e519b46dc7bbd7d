"""Report on the data, made from the statistics of its rows: main figures, sections and problems."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from whisper_ft.cli.doctor.blocks import Block, Finding, Letters, Level, NumberTable, block_lines
from whisper_ft.cli.doctor.histogram import histogram, quantiles
from whisper_ft.cli.doctor.row_check import RowStatistics
from whisper_ft.cli.doctor.spelling import NOTED, SUSPECT, is_odd, shown
from whisper_ft.cli.doctor.tally import Tally
from whisper_ft.cli.doctor.verdict import verdict, warnings_of
from whisper_ft.config.evaluation import HELD_OUT
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.leakage import LEAKS, MEANING, Leakage
from whisper_ft.data.sampling.order import lanes_by_weight
from whisper_ft.data.types import Source
from whisper_ft.models.suppression import SuppressedCount
from whisper_ft.reports.text import percent
from whisper_ft.runtime.printable import counted
from whisper_ft.runtime.redaction import redacted

MAX_LETTERS = 300  # characters of the alphabet shown: Chinese has thousands


@dataclass(frozen=True)
class DataReport:
    """Result of a check of the data."""

    figures: dict[str, str]  # name and value of the main figures
    sections: dict[str, list[Block]]  # by title
    problems: list[str]  # one line each; each should be repaired, or accepted on purpose, before training
    blocking: Sequence[str] = ()  # reasons why a run would stop, or its score would be worthless

    @property
    def warnings(self) -> list[str]:
        """Findings that are no problems but should be looked at, one line each."""
        return warnings_of(self.sections)

    @property
    def verdict(self) -> str:
        """Verdict in one line, such as `nothing blocks; 3 warnings`."""
        return verdict(self.blocking, self.problems, self.warnings)

    def text(self, title: str) -> list[str]:
        """Return the section with this title as lines of text."""
        return block_lines(self.sections[title])


def problem_count(report: DataReport) -> str:
    """Return the number of problems in words: `no problems found`, `1 problem found`, `9 problems found`."""
    count = len(report.problems)
    return f"{count or 'no'} problem{'' if count == 1 else 's'} found"


def problems_of(statistics: RowStatistics, shared: Leakage | None, released: Collection[int]) -> list[str]:
    """Return the problems of the data, one line each; [] if there are none.

    `shared` is the overlap with the held-out set, or None. `released` holds the tokens that `model.suppress` releases.
    If it is not empty, suppressed tokens in transcripts are no problem.
    """
    lines = [
        f"unusable rows ({reason}): {tally.rows:,} of {statistics.rows:,}, such as {': '.join(tally.examples[0])}"
        for reason, tally in sorted(statistics.unusable.items())
    ]
    if statistics.same_audio.rows:
        rows, first = statistics.same_audio.rows, " = ".join(statistics.same_audio.examples[0])
        lines.append(f"rows with the audio of an earlier row: {rows:,}, such as {first}")
    for kind in SUSPECT:
        if tally := statistics.suspicious.get(kind):
            lines.append(f"transcripts with a {kind}: {tally.rows:,}, such as {': '.join(tally.examples[0])}")
    if (never := statistics.suppressed).affected and not released:
        lines.append(
            f"transcripts with tokens that the model never writes: {never.affected:,} of {never.labels:,}; "
            "--model.suppress auto lets the model write them"
        )
    for leak in shared.leaks if shared else ():
        train, heldout = leak.examples[0]
        rows = leak.heldout_rows
        lines.append(f"held-out rows that are also training rows ({leak.kind}): {rows:,}, such as {heldout} = {train}")
    return lines


def report_figures(statistics: RowStatistics, config: TrainingConfig, rows: int) -> dict[str, str]:
    """Return the main figures as texts, by name. At least one row must have been checked.

    `rows` is the number of all training rows, of which a part may be checked.
    """
    return {
        "Usable hours": f"{statistics.seconds / 3600:,.2f}",
        "Utterances": f"{statistics.rows:,}",
        "Unusable": f"{statistics.unusable_rows:,} ({percent(statistics.unusable_rows / statistics.rows)})",
        "Steps per epoch": f"{rows / config.batch.size:,.1f}",
        "Epochs of the run": f"{_positions(config, rows) / rows:,.2f}",
    }


def report_sections(
    statistics: RowStatistics,
    leakage: list[Block],
    config: TrainingConfig,
    source: Source,
    lanes: int,
    window_seconds: float,
    max_tokens: int,
) -> dict[str, list[Block]]:
    """Return the sections made from the statistics, by title, in the order of the report.

    The caller adds those about suppressed tokens, the first batch and the loss. `leakage` is from `leakage_section`.
    """
    tenths, tokens, rows = statistics.tenths, statistics.tokens, sum(source.rows)
    return {
        "data": _data(statistics, config, rows),
        "durations": [
            histogram("seconds", tenths, 0.1, window_seconds, quantiles(tenths, 0.1)),
            *filter(None, [statistics.durations.line]),
        ],
        "levels": statistics.levels.blocks(),
        "label tokens": [
            histogram("label tokens", tokens, 1, max_tokens, quantiles(tokens, 1)),
            f"the decoder has {max_tokens} positions",
        ],
        "unusable rows": _unusable(statistics),
        "duplicates": [
            _finding("rows with the audio of an earlier row", statistics.same_audio, "poor", " = "),
            _finding("rows with the text of an earlier row", statistics.same_text, "good", " = "),
        ],
        "alphabet": _alphabet(statistics),
        "languages": [_languages(statistics)],
        "order": [*_sources(config, source, lanes), *_steps(config, rows)],
        "leakage": leakage,
    }


def _data(statistics: RowStatistics, config: TrainingConfig, rows: int) -> list[Block]:
    names = [source.path for source in config.data.sources] or [config.data.path]
    usable = statistics.rows - statistics.unusable_rows
    part = "" if statistics.rows == rows else f" (the first of {rows:,}; the figures below cover only these)"
    return [
        f"from {', '.join(map(redacted, names))}",
        f"{counted(statistics.rows, 'utterance')}{part}",
        f"{statistics.seconds / 3600:.2f} usable hours, in {counted(usable, 'utterance')}",
    ]


def _unusable(statistics: RowStatistics) -> list[Block]:
    if not statistics.unusable:
        return ["none"]
    share = percent(statistics.unusable_rows / statistics.rows)
    return [
        f"{statistics.unusable_rows:,} of {statistics.rows:,} ({share})",
        *(_finding(reason, tally, "poor") for reason, tally in sorted(statistics.unusable.items())),
        *(f"also {reason}, among these: {rows:,}" for reason, rows in sorted(statistics.second_reasons.items())),
    ]


def suppressed_section(
    count: SuppressedCount, tokenizer: PreTrainedTokenizerBase, released: Collection[int]
) -> list[Block]:
    """Return a table of the suppressed tokens in the labels, and if `model.suppress` releases each.

    The most frequent token is first. Without such a token, a line says so.
    """
    if not count.affected:
        return ["no transcript holds a token that decoding suppresses"]
    table = [
        (
            repr(tokenizer.decode([token])),
            f"{token}",
            f"{count.rows[token]:,}",
            f"{times:,}",
            _written(token in released),
        )
        for token, times in count.times.most_common()
    ]
    return [
        f"{count.affected:,} of {count.labels:,} transcripts hold tokens that the files of the model suppress",
        NumberTable(("token", "id", "rows", "times", "of the run's models"), table),
    ]


def _written(is_released: bool) -> str:
    return "may be written" if is_released else "never written"


def _finding(name: str, tally: Tally, level: Level, separator: str = ": ") -> Finding:
    return Finding(name, f"{tally.rows:,}", level if tally.rows else "good", tally.examples, separator)


def _alphabet(statistics: RowStatistics) -> list[Block]:
    letters = sorted(statistics.characters)
    suspicious = frozenset(letter for letter in letters if is_odd(letter))
    counts = [(letter, statistics.characters[letter]) for letter in letters[:MAX_LETTERS]]
    return [
        Letters(counts, len(letters), suspicious),
        *(
            _finding(f"transcripts: {kind}", tally, "poor" if kind in SUSPECT else "fair")
            for kind in (*SUSPECT, *NOTED)
            if (tally := statistics.suspicious.get(kind))
        ),
    ]


def _languages(statistics: RowStatistics) -> NumberTable:
    counts = statistics.languages.most_common()
    return NumberTable(
        ("language", "rows", "share"),
        [(shown(name), f"{rows:,}", percent(rows / statistics.rows)) for name, rows in counts],
    )


def _sources(config: TrainingConfig, source: Source, lanes: int) -> Sequence[Block]:
    """Return a table of the sources, with the share of each in training, and its epochs; a line without data.sources.

    A small source with a large weight is read many times.
    """
    if not config.data.sources:
        return ["one source"]
    fingerprint = source.fingerprint()
    source_rows = [part["rows"] for part in fingerprint.get("sources", [fingerprint])]
    weights = [source.weight for source in config.data.sources]
    positions = _positions(config, sum(source.rows))
    table = [
        (
            f"{number}: {shown(redacted(part.path), 120)}",
            f"{rows:,}",
            percent(part.weight / sum(weights)),
            percent(owned / lanes),
            f"{positions * owned / lanes / rows:,.2f}",
        )
        for number, (part, rows, owned) in enumerate(
            zip(config.data.sources, source_rows, lanes_by_weight(weights, lanes), strict=True)
        )
    ]
    return [NumberTable(("source", "rows", "share by weight", "share in the stream", "its epochs"), table)]


def _positions(config: TrainingConfig, rows: int) -> int:
    """Return the number of utterances that the run reads."""
    return config.end_of(rows) or config.steps_over(rows) * config.batch.size


def _steps(config: TrainingConfig, rows: int) -> list[Block]:
    steps, per_epoch = config.steps_over(rows), rows / config.batch.size
    setting = f" (epochs: {config.epochs:g})" if config.epochs is not None else ""
    return [
        f"an epoch is {per_epoch:,.1f} steps of {counted(config.batch.size, 'utterance')}",
        f"the run is {counted(steps, 'step')}, which is {steps / per_epoch:,.2f} epochs{setting}",
    ]


def leakage_section(overlaps: Mapping[str, Leakage], *, is_compared: bool) -> list[Block]:
    """Return the overlap of the training data with each evaluated set, by the name of the set.

    In a set of eval.sets, equal recordings are a warning and no leak, because its rates choose no model. Equal names of
    files with other words are neither, because many corpora number their clips from 1.
    """
    if not is_compared:
        return ["not compared (--leakage none)"]
    if not overlaps:
        return ["no held-out set is named, so there is nothing to compare with"]
    blocks: list[Block] = []
    for name, shared in overlaps.items():
        title = [] if name == HELD_OUT else [f"set {name} of eval.sets:"]
        blocks += [*title, *_overlap(shared, is_held_out=name == HELD_OUT)]
    return blocks


def _overlap(shared: Leakage, *, is_held_out: bool) -> list[Block]:
    """Return the numbers of rows that are in both the training data and an evaluated set, by kind of match."""
    scored = "held-out rows" if is_held_out else "rows of the set"
    blocks: list[Block] = [f"{shared.train_rows:,} training rows against {shared.heldout_rows:,} {scored}"]
    for overlap in shared.overlaps:
        leak: Level = "poor" if overlap.kind in LEAKS and is_held_out else "fair"
        level: Level = leak if overlap.train_rows and overlap.kind != "name_only" else "good"
        rank = {"good": "", "fair": "warning: ", "poor": "LEAK: "}[level]
        share = percent(overlap.heldout_rows / max(shared.heldout_rows, 1))
        count = f"{overlap.heldout_rows:,} {scored} ({share}), {overlap.train_rows:,} training rows"
        blocks.append(Finding(f"{rank}{MEANING[overlap.kind]}", count, level, overlap.examples, " = "))
    return blocks
