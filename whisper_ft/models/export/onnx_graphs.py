"""Whisper as plain functions of tensors, for export to ONNX: no dynamic control flow, and caches as inputs and outputs.

The submodules are those of the model; only the attention and the caches are written anew. L are the layers of the
decoder, D the width, H the heads, B the batch, F the frames, S the encoder positions, P the decoder positions.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import WhisperForConditionalGeneration


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Attention over the positions of `key`: queries (B, T, D), keys and values (B, S, D); returns (B, T, D).

    `mask` (T, S) is added to the scores. Whisper scales queries by the square root of the width of a head.
    """
    width = query.shape[-1] // heads

    scores = (_by_head(query, heads) * width**-0.5) @ _by_head(key, heads).transpose(2, 3)
    weights = (scores if mask is None else scores + mask).softmax(dim=-1)
    return _joined(weights @ _by_head(value, heads))


def feed_forward(layer: Any, states: Tensor) -> Tensor:
    """Residual feed-forward block of an encoder or decoder layer."""
    inner: Tensor = layer.fc2(functional.gelu(layer.fc1(layer.final_layer_norm(states))))
    return states + inner


def encode(model: WhisperForConditionalGeneration, features: Tensor) -> Tensor:
    """Encode log-mels (B, mels, F) of any length up to the window; returns (B, F / 2, D)."""
    encoder, heads = model.model.encoder, model.config.encoder_attention_heads
    states = functional.gelu(encoder.conv1(features))
    states = functional.gelu(encoder.conv2(states)).transpose(1, 2)
    states = states + encoder.embed_positions.weight[: states.shape[1]]
    for layer in encoder.layers:
        attention, normed = layer.self_attn, layer.self_attn_layer_norm(states)
        found = attend(attention.q_proj(normed), attention.k_proj(normed), attention.v_proj(normed), heads)
        states = feed_forward(layer, states + attention.out_proj(found))
    encoded: Tensor = encoder.layer_norm(states)
    return encoded


def logits_of(model: WhisperForConditionalGeneration, states: Tensor) -> Tensor:
    """Logits (B, T, vocabulary) of decoder states (B, T, D).

    The weights stand on the left, so that the graph uses the embedding table itself and not a transposed copy.
    """
    normed = model.model.decoder.layer_norm(states)
    logits: Tensor = model.proj_out.weight @ normed.transpose(1, 2)
    return logits.transpose(1, 2)


class CrossCacheEncoder(nn.Module):
    """Encoder that returns the keys and values of the decoder's cross-attention, each (L, B, S, D)."""

    def __init__(self, model: WhisperForConditionalGeneration):
        super().__init__()
        self.model = model

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Encode log-mels (B, mels, F)."""
        states = encode(self.model, mel)
        attentions = [layer.encoder_attn for layer in self.model.model.decoder.layers]
        keys = torch.stack([attention.k_proj(states) for attention in attentions])
        return keys, torch.stack([attention.v_proj(states) for attention in attentions])


class FixedCacheDecoder(nn.Module):
    """Decoder whose self-attention caches have all P positions; new keys and values replace those from `offset` on."""

    def __init__(self, model: WhisperForConditionalGeneration):
        super().__init__()
        self.model = model

    def forward(
        self, tokens: Tensor, self_keys: Tensor, self_values: Tensor, keys: Tensor, values: Tensor, offset: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the logits of some tokens and the caches after them.

        Parameters
            tokens: (B, T) token ids.
            self_keys, self_values: caches of self-attention (L, B, P, D).
            keys, values: keys and values of cross-attention (L, B, S, D), from CrossCacheEncoder.
            offset: (1,) number of tokens before these.
        """
        decoder, heads = self.model.model.decoder, self.model.config.decoder_attention_heads
        places = offset + torch.arange(tokens.shape[1])
        states = decoder.embed_tokens(tokens) + decoder.embed_positions.weight[places]
        later = torch.arange(self_keys.shape[2])[None, :] > places[:, None]
        mask = torch.zeros(later.shape).masked_fill(later, torch.finfo(torch.float32).min)
        new_keys, new_values = [], []
        for n, layer in enumerate(decoder.layers):
            own, cross = layer.self_attn, layer.encoder_attn
            normed = layer.self_attn_layer_norm(states)
            new_keys.append(_replaced(self_keys[n], own.k_proj(normed), places))
            new_values.append(_replaced(self_values[n], own.v_proj(normed), places))
            found = attend(own.q_proj(normed), new_keys[n], new_values[n], heads, mask)
            states = states + own.out_proj(found)
            asked = cross.q_proj(layer.encoder_attn_layer_norm(states))
            states = states + cross.out_proj(attend(asked, keys[n], values[n], heads))
            states = feed_forward(layer, states)
        return logits_of(self.model, states), torch.stack(new_keys), torch.stack(new_values)


