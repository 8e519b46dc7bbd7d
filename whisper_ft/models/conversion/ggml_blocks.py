"""Block quantisation of ggml: 32 weights in a row share a float16 scale, and in some types an offset, too.

The rounding is that of the reference functions in ggml-quants.c, so the bytes are those of whisper.cpp's `quantize`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BLOCK = 32  # weights in a block, in every type here
Quantiser = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class BlockType:
    """A number format of ggml for the large tensors of a file."""

    name: str
    tensor_type: int
    """Number of the format in the header of a tensor (`ggml_type`)."""
    file_type: int
    """Number of the format in the header of the file (`ggml_ftype`)."""
    layout: np.dtype
    """A block as a numpy record."""


def _layout(*fields: tuple[str, str] | tuple[str, str, tuple[int]]) -> np.dtype:
    return np.dtype([*fields])


SCALE, OFFSET = ("scale", "<f2"), ("offset", "<f2")
HALVES = ("nibbles", "u1", (BLOCK // 2,))  # byte j holds weight j in its low half and weight j + 16 in its high half
FIFTH = ("fifth", "<u4")  # bit j is the fifth bit of weight j
Q4_0 = BlockType("q4_0", 2, 2, _layout(SCALE, HALVES))
Q4_1 = BlockType("q4_1", 3, 3, _layout(SCALE, OFFSET, HALVES))
Q5_0 = BlockType("q5_0", 6, 8, _layout(SCALE, FIFTH, HALVES))
Q5_1 = BlockType("q5_1", 7, 9, _layout(SCALE, OFFSET, FIFTH, HALVES))
Q8_0 = BlockType("q8_0", 8, 7, _layout(SCALE, ("bytes", "i1", (BLOCK,))))
BLOCK_TYPES = {kind.tensor_type: kind for kind in (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0)}


def quantise(values: np.ndarray, kind: BlockType) -> np.ndarray:
    """Quantise float32 values, whose last axis is a multiple of 32, to q5_0 or q8_0.

    Returns a flat array of blocks. Raises KeyError for another type, and ValueError for another last axis.
    """
    if values.shape[-1] % BLOCK:
        raise ValueError(f"rows of {values.shape[-1]} weights cannot be divided into blocks of {BLOCK}")
    rows = values.astype(np.float32, copy=False).reshape(-1, BLOCK)
    return {"q5_0": _q5_0, "q8_0": _q8_0}[kind.name](rows)


def dequantise(blocks: np.ndarray, kind: BlockType) -> np.ndarray:
    """Return the float32 values of blocks (n records of `kind.layout`) as an array (n, 32)."""
    scale = blocks["scale"].astype(np.float32)[:, None]
    if "bytes" in (kind.layout.names or ()):
        return np.asarray(blocks["bytes"].astype(np.float32) * scale)
    nibbles = blocks["nibbles"]
    levels = np.concatenate([nibbles & 0x0F, nibbles >> 4], axis=1).astype(np.int8)
    half = 8
    if "fifth" in (kind.layout.names or ()):
        levels |= (_bits(blocks["fifth"]) << 4).astype(np.int8)
        half = 16
    if "offset" in (kind.layout.names or ()):
        offset = blocks["offset"].astype(np.float32)[:, None]
        return np.asarray(levels.astype(np.float32) * scale + offset)
    return np.asarray((levels - half).astype(np.float32) * scale)


def _bits(words: np.ndarray) -> np.ndarray:
    """Return the 32 bits of each word, the lowest first, as an array (n, 32)."""
    return np.asarray((words[:, None] >> np.arange(BLOCK, dtype=np.uint32)) & 1)


def _inverse(scale: np.ndarray) -> np.ndarray:
    """Return 1 / scale, and 0 for a scale of 0."""
    return np.asarray(np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0))


def _q5_0(rows: np.ndarray) -> np.ndarray:
    """Quantise rows of 32 to 5 bits: the value of the largest magnitude becomes -16, all others lie within 0..31."""
    largest = np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1)
    scale = largest / np.float32(-16)
    shifted = rows * _inverse(scale) + np.float32(16.5)
    levels = np.minimum(shifted.astype(np.int8), 31).astype(np.uint8)
    blocks = np.zeros(len(rows), Q5_0.layout)
    blocks["scale"] = scale[:, 0]
    blocks["nibbles"] = (levels[:, : BLOCK // 2] & 0x0F) | (levels[:, BLOCK // 2 :] & 0x0F) << 4
    bits = (levels >> 4).astype(np.uint32) << np.arange(BLOCK, dtype=np.uint32)
    blocks["fifth"] = bits.sum(axis=1, dtype=np.uint32)
    return blocks


def _q8_0(rows: np.ndarray) -> np.ndarray:
    """Quantise rows of 32 to 8 bits: the largest magnitude becomes 127. Halves are rounded away from zero."""
    scale = np.abs(rows).max(axis=1, keepdims=True) / np.float32(127)
    scaled = rows * _inverse(scale)
    whole = np.trunc(scaled)
    blocks = np.zeros(len(rows), Q8_0.layout)
    blocks["scale"] = scale[:, 0]
    blocks["bytes"] = whole + (np.abs(scaled - whole) >= 0.5) * np.sign(scaled)
    return blocks
