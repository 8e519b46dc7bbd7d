"""Allowed folders: local folders outside of a data set, to which its names and links may lead.

A link in a stranger's data set may lead to any file of this machine. So it is followed only within the data set, into
the blobs of the same snapshot in the Hub's cache, and into the folders of data.allowed_folders.
"""

import os
import posixpath
import re
from collections.abc import Iterable, Sequence

from whisper_ft.data.types import RejectedError

SNAPSHOT = re.compile(r"(?P<repository>.*/(?:datasets|models|spaces)--[^/]+)/snapshots/[^/]+(?:/.*)?")
"""Folder of a data set in the Hub's cache. Its files are links to `blobs`, beside `snapshots`."""
MAX_FOLDERS = 4
"""Most folders that a message suggests."""


class OutsideError(RejectedError):
    """A name or a link that leads out of the data set (outside_root).

    Attributes
        setting: setting that can allow it, audio_root or allowed_folders
        folder: folder to which that setting must be set; empty if no folder is known
    """

    def __init__(self, detail: str, setting: str = "audio_root", folder: str = "") -> None:
        super().__init__("outside_root", detail)
        self.setting, self.folder = setting, folder


def allowed_targets(root: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """Real paths of the folders and files in which a link may end: the data set, its blobs, and the allowed ones.

    The data set comes first.
    """
    real = posixpath.realpath(root)
    snapshot = SNAPSHOT.fullmatch(real)
    blobs = [f"{snapshot['repository']}/blobs"] if snapshot else []
    return (real, *blobs, *(posixpath.realpath(os.path.expanduser(folder)) for folder in allowed))


def is_inside(path: str, root: str) -> bool:
    """True for a path below a folder. The folder itself is not below itself."""
    return path.startswith(root.rstrip("/") + "/")


def is_allowed(path: str, targets: Iterable[str]) -> bool:
    """True for a real path that is one of the targets, or below one."""
    return any(path == target or is_inside(path, target) for target in targets)


def folder_to_allow(root: str, below: str, real: str) -> str:
    """Folder to allow so that a link is followed: the target of a linked folder, or else the folder of the file.

    `real` is the real path of `below`, a name in `root`.
    """
    parts = below.split("/")
    for count in range(1, len(parts)):
        folder = posixpath.join(root, *parts[:count])
        if posixpath.islink(folder):
            target = posixpath.realpath(folder)
            if is_inside(real, target):
                return target
    return posixpath.dirname(real)


def common_folders(folders: Iterable[str]) -> list[str]:
    """Group folders by the first part of their path, and return the deepest shared folder of each group.

    At most MAX_FOLDERS are returned.
    """
    names = sorted(set(folders))
    groups: dict[str, list[str]] = {}
    for name in names:
        protocol, _, path = name.rpartition("://")
        groups.setdefault(f"{protocol}://{path.strip('/').partition('/')[0]}", []).append(name)
    return [_common_folder(group) for group in groups.values()][:MAX_FOLDERS]


def _common_folder(names: Sequence[str]) -> str:
    protocol, sign, _ = names[0].rpartition("://")
    return protocol + sign + posixpath.commonpath([name.removeprefix(protocol + sign) for name in names])


def flag(setting: str, folders: Sequence[str]) -> str:
    """Flag of a command line that allows some folders. `audio_root` takes one only, so several use allowed_folders."""
    if setting == "audio_root" and len(folders) == 1:
        return f"--data.audio_root {folders[0]}"
    return f"--data.allowed_folders '[{', '.join(folders)}]'"
