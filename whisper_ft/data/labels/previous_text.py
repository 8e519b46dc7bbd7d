"""Previous text: the words said before an utterance, which its label may begin with."""

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import takewhile

from whisper_ft.config.training import LabelsConfig
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.labels.transcript import text_problem
from whisper_ft.data.types import Row, Source
from whisper_ft.runtime.errors import UsageError
from whisper_ft.scoring.unicode_text import joined

MAX_CHARACTERS = 2000
"""Characters of previous text after which no earlier text is added; they are more than the 223 tokens of a prompt."""
SEARCHED_ROWS = 1000
"""First rows of each source among which one must have a previous text."""


def previous_texts(
    rows: Sequence[Row], index: int, normalizer: Callable[[str, str | None], str] | None = None
) -> list[str]:
    """Return the texts before a row among the rows of its chunk, the earliest first; [] if there is none.

    If `data.prompt_column` is named, it is the value of that column. Otherwise it is what was said earlier in the same
    recording. If the row has its audio to itself, it is what the same speaker said in the rows right before. Texts that
    cannot be labels are left out.

    Parameters
        normalizer: rewrites the texts of rows for a language, as those of labels. The column keeps its own spelling.
    """
    row = rows[index]
    if row.prompt is not None:
        return [prompt] if (prompt := row.prompt.strip()) else []
    texts, characters = list[str](), 0
    for other in _before(rows, index):
        if other.problem is not None or text_problem(other.text) is not None:
            continue
        text = (normalizer(other.text, other.language) if normalizer else other.text).strip()
        texts.insert(0, text)
        characters += len(text)
        if characters > MAX_CHARACTERS:
            break
    return [text for text in texts if text]


def spelt_as_labels(rows: Sequence[Row], index: int, encode: LabelEncoder) -> list[str]:
    """Return the texts before a row (`previous_texts`), spelt as labels are."""

    def rewritten(text: str, language: str | None) -> str:
        return encode.normalizer(text, language or encode.language) if encode.normalizer else text

    return previous_texts(rows, index, rewritten)


def prompt_of(texts: Sequence[str], encode: LabelEncoder, trained: Collection[str] = ()) -> list[int]:
    """Return the tokens of the texts before a row; [] if there are none, or if one holds a text of `trained`.

    Parameters
        texts: of `spelt_as_labels`. Only the last ones are read if a prompt cannot hold all of them.
        trained: texts that must not be in the prompt, because the decoder learns to write them after it.
    """
    tokens = list[int]()
    for first in reversed(range(len(texts))):
        if any(text in texts[first] for text in trained):
            return []
        tokens = encode.previous(joined(texts[first:]))
        if len(tokens) == encode.most_previous:
            break
    return tokens


def refuse_without_previous(settings: LabelsConfig, sources: Sequence[Source]) -> None:
    """Raise UsageError if labels shall have previous text and no row has one, among the first of each source."""
    if settings.prompt_share and not any(map(_has_previous, sources)):
        raise UsageError(
            f"--labels.prompt_share {settings.prompt_share:g}: no text comes before any of the first rows, for none is "
            "after a row of the same recording or speaker. Give --data.prompt_column, or write the rows speaker by "
            "speaker: `python -m whisper_ft prepare --by speaker`"
        )


def _before(rows: Sequence[Row], index: int) -> Iterator[Row]:
    """Return the rows before a row, the nearest first: of its recording, or else of its speaker."""
    row = rows[index]
    of_recording = [other for other in rows if other.audio is row.audio and other.problem is None]
    if len(of_recording) > 1:
        earlier = (other for other in of_recording if other.offset < row.offset)
        return iter(sorted(earlier, key=lambda other: -other.offset))
    if row.speaker is None:
        return iter(())

    def is_same(other: Row) -> bool:
        return (other.speaker, other.language, other.task) == (row.speaker, row.language, row.task)

    return takewhile(is_same, reversed(rows[:index]))


def _has_previous(source: Source) -> bool:
    seen = 0
    for chunk, of_chunk in enumerate(source.rows):
        if seen >= SEARCHED_ROWS:
            return False
        rows = source.read(chunk) if of_chunk else []
        if any(previous_texts(rows, index) for index in range(len(rows))):
            return True
        seen += of_chunk
    return False
