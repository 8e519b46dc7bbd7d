"""Whisper tokenizer with a vocabulary of hundreds of tokens in place of 51,865, in Whisper's order."""

import json
from typing import Any

from whisper_ft.cli.demo.sentences import vocabulary

BYTES = 256
STEPS_PER_SECOND = 50  # timestamp tokens, and encoder positions, per second: 20 ms each


def micro_tokenizer(language: str, merges: int, window_seconds: int, max_label_tokens: int) -> Any:
    """Build a WhisperTokenizer whose tokens are bytes, at most `merges` byte pairs, special tokens and timestamps.

    Whisper has the same order of tokens. Byte pairs are learnt from the words of `language`, its default language.
    Timestamps reach to `window_seconds`. Raises ValueError for a language without a grammar.
    """
    from tokenizers import AddedToken
    from transformers import WhisperTokenizer

    vocab, pairs = _byte_pairs(language, merges)
    end_of_text, *others = special_tokens()
    tokenizer = WhisperTokenizer(
        vocab=vocab,
        merges=pairs,
        language=language,
        task="transcribe",
        pad_token=end_of_text,
        extra_special_tokens=others,
        model_max_length=max_label_tokens,
    )
    times = [f"<|{step / STEPS_PER_SECOND:.2f}|>" for step in range(window_seconds * STEPS_PER_SECOND + 1)]
    tokenizer.add_tokens([AddedToken(time, normalized=False) for time in times])
    return tokenizer


def special_tokens() -> list[str]:
    """Return Whisper's special tokens in Whisper's order."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    tasks = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
    return [f"<|{name}|>" for name in ("endoftext", "startoftranscript", *LANGUAGES, *tasks)]


def _byte_pairs(language: str, merges: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Learn byte pairs; return the ids of the 256 bytes and of the pairs, and the pairs in the order of merging.

    Single bytes can represent every text. Pairs only shorten labels, in scripts with two or three bytes a letter. They
    are learnt from the demo's list of words, and not from the sentences of any split.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer

    model = Tokenizer(BPE())
    model.pre_tokenizer = ByteLevel(add_prefix_space=False)
    trainer = BpeTrainer(vocab_size=BYTES + merges, initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    words = vocabulary(language)
    model.train_from_iterator([*(f" {word}" for word in words), *(word.capitalize() for word in words)], trainer)
    learnt = json.loads(model.to_str())["model"]
    return learnt["vocab"], [(left, right) for left, right in learnt["merges"]]
