"""Bytes of a safetensors file, one tensor at a time, so that the whole file is never in memory a second time."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def parts(tensors: Mapping[str, torch.Tensor]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a safetensors file: the length of the header, the header, then each tensor.

    A tensor on a GPU is copied to the host when its turn comes. The view of a contiguous CPU tensor shares its memory.
    Tensors with wider types come first, as in the format's own writer, so that each tensor begins at a multiple of its
    element size. Raises KeyError for a type that DTYPES lacks.
    """
    return lazy_parts({name: (one.dtype, one.shape) for name, one in tensors.items()}, tensors.__getitem__)


def lazy_parts(
    shapes: Mapping[str, tuple[torch.dtype, torch.Size]], read: Callable[[str], torch.Tensor]
) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a safetensors file as `parts` does, from tensors that `read` returns when their turn comes."""
    ordered = sorted(shapes.items(), key=lambda one: (-one[1][0].itemsize, one[0]))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in ordered:
        begin, end = end, end + shape.numel() * dtype.itemsize
        header[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for name, _ in ordered:
        yield read(name).detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
