"""Audio files by name, below one folder that nothing may lead out of."""

import posixpath
from typing import Protocol
from urllib.parse import quote, unquote

import fsspec
from fsspec.implementations.local import LocalFileSystem

from whisper_ft.data.types import RejectedError

MAX_BYTES = 2**30  # of one file; an hour of CD quality has 635 MB


class FileStore(Protocol):
    """Where the audio of listed utterances lies: a folder, or an archive."""

    def read(self, name: str) -> bytes:
        """The bytes of one file; UnusableError: missing_file, outside_root, file_too_large, unreadable_file."""


class FolderStore:
    """Files of a folder, local or remote. Names are relative to it, or absolute (a path, an address) inside of it."""

    def __init__(self, root: str) -> None:
        self._file_system, path = fsspec.core.url_to_fs(root)
        self._root = path.rstrip("/")
        self._is_local = isinstance(self._file_system, LocalFileSystem)
        self._is_http = self._root.startswith(("http://", "https://"))  # elsewhere a path is no address
        # What reading may raise: of a remote file system anything, for each brings its own client.
        self._failures: tuple[type[Exception], ...] = (OSError, ValueError) if self._is_local else (Exception,)

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        path = self.locate(name)
        try:
            found = self._file_system.info(path)
            if found["type"] != "file":  # a pipe would be waited for, a device never ends
                raise RejectedError("missing_file", f"{name}: not a file")
            if (found["size"] or 0) > MAX_BYTES:  # None: a server that does not say
                raise RejectedError("file_too_large", f"{name}: over {MAX_BYTES} bytes")
            # Of a whole file, which has no `end`, s3 asks for the size once more.
            told = {} if self._is_local or not found["size"] else {"start": 0, "end": found["size"]}
            return bytes(self._file_system.cat_file(path, **told))
        except (RejectedError, MemoryError):
            raise
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise RejectedError("missing_file", f"{name}: there is no such file in {self._root}") from error
        except self._failures as error:
            raise RejectedError("unreadable_file", f"{name}: {' '.join(str(error).split())}") from error

    def locate(self, name: str) -> str:
        """Full path of a name; UnusableError(outside_root) for one that leads out, also by a link."""
        below = self.relative(name)
        path = f"{self._root}/{quote(below) if self._is_http else below}"
        if self._is_local and not _inside(posixpath.realpath(path), posixpath.realpath(self._root)):
            raise self._outside(name)
        return path

    def relative(self, name: str) -> str:
        """A name as seen from the folder, however it is written: `clips/a.wav`, wherever the folder is.

        UnusableError(outside_root) for one that leads out; links are followed by `locate`.
        """
        if "\0" in name:
            raise self._outside(name)
        below = self._below(name) if name.startswith("/") or "://" in name else name
        below = posixpath.normpath(below or ".")
        if below.startswith(("../", "/")) or below in (".", ".."):
            raise self._outside(name)
        return below

    def _below(self, name: str) -> str:
        """What an absolute name says after the folder's own path, or after that which links make of it."""
        path = name
        if "://" in name:
            own = self._file_system.protocol
            if name.partition("://")[0] not in ((own,) if isinstance(own, str) else own):
                raise self._outside(name)
            path = str(self._file_system._strip_protocol(name))
        for root in (self._root, posixpath.realpath(self._root)) if self._is_local else (self._root,):
            if _inside(path, root):
                below = path[len(root.rstrip("/")) + 1 :]
                return unquote(below) if self._is_http else below
        raise self._outside(name)

    def _outside(self, name: str) -> RejectedError:
        shown = name.replace("\0", "\\0")
        return RejectedError("outside_root", f"{shown}: not in {self._root}; --data.audio_root can name another folder")


def _inside(path: str, root: str) -> bool:
    return path.startswith(root.rstrip("/") + "/")