def _replaced(cache: Tensor, new: Tensor, places: Tensor) -> Tensor:
    """Cache (B, P, D) with the values (B, T, D) at the places (T,)."""
    return cache.scatter(1, places[None, :, None].expand(new.shape), new)


class GrowingCacheDecoder(nn.Module):
    """Decoder whose caches grow with the tokens, in the layout of transformers.js: (B, H, positions, D / H).

    `is_first` chooses between the first pass, which has no caches, and all later ones.
    """

    def __init__(self, model: WhisperForConditionalGeneration, *, is_first: bool):
        super().__init__()
        self.model = model
        self.is_first = is_first

    def forward(self, tokens: Tensor, encoded: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """Compute the logits of some tokens and the caches after them.

        Parameters
            tokens: (B, T) token ids.
            encoded: (B, S, D) output of the encoder, of which only the first pass makes use.
            past: for each layer the keys and values of self-attention, then those of cross-attention.

        Returns the logits, then the caches in the order of `past`; after the first pass without those of
        cross-attention, which do not change.
        """
        decoder = self.model.model.decoder
        before = 0 if self.is_first else past[0].shape[2]
        places = before + torch.arange(tokens.shape[1])
        states = decoder.embed_tokens(tokens) + decoder.embed_positions.weight[places]
        later = torch.arange(before + tokens.shape[1])[None, :] > places[:, None]
        mask = torch.zeros(later.shape).masked_fill(later, torch.finfo(torch.float32).min)
        caches: list[Tensor] = []
        for n, layer in enumerate(decoder.layers):
            states, new = self._layer(layer, states, encoded, past[4 * n : 4 * n + 4], mask)
            caches += new
        return logits_of(self.model, states), *caches

    def _layer(
        self, layer: Any, states: Tensor, encoded: Tensor, past: tuple[Tensor, ...], mask: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        heads, own, cross = self.model.config.decoder_attention_heads, layer.self_attn, layer.encoder_attn
        normed = layer.self_attn_layer_norm(states)
        keys, values = _by_head(own.k_proj(normed), heads), _by_head(own.v_proj(normed), heads)
        if self.is_first:
            cross_keys, cross_values = _by_head(cross.k_proj(encoded), heads), _by_head(cross.v_proj(encoded), heads)
        else:
            keys, values = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
            cross_keys, cross_values = past[2], past[3]
        found = attend(own.q_proj(normed), _joined(keys), _joined(values), heads, mask)
        states = states + own.out_proj(found)
        asked = cross.q_proj(layer.encoder_attn_layer_norm(states))
        states = states + cross.out_proj(attend(asked, _joined(cross_keys), _joined(cross_values), heads))
        new = [keys, values, cross_keys, cross_values] if self.is_first else [keys, values]
        return feed_forward(layer, states), new


def _by_head(values: Tensor, heads: int) -> Tensor:
    """Reshape (B, T, D) to (B, H, T, D / H)."""
    return values.reshape(*values.shape[:2], heads, values.shape[2] // heads).transpose(1, 2)


def _joined(values: Tensor) -> Tensor:
    """Reshape (B, H, T, D / H) to (B, T, D)."""
    return values.transpose(1, 2).flatten(2)


class FeatureEncoder(nn.Module):
    """Encoder alone: log-mels (B, mels, F) to (B, F / 2, D)."""

    def __init__(self, model: WhisperForConditionalGeneration):
        super().__init__()
        self.model = model

    def forward(self, input_features: Tensor) -> Tensor:
        """Encode log-mels."""
        return encode(self.model, input_features)
