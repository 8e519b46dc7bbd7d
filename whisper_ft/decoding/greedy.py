"""Greedy decoding for Whisper: gives the tokens of transformers' greedy `generate` in less time.

The encoder, and the keys and values that the decoder takes from its output, are computed once. Each further step
computes one token per row, and a row that has ended leaves the batch. In `generate`, the work around the model takes
most of the time of a small model (measured in docs/performance.md), and a batch runs until its longest row ends.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from transformers import WhisperForConditionalGeneration
from transformers.models.whisper.modeling_whisper import WhisperAttention

KeyValues = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each decoder layer, each [B, heads, positions, d_head]."""
LogitsRule = Callable[[Sequence[Sequence[int]], torch.Tensor], torch.Tensor]
"""Function that sets logits [B, V] of refused tokens to -inf, given the tokens of each row after its prompt."""
Choice = Callable[[torch.Tensor, Sequence[int], int], torch.Tensor]
"""Function that chooses the tokens [B], given logits [B, V], the rows' indexes in the first batch, and the number of
tokens so far."""


class Decoded(NamedTuple):
    """Tokens that were written for one row, and how likely they were."""

    tokens: list[int]
    """Tokens after the prompt, without the end token."""
    logprobs: list[float]
    """Natural logarithm of the probability of each token, and of the end token if the row has ended. Refused tokens
    have the probability 0."""
    no_speech_prob: float | None
    """Probability of the no-speech token directly after the start token, among all tokens; None if there is none."""


def likeliest(logits: torch.Tensor, rows: Sequence[int], position: int) -> torch.Tensor:
    """Choose the likeliest token of each row."""
    return logits.argmax(-1)


