"""Record of a faulty run: the small files that the rules read, without models and audio."""

import hashlib
import json
import re
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from whisper_ft.checkpoint.checkpoint_manifest import MANIFEST, WrittenFile, read_manifest
from whisper_ft.checkpoint.record import TRAINER
from whisper_ft.reports.diagnosis.run_facts import read_run_facts

SMALL_FILES = ("metrics.jsonl", "config.yaml", "status.json", "quarantine.jsonl", "best.json")
MODEL_FILES = ("config.json", "generation_config.json", "vocab.json")
"""Files of best/ or final/ from which the suppressed characters are read."""


def copy_record(run: Path, out: Path, *, with_model: bool) -> None:
    """Copy the small files of a run to a new folder. `with_model` adds those of its model.

    Paths become relative to the folder of all runs, and the manifests of the checkpoints are written anew.
    """
    out.mkdir(parents=True)
    folders = re.compile(rb"/[^\s\"']*/(?=" + re.escape(run.parent.name.encode()) + rb"/)")
    facts = read_run_facts(run)
    steps = {*facts.texts, *(row["step"] for curve in facts.history.sets.values() for row in curve.rows[-1:])}
    kept = [run / name for name in SMALL_FILES]
    kept += [path for step in steps for path in run.glob(f"predictions/**/step-{step:08d}.jsonl")]
    kept += [path for name in (TRAINER, MANIFEST) for path in sorted(run.glob(f"checkpoints/*/{name}"))]
    kept += [run / "best" / name for name in MODEL_FILES] if with_model else []
    for path in kept:
        if path.is_file():
            target = out / path.relative_to(run)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(folders.sub(b"", path.read_bytes()))
    for path in out.glob(f"checkpoints/*/{TRAINER}"):
        manifest = read_manifest(path.parent)
        content = path.read_bytes()
        written = WrittenFile(len(content), hashlib.sha256(content).hexdigest())
        changed = replace(manifest, files={**manifest.files, TRAINER: written})
        (path.parent / MANIFEST).write_text(json.dumps(changed.to_json()))


def write_archive(folders: Iterable[Path], top: Path, path: Path) -> None:
    """Write folders below `top` as an archive whose bytes depend on their content alone."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "", ""
        return member

    with tarfile.open(path, "w:xz", preset=9) as archive:
        for folder in sorted(folders):
            archive.add(folder, str(folder.relative_to(top)), filter=plain)
