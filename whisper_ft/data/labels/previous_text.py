"""Previous text: the words said before an utterance, which its label may begin with."""

from collections.abc import Sequence

from whisper_ft.data.types import Row

MAX_CHARACTERS = 2000
"""Characters of previous text that are enough for the 223 tokens of a prompt."""


def previous_text(rows: Sequence[Row], index: int) -> str | None:
    """Return the text before a row among the rows of its chunk; None if there is none.

    It is the value of the prompt column if that column is named. Otherwise it is what was said earlier in the same
    recording, or else by the same speaker in the rows right before.
    """
    row = rows[index]
    if row.prompt is not None:
        return row.prompt
    before = [other for other in rows[:index] if other.audio is row.audio and other.offset < row.offset]
    if not before and row.speaker is not None:
        for other in reversed(rows[:index]):
            if other.speaker != row.speaker:
                break
            before.insert(0, other)
    return " ".join(other.text.strip() for other in before)[-MAX_CHARACTERS:] or None
