"""Lines for the user: the split, columns, language and task that are used of a set, and the columns that are not."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from whisper_ft.config.data import DEFAULT_TASK
from whisper_ft.data.formats.label_columns import FOUND, LANGUAGE, TASK, named_column
from whisper_ft.data.labelled import LabelledSource
from whisper_ft.data.labels.languages import whisper_language
from whisper_ft.data.types import Overruled
from whisper_ft.runtime.errors import UsageError, one_line
from whisper_ft.runtime.redaction import redacted

MAX_LINES = 5
"""Values of overruled columns that are shown, the most frequent first."""
MAX_CHARACTERS = 40
"""Characters of a value that are shown."""
MAX_ROWS, MAX_CHUNKS = 100_000, 200
"""Most rows and chunks whose columns are read at a start; remote data takes a request for each chunk."""


def used_lines(name: str, source: LabelledSource, default_language: str | None) -> Iterator[str]:
    """Return `used_line` of a set, and `overruled_lines` of its first rows. No audio is read."""
    yield used_line(name, source, default_language)
    if source.may_overrule():
        yield from overruled_lines(*_count(source))


def used_line(name: str, source: LabelledSource, default_language: str | None) -> str:
    """Return the line about what is used of a set.

    Parameters
        name: words for the set, such as `training data`.
        default_language: language of rows for which neither a setting nor a column says one.
    """
    used, where = source.used, source.where
    columns = (("audio", used.audio), ("transcript", used.text))
    parts = [
        f"split {used.split}" if used.split else "",
        f"not read: {used.other_splits}" if used.other_splits else "",
        ", ".join(f"{part} of column {column}" for part, column in columns if column),
        _label(source, LANGUAGE, default_language or "of the model"),
        _label(source, TASK, DEFAULT_TASK),
        f"segments of column {where.segments_column}" if where.segments_column else "",
        "times in the transcript" if where.text_times else "",
        f"previous text of column {where.prompt_column}" if where.prompt_column else "",
    ]
    return one_line(f"{name}: {redacted(where.path)}: {'; '.join(filter(None, parts))}")


def overruled_lines(counts: Counter[Overruled], rows: int, part: str = "") -> Iterator[str]:
    """Return lines about columns that say otherwise than what is used; none if `counts` is empty.

    The MAX_LINES most frequent values get a line each, and the others one together.

    Parameters
        rows: number of rows that were looked at.
        part: words before that number, such as `the first`.
    """
    for (column, value, used), count in counts.most_common(MAX_LINES):
        shown = value if len(value) <= MAX_CHARACTERS else f"{value[:MAX_CHARACTERS]}..."
        yield one_line(f"column {column} says {shown} for {count} of {part}{rows} rows; {used} is used")
    if len(counts) > MAX_LINES:
        others = [count for _, count in counts.most_common()[MAX_LINES:]]
        yield f"{len(others)} other values of these columns are not used either, in {sum(others)} rows"


def count_overruled(rows: Iterable[tuple[Overruled, ...]]) -> Counter[Overruled]:
    """Count the rows by the columns that say otherwise."""
    return Counter(other for row in rows for other in row)


def languages_found(sources: Sequence[LabelledSource]) -> list[str]:
    """Return Whisper's codes of the languages in the sources' language columns, each once, in the order of appearance.

    Sources whose language the user set are skipped. The result is empty if any other source has no language column, or
    takes its column by the first rules (FOUND).

    Languages that Whisper lacks are left out. Only the first chunks of each source are read (MAX_ROWS, MAX_CHUNKS), and
    no audio.
    """
    asked = [source for source in sources if source.where.language is None]
    if any(not source.used.language or source.where.language_column == FOUND for source in asked):
        return []
    found: dict[str, None] = {}
    for source in asked:
        own = dict.fromkeys(language for chunk in _first_chunks(source) for language, _ in source.source.labels(chunk))
        for language in own:
            with suppress(UsageError):  # a language that Whisper lacks, or no language at all
                found[whisper_language(str(language or ""))] = None
    return list(found)


def _label(source: LabelledSource, kind: str, default: str) -> str:
    """Return words for the language or task that counts."""
    said, column = getattr(source.where, kind), getattr(source.used, kind)
    is_used = said is None or named_column(source.where, kind) or source.where.language_column == FOUND
    if column and is_used:
        return f"{kind} of column {column}, else {said or default}"
    return f"{kind} {said or default}"


def _count(source: LabelledSource) -> tuple[Counter[Overruled], int, str]:
    """Count the rows whose columns say otherwise, among all rows or the first ones."""
    counts, rows = Counter[Overruled](), 0
    for chunk in _first_chunks(source):
        counts += count_overruled(source.overruled(chunk))
        rows += source.rows[chunk]
    return counts, rows, "" if rows == sum(source.rows) else "the first "


def _first_chunks(source: LabelledSource) -> Iterator[int]:
    """Yield the chunks of which the columns of language and task are read at a start."""
    rows = 0
    for chunk, of_chunk in enumerate(source.rows[:MAX_CHUNKS]):
        if rows >= MAX_ROWS:
            return
        yield chunk
        rows += of_chunk
