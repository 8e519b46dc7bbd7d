"""Greedy decoding for Whisper: gives the tokens of transformers' greedy `generate` in less time.

The encoder, and the keys and values that the decoder takes from its output, are computed once. Each further step
computes one token per row, and a row that has ended leaves the batch. In `generate`, the work around the model takes
most of the time of a small model (measured in docs/performance.md), and a batch runs until its longest row ends.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from transformers import WhisperForConditionalGeneration
from transformers.models.whisper.modeling_whisper import WhisperAttention

KeyValues = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each decoder layer, each [B, heads, positions, d_head]."""
LogitsRule = Callable[[Sequence[Sequence[int]], torch.Tensor], torch.Tensor]
"""Function that sets logits [B, V] of refused tokens to -inf, given the tokens of each row after its prompt."""


class GreedyDecoder:
    """Step-by-step decoder of a Whisper model.

    Parameters
        model: the model; its weights are read, not copied.
        suppressed: token ids that are never chosen.
        suppressed_at_begin: token ids that are not chosen as the first token, either.
    """

    def __init__(
        self, model: WhisperForConditionalGeneration, suppressed: Sequence[int], suppressed_at_begin: Sequence[int]
    ) -> None:
        self._model, self._decoder = model, model.model.decoder
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
        logits = self._step(tokens, 0, self._empty_cache(states, 1), self._cross_attention_cache(states))
        allowed = torch.tensor(languages, device=states.device)
        return [int(language) for language in allowed[logits[:, allowed].argmax(-1)]]

    def __call__(
        self,
        states: torch.Tensor,
        prompt: Sequence[int],
        max_tokens: int,
        end: int,
        rule: LogitsRule | None = None,
    ) -> list[list[int]]:
        """Decode each row until its end token.

        Parameters
            states: encoder output [B, positions, D].
            prompt: tokens before the text, the same for every row.
            max_tokens: largest number of tokens of a row after the prompt.
            end: id of the end token.
            rule: refuses tokens at each step, in addition to the suppressed ones.

        Returns the tokens of each row without prompt and `end`; a row that did not end has `max_tokens` of them.
        """
        output: list[list[int]] = [[] for _ in range(len(states))]
        rows = torch.arange(len(states), device=states.device)  # original index of each row still in the batch
        cross, cache = self._cross_attention_cache(states), self._empty_cache(states, len(prompt) + max_tokens)
        tokens = torch.tensor([list(prompt)], device=states.device).expand(len(states), -1)
        for position in range(max_tokens):
            at = 0 if position == 0 else len(prompt) + position - 1
            logits = self._step(tokens, at, cache, cross) + (self._mask if position else self._first_mask)
            if rule is not None:
                logits = rule([output[row] for row in rows.tolist()], logits)
            tokens = logits.argmax(-1, keepdim=True)
            for row, token in zip(rows.tolist(), tokens[:, 0].tolist(), strict=True):
                if token != end:
                    output[row].append(token)
            active = (tokens[:, 0] != end).nonzero()[:, 0]
            if not len(active):
                break
            if len(active) < len(rows):
                rows, tokens = rows[active], tokens[active]
                for layers in (cross, cache):  # layer by layer, so that only one layer exists twice at a time
                    for layer, (keys, values) in enumerate(layers):
                        layers[layer] = keys[active], values[active]
        return output

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

    def _step(self, tokens: torch.Tensor, at: int, cache: KeyValues, cross: KeyValues) -> torch.Tensor:
        """Compute the logits [B, V] after tokens [B, n] at position `at`, in float32.

        Keys and values of the tokens are stored in `cache`.
        """
        until = at + tokens.shape[1]
        x = self._decoder.embed_tokens(tokens) + self._decoder.embed_positions.weight[at:until]
        for layer, (keys, values), (cross_keys, cross_values) in zip(self._decoder.layers, cache, cross, strict=True):
            attention, y = layer.self_attn, layer.self_attn_layer_norm(x)
            keys[:, :, at:until] = self._split(attention.k_proj(y))
            values[:, :, at:until] = self._split(attention.v_proj(y))
            # Only a prompt has several tokens at a time, and it begins at position 0, which `is_causal` assumes.
            x = x + self._attend(attention, y, keys[:, :, :until], values[:, :, :until], is_causal=tokens.shape[1] > 1)
            y = layer.encoder_attn_layer_norm(x)
            x = x + self._attend(layer.encoder_attn, y, cross_keys, cross_values, is_causal=False)
            x = x + layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(x))))
        last: torch.Tensor = self._model.proj_out(self._decoder.layer_norm(x[:, -1]))
        return last.float()

    def _attend(
        self, attention: WhisperAttention, x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *, is_causal: bool
    ) -> torch.Tensor:
        query = self._split(attention.q_proj(x)) * attention.scaling  # before the product, as in transformers
        mixed = F.scaled_dot_product_attention(query, keys, values, is_causal=is_causal, scale=1.0)
        projected: torch.Tensor = attention.out_proj(mixed.transpose(1, 2).flatten(2))
        return projected

    def _split(self, x: torch.Tensor) -> torch.Tensor:  # [B, n, D] -> [B, heads, n, d_head]
        return x.view(*x.shape[:2], self._heads, self._head_size).transpose(1, 2)
