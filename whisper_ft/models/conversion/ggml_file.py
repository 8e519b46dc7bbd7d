"""ggml file of whisper.cpp: its header, mel filters, vocabulary and tensors.

All numbers are little-endian. Layout, as `whisper_model_load` of whisper.cpp reads it:

    magic, 11 int32 (see HEADER), filters: 2 int32 and n_mel × n_fft float32,
    vocabulary: int32, then for each token int32 and the bytes,
    tensors to the end: int32 rank, length of the name, type; int32 sizes, the last axis first; the name; the data
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from whisper_ft.models.conversion.byte_reader import LONGEST_NAME, ByteReader, reading
from whisper_ft.models.conversion.ggml_blocks import BLOCK, BLOCK_TYPES, BlockType, dequantise

MAGIC = 0x67676D6C
FLOAT32, FLOAT16 = 0, 1
"""Types of a tensor; as types of a file they mean "all" and "large tensors"."""
VERSION_FACTOR, QUANTISATION_VERSION = 1000, 2
"""The type of a quantised file is this version × the factor + the type of its large tensors."""
MOST_TENSORS, MOST_TOKENS = 20_000, 100_000  # limits of a plausible file; large-v3 has 1,259 and 51,866
MOST_DIMENSIONS = 4
HEADER = (
    "n_vocab",
    "n_audio_ctx",
    "n_audio_state",
    "n_audio_head",
    "n_audio_layer",
    "n_text_ctx",
    "n_text_state",
    "n_text_head",
    "n_text_layer",
    "n_mels",
    "ftype",
)


@dataclass(frozen=True)
class GgmlTensor:
    """A tensor of a file: its shape in the order of torch, its type, and the position of its data."""

    shape: tuple[int, ...]
    type: int
    start: int


@dataclass(frozen=True)
class GgmlFile:
    """Content of a ggml file. The data of the tensors stay in the file until `values` reads them."""

    path: Path
    header: dict[str, int]
    vocabulary: list[bytes]
    tensors: dict[str, GgmlTensor]

    @property
    def quantised(self) -> int:
        """Number of tensors in a block format."""
        return sum(tensor.type in BLOCK_TYPES for tensor in self.tensors.values())

    def values(self, reader: ByteReader, name: str) -> np.ndarray:
        """Read a tensor, as float16 if it is stored so and as float32 otherwise."""
        tensor = self.tensors[name]
        count = int(np.prod(tensor.shape, dtype=np.int64))
        if kind := BLOCK_TYPES.get(tensor.type):
            blocks = reader.array(tensor.start, count // BLOCK, kind.layout)
            return dequantise(blocks, kind).reshape(tensor.shape)
        dtype = np.dtype("<f2" if tensor.type == FLOAT16 else "<f4")
        return reader.array(tensor.start, count, dtype).reshape(tensor.shape)


def is_ggml(path: Path) -> bool:
    """True if a file begins as a ggml file does. Raises UsageError if it cannot be read."""
    with reading(path) as reader:
        return reader.size >= 4 and reader.numbers("I", "the magic number") == (MAGIC,)


def read_ggml(path: Path) -> GgmlFile:
    """Read everything but the data of the tensors. Raises UsageError for a file that is damaged or of another kind."""
    with reading(path) as reader:
        if reader.numbers("I", "the magic number") != (MAGIC,):
            raise reader.error("not a ggml file: it does not begin with the magic number 'ggml'")
        header = dict(zip(HEADER, reader.numbers(f"{len(HEADER)}i", "the header"), strict=True))
        if min(header.values()) < 0:
            raise reader.error(f"negative numbers in the header: {header}")
        mels, bins = reader.numbers("2i", "the mel filters")
        if mels != header["n_mels"] or bins < 0:
            raise reader.error(f"{mels} mel filters of {bins} bins; the header states {header['n_mels']}")
        reader.skip(4 * mels * bins, "the mel filters")
        vocabulary = _vocabulary(reader, header["n_vocab"])
        return GgmlFile(path, header, vocabulary, dict(_tensors(reader)))


def _vocabulary(reader: ByteReader, most: int) -> list[bytes]:
    (count,) = reader.numbers("i", "the vocabulary")
    if not 0 < count <= min(most, MOST_TOKENS):
        raise reader.error(f"{count} tokens in the vocabulary; expected 1 to {min(most, MOST_TOKENS)}")
    tokens = []
    for index in range(count):
        (length,) = reader.numbers("I", "the vocabulary")
        if length > LONGEST_NAME:
            raise reader.error(f"token {index} has {length} bytes; expected at most {LONGEST_NAME}")
        tokens.append(reader.take(length, "the vocabulary"))
    return tokens


def _tensors(reader: ByteReader) -> Iterator[tuple[str, GgmlTensor]]:
    names: set[str] = set()
    while not reader.at_end:
        rank, length, type = reader.numbers("3i", "the header of a tensor")
        if not 0 < rank <= MOST_DIMENSIONS or not 0 < length <= LONGEST_NAME or len(names) == MOST_TENSORS:
            raise reader.error(f"impossible header of tensor {len(names)}: {rank} dimensions, a name of {length} bytes")
        sizes = reader.numbers(f"{rank}i", "the header of a tensor")
        name = reader.take(length, "the name of a tensor").decode("utf-8", "replace")
        if min(sizes) <= 0 or name in names:
            raise reader.error(f"tensor {name!r} has the sizes {sizes}, or stands in the file twice")
        names.add(name)
        start = reader.skip(_stored_bytes(reader, name, sizes, type), f"the tensor {name!r}")
        yield name, GgmlTensor(sizes[::-1], type, start)


def _stored_bytes(reader: ByteReader, name: str, sizes: tuple[int, ...], type: int) -> int:
    """Size of a tensor's data. Raises UsageError for an unknown type, and for rows that are not whole blocks."""
    count = 1
    for size in sizes:
        count *= size
    if type in (FLOAT32, FLOAT16):
        return count * (4 if type == FLOAT32 else 2)
    if (kind := BLOCK_TYPES.get(type)) is None:
        known = ", ".join(["f32", "f16", *(kind.name for kind in BLOCK_TYPES.values())])
        raise reader.error(f"tensor {name!r} has ggml's type {type}; the types that can be read are {known}")
    if sizes[0] % BLOCK:
        raise reader.error(f"tensor {name!r} has rows of {sizes[0]} weights, which are not whole blocks of {BLOCK}")
    return count // BLOCK * kind.layout.itemsize


