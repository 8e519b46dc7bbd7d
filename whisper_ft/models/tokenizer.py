"""Checks and repair of a checkpoint's tokenizer."""

from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer, pre_tokenizers
from transformers import WhisperTokenizer
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from whisper_ft.models.generation_config import END, NO_TIMESTAMPS, START, TASKS
from whisper_ft.runtime.errors import UsageError

SPACE = "Ġ"  # the character for a space in the token texts of byte-level BPE
OPENAI_WORDS: Mapping[int, Mapping[str, list[int]]] = {  # by the id of ` the` in the vocabulary
    264: {
        " the": [264],
        " don't": [500, 380],
        " 1984": [27127],
        " naïve": [1667, 15487, 303],
        " сям'я": [776, 10531, 6, 681],
        " العربية": [18863, 25513, 10632],
        "  two  spaces": [220, 732, 220, 7673],
    },
    262: {
        " the": [262],
        " don't": [836, 470],
        " 1984": [12844],
        " naïve": [41492],
        " 12,50": [1105, 11, 1120],
        "  two  spaces": [220, 734, 220, 9029],
    },
}
"""Token ids of words in OpenAI's multilingual vocabulary and in the English one (openai-whisper 20250625)."""
OPENAI_SIZE = range(50_256, 50_259)
"""Numbers of tokens in OpenAI's vocabularies without added tokens; <|endoftext|> and an empty token may be counted."""

REPAIR = "take tokenizer.json from the model on the Hub from which this one was made"

RARE = ("startoflm", "startofprev", "nospeech", "nocaptions")  # large-v3 renamed nocaptions to nospeech


def check_tokens(name: str, tokenizer: WhisperTokenizer, stated: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise UsageError unless the tokenizer is complete and its ids of Whisper's tokens are those in the config files.

    `stated` holds the fields of each config file, by file name; generation_config.json must be among them. `name` is
    the model's name in messages.
    """
    vocabulary = tokenizer.get_vocab()
    if vocabulary.keys() <= tokenizer.get_added_vocab().keys():
        raise UsageError(f"{name}: no tokenizer: tokenizer.json is missing or holds no vocabulary")
    if tokenizer.eos_token != END:
        raise UsageError(f"{name}: the tokenizer's end of text is {tokenizer.eos_token}; expected {END}")
    roles = {"decoder_start_token_id": START, "eos_token_id": END, "no_timestamps_token_id": NO_TIMESTAMPS}
    for role, token in roles.items():
        if token not in vocabulary:
            raise UsageError(f"{name}: the tokenizer has no {token}")
        for file, fields in stated.items():
            value, expected = fields.get(role), vocabulary[token]
            if value not in (None, expected, [expected]):
                raise UsageError(f"{name}: {role} is {value} in {file}, but {token} is {expected} in the tokenizer")
    for field, form in (("lang_to_id", "{}"), ("task_to_id", "<|{}|>")):
        for key, value in (stated["generation_config.json"].get(field) or {}).items():
            token = form.format(key)
            if vocabulary.get(token, value) != value:  # if the tokenizer lacks the name, any id is accepted
                raise UsageError(
                    f"{name}: {field} has {value} for {key}, but {token} is {vocabulary[token]} in the tokenizer"
                )


def check_merges(name: str, tokenizer: WhisperTokenizer) -> None:
    """Raise UsageError unless the tokenizer can make each token of its vocabulary from the text of the token.

    A tokenizer that lacks merges splits words into tokens that the model was not trained on. Copies in circulation lack
    the merge of a space and `t`, so ` the` becomes three tokens. Added tokens are not made by merges. In a vocabulary
    of OpenAI's, some words must also have OpenAI's ids, because words are split before the merges.
    """
    backend = tokenizer.backend_tokenizer
    vocabulary, added = backend.get_vocab(with_added_tokens=False), backend.get_added_tokens_decoder()
    texts = {number: text for text, number in vocabulary.items() if text and number not in added}
    # One call for all tokens, whose texts hold no space in byte-level BPE. It takes 0.2 s for 50,256 tokens.
    words = Tokenizer(backend.model)
    words.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    if words.encode(" ".join(texts.values())).ids != [*texts]:
        lost = [
            number for number, text in texts.items() if [token.id for token in words.model.tokenize(text)] != [number]
        ]
        if lost:
            example = f"{backend.decode(lost[:1])!r} ({lost[0]})"
            raise UsageError(
                f"{name}: its tokenizer lacks merges: it cannot make {len(lost)} of its {len(texts)} tokens, such as "
                f"{example}; {REPAIR}"
            )
    if len(vocabulary) not in OPENAI_SIZE:
        return
    for word, expected in OPENAI_WORDS.get(vocabulary.get(f"{SPACE}the", -1), {}).items():
        if (ids := tokenizer.encode(word, add_special_tokens=False)) != expected:
            raise UsageError(f"{name}: its tokenizer makes {ids} of {word!r}, OpenAI's makes {expected}; {REPAIR}")


def mark_special(tokenizer: WhisperTokenizer) -> int:
    """Mark Whisper's special tokens as special if the tokenizer has them as ordinary tokens.

    Returns how many tokens were changed. If `<|be|>` is an ordinary token, a transcript that contains this text gives
    the model a command. All are ordinary in a model without tokenizer.json, as models were saved until 2023, because
    added_tokens.json holds ids only. transformers 5 uses special_tokens_map.json for <|endoftext|> alone.
    """
    names = {END, START, NO_TIMESTAMPS, *(f"<|{name}|>" for name in (*LANGUAGES, *TASKS, *RARE))}
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    ordinary = [token.content for _, token in sorted(added.items()) if token.content in names and not token.special]
    if ordinary:
        known = [token for token in tokenizer.extra_special_tokens if token not in ordinary]
        marked = [AddedToken(token, normalized=False, special=True) for token in ordinary]
        tokenizer.add_special_tokens({"extra_special_tokens": [*known, *marked]})
    return len(ordinary)
