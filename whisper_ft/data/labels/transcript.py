"""Checks of a raw transcript."""


def text_problem(text: object) -> str | None:
    """Reason why a value is not a valid transcript; None if it is valid. An empty text is valid."""
    if not isinstance(text, str):
        return f"the transcript is not a text but {type(text).__name__}"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "the transcript has half a character (a lone surrogate)"
    return None


def is_blank(value: object) -> bool:
    """True for None, for an empty text, and for a text of spaces only."""
    return value is None or (isinstance(value, str) and not value.strip())