def file_parts(
    header: dict[str, int], filters: np.ndarray, vocabulary: list[bytes], tensors: Iterable[bytes]
) -> Iterator[bytes]:
    """Yield the bytes of a ggml file.

    Parameters
        header: value of each field in HEADER.
        filters: mel filters (n_mels, bins) in float32.
        vocabulary: bytes of the tokens before <|endoftext|>, by id. whisper.cpp adds the names of the others.
        tensors: tensors as `tensor_bytes` returns them.
    """
    yield struct.pack(f"<I{len(HEADER)}i", MAGIC, *(header[field] for field in HEADER))
    yield struct.pack("<2i", *filters.shape) + filters.astype("<f4").tobytes()
    yield struct.pack("<i", len(vocabulary)) + b"".join(struct.pack("<I", len(token)) + token for token in vocabulary)
    yield from tensors


def tensor_bytes(name: str, shape: tuple[int, ...], type: int, data: bytes) -> bytes:
    """Return a tensor's header and data. `shape` is in the order of torch."""
    text = name.encode()
    return struct.pack(f"<3i{len(shape)}i", len(shape), len(text), type, *shape[::-1]) + text + data


def file_type(kind: BlockType | int) -> int:
    """Return the `ftype` of a file whose large tensors are of a block type, or FLOAT32 or FLOAT16."""
    if isinstance(kind, int):
        return kind
    return QUANTISATION_VERSION * VERSION_FACTOR + kind.file_type
