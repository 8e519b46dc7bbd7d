"""Linear layers with frozen weights in 8 or 4 bits, in the storage of bitsandbytes.

Their product is that of the dequantised weights, in training and in evaluation alike. The layers of bitsandbytes have
other products. Its int8 rounds the inputs too, and keeps them for the backward pass even if activations are recomputed.
Its nf4 changes the weights in an evaluation on CPUs with AVX512-BF16, and training then fails. Both cast the bias.
"""

from typing import Any

import bitsandbytes
import torch
import torch.nn.functional as F

from whisper_ft.runtime.errors import UsageError

NF4_BLOCKS = (64, 32)
"""Weights that share a scale. A row must be whole blocks, because bitsandbytes 0.50.2 reads others wrongly on a CPU."""
INT8_STEPS = 127  # an int8 weight is stored as a multiple of its row's largest magnitude / 127


class FrozenProduct(torch.autograd.Function):
    """Product of inputs with the dequantised weights of a layer, which are made again in the backward pass.

    Only the inputs get a gradient, and nothing but the layer itself is kept for it.
    """

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, layer: Any) -> torch.Tensor:  # [..., I] -> [..., O]
        """Return the product, plus the bias, in the type of autocast where that is on, else in that of the inputs."""
        kind = inputs.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else inputs.dtype
        ctx.layer, ctx.dtype = layer, inputs.dtype
        bias = None if layer.bias is None else layer.bias.to(dtype)
        return F.linear(inputs.to(dtype), layer.float_weight(dtype), bias)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:  # [..., O] -> [..., I]
        """Return the gradient of the inputs."""
        (grad,) = grads
        return torch.matmul(grad, ctx.layer.float_weight(grad.dtype)).to(ctx.dtype), None


class Int8Linear(bitsandbytes.nn.Linear8bitLt):  # type: ignore[misc]  # bitsandbytes has no types
    """Linear layer whose weights are 8-bit integers, with a scale for each row."""

    def float_weight(self, dtype: torch.dtype) -> torch.Tensor:  # -> [O, I]
        """Return the dequantised weights."""
        weight: torch.Tensor = self.weight.data.to(dtype).mul_(self.weight.SCB.unsqueeze(1) / INT8_STEPS)
        return weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [..., I] -> [..., O]
        """Return the product with the dequantised weights, plus the bias."""
        result: torch.Tensor = FrozenProduct.apply(x, self)  # type: ignore[no-untyped-call]
        return result


class NF4Linear(bitsandbytes.nn.Linear4bit):  # type: ignore[misc]
    """Linear layer whose weights are 4-bit normal floats, with a scale for each block of them."""

    def float_weight(self, dtype: torch.dtype) -> torch.Tensor:  # -> [O, I]
        """Return the dequantised weights."""
        weight: torch.Tensor = bitsandbytes.functional.dequantize_4bit(self.weight.data, self.weight.quant_state)
        return weight.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [..., I] -> [..., O]
        """Return the product with the dequantised weights, plus the bias."""
        result: torch.Tensor = FrozenProduct.apply(x, self)  # type: ignore[no-untyped-call]
        return result


QuantisedLinear = Int8Linear | NF4Linear


def quantised(layer: torch.nn.Linear, kind: str, dtype: torch.dtype, device: torch.device) -> QuantisedLinear:
    """Return a frozen layer with the weights of a float layer in int8 or nf4, on a device. The bias is shared.

    `dtype` is the number format of the computation, to which nf4 weights are dequantised.

    Raises UsageError if a row of weights is no whole number of blocks of nf4.
    """
    made = _int8(layer, device) if kind == "int8" else _nf4(layer, dtype, device)
    made.bias = layer.bias
    made.requires_grad_(False)
    return made


def _int8(layer: torch.nn.Linear, device: torch.device) -> Int8Linear:
    made = Int8Linear(layer.in_features, layer.out_features, has_fp16_weights=False, device="meta")
    weight = bitsandbytes.nn.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
    made.weight = weight.to(device)
    return made


def _nf4(layer: torch.nn.Linear, dtype: torch.dtype, device: torch.device) -> NF4Linear:
    block = next((size for size in NF4_BLOCKS if layer.in_features % size == 0), None)
    if block is None:
        raise UsageError(f"nf4 needs layers with inputs in multiples of {NF4_BLOCKS[-1]}, not {layer.in_features}")
    options = {"compress_statistics": False, "quant_type": "nf4"}
    # peft gives the low-rank weights the `compute_dtype`, and all trained weights are float32.
    sizes = layer.in_features, layer.out_features
    made = NF4Linear(*sizes, compute_dtype=torch.float32, device="meta", **options)
    weight = bitsandbytes.nn.Params4bit(layer.weight.data, requires_grad=False, module=made, blocksize=block, **options)
    made.weight = weight.to(device)
    made.weight.quant_state.dtype = dtype
    return made


def dequantised(layer: QuantisedLinear) -> torch.nn.Linear:
    """Return a float32 layer with the values of a quantised one. The bias is shared."""
    made = torch.nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
    made.weight = torch.nn.Parameter(layer.float_weight(torch.float32), requires_grad=False)
    made.bias = layer.bias
    return made
