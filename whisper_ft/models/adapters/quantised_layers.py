"""Linear layers with frozen weights in 8 or 4 bits, in the storage of bitsandbytes.

Their product is that of the dequantised weights, in training and in evaluation alike. The layers of bitsandbytes have
other products. Its int8 rounds the inputs too, and keeps them for the backward pass even if activations are recomputed.
Its nf4 changes the weights in an evaluation on CPUs with AVX512-BF16, and no gradient passes afterwards. Both cast the
bias.
"""

from typing import Any

import bitsandbytes
import torch
import torch.nn.functional as F

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
        return self.weight.data.to(dtype).mul_(self.weight.SCB.unsqueeze(1) / INT8_STEPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [..., I] -> [..., O]
        """Return the product with the dequantised weights, plus the bias."""
        result: torch.Tensor = FrozenProduct.apply(x, self)
        return result


class NF4Linear(bitsandbytes.nn.Linear4bit):  # type: ignore[misc]
    """Linear layer whose weights are 4-bit normal floats, with a scale for each 64 of them."""

    def float_weight(self, dtype: torch.dtype) -> torch.Tensor:  # -> [O, I]
        """Return the dequantised weights."""
        weight: torch.Tensor = bitsandbytes.functional.dequantize_4bit(self.weight.data, self.weight.quant_state)
        return weight.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [..., I] -> [..., O]
        """Return the product with the dequantised weights, plus the bias."""
        result: torch.Tensor = FrozenProduct.apply(x, self)
        return result


QuantisedLinear = Int8Linear | NF4Linear


def quantised(layer: torch.nn.Linear, kind: str, dtype: torch.dtype, device: torch.device) -> QuantisedLinear:
    """Return a frozen layer with the weights of a float layer in int8 or nf4, on a device. The bias is shared.

    `dtype` is the number format of the computation. nf4 weights are dequantised to it.
    """
    sizes: tuple[int, int, bool] = layer.in_features, layer.out_features, layer.bias is not None
    weight = layer.weight.data
    made: QuantisedLinear
    if kind == "int8":
        made = Int8Linear(*sizes, has_fp16_weights=False, device="meta")
        made.weight = bitsandbytes.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False).to(device)
    else:
        made = NF4Linear(*sizes, compute_dtype=dtype, compress_statistics=False, quant_type="nf4", device="meta")
        made.weight = bitsandbytes.nn.Params4bit(
            weight, requires_grad=False, compress_statistics=False, quant_type="nf4", module=made
        ).to(device)
        made.weight.quant_state.dtype = dtype
    made.bias = layer.bias
    made.requires_grad_(False)
    return made


def dequantised(layer: QuantisedLinear) -> torch.nn.Linear:
    """Return a float32 layer with the values of a quantised one. The bias is shared."""
    made = torch.nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
    made.weight = torch.nn.Parameter(layer.float_weight(torch.float32), requires_grad=False)
    made.bias = layer.bias
    return made
