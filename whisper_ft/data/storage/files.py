"""File stores: access to audio files by name. No name may lead out of the store's folder or archive."""

import posixpath
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote

import fsspec

from whisper_ft.data.storage import content
from whisper_ft.data.storage.allowed_folders import (
    OutsideError,
    allowed_targets,
    common_folders,
    flag,
    folder_to_allow,
    is_allowed,
    is_inside,
)
from whisper_ft.data.storage.index_cache import version_of
from whisper_ft.data.storage.ranges import is_local, protocols_of
from whisper_ft.data.storage.read_errors import data_errors, read_failures
from whisper_ft.data.types import RejectedError
from whisper_ft.runtime.errors import DataError, one_line

MAX_FILE_BYTES = 2**30
"""Size of the largest audio file that is read, in bytes. An hour in CD quality has 635 MB."""


SURVEYED_NAMES = 200
"""Most names that are looked at to find the folders to which they lead."""


class FileStore(Protocol):
    """A folder or an archive with the audio files that a list names."""

    def read(self, name: str) -> bytes:
        """Return the content of one file.

        Raises RejectedError with one of these reason codes: missing_file, outside_root, file_too_large,
        unreadable_file.
        """

    def content(self, names: Sequence[str]) -> content.Content:
        """Return digests of the sizes and of a sample of the bytes of files, or of the versions of remote files."""