class GreedyDecoder:
    """Step-by-step decoder of a Whisper model.

    Parameters
        model: the model; its weights are read, not copied.
        suppressed: token ids that are never chosen.
        suppressed_at_begin: token ids that are not chosen as the first token, either.
        no_speech: id of the no-speech token; None if the model has none.
    """

    def __init__(
        self,
        model: WhisperForConditionalGeneration,
        suppressed: Sequence[int],
        suppressed_at_begin: Sequence[int],
        no_speech: int | None = None,
    ) -> None:
        self._model, self._decoder, self._no_speech = model, model.model.decoder, no_speech
        attention = self._decoder.layers[0].self_attn
        self._heads, self._head_size = attention.num_heads, attention.head_dim
        ids = torch.arange(model.config.vocab_size)  # a generation config may name ids beyond the vocabulary
        mask = torch.zeros(len(ids)).masked_fill(torch.isin(ids, torch.tensor(suppressed)), float("-inf"))
        first_mask = mask.masked_fill(torch.isin(ids, torch.tensor(suppressed_at_begin)), float("-inf"))
        self._mask, self._first_mask = mask.to(model.device), first_mask.to(model.device)

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        """Compute the encoder output [B, positions, D] of log-mel features [B, M, T]."""
        states: torch.Tensor = self._model.model.encoder(features).last_hidden_state
        return states

    def detect_language(self, states: torch.Tensor, start: int, languages: Sequence[int]) -> list[int]:
        """Return the likeliest of the language tokens after the start token, for each row of encoder output."""
        tokens = torch.full((len(states), 1), start, device=states.device)
        hidden = self._hidden(tokens, 0, self._empty_cache(states, 1), self._cross_attention_cache(states))
        logits, allowed = self._logits(hidden[:, -1]), torch.tensor(languages, device=states.device)
        return [int(language) for language in allowed[logits[:, allowed].argmax(-1)]]

    def __call__(
        self,
        states: torch.Tensor,
        prompt: Sequence[int],
        max_tokens: int,
        end: int,
        rule: LogitsRule | None = None,
        choose: Choice = likeliest,
    ) -> list[Decoded]:
        """Decode each row until its end token.

        Parameters
            states: encoder output [B, positions, D].
            prompt: tokens before the text, the same for every row.
            max_tokens: largest number of tokens of a row after the prompt; a row that does not end has as many.
            end: id of the end token.
            rule: refuses tokens at each step, in addition to the suppressed ones.
            choose: choice of each next token.
        """
        output: list[list[int]] = [[] for _ in range(len(states))]
        written: list[tuple[list[int], torch.Tensor]] = []  # rows and log-probabilities of each step
        rows = [*range(len(states))]  # original index of each row still in the batch
        cross, cache = self._cross_attention_cache(states), self._empty_cache(states, len(prompt) + max_tokens)
        tokens = torch.tensor([list(prompt)], device=states.device).expand(len(states), -1)
        no_speech: list[float | None] = []
        for position in range(max_tokens):
            hidden = self._hidden(tokens, len(prompt) + position - 1 if position else 0, cache, cross)
            no_speech = no_speech or self._no_speech_probs(hidden, prompt)
            logits = self._logits(hidden[:, -1]) + (self._mask if position else self._first_mask)
            if rule is not None:
                logits = rule([output[row] for row in rows], logits)
            chosen = choose(logits, rows, position)
            written.append((rows, _logprobs(logits, chosen)))
            active = [(place, token) for place, token in enumerate(chosen.tolist()) if token != end]
            for place, token in active:
                output[rows[place]].append(token)
            if not active:
                break
            if len(active) < len(rows):
                kept = torch.tensor([place for place, _ in active], device=states.device)
                rows, chosen = [rows[place] for place, _ in active], chosen[kept]
                _keep_rows(kept, cross, cache)
            tokens = chosen[:, None]
        return [Decoded(*row) for row in zip(output, _by_row(written, len(states)), no_speech, strict=True)]

    def score(
        self,
        states: torch.Tensor,
        prompt: Sequence[int],
        rows: Sequence[Sequence[int]],
        max_tokens: int,
        end: int,
        rule: LogitsRule | None = None,
    ) -> list[Decoded]:
        """Return transcripts that another search found, with their probabilities, computed in one pass.

        `rows` are the tokens of each row without prompt and end token; the other parameters are as in `__call__`.
        """
        length = len(prompt) + max(map(len, rows))
        read = torch.tensor([[*prompt, *row, *[end] * (length - len(prompt) - len(row))] for row in rows])
        cross, cache = self._cross_attention_cache(states), self._empty_cache(states, length)
        hidden = self._hidden(read.to(states.device), 0, cache, cross)
        logprobs = []
        for row, tokens in zip(hidden, rows, strict=True):  # logits of a whole batch would take gigabytes
            logits = self._logits(row[len(prompt) - 1 : len(prompt) + len(tokens)]) + self._mask  # [tokens + 1, V]
            logits[0] += self._first_mask
            if rule is not None:
                logits = rule([tokens[:count] for count in range(len(tokens) + 1)], logits)
            chosen = torch.tensor([*tokens, end][:max_tokens], device=states.device)
            logprobs.append(_logprobs(logits[: len(chosen)], chosen).tolist())
        return [
            Decoded(*row) for row in zip(map(list, rows), logprobs, self._no_speech_probs(hidden, prompt), strict=True)
        ]

    def _no_speech_probs(self, hidden: torch.Tensor, prompt: Sequence[int]) -> list[float | None]:
        """Return the probability of the no-speech token of each row, given the hidden states [B, n, D] of its prompt.

        As in OpenAI's decoding, it is read directly after the start token, and no token is refused.
        """
        if self._no_speech is None:
            return [None] * len(hidden)
        start = [*prompt].index(self._model.generation_config.decoder_start_token_id)
        return [*self._logits(hidden[:, start]).softmax(-1)[:, self._no_speech].tolist()]

    def _cross_attention_cache(self, states: torch.Tensor) -> KeyValues:
        """Compute the keys and values of cross-attention, which are the same at every step.

        They are contiguous in memory, because each step reads all of them. With 1,500 positions this reduces the time
        of the whole decoder to 2/3.
        """
        layers = [layer.encoder_attn for layer in self._decoder.layers]
        return [
            (self._split(layer.k_proj(states)).contiguous(), self._split(layer.v_proj(states)).contiguous())
            for layer in layers
        ]

    def _empty_cache(self, states: torch.Tensor, positions: int) -> KeyValues:
        """Allocate keys and values of self-attention for a number of positions, without initial values."""
        shape = (len(states), self._heads, positions, self._head_size)
        dtype = torch.get_autocast_dtype(states.device.type) if torch.is_autocast_enabled(states.device.type) else None
        return [
            (states.new_empty(shape, dtype=dtype), states.new_empty(shape, dtype=dtype)) for _ in self._decoder.layers
        ]

    def _hidden(self, tokens: torch.Tensor, at: int, cache: KeyValues, cross: KeyValues) -> torch.Tensor:
        """Compute the hidden states [B, n, D] of the last layer for tokens [B, n] at position `at`.

        Keys and values of the tokens are stored in `cache`.
        """
        until = at + tokens.shape[1]
        x: torch.Tensor = self._decoder.embed_tokens(tokens) + self._decoder.embed_positions.weight[at:until]
        for layer, (keys, values), (cross_keys, cross_values) in zip(self._decoder.layers, cache, cross, strict=True):
            attention, y = layer.self_attn, layer.self_attn_layer_norm(x)
            keys[:, :, at:until] = self._split(attention.k_proj(y))
            values[:, :, at:until] = self._split(attention.v_proj(y))
            # Only a prompt has several tokens at a time, and it begins at position 0, which `is_causal` assumes.
            x = x + self._attend(attention, y, keys[:, :, :until], values[:, :, :until], is_causal=tokens.shape[1] > 1)
            y = layer.encoder_attn_layer_norm(x)
            x = x + self._attend(layer.encoder_attn, y, cross_keys, cross_values, is_causal=False)
            x = x + layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(x))))
        return x

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Compute logits [..., V] in float32 from hidden states [..., D]."""
        logits: torch.Tensor = self._model.proj_out(self._decoder.layer_norm(hidden))
        return logits.float()

    def _attend(
        self, attention: WhisperAttention, x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *, is_causal: bool
    ) -> torch.Tensor:
        query = self._split(attention.q_proj(x)) * attention.scaling  # before the product, as in transformers
        mixed = F.scaled_dot_product_attention(query, keys, values, is_causal=is_causal, scale=1.0)
        projected: torch.Tensor = attention.out_proj(mixed.transpose(1, 2).flatten(2))
        return projected

    def _split(self, x: torch.Tensor) -> torch.Tensor:  # [B, n, D] -> [B, heads, n, d_head]
        return x.view(*x.shape[:2], self._heads, self._head_size).transpose(1, 2)


def _keep_rows(kept: torch.Tensor, *caches: KeyValues) -> None:
    """Drop all rows but the kept ones, layer by layer, so that only one layer exists twice at a time."""
    for layers in caches:
        for layer, (keys, values) in enumerate(layers):
            layers[layer] = keys[kept], values[kept]


def _logprobs(logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Return the log-probabilities [B] of chosen tokens [B] among logits [B, V]."""
    return -F.cross_entropy(logits, chosen, reduction="none")


def _by_row(written: Sequence[tuple[Sequence[int], torch.Tensor]], count: int) -> list[list[float]]:
    """Sort the log-probabilities of each step by row; they are copied from the device once."""
    by_row: list[list[float]] = [[] for _ in range(count)]
    owners = [row for rows, _ in written for row in rows]
    for row, logprob in zip(owners, torch.cat([values for _, values in written]).tolist(), strict=True):
        by_row[row].append(logprob)
    return by_row
