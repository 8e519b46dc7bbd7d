"""Checks and repair of a checkpoint's tokenizer."""

from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken
from transformers import WhisperTokenizer
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from whisper_ft.models.generation_config import END, NO_TIMESTAMPS, START, TASKS
from whisper_ft.runtime.errors import UsageError

RARE = ("startoflm", "startofprev", "nospeech", "nocaptions")  # large-v3 renamed nocaptions to nospeech


def check_tokens(name: str, tokenizer: WhisperTokenizer, stated: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise UsageError unless the tokenizer is complete and its ids of Whisper's tokens are those in the config files.

    `stated` holds the fields of each config file, by file name.
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
