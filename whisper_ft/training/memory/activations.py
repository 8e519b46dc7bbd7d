"""Activations of Whisper: bytes that the forward pass of one window leaves for the backward pass.

The counts follow transformers (modeling_whisper of 5.23) and torch (autograd and autocast of 2.13). With autocast, the
sums between layers and the norms stay float32, and every layer that needs its input stores its own copy in 16 bits.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from whisper_ft.training.memory.workload import ATTENTION, INNER, Kind, Side, Workload

FLOAT = 4  # bytes of a float32, in which the sums between layers and the norms are computed
DORA_OUTPUTS = 2  # outputs of a layer that DoRA stores: of the base and of the adapter


@dataclass(frozen=True)
class Activations:
    """Bytes for one window, by part of the model."""

    work: Workload

    @cached_property
    def stem(self) -> int:
        """Two convolutions with GELU: outputs before and after it, of which the first have twice the positions."""
        model, work = self.work.model, self.work
        if work.has_adapter or "encoder" in work.frozen:
            return 0
        bytes_each = work.compute_bytes
        copied = 2 * model.positions * model.mel_bins * bytes_each if bytes_each < FLOAT else 0
        return copied + 5 * model.positions * model.width * bytes_each

    @cached_property
    def encoder_layer(self) -> int:
        """One layer of the encoder."""
        if not self.work.keeps_activations("encoder"):
            return 0
        model = self.work.model
        block = self._attention("encoder", model.positions) + self._inner("encoder")
        return model.positions * (block + self._dropout(2))

    @cached_property
    def decoder_layer(self) -> int:
        """One layer of the decoder: two attentions, of which the second keeps keys and values of the whole window."""
        if not self.work.keeps_activations("decoder"):
            return 0
        model, labels = self.work.model, self.work.labels
        own = self._attention("decoder", labels) + self._inner("decoder")
        across = self._attention("decoder", model.positions, reads=("q_proj",), results=1)
        return labels * (own + across + self._dropout(3)) + model.positions * self._keys_and_values()

    @property
    def layer_input(self) -> int:
        """Input of a layer, per position: the only tensor that gradient checkpointing keeps."""
        return FLOAT * self.work.model.width

    def stored(self, side: Side) -> int:
        """All layers of a side between forward and backward pass, with the final norm, and the encoder's convolutions.

        The output of the encoder is stored in any case, because each layer of the decoder reads it.
        """
        model, work = self.work.model, self.work
        is_encoder = side == "encoder"
        positions = model.positions if is_encoder else work.labels
        layers = model.encoder_layers if is_encoder else model.decoder_layers
        output = positions * self.layer_input
        if not work.keeps_activations(side):
            return output
        if work.checkpointing:
            of_layers = layers * positions * self.layer_input
        else:
            of_layers = layers * (self.encoder_layer if is_encoder else self.decoder_layer)
        return of_layers + 2 * output + (self.stem if is_encoder else positions * model.width * work.compute_bytes)

    def recomputed(self, side: Side) -> int:
        """Activations of the one layer that gradient checkpointing computes again, with its output."""
        if not self.work.checkpointing or not self.work.keeps_activations(side):
            return 0
        if side == "encoder":
            return self.encoder_layer + self.work.model.positions * self.layer_input
        return self.decoder_layer + self.work.labels * self.layer_input

    def passing(self, side: Side, direction: Literal["forward", "backward"]) -> int:
        """Return the tensors that exist at once while one layer runs, beside the stored ones.

        Forward they are those of a layer that stores nothing. Backward they are the gradients before and behind a
        feed-forward block, or those of stored attention weights.
        """
        model, work = self.work.model, self.work
        positions = model.positions if side == "encoder" else work.labels
        inner = model.encoder_inner if side == "encoder" else model.decoder_inner
        if direction == "forward":
            return positions * (2 * self.layer_input + 2 * inner * self.work.compute_bytes)
        copies = 2 if any(work.kind(side, name) == "adapted" for name in INNER) else 1
        of_sum = self.layer_input + (model.width * work.compute_bytes if work.compute_bytes < FLOAT else 0)
        widest = copies * inner * work.compute_bytes
        if work.eager:
            widest = max(widest, 2 * self._attention_weights(model.positions))
        return positions * (of_sum + widest)

    def _attention(self, side: Side, keys: int, reads: tuple[str, ...] = ATTENTION[:3], results: int = 3) -> int:
        """Return the bytes of an attention for each position of the queries.

        Parameters
            keys: positions that each query attends to.
            reads: projections that read the norm's output.
            results: queries, keys and values that are stored here.
        """
        model, work = self.work.model, self.work
        width, bytes_each = model.width, work.compute_bytes
        kinds = [work.kind(side, name) for name in reads]
        total = self.layer_input + width * self._inputs(kinds) + results * width * bytes_each
        # Without the weights, only the logarithm of the sum of exponentials is stored, for each head.
        total += self._attention_weights(keys) if work.eager else model.heads * FLOAT
        total += width * (bytes_each + self._copied_input(work.kind(side, "out_proj")))
        return total + sum(self._of_adapter(work.kind(side, name), width) for name in (*reads, "out_proj"))

    def _attention_weights(self, keys: int) -> int:
        """Return the bytes of the weights of a query for so many keys, in all heads.

        A GPU computes the softmax in float32, of which the product with the values stores a copy in 16 bits.
        """
        work = self.work
        copied = FLOAT if work.on_gpu and work.compute_bytes < FLOAT else 0
        return self.work.model.heads * keys * (work.compute_bytes + copied)

    def _keys_and_values(self) -> int:
        """Return the bytes of the keys and values of the encoder's output, for each of its positions."""
        width, kinds = self.work.model.width, [self.work.kind("decoder", name) for name in ("k_proj", "v_proj")]
        # In float32 both read the encoder's output itself, which is counted once, unless a dropout makes others.
        is_shared = self.work.compute_bytes == FLOAT and not self.work.adapter.dropout
        copies = 0 if is_shared else self._inputs(kinds)
        return width * (copies + 2 * self.work.compute_bytes) + sum(self._of_adapter(kind, width) for kind in kinds)

    def _inner(self, side: Side) -> int:
        """Return the bytes of a feed-forward block for each position."""
        model, work = self.work.model, self.work
        inner = model.encoder_inner if side == "encoder" else model.decoder_inner
        first, second = (work.kind(side, name) for name in INNER)
        total = self.layer_input + model.width * self._inputs([first]) + inner * self.work.compute_bytes
        if second != "frozen":
            total += inner * (work.compute_bytes + self._dropped_mask(second))
        return total + self._of_adapter(first, inner) + self._of_adapter(second, model.width)

    def _inputs(self, kinds: list[Kind]) -> int:
        """Return the bytes of a number of the norm's output, as often as the layers that read it store it."""
        work = self.work
        keeps = sum(kind != "frozen" for kind in kinds)
        masks = sum(map(self._dropped_mask, kinds))
        if work.compute_bytes < FLOAT:
            return keeps * work.compute_bytes + masks
        return FLOAT * (keeps if masks else min(keeps, 1)) + masks

    def _copied_input(self, kind: Kind) -> int:
        """Return the bytes of a number that a layer stores of an input that is stored already, by the one before.

        peft takes an input in 16 bits through float32 and back, and a dropout makes another tensor.
        """
        work = self.work
        is_float = work.adapter.base == "float"
        if kind != "adapted" or not (work.adapter.dropout or (is_float and work.compute_bytes < FLOAT)):
            return 0
        return work.compute_bytes + self._dropped_mask(kind)

    def _dropped_mask(self, kind: Kind) -> int:
        """Return the bytes of a number in the mask of an adapter's dropout: a flag on a GPU, a float32 on a CPU."""
        if kind != "adapted" or not self.work.adapter.dropout:
            return 0
        return 1 if self.work.on_gpu else FLOAT

    def _of_adapter(self, kind: Kind, outputs: int) -> int:
        """Return the bytes of an adapter for each position: the output of its first matrix, and more with DoRA."""
        if kind != "adapted":
            return 0
        work = self.work
        dora = DORA_OUTPUTS * outputs if work.adapter.dora else 0
        return (work.adapter.r + dora) * work.compute_bytes

    @property
    def _mask_bytes(self) -> int:
        """Bytes of a number in the mask of a dropout: a flag on a GPU, a factor on a CPU."""
        return 1 if self.work.on_gpu else self.work.compute_bytes

    def _dropout(self, times: int) -> int:
        """Return the bytes of the masks of a layer's dropouts for each position."""
        return times * self.work.model.width * self._mask_bytes if self.work.dropout else 0
