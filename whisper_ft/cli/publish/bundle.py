"""Temporary folder with all files to upload: those of the model, and the generated card and curves."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from whisper_ft.cli.publish.model_to_publish import ModelToPublish
from whisper_ft.runtime.errors import DiskError, UsageError

TOKEN = re.compile(rb"hf_[A-Za-z0-9]{20,}")
TEXTS = (".json", ".md", ".txt", ".jinja", ".yaml")  # files that are searched for secrets


@contextmanager
def bundled(model: ModelToPublish, generated: Mapping[str, bytes], secrets: Sequence[str]) -> Iterator[Path]:
    """Yield a temporary folder with the present files of a model and the generated files.

    Hidden files of the model are left out, and generated files replace those of the same name. The files of the model
    are hard links, or copies where links are impossible. So a run that still trains may replace its model meanwhile.

    Raises UsageError if a text file contains a token of the Hub or one of `secrets`, or if the run replaced the model
    just now. Raises DiskError if a file cannot be linked or copied.
    """
    inode = model.folder.stat().st_ino
    parent = model.folder.parent if os.access(model.folder.parent, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix=".publish-", dir=parent) as name:
        bundle = Path(name)
        try:
            for path in sorted(model.folder.rglob("*")):
                inside = path.relative_to(model.folder)
                if path.is_file() and not any(part.startswith(".") for part in inside.parts):
                    (bundle / inside).parent.mkdir(parents=True, exist_ok=True)
                    _link(path, bundle / inside)
            is_replaced = model.folder.stat().st_ino != inode
        except FileNotFoundError:
            is_replaced = True
        except OSError as error:
            raise DiskError(f"{bundle}: {error.strerror or error}") from error
        if is_replaced:
            raise UsageError(f"{model.folder}: was replaced by the run just now; run the same command again")
        for file, content in generated.items():
            (bundle / file).unlink(missing_ok=True)  # never write through a link
            (bundle / file).write_bytes(content)
        _refuse_secrets(bundle, secrets)
        yield bundle


def file_sizes(folder: Path) -> dict[str, int]:
    """Return the size in bytes of each file in a folder, by its path in the folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _link(path: Path, to: Path) -> None:
    try:
        os.link(path, to)
    except OSError:  # another file system, or one without links
        shutil.copyfile(path, to)


def _refuse_secrets(folder: Path, secrets: Sequence[str]) -> None:
    for name in file_sizes(folder):
        if name.endswith(TEXTS):
            content = (folder / name).read_bytes()
            if TOKEN.search(content):
                raise UsageError(f"{name}: contains a token of the Hub, it seems; remove it, and revoke the token")
            if path := next((text for text in secrets if text.encode() in content), None):
                raise UsageError(f"{name}: contains {path}, a path of this machine; remove it from the file")
