"""Names without an extension, as in LJSpeech's list: the folder and the extension that the files have on disk."""

import posixpath
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice, product

from whisper_ft.data.storage.files import FolderStore

AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".mp4", ".aac", ".webm"),
    *(".mkv", ".mka", ".mov", ".m4v", ".m4b", ".oga", ".wma", ".amr", ".aif", ".aiff"),
)
FOLDERS = ("", "wavs", "wav", "clips", "audio", "audios")
"""Usual folders of audio files beside a list."""
PROBED_NAMES = 3
"""First names that are looked for, because the files of some may be missing."""


def is_audio(name: str) -> bool:
    """True for a file name that ends as audio does."""
    return name.lower().endswith(AUDIO_SUFFIXES)


def full_names(names: Iterable[str], store: FolderStore) -> Callable[[str], str]:
    """Return a function that completes the names of a list as its first files show: `a` becomes `wavs/a.wav`.

    `names` are the first names of the list in the store. A name with an extension stays as it is. All names do if no
    file is found for the first ones.
    """
    bare = list(islice((name for name in names if _is_bare(name)), PROBED_NAMES))
    if any(store.has(name) for name in bare):
        return lambda name: name
    for folder, suffix in product(FOLDERS, AUDIO_SUFFIXES):
        if any(store.has(_completed(name, folder, suffix)) for name in bare):
            return partial(_completed, folder=folder, suffix=suffix)
    return lambda name: name


def _is_bare(name: str) -> bool:
    return not posixpath.splitext(name)[1]


def _completed(name: str, folder: str, suffix: str) -> str:
    if not _is_bare(name):
        return name
    above, base = posixpath.split(name)
    return posixpath.join(above, folder, base + suffix)
