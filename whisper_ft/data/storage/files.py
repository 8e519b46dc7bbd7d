"""File stores: access to audio files by name. No name may lead out of the store's folder or archive."""

import posixpath
from typing import Protocol
from urllib.parse import quote, unquote

import fsspec

from whisper_ft.data.storage.ranges import is_local, protocols_of
from whisper_ft.data.storage.read_errors import read_failures
from whisper_ft.data.types import RejectedError
from whisper_ft.runtime.errors import one_line

MAX_FILE_BYTES = 2**30
"""Size of the largest audio file that is read, in bytes. An hour in CD quality has 635 MB."""


class FileStore(Protocol):
    """A folder or an archive with the audio files that a list names."""

    def read(self, name: str) -> bytes:
        """Return the content of one file.

        Raises RejectedError with one of these reason codes: missing_file, outside_root, file_too_large,
        unreadable_file.
        """


class FolderStore:
    """Files of a local or remote folder.

    A name is relative to the folder, or it is an absolute path or address of a file inside the folder.
    """

    def __init__(self, root: str) -> None:
        self._file_system, path = fsspec.core.url_to_fs(root)
        self._root = path.rstrip("/")
        self._is_local = is_local(self._file_system)
        self._is_http = self._root.startswith(("http://", "https://"))  # in such addresses, names are quoted
        self._failures = read_failures(root)

    def read(self, name: str) -> bytes:
        """Return the content of one file."""
        path = self.locate(name)
        try:
            info = self._file_system.info(path)
            if info["type"] != "file":  # reading a pipe would block, and a device has no end
                raise RejectedError("missing_file", f"{name}: not a file")
            if (info["size"] or 0) > MAX_FILE_BYTES:  # the size is None if the server does not report it
                raise RejectedError("file_too_large", f"{name}: over {MAX_FILE_BYTES} bytes")
            # Without an end, s3fs would ask for the size again.
            limits = {} if self._is_local or not info["size"] else {"start": 0, "end": info["size"]}
            return bytes(self._file_system.cat_file(path, **limits))
        except (RejectedError, MemoryError):
            raise
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise RejectedError("missing_file", f"{name}: there is no such file in {self._root}") from error
        except self._failures as error:
            raise RejectedError("unreadable_file", f"{name}: {one_line(error)}") from error

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes; None if it is not known. Raises RejectedError as `read` does."""
        try:
            size: int | None = self._file_system.info(self.locate(name)).get("size")
            return size
        except (RejectedError, MemoryError):
            raise
        except self._failures as error:
            raise RejectedError("unreadable_file", f"{name}: {one_line(error)}") from error

    def locate(self, name: str) -> str:
        """Return the full path of a name.

        Raises RejectedError(outside_root) if the name leads out of the folder, directly or by a link.
        """
        below = self.relative(name)
        path = f"{self._root}/{quote(below) if self._is_http else below}"
        if self._is_local and not _is_inside(posixpath.realpath(path), posixpath.realpath(self._root)):
            raise self._outside(name)
        return path

    def relative(self, name: str) -> str:
        """Return a name relative to the folder, such as `clips/a.wav`, however the name is written.

        Raises RejectedError(outside_root) if the name leads out of the folder. Only `locate` follows links.
        """
        if "\0" in name:
            raise self._outside(name)
        below = self._below(name) if name.startswith("/") or "://" in name else name
        below = posixpath.normpath(below or ".")
        if below.startswith(("../", "/")) or below in (".", ".."):
            raise self._outside(name)
        return below

    def _below(self, name: str) -> str:
        """Return the part of an absolute name after the path of the folder.

        If the folder is a link, its real path is accepted, too. Raises RejectedError(outside_root) for other names.
        """
        path = name
        if "://" in name:
            if name.partition("://")[0] not in protocols_of(self._file_system):
                raise self._outside(name)
            path = str(self._file_system._strip_protocol(name))
        for root in (self._root, posixpath.realpath(self._root)) if self._is_local else (self._root,):
            if _is_inside(path, root):
                below = path[len(root.rstrip("/")) + 1 :]
                return unquote(below) if self._is_http else below
        raise self._outside(name)

    def _outside(self, name: str) -> RejectedError:
        text = name.replace("\0", "\\0")
        return RejectedError("outside_root", f"{text}: not in {self._root}; --data.audio_root can name another folder")


def _is_inside(path: str, root: str) -> bool:
    return path.startswith(root.rstrip("/") + "/")
