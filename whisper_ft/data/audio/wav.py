"""Header of a WAV: the bytes that it states, compared with the bytes that are there."""

import struct
from typing import NamedTuple

STREAMED_BYTES = 0x7FFF0000
"""Smallest stated size of a streamed WAV: sox, arecord and ffmpeg then write about 2^31 or 2^32 - 1 bytes."""
UNKNOWN_BYTES = (0, 2**64 - 1)
"""Sizes in an RF64 header that its recorder never completed."""


class DataChunk(NamedTuple):
    """Place of the samples in a WAV."""

    at: int
    """Offset of the first sample, in bytes."""
    stated: int
    """Size that the header states, in bytes."""
    block: int
    """Bytes of a block. A block is a frame, or many frames in ADPCM and the like."""


def frames_stated(encoded: bytes, frames_read: int) -> int:
    """Number of frames that the header of a cut WAV states; 0 for any other file.

    `frames_read` is the number of frames that libsndfile finds. It silently reads the rest of a cut file, so a larger
    number shows that frames are missing. The number comes from the `data` chunk. The size of the RIFF chunk is not
    used, because many recorders write it a little too large.
    """
    chunk = _data_chunk(encoded) if encoded[:4] == b"RIFF" else None
    if chunk is None:
        return 0
    stated, present = chunk.stated // chunk.block, (len(encoded) - chunk.at) // chunk.block
    is_cut = stated > present and chunk.stated < STREAMED_BYTES
    return (frames_read * stated // present if present else stated) if is_cut else 0


def completed(encoded: bytes) -> bytes:
    """Return a WAV with the size of its samples filled in, if its recorder never wrote it; else the same bytes.

    Such a header states 0 bytes. libsndfile believes it, and would read nothing.
    """
    kind = encoded[:4]
    if kind not in (b"RIFF", b"RIFX", b"RF64"):
        return encoded
    order = ">" if kind == b"RIFX" else "<"
    chunk = _data_chunk(encoded, order)
    if chunk is None or not _is_unknown(encoded, kind, chunk.stated) or _are_chunks(encoded[chunk.at :], order):
        return encoded
    head = bytearray(encoded[: chunk.at])
    head[:4] = b"RIFX" if kind == b"RIFX" else b"RIFF"
    struct.pack_into(f"{order}I", head, 4, len(encoded) - 8)
    struct.pack_into(f"{order}I", head, chunk.at - 4, len(encoded) - chunk.at)
    return bytes(head) + encoded[chunk.at :]


def _is_unknown(encoded: bytes, kind: bytes, stated: int) -> bool:
    """True if the header gives no size of the samples. RF64 has it in the chunk ds64, which comes first."""
    if kind == b"RF64" and encoded[12:16] == b"ds64" and len(encoded) >= 36:
        return struct.unpack_from("<Q", encoded, 28)[0] in UNKNOWN_BYTES
    return stated == 0


def _are_chunks(rest: bytes, order: str) -> bool:
    """True if bytes are nothing but chunks, such as a LIST after the samples, so that a WAV is really empty."""
    at = 0
    while at + 8 <= len(rest):
        name, size = struct.unpack_from(f"{order}4sI", rest, at)
        if not name.isascii() or not name.decode().isprintable():
            return False
        at += 8 + size + size % 2
    return at in (len(rest), len(rest) + 1)


def _data_chunk(encoded: bytes, order: str = "<") -> DataChunk | None:
    """Find the samples of a WAV; None if no chunk `data` is found."""
    at, block = 12, 1
    while at + 8 <= len(encoded):
        name, size = struct.unpack_from(f"{order}4sI", encoded, at)
        at += 8
        if name == b"fmt ":
            block = max(int.from_bytes(encoded[at + 12 : at + 14], "big" if order == ">" else "little"), 1)
        if name == b"data":
            return DataChunk(at, size, block)
        at += size + size % 2
    return None
