"""Files to transcribe, found from the names on the command line, and the paths of their transcripts."""

import glob
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import mean

from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.printable import counted

AUDIO = "aac ac3 aif aifc aiff amr au caf flac m4a m4b mka mp2 mp3 oga ogg opus rf64 snd spx w64 wav wave wma"
VIDEO = "3g2 3gp asf avi flv m4v mkv mov mp4 webm"
EXTENSIONS = frozenset(f"{AUDIO} {VIDEO}".split())
"""Extensions of the files that are searched in a folder. A file that is named itself may have any."""


@dataclass(frozen=True)
class AudioFile:
    """File to transcribe."""

    path: Path
    output: Path
    """Path of its transcripts without the extension of their format."""

    def outputs(self, formats: Sequence[str]) -> dict[str, Path]:
        """Return the path of each transcript by its format."""
        return {name: self.output.with_name(f"{self.output.name}.{name}") for name in formats}


def find_audio(names: Sequence[str], out: Path | None) -> tuple[list[AudioFile], list[str]]:
    """Find the files of a command line, each once, in the order of the names. Folders are walked in sorted order.

    Hidden files and folders are left out of a walk, and so are links that lead out of the folder. Returns the files,
    and lines for the user about links and folders that were left out. Raises UsageError for a name without a file, and
    for two files whose transcripts would be one file.
    """
    _stems_in.cache_clear()
    found: dict[str, AudioFile] = {}
    lines: list[str] = []
    for name in names:
        for path, below in _files_of(name, lines):
            target = path.parent / _stem(path) if out is None else out / below.parent / _stem(path)
            identity = os.path.join(os.path.realpath(path.parent), path.name)
            found.setdefault(identity, AudioFile(path, target))
    return _apart(list(found.values()), out), lines


def _files_of(name: str, lines: list[str]) -> list[tuple[Path, Path]]:
    """Return the files of one name of the command line, each with its path below --out."""
    if "://" in name:
        raise UsageError(f"{name}: is an address; download the file, because only local files are transcribed")
    path = Path(os.path.expanduser(name))
    if os.path.isfile(path):
        return [(path, Path(path.name))]
    if not path.is_dir():
        matches = [] if os.path.lexists(path) else sorted(glob.glob(str(path), recursive=True))
        if not matches:
            raise UsageError(f"{name}: {_problem_of(path)}")
        files = [item for match in matches for item in _files_below(Path(match), lines)]
    else:
        files = _files_below(path, lines)
    if not files:
        raise UsageError(f"{name}: holds no audio file; files that end in .wav, .mp3, .m4a, .mp4 and the like are read")
    return files


def _problem_of(path: Path) -> str:
    if os.path.exists(path):
        return "is neither a file nor a folder"
    if os.path.islink(path):
        return "is a link to a file that is not there"
    return "matches no file" if glob.has_magic(str(path)) else "there is no such file or folder"


def _files_below(path: Path, lines: list[str]) -> list[tuple[Path, Path]]:
    """Return the audio files below a folder. A file that a glob matches is returned if it has such an extension."""
    if not path.is_dir():
        return [(path, Path(path.name))] if _is_audio(path.name) and os.path.isfile(path) else []
    # It imports torch, which takes seconds that a wrong argument need not wait for.
    from whisper_ft.data.storage.allowed_folders import allowed_targets, is_allowed

    targets, outside, files = allowed_targets(str(path), ()), 0, []
    for file in _walk(path, lines):
        if is_allowed(os.path.realpath(file), targets):
            files.append((file, file.relative_to(path)))
        else:
            outside += 1
    if outside:
        lines.append(f"warning: {path}: {counted(outside, 'link')} to files outside of it left out; name these files")
    return files


def _walk(folder: Path, lines: list[str]) -> Iterator[Path]:
    """Yield the audio files below a folder, sorted by path. Linked folders are not entered, so the walk ends."""

    def note(error: OSError) -> None:
        lines.append(f"warning: {error.filename}: left out ({error.strerror})")

    for parent, folders, names in os.walk(folder, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = os.path.join(parent, name)
            if _is_audio(name) and os.path.isfile(path):
                yield Path(path)


def _is_audio(name: str) -> bool:
    return not name.startswith(".") and _extension(name) in EXTENSIONS


def _extension(name: str) -> str:
    return name.rpartition(".")[2].lower() if "." in name else ""


def _stem(path: Path) -> str:
    """Return the name of a file without its extension, or all of it if another file beside it has the same stem.

    `a.wav` becomes `a`. Beside an `a.mp3` both keep their extension, however they are named on the command line. An
    extension that is none of audio is kept, because it may be a part of the name.
    """
    stem = path.name.rpartition(".")[0]
    if _extension(path.name) not in EXTENSIONS or not stem:
        return path.name
    return path.name if _stems_in(os.path.abspath(path.parent))[stem.lower()] > 1 else stem


@lru_cache(maxsize=64)
def _stems_in(folder: str) -> Counter[str]:
    """Count the audio files of a folder by their stem, in lower case."""
    try:
        names = os.listdir(folder)
    except OSError:  # a folder that may be entered and not listed
        return Counter()
    return Counter(name.rpartition(".")[0].lower() for name in names if _extension(name) in EXTENSIONS)


def _apart(files: list[AudioFile], out: Path | None) -> list[AudioFile]:
    """Put transcripts of equal names from several folders into folders of their own, named like those of the files.

    Raises UsageError if that does not tell them apart.
    """
    deepest = max((len(file.path.absolute().parts) for file in files), default=0)
    for depth in range(1, deepest + 1):
        homes: dict[str, list[AudioFile]] = defaultdict(list)
        for file in files:
            homes[str(file.output).lower()].append(file)
        twice = dict.fromkeys(file for same in homes.values() if len(same) > 1 for file in same)
        if not twice:
            return files
        if out is None:
            break
        files = [_moved(file, out, depth) if file in twice else file for file in files]
    first, second = [*twice][:2]
    raise UsageError(f"{first.path} and {second.path}: both would be written to {first.output}; rename one of them")


def _moved(file: AudioFile, out: Path, depth: int) -> AudioFile:
    """Return a file whose transcripts are `depth` folders below `out`."""
    folders = file.path.absolute().parent.parts[1:][-depth:]
    return AudioFile(file.path, out.joinpath(*folders, file.output.name))


def shared_out(lengths: Sequence[float | None], processes: int) -> list[list[int]]:
    """Share files between processes: the longest first, each to the process with the least audio so far.

    Returns the indexes of each process's files, in their order. An unknown length counts as the mean of the others.
    """
    known = [length for length in lengths if length is not None]
    typical = mean(known) if known else 1.0
    weights = [typical if length is None else length for length in lengths]
    loads, shares = [0.0] * processes, [list[int]() for _ in range(processes)]
    for place in sorted(range(len(weights)), key=lambda place: -weights[place]):
        process = min(range(processes), key=lambda process: (loads[process], len(shares[process])))
        loads[process] += weights[place]
        shares[process].append(place)
    return [sorted(share) for share in shares]
