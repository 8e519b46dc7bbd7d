"""Text of lists: its encoding, and its lines, which are read one at a time and are bounded in length and number."""

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from fsspec import AbstractFileSystem

from whisper_ft.runtime.errors import DataError

MAX_LINE_CHARACTERS = 2**24
"""Most characters of a line. A line of a list has about 500, so a longer line shows that the file is no list."""
MAX_RATIO, MAX_EXTRA_CHARACTERS = 100, 2**26
"""Most characters of an unpacked list: 100 times its bytes as .gz and 64 Mi more. Lists shrink to a tenth."""


@contextmanager
def open_lines(file_system: AbstractFileSystem, path: str) -> Iterator[Iterator[str]]:
    """Open a text file, plain or as .gz, and give its lines with their ends. It is UTF-8 or UTF-16 by its first bytes.

    Bytes that are not UTF-8 become lone surrogates. A line that is too long, or a file that unpacks to far more than
    its size, raises DataError when that line is reached.
    """
    with file_system.open(path, "rb") as file:
        is_packed = path.endswith(".gz")
        most = MAX_RATIO * file.seek(0, 2) + MAX_EXTRA_CHARACTERS if is_packed else None
        file.seek(0)
        unpacked: IO[bytes] = gzip.GzipFile(fileobj=file) if is_packed else file  # type: ignore[assignment]
        encoding, errors = _encoding(unpacked.read(4))
        unpacked.seek(0)
        text = io.TextIOWrapper(unpacked, encoding, errors=errors, newline="\n")
        try:
            yield _bounded(text, path, most)
        finally:
            text.detach()


def decoded(content: bytes) -> str | None:
    """Text of a small file, which is UTF-8 or UTF-16 by its first bytes; None if it is not valid in its encoding."""
    try:
        return content.decode(_encoding(content[:4])[0])
    except UnicodeDecodeError:
        return None


def _encoding(beginning: bytes) -> tuple[str, str]:
    """Encoding of a text by its first bytes, and the way in which Python keeps what is not valid in it."""
    if beginning.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16", "surrogatepass"
    zeros = [not byte for byte in beginning]
    if zeros in ([False, True, False, True], [True, False, True, False]):  # without a mark, a Latin text
        return ("utf-16-le" if zeros[1] else "utf-16-be"), "surrogatepass"
    return "utf-8-sig", "surrogateescape"


def _bounded(text: io.TextIOWrapper, path: str, most: int | None) -> Iterator[str]:
    count = 0
    while line := text.readline(MAX_LINE_CHARACTERS + 1):
        count += len(line)
        if len(line) > MAX_LINE_CHARACTERS:
            raise DataError(f"{path}: a line of over {MAX_LINE_CHARACTERS} characters, so this is no list of files")
        if most is not None and count > most:
            raise DataError(f"{path}: unpacks to over {most} characters, so this is no list of files")
        yield line
