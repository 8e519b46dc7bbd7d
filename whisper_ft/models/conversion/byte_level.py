"""Byte-level BPE as GPT-2 writes it: each byte is one visible character, and tokens are made by ranked merges."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

VISIBLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
"""Bytes that stand for themselves. Each other byte is the next character from U+0100 on."""
_HIDDEN = [byte for byte in range(256) if byte not in VISIBLE]
CHARACTERS = {byte: chr(byte) for byte in VISIBLE} | {byte: chr(0x100 + n) for n, byte in enumerate(_HIDDEN)}
BYTES = {character: byte for byte, character in CHARACTERS.items()}


class VocabularyError(ValueError):
    """A vocabulary that is not byte-level BPE. The message continues "the vocabulary ..."."""


def text_of(token: bytes) -> str:
    """Return a token as it stands in vocab.json."""
    return "".join(CHARACTERS[byte] for byte in token)


def bytes_of(text: str) -> bytes:
    """Return the bytes of a token in vocab.json. Raises VocabularyError for a character that stands for no byte."""
    try:
        return bytes(BYTES[character] for character in text)
    except KeyError as error:
        raise VocabularyError(f"has a token with the character {error.args[0]!r}, which stands for no byte") from None


def merges(tokens: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """Rebuild the merges of a vocabulary, in which the id of a token is the rank of the merge that makes it.

    This holds for OpenAI's vocabularies. A token consists of the two parts that remain when all pairs of lower rank are
    merged. An empty token, which the multilingual vocabulary has at its end, is made by no merge. Raises
    VocabularyError if a token is not made of two others of lower id.
    """
    ranks = {token: rank for rank, token in enumerate(tokens) if token}
    if len(ranks) < sum(map(bool, tokens)):
        raise VocabularyError("has a token twice")
    if missing := {bytes([byte]) for byte in range(256)} - ranks.keys():
        raise VocabularyError(f"lacks {len(missing)} of the 256 single bytes, such as {min(missing)!r}")
    return [_last_pair(token, rank, ranks) for token, rank in ranks.items() if len(token) > 1]


def _last_pair(token: bytes, rank: int, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """Return the two parts that are merged last into a token."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        lowest, place = min((ranks.get(left + right, rank), i) for i, (left, right) in enumerate(pairwise(parts)))
        if lowest >= rank:
            raise VocabularyError(f"has the token {token!r} ({rank}), which no two tokens of lower ids make")
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts[0], parts[1]
