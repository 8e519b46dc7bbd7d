"""Words of a transcript as groups of tokens, by spaces or, in scripts without spaces, by characters."""

import codecs
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""Codes of the languages that openai-whisper splits by characters, because they are written without spaces."""
QUOTES_AND_DASHES = "\"'-"  # they open a word when a space precedes them
OPENING = "¿¡"  # besides Unicode's opening brackets and initial quotes


class TokenSpan(NamedTuple):
    """Text of some consecutive tokens, and the indexes of the first of them and of the one after the last."""

    text: str
    begin: int
    end: int


class WordTokens(NamedTuple):
    """A word with its punctuation and the space before it, and its part that is spoken."""

    whole: TokenSpan
    spoken: TokenSpan
    """Without punctuation at both ends; all of a word that has nothing else."""


def words_of(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], language: str) -> list[WordTokens]:
    """Split the tokens of a transcript into words; each token is in one word.

    In a language without spaces, each group of tokens that makes whole characters is a word. Latin letters and digits
    in a row stay together there, and marks stay with their letter. Punctuation belongs to the word before it, and an
    opening sign to the word after it.
    """
    words: list[list[TokenSpan]] = []
    for span in characters_of(tokenizer, tokens):
        if words and _continues(words[-1][-1].text, span.text, is_spaced=language not in UNSPACED):
            words[-1].append(span)
        else:
            words.append([span])
    return [_word(spans) for spans in _without_lone_punctuation(words)]


def characters_of(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> Iterator[TokenSpan]:
    """Group tokens so that each group makes whole characters: one letter may need several tokens.

    Bytes that are no UTF-8 become U+FFFD. A token without text belongs to the group after it.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    begin, text = 0, ""
    for index, content in enumerate(_bytes_of(tokenizer, tokens), start=1):
        text += decoder.decode(content, final=index == len(tokens))
        if text and not decoder.getstate()[0]:
            yield TokenSpan(text, begin, index)
            begin, text = index, ""


def _bytes_of(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> Iterator[bytes]:
    """Yield the bytes of each token. Tokens that a user added are texts, and all others are in the byte alphabet."""
    added = tokenizer.get_added_vocab().values()
    for token, text in zip(tokens, tokenizer.convert_ids_to_tokens([*tokens]), strict=True):
        if token in added or any(character not in BYTES for character in text or ""):
            yield str(text).encode()
        else:
            yield bytes(BYTES[character] for character in text or "")


def _byte_alphabet() -> dict[str, int]:
    """Return the byte for each character in the texts of tokens, as byte-level BPE defines it (GPT-2, Radford 2019).

    Printable characters of Latin-1 stand for themselves, and the others are counted from U+0100.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


BYTES = _byte_alphabet()


def _continues(before: str, text: str, *, is_spaced: bool) -> bool:
    """Return True if a text belongs to the word of the text before it."""
    last, first = before[-1], text[0]
    if is_spaced or first.isspace():
        return not first.isspace()
    is_latin = all(character.isascii() and character.isalnum() for character in (last, first))
    is_closing = unicodedata.category(first)[0] in "PM" and not _is_opening(first)
    return is_latin or is_closing or _is_opening(last) or last.isspace()


def _is_opening(character: str) -> bool:
    return unicodedata.category(character) in ("Ps", "Pi") or character in OPENING


def _is_punctuation(text: str) -> bool:
    return all(character.isspace() or unicodedata.category(character)[0] == "P" for character in text)


def _without_lone_punctuation(words: Sequence[list[TokenSpan]]) -> list[list[TokenSpan]]:
    """Join words that are nothing but punctuation with the word before them, or with the one after an opening sign."""
    joined: list[list[TokenSpan]] = []
    is_open = False  # whether the last word waits for the next
    for word in words:
        is_lone = all(_is_punctuation(span.text) for span in word)
        last = word[-1].text[-1]
        opens = is_lone and (last.isspace() or _is_opening(last) or last in QUOTES_AND_DASHES)
        if joined and (is_open or (is_lone and not opens)):
            joined[-1] += word
            is_open = is_open and is_lone
        else:
            joined.append([*word])
            is_open = is_lone
    if is_open and len(joined) > 1:
        joined[-2:] = [joined[-2] + joined[-1]]
    return joined


def _word(spans: Sequence[TokenSpan]) -> WordTokens:
    spoken = [span for span in spans if not _is_punctuation(span.text)] or spans
    inner = [span for span in spans if spoken[0].begin <= span.begin < spoken[-1].end]
    return WordTokens(_joined(spans), _joined(inner))


def _joined(spans: Sequence[TokenSpan]) -> TokenSpan:
    return TokenSpan("".join(span.text for span in spans), spans[0].begin, spans[-1].end)
