"""Suppressed tokens: tokens of text that decoding never writes, their number in labels, and their release.

OpenAI's generation configs suppress 82 text tokens of signs that are not spoken, such as `(` and `:`. The reason is to
keep it from writing remarks like `(laughs)`. A transcript that holds such a token can be learned, but never be written.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from transformers import GenerationConfig, PreTrainedTokenizerBase

from whisper_ft.config.setting import LeadingSpace, Suppress
from whisper_ft.runtime.printable import counted

FIELDS = ("suppress_tokens", "begin_suppress_tokens")
SHOWN = 8  # tokens that a message lists


@dataclass(frozen=True)
class SuppressedTokens:
    """Ids of the text tokens that decoding never writes. Special tokens are not among them, because no text has any."""

    anywhere: frozenset[int]
    first: frozenset[int]
    """Tokens that are only never written first: in OpenAI's models the bare space."""

    @classmethod
    def of(cls, generation_config: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> Self:
        """Read the ids from a generation config, and leave out those of special and other added tokens."""
        added = set(tokenizer.get_added_vocab().values())
        anywhere, first = (frozenset(getattr(generation_config, name, None) or ()) - added for name in FIELDS)
        return cls(anywhere, first - anywhere)

    def among(self, text: Sequence[int]) -> list[int]:
        """Return the suppressed tokens among the tokens of a text, as often as they occur.

        They come in the order of the text, but a first token that is only never written first comes last.
        """
        return [token for token in text if token in self.anywhere] + [
            token for token in text[:1] if token in self.first
        ]


@dataclass
class SuppressedCount:
    """Number of labels with suppressed tokens, and of these tokens."""

    labels: int = 0
    affected: int = 0
    rows: Counter[int] = field(default_factory=Counter)
    """Labels with a token, by its id."""
    times: Counter[int] = field(default_factory=Counter)
    """Occurrences of a token, by its id."""

    def add(self, suppressed: Sequence[int]) -> None:
        """Count one label. `suppressed` are the suppressed tokens in it, empty if it has none."""
        self.labels += 1
        self.affected += bool(suppressed)
        self.rows.update(set(suppressed))
        self.times.update(suppressed)

    def lines(self, tokenizer: PreTrainedTokenizerBase, released: Collection[int]) -> list[str]:
        """Return a line about the counted tokens that the model may write from now on, and one about the others.

        `released` are the ids of the tokens that it may write. A line without tokens is left out.
        """
        written = [token for token, _ in self.times.most_common() if token in released]
        never = [token for token, _ in self.times.most_common() if token not in released]
        of = f"{self.affected:,} of the first {counted(self.labels, 'transcript')} hold suppressed tokens"
        endings = ((written, "it may write these from now on"), (never, "they are learned, but never written"))
        return [f"{of}: {self.examples(tokenizer, ids)}; {ending}" for ids, ending in endings if ids]

    def examples(self, tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
        """Return tokens with their numbers in words: `'(' 34 times in 28 rows, ':' 26 times in 26 rows`.

        The first SHOWN tokens are listed, then the number of the others.
        """
        texts = [
            f"{tokenizer.decode([token])!r} {counted(self.times[token], 'time')} in {counted(self.rows[token], 'row')}"
            for token in tokens[:SHOWN]
        ]
        return ", ".join([*texts, *([f"{len(tokens) - SHOWN} more"] if len(tokens) > SHOWN else [])])


def released_tokens(
    choice: Suppress,
    tokens: SuppressedTokens,
    tokenizer: PreTrainedTokenizerBase,
    leading_space: LeadingSpace,
) -> list[int]:
    """Return the ids that a decided `model.suppress` releases. `auto` must be decided before.

    A list is returned as it is, and `keep` releases none. With `none` all are released but the bare space, which a text
    can begin with only if the setting `labels.leading_space` is `always`.
    """
    if isinstance(choice, list):
        return choice
    if choice == "keep":
        return []
    kept = set() if leading_space == "always" else set(tokenizer.encode(" ", add_special_tokens=False))
    return sorted(tokens.anywhere | (tokens.first - kept))


def release(model: Any, tokens: Collection[int]) -> None:
    """Remove tokens from the suppressed ones, in a model's generation config and in its config, which may have them."""
    for config in (model.generation_config, model.config):
        for name in FIELDS:
            if suppressed := getattr(config, name, None):
                setattr(config, name, [token for token in suppressed if token not in tokens])


def fingerprint(generation_config: GenerationConfig) -> str:
    """Return a digest of all suppressed tokens, which differs if transcripts may differ by them."""
    lists = [sorted(getattr(generation_config, name, None) or ()) for name in FIELDS]
    return hashlib.sha256(json.dumps(lists).encode()).hexdigest()[:16]
