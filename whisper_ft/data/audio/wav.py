"""Header of a WAV: the bytes that it states, compared with the bytes that are there."""

import struct
from typing import NamedTuple

from whisper_ft.data.audio.file_bytes import AudioBytes

STREAMED_BYTES = 0x7FFF0000
"""Smallest stated size of a streamed WAV: sox, arecord and ffmpeg then write about 2^31 or 2^32 - 1 bytes."""
MAX_RIFF_BYTES = 2**32
"""Largest size of a WAV that its header can state, because sizes have 32 bits."""
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


def frames_stated(encoded: AudioBytes, frames_read: int) -> int:
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


class Completed(NamedTuple):
    """Header of a WAV in which the size of the samples is right, and the offset of the first sample in the file."""

    head: bytes
    at: int


def completed(encoded: AudioBytes) -> Completed | None:
    """Return the header of a WAV with the size of its samples filled in, if its recorder never wrote it.

    None for any other file. Such a header states 0 bytes. libsndfile believes it, and would read nothing. A plain WAV
    over 4 GiB has no room for its size, so its header becomes that of an RF64 (EBU Tech 3306).
    """
    kind = encoded[:4]
    if kind not in (b"RIFF", b"RIFX", b"RF64"):
        return None
    order = ">" if kind == b"RIFX" else "<"
    chunk = _data_chunk(encoded, order)
    if chunk is None:
        return None
    is_unknown = _is_unknown(encoded, kind, chunk.stated) and not _are_chunks(encoded, chunk.at, order)
    if len(encoded) > MAX_RIFF_BYTES and (kind == b"RIFF" or (kind == b"RF64" and is_unknown)):
        return Completed(_rf64_head(encoded, chunk), chunk.at)
    if not is_unknown:
        return None
    head = bytearray(encoded[: chunk.at])
    head[:4] = b"RIFX" if kind == b"RIFX" else b"RIFF"
    struct.pack_into(f"{order}I", head, 4, len(encoded) - 8)
    struct.pack_into(f"{order}I", head, chunk.at - 4, len(encoded) - chunk.at)
    return Completed(bytes(head), chunk.at)


def _rf64_head(encoded: AudioBytes, chunk: DataChunk) -> bytes:
    """Make the header of an RF64: the chunk ds64 with all sizes, then the chunks before the samples."""
    size, others = len(encoded) - chunk.at, encoded[12 : chunk.at - 8]
    if others[:4] == b"ds64":
        others = others[8 + struct.unpack("<I", others[4:8])[0] :]
    sizes = struct.pack("<QQQI", len(encoded) + 28, size, size // chunk.block, 0)
    return b"RF64\xff\xff\xff\xffWAVEds64" + struct.pack("<I", len(sizes)) + sizes + others + b"data\xff\xff\xff\xff"


def _is_unknown(encoded: AudioBytes, kind: bytes, stated: int) -> bool:
    """True if the header gives no size of the samples. RF64 has it in the chunk ds64, which comes first."""
    if kind == b"RF64" and encoded[12:16] == b"ds64" and len(encoded) >= 36:
        return struct.unpack("<Q", encoded[28:36])[0] in UNKNOWN_BYTES
    return stated == 0


def _are_chunks(encoded: AudioBytes, at: int, order: str) -> bool:
    """True if only chunks follow from an offset on, such as a LIST after the samples, so that a WAV is really empty."""
    while at + 8 <= len(encoded):
        name, size = struct.unpack(f"{order}4sI", encoded[at : at + 8])
        if not name.isascii() or not name.decode().isprintable():
            return False
        at += 8 + size + size % 2
    return at in (len(encoded), len(encoded) + 1)


def _data_chunk(encoded: AudioBytes, order: str = "<") -> DataChunk | None:
    """Find the samples of a WAV; None if no chunk `data` is found."""
    at, block = 12, 1
    while at + 8 <= len(encoded):
        name, size = struct.unpack(f"{order}4sI", encoded[at : at + 8])
        at += 8
        if name == b"fmt ":
            block = max(int.from_bytes(encoded[at + 12 : at + 14], "big" if order == ">" else "little"), 1)
        if name == b"data":
            return DataChunk(at, size, block)
        at += size + size % 2
    return None
