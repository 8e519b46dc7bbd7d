"""Writer of `summary.json`, to which the library `evaluate` adds time, versions and commit."""

import json
import shutil
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from whisper_ft.runtime.atomic import disk_errors, write_json
from whisper_ft.runtime.installed_package import evaluate


def save_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write the summary as JSON to exactly `path`, atomically, with the time, the versions and the commit added.

    The added keys are those of the library function `evaluate.save` and begin with an underscore. The commit is that of
    the current folder; it is None without git, outside a repository, or before the first commit.

    The folder is made if it is missing. Raises ValueError for NaN or infinity, and DiskError if the folder or the file
    cannot be written.
    """
    # evaluate.save writes in place, in one line, and accepts NaN. So it only makes a draft.
    if _has_commit():
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder, path.name).with_suffix(".json")  # a name without suffix would be taken for a folder
            evaluate.save(draft, **summary)
            stamped = json.loads(draft.read_text(encoding="utf-8"))
    else:  # the same keys: evaluate.save fails without git, and outside a repository git prints "fatal: …"
        stamped = summary | {
            "_timestamp": datetime.now().isoformat(),
            "_git_commit_hash": None,
            "_evaluate_version": evaluate.__version__,
            "_python_version": sys.version,
            "_interpreter_path": sys.executable,
        }
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, stamped)


def _has_commit() -> bool:
    """Return True if git is installed and the current folder belongs to a repository with at least one commit."""
    command = ["git", "rev-parse", "--verify", "--quiet", "HEAD"]
    return shutil.which("git") is not None and not subprocess.run(command, capture_output=True, check=False).returncode