class FolderStore:
    """Files of a local or remote folder.

    A name is relative to the folder, or it is an absolute path or address of a file inside the folder.

    Parameters
        root: path or address of the folder
        allowed: further local folders, in which a name or a link may end
    """

    def __init__(self, root: str, allowed: Sequence[str] = ()) -> None:
        self._file_system, path = fsspec.core.url_to_fs(root)
        self._root = path.rstrip("/")
        self._is_local = is_local(self._file_system)
        self._is_http = self._root.startswith(("http://", "https://"))  # in such addresses, names are quoted
        self._failures = read_failures(root)
        self._targets = allowed_targets(self._root, allowed) if self._is_local else ()
        self._suggested: dict[str, str] = {}  # flag that allows all names outside, by the setting that would allow one

    def read(self, name: str) -> bytes:
        """Return the content of one file. Raises RejectedError as `FileStore.read` does."""
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

    def has(self, name: str) -> bool:
        """True if the folder has a file of this name that may be read. No error is raised for a name outside."""
        try:
            return bool(self._file_system.isfile(self.locate(name)))
        except RejectedError:
            return False
        except self._failures:
            return False

    def local_path(self, name: str) -> Path | None:
        """Return the path of a file in a local folder; None if the folder is remote.

        Raises RejectedError (missing_file, outside_root).
        """
        if not self._is_local:
            return None
        path = Path(self.locate(name))
        if not path.is_file():
            raise RejectedError("missing_file", f"{name}: there is no such file in {self._root}")
        return path

    def content(self, names: Sequence[str]) -> content.Content:
        """Return digests of the sizes of local files and of a sample of their bytes.

        A request for each remote file would take too long, so sizes and versions are those of the sampled ones.
        """
        if not self._is_local:
            found = content.in_threads(self._version, [names[number] for number in content.sampled(len(names))])
            paths, versions = [path for path, _ in found], [version for _, version in found]
            return content.of_versions(self._file_system, paths, versions)
        blocks = [names[begin : begin + content.BLOCK] for begin in range(0, len(names), content.BLOCK)]
        sized = content.in_threads(lambda block: [content.local_size(self._path(name)) for name in block], blocks)
        sizes = [size for block in sized for size in block]
        return content.of_list(names, sizes, lambda name, size: content.local_pieces(self._path(name), size))

    def _path(self, name: str) -> str:
        """Return the path of a local file, without following links; empty if the name leads out of the folder."""
        try:
            return posixpath.join(self._root, self.relative(name))
        except RejectedError:
            return ""

    def _version(self, name: str) -> tuple[str, tuple[int | None, str | None] | None]:
        """Return path, size and ETag of a remote file; size and ETag are None if the file is not there.

        Raises DataError if the server cannot be asked.
        """
        try:
            path = self.locate(name)
        except RejectedError:
            return name, None
        try:
            with data_errors(path):
                version = version_of(self._file_system, path)
            return path, (version.size, version.etag)
        except DataError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return path, None
            raise

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes; None if it is not known.

        Raises RejectedError (outside_root, or unreadable_file for a missing file, too).
        """
        try:
            size: int | None = self._file_system.info(self.locate(name)).get("size")
            return size
        except (RejectedError, MemoryError):
            raise
        except self._failures as error:
            raise RejectedError("unreadable_file", f"{name}: {one_line(error)}") from error

    def survey(self, names: Iterable[str]) -> str:
        """Look where the first SURVEYED_NAMES names and their links lead.

        Later refusals then name the folder that all of them share. Returns a line for the user; empty if no name leads
        out of the folder.
        """
        folders: dict[str, list[str]] = {}
        names = list(islice(names, SURVEYED_NAMES))
        for name in names:
            try:
                self.locate(name)
            except OutsideError as outside:
                if outside.folder:
                    folders.setdefault(outside.setting, []).append(outside.folder)
            except self._failures:  # a name that no file can have, which reading it will say
                continue
        for setting, inside in folders.items():
            is_all = not self._is_local or len(inside) == len(names)  # else audio_root would lose the other names
            self._suggested[setting] = flag(setting if is_all else "allowed_folders", common_folders(inside))
        count = sum(map(len, folders.values()))
        ways = " and ".join(self._suggested[setting] for setting in folders)
        return f"{count} of the first {len(names)} files are outside of {self._root}; set {ways}" if count else ""

    def locate(self, name: str) -> str:
        """Return the full path of a name.

        Raises OutsideError if the name leads out of the folder, directly or by a link, and not to an allowed folder.
        """
        below = self.relative(name)
        if below.startswith("/"):  # in an allowed folder
            return below
        path = f"{self._root}/{quote(below) if self._is_http else below}"
        if self._is_local:
            real = posixpath.realpath(path)
            if not is_allowed(real, self._targets):
                folder = folder_to_allow(self._root, below, real)
                raise self._outside(name, f"links to {real}, not in {self._root}", "allowed_folders", folder)
        return path

    def relative(self, name: str) -> str:
        """Return a name relative to the folder, such as `clips/a.wav`, however the name is written.

        A file in an allowed folder keeps its full path. Raises OutsideError if the name leads to any other place. Only
        `locate` follows the links in the folder.
        """
        if "\0" in name:
            raise self._outside(name)
        below = self._below(name) if name.startswith("/") or "://" in name else name
        if below.startswith("/"):
            return below
        below = posixpath.normpath(below or ".")
        if below.startswith("../") and self._is_local:
            return self._allowed(name, posixpath.join(self._root, below), "allowed_folders")
        if below.startswith(("../", "/")) or below in (".", ".."):
            raise self._outside(name)
        return below

    def _below(self, name: str) -> str:
        """Return the part of an absolute name after the path of the folder, or the path if it is in an allowed folder.

        If the folder is a link, its real path is accepted, too. Raises OutsideError for other names.
        """
        path = name
        if "://" in name:
            if name.partition("://")[0] not in protocols_of(self._file_system):
                raise self._outside(name, folder=posixpath.dirname(name))
            path = str(self._file_system._strip_protocol(name))
        for root in (self._root, posixpath.realpath(self._root)) if self._is_local else (self._root,):
            if is_inside(path, root):
                below = path[len(root.rstrip("/")) + 1 :]
                return (unquote(below) if self._is_http else below) or "."
        if self._is_local:
            return self._allowed(name, path, "audio_root")
        raise self._outside(name, folder=posixpath.dirname(name))

    def _allowed(self, name: str, path: str, setting: str) -> str:
        """Return the normal form of a path that ends in an allowed folder. Raises OutsideError for any other path."""
        path = posixpath.normpath(path)
        if not is_allowed(posixpath.realpath(path), self._targets[1:]):
            raise self._outside(name, setting=setting, folder=posixpath.dirname(path))
        return path

    def _outside(self, name: str, detail: str = "", setting: str = "audio_root", folder: str = "") -> OutsideError:
        text = name.replace("\0", "\\0")
        way = self._suggested.get(setting) or (flag(setting, [folder]) if folder else "another --data.audio_root")
        return OutsideError(f"{text}: {detail or f'not in {self._root}'}; set {way}", setting, folder)
