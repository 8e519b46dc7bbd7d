"""Tokenizer of transformers, rebuilt from a vocabulary: merges from the ranks, special tokens in OpenAI's order."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from tokenizers import AddedToken
from transformers import WhisperTokenizer
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from whisper_ft.models.conversion.byte_level import merges, text_of
from whisper_ft.models.conversion.signs import NEVER_FIRST, NOTES, SYMBOLS
from whisper_ft.models.generation_config import END, ENGLISH_END, NO_TIMESTAMPS, START, TASKS
from whisper_ft.models.tokenizer import RARE
from whisper_ft.runtime.regular_file import read_regular, strict_json

MOST_JSON_BYTES = 32_000_000  # limit of a plausible tokenizer.json; those of OpenAI have 2 to 4 MB
TIMES = tuple(f"<|{step / 50:.2f}|>" for step in range(1501))
"""Timestamps of a 30 s window. In the tokenizers on the Hub they are ordinary tokens that were added."""


def special_tokens(vocabulary_size: int, end: int) -> list[str] | None:
    """Return OpenAI's tokens from <|endoftext|> on, by the size of the vocabulary and the id of <|endoftext|>.

    Returns None if no vocabulary of OpenAI has that size. English vocabularies have 99 languages, too.
    """
    languages = vocabulary_size - end - len(TIMES) - 8
    if end not in (ENGLISH_END, ENGLISH_END + 1) or languages not in (99, 100):
        return None
    no_speech = "<|nospeech|>" if languages == 100 else "<|nocaptions|>"
    tasks = ("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", no_speech, NO_TIMESTAMPS)
    codes = [*LANGUAGES][:languages]
    return [END, START, *(f"<|{code}|>" for code in codes), *tasks, *TIMES]


def merge_texts(vocabulary: Sequence[bytes]) -> list[tuple[str, str]]:
    """Rebuild the merges of a vocabulary as tokenizer.json has them. Raises VocabularyError as `merges` does."""
    return [(text_of(left), text_of(right)) for left, right in merges(vocabulary)]


def build_tokenizer(
    vocabulary: Sequence[bytes], pairs: Sequence[tuple[str, str]], special: Sequence[str], max_length: int
) -> WhisperTokenizer:
    """Build a tokenizer.

    Parameters
        vocabulary: tokens before <|endoftext|>, by id.
        pairs: merges, in the order in which they are made.
        special: tokens from <|endoftext|> on, by id.
        max_length: decoder positions of the model.
    """
    ids = {text_of(token): number for number, token in enumerate(vocabulary)} | {END: len(vocabulary)}
    tokenizer = WhisperTokenizer(
        vocab=ids,
        merges=[*pairs],
        pad_token=END,
        extra_special_tokens=[token for token in special[1:] if not is_time(token)],
        model_max_length=max_length,
    )
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in special if is_time(token)])
    return tokenizer


def is_time(token: str) -> bool:
    """True for a timestamp such as `<|0.02|>`."""
    return token.startswith("<|") and token.endswith("|>") and token[2:-2].replace(".", "", 1).isdecimal()


def order_problem(special: Sequence[str]) -> str | None:
    """Return the reason why tokens from <|endoftext|> on are not in Whisper's order, or None."""
    if len({*special}) < len(special):
        return "a special token stands there twice"
    if [*special[:2]] != [END, START] or NO_TIMESTAMPS not in special:
        return f"its special tokens do not begin with {END}, {START}, or lack {NO_TIMESTAMPS}"
    if any(is_time(left) > is_time(right) for left, right in pairwise(special)):
        return "timestamps are not its last tokens"
    return None


def suppressed_tokens(tokenizer: WhisperTokenizer) -> list[int]:
    """Return the tokens that OpenAI's decoding never writes: signs that nobody speaks, and commands to the decoder."""

    def ids(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    spellings = [form for symbol in SYMBOLS.split() for form in (symbol, f" {symbol}")]
    single = {tokens[0] for form in spellings if len(tokens := ids(form)) == 1}
    first = {ids(form)[0] for sign in NOTES for form in (sign, f" {sign}")} | {ids(form)[0] for form in NEVER_FIRST}
    names = {START, *(f"<|{name}|>" for name in (*TASKS, *RARE))}
    return sorted(single | first | {number for name, number in tokenizer.get_vocab().items() if name in names})


def given_merges(path: Path) -> set[tuple[str, str]] | None:
    """Read the merges in a tokenizer.json, or return None if the file is missing or no tokenizer of byte pairs."""
    try:
        listed = strict_json(read_regular(path, MOST_JSON_BYTES))["model"]["merges"]
        pairs = (tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in listed)
        return {(left, right) for left, right in pairs}
    except (OSError, ValueError, TypeError, KeyError):
        return None
