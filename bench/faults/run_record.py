"""Record of a faulty run: the small files that the rules read, without models and audio."""

import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path

from whisper_ft.checkpoint.checkpoint_manifest import MANIFEST
from whisper_ft.checkpoint.record import TRAINER

SMALL_FILES = ("metrics.jsonl", "config.yaml", "status.json", "quarantine.jsonl", "best.json")
MODEL_FILES = ("config.json", "generation_config.json", "vocab.json")
"""Files of best/ or final/ from which the suppressed characters are read."""


def copy_record(run: Path, out: Path, *, with_model: bool) -> None:
    """Copy the small files of a run to a new folder. `with_model` adds those of its model."""
    out.mkdir(parents=True)
    kept = [run / name for name in SMALL_FILES] + sorted(run.glob("predictions/**/*.jsonl"))
    kept += [path for name in (TRAINER, MANIFEST) for path in sorted(run.glob(f"checkpoints/*/{name}"))]
    kept += [run / "best" / name for name in MODEL_FILES] if with_model else []
    for path in kept:
        if path.is_file():
            target = out / path.relative_to(run)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def write_archive(folders: Iterable[Path], top: Path, path: Path) -> None:
    """Write folders below `top` as an archive whose bytes depend on their content alone."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "", ""
        return member

    with tarfile.open(path, "w:xz", preset=9) as archive:
        for folder in sorted(folders):
            archive.add(folder, str(folder.relative_to(top)), filter=plain)
