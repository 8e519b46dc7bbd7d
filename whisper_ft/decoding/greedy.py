"""Greedy decoding of Whisper with no more work than it takes: the tokens of transformers' greedy `generate`, sooner.

The encoder runs once and its keys and values are projected once; each further step is one token a row; a row that has
ended leaves the batch. What `generate` does besides costs most of its time where the model is small (measured:
docs/performance.md), and a batch there runs until its longest row ends, which a row that loops never does.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

Cache = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer, [B, heads, positions, d_head]."""
Rules = Callable[[Sequence[Sequence[int]], torch.Tensor], torch.Tensor]
"""From the tokens that each row has written since its prompt, and logits [B, V], to the logits that may be chosen."""


class GreedyDecoder:
    """The decoder of a WhisperForConditionalGeneration, a step at a time. `suppressed` ids are never written."""

    def __init__(self, model: Any, suppressed: Sequence[int], suppressed_at_begin: Sequence[int]) -> None:
        self._model, self._decoder = model, model.model.decoder
        attention = self._decoder.layers[0].self_attn
        self._heads, self._head_size = attention.num_heads, attention.head_dim
        ids = torch.arange(model.config.vocab_size)  # a generation config may name others, too
        never = torch.zeros(len(ids)).masked_fill(torch.isin(ids, torch.tensor(suppressed)), float("-inf"))
        first = never.masked_fill(torch.isin(ids, torch.tensor(suppressed_at_begin)), float("-inf"))
        self._never, self._never_first = never.to(model.device), first.to(model.device)

    def encode(self, features: torch.Tensor) -> torch.Tensor:  # [B, M, T] -> [B, positions, D]
        """What the decoder hears."""
        states: torch.Tensor = self._model.model.encoder(features).last_hidden_state
        return states

    def language(self, states: torch.Tensor, start: int, languages: Sequence[int]) -> list[int]:
        """For each row the most likely of some language tokens after the start token."""
        tokens = torch.full((len(states), 1), start, device=states.device)
        logits = self._step(tokens, 0, self._empty(states, 1), self._heard(states))
        allowed = torch.tensor(languages, device=states.device)
        return [int(language) for language in allowed[logits[:, allowed].argmax(-1)]]

    def __call__(
        self, states: torch.Tensor, prompt: Sequence[int], most: int, end: int, rules: Rules | None = None
    ) -> list[list[int]]:
        """Tokens of each row after the prompt, without `end`; a row that never ended has `most` of them."""
        written: list[list[int]] = [[] for _ in range(len(states))]
        rows = torch.arange(len(states), device=states.device)  # which row of the batch each one left is
        heard, spoken = self._heard(states), self._empty(states, len(prompt) + most)
        tokens = torch.tensor([list(prompt)], device=states.device).expand(len(states), -1)
        for position in range(most):
            at = 0 if position == 0 else len(prompt) + position - 1
            logits = self._step(tokens, at, spoken, heard) + (self._never if position else self._never_first)
            if rules is not None:
                logits = rules([written[row] for row in rows.tolist()], logits)
            tokens = logits.argmax(-1, keepdim=True)
            for row, token in zip(rows.tolist(), tokens[:, 0].tolist(), strict=True):
                if token != end:
                    written[row].append(token)
            going_on = (tokens[:, 0] != end).nonzero()[:, 0]
            if not len(going_on):
                break
            if len(going_on) < len(rows):
                rows, tokens = rows[going_on], tokens[going_on]
                for cache in (heard, spoken):  # layer by layer, or all of them would be there twice for a moment
                    for layer, (keys, values) in enumerate(cache):
                        cache[layer] = keys[going_on], values[going_on]
        return written

    def _heard(self, states: torch.Tensor) -> Cache:
        """Keys and values of cross-attention, which are the same at every step.

        Contiguous, because each step reads all of them: with 1,500 positions the whole decoder takes 2/3 of the time.
        """
        layers = [layer.encoder_attn for layer in self._decoder.layers]
        return [
            (self._split(layer.k_proj(states)).contiguous(), self._split(layer.v_proj(states)).contiguous())
            for layer in layers
        ]

    def _empty(self, states: torch.Tensor, positions: int) -> Cache:
        shape = (len(states), self._heads, positions, self._head_size)
        kind = torch.get_autocast_dtype(states.device.type) if torch.is_autocast_enabled(states.device.type) else None
        return [
            (states.new_empty(shape, dtype=kind), states.new_empty(shape, dtype=kind)) for _ in self._decoder.layers
        ]

    def _step(self, tokens: torch.Tensor, at: int, spoken: Cache, heard: Cache) -> torch.Tensor:  # -> [B, V] float32
        """Logits after tokens [B, n] that stand at position `at`; their keys and values are put into `spoken`."""
        until = at + tokens.shape[1]
        x = self._decoder.embed_tokens(tokens) + self._decoder.embed_positions.weight[at:until]
        for layer, (keys, values), (heard_keys, heard_values) in zip(self._decoder.layers, spoken, heard, strict=True):
            attention, y = layer.self_attn, layer.self_attn_layer_norm(x)
            keys[:, :, at:until] = self._split(attention.k_proj(y))
            values[:, :, at:until] = self._split(attention.v_proj(y))
            # Only a prompt has several tokens at once, and it stands at position 0, as `is_causal` takes it.
            x = x + self._attend(attention, y, keys[:, :, :until], values[:, :, :until], is_causal=tokens.shape[1] > 1)
            y = layer.encoder_attn_layer_norm(x)
            x = x + self._attend(layer.encoder_attn, y, heard_keys, heard_values, is_causal=False)
            x = x + layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(x))))
        last: torch.Tensor = self._model.proj_out(self._decoder.layer_norm(x[:, -1]))
        return last.float()

    def _attend(
        self, attention: Any, x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *, is_causal: bool
    ) -> torch.Tensor:
        query = self._split(attention.q_proj(x)) * attention.scaling  # before the product, as transformers does
        mixed = F.scaled_dot_product_attention(query, keys, values, is_causal=is_causal, scale=1.0)
        projected: torch.Tensor = attention.out_proj(mixed.transpose(1, 2).flatten(2))
        return projected

    def _split(self, x: torch.Tensor) -> torch.Tensor:  # [B, n, D] -> [B, heads, n, d_head]
        return x.view(*x.shape[:2], self._heads, self._head_size).transpose(1, 2)
