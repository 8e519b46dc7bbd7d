"""Texts that a terminal or a log shows as they are: characters that it would obey are replaced by escapes.

Ids, names of files and columns come from other people's data. A terminal obeys escape sequences in them, and characters
that change the direction of writing make a line read as another one.
"""

import json
import re
import sys
from typing import Any, TextIO

from whisper_ft.runtime.redaction import redacted

OBEYED = (
    "\x00-\x1f\x7f-\x9f"  # C0 and C1 controls, such as line feed and escape
    "\xad\u061c\u180e\u200b\u200e\u200f\u2060-\u2064\ufeff\U000e0000-\U000e007f"  # invisible, or marks of direction
    "\u2028\u2029\u202a-\u202e\u2066-\u206f"  # line separators, embeddings, overrides and isolates of direction
    "\ufff9-\ufffb\ufffe\uffff\ud800-\udfff"  # annotations, no characters, lone surrogates
)
"""Characters, as ranges of a regular expression. The joiners U+200C and U+200D stay, because spellings need them."""
_OBEYED = re.compile(f"[{OBEYED}]")
_OBEYED_BUT_LINE_FEED = re.compile(f"(?!\n)[{OBEYED}]")
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: object, *, keep_lines: bool = False) -> str:
    """Return a text with an escape such as `\\x1b` or `\\u202e` in place of each character in `OBEYED`.

    The result is one line, unless `keep_lines` leaves line feeds as they are. Credentials in addresses are hidden. A
    clean text is returned unchanged.
    """
    return redacted((_OBEYED_BUT_LINE_FEED if keep_lines else _OBEYED).sub(_escape, str(text)))


def say(*lines: object, file: TextIO | None = None, redact: bool = True) -> None:
    """Print each text on one line, cleaned by `printable`, to a file or to standard output.

    Without `redact`, credentials in addresses are shown, as in the address of a page that the user is to open.
    """
    for line in lines:
        print(printable(line) if redact else _OBEYED.sub(_escape, str(line)), file=file or sys.stdout, flush=True)


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, such as `1 utterance` or `1,234 utterances`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def json_text(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON in which the characters of `OBEYED` are escapes; a reader gets them back.

    Raises ValueError for NaN and infinity, which JSON lacks.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
    return _OBEYED_BUT_LINE_FEED.sub(lambda found: json.dumps(found[0])[1:-1], text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return _NAMED.get(found[0]) or (
        f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )
