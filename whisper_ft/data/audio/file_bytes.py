"""Bytes of an audio file on disk, of which only the requested parts are read."""

import io
import os
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

from whisper_ft.runtime.regular_file import open_regular


class AudioBytes(Protocol):
    """Content of an audio file: `bytes` in memory, or `FileBytes` on disk. A part is a slice without a step."""

    def __len__(self) -> int:
        """Return the number of bytes."""

    def __getitem__(self, part: slice, /) -> bytes:
        """Return some bytes; fewer if the content ends within them."""


class FileBytes:
    """Content of a regular file. The file stays open until `close`.

    The file is not mapped into memory, because its pages would count as memory of this process, and a file that
    another program cuts would kill this process.

    Raises OSError if the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._file: FileIO = open_regular(path)
        self._size = os.fstat(self._file.fileno()).st_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice, /) -> bytes:
        begin, end, _ = part.indices(self._size)
        return os.pread(self._file.fileno(), max(end - begin, 0), begin)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def stream_of(content: AudioBytes, head: bytes = b"", replaced: int = 0) -> "io.BytesIO | AudioStream":
    """Open a stream of the content of an audio file, with `head` in place of its first `replaced` bytes."""
    if isinstance(content, bytes):  # a stream written in C, for the many short clips of a training
        return io.BytesIO(head + content[replaced:] if head else content)
    return AudioStream(content, head, replaced)


class AudioStream(io.RawIOBase):
    """Readable stream of the content of an audio file, with `head` in place of its first `replaced` bytes."""

    def __init__(self, content: AudioBytes, head: bytes, replaced: int) -> None:
        self._content, self._head, self._position = content, head, 0
        self._shift = replaced - len(head)  # offset in the file, less that in the stream

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position in bytes, and return it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._content) - self._shift}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the position on, and return the number of bytes; 0 at the end."""
        wanted = len(buffer)
        part = self._head[self._position : self._position + wanted]
        begin = self._position + len(part) + self._shift
        part += self._content[begin : begin + wanted - len(part)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)
