"""The model of a run that is to be published: its folder, and what the run says of it."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from whisper_ft.cli.publish.publish_arguments import WHAT, What
from whisper_ft.runtime.errors import DiskError, UsageError
from whisper_ft.training.directory import RunDir

NEEDED = ("config.json", "generation_config.json", "model.safetensors", "processor_config.json", "tokenizer.json")
POSITIONS_PER_SECOND = 50  # of the encoder: one for two frames of 10 ms
TOKEN = re.compile(rb"hf_[A-Za-z0-9]{20,}")
TEXTS = (".json", ".md", ".txt", ".jinja", ".yaml")


@dataclass(frozen=True)
class ModelToPublish:
    """One of the models that a run gives to others."""

    what: What
    folder: Path
    steps: tuple[int, ...]
    """Of the weights; several where they are a mean."""
    said: tuple[str, float] | None
    """Metric and value that the run wrote down for it, other than in metrics.jsonl."""
    generation: dict[str, Any]
    """Its generation config."""
    window_seconds: float

    @property
    def origin(self) -> str:
        """For people: which weights they are."""
        if self.what == "average":
            return f"the mean of the weights of steps {', '.join(f'{step:,}' for step in self.steps)}"
        return f"the {'best evaluated' if self.what == 'best' else 'last'} step, {self.steps[0]:,}"


def choose(run: Path, what: What) -> ModelToPublish:
    """The model, if it is whole; UsageError, with what else there is."""
    paths = RunDir(run)
    folder = {"best": paths.best, "final": paths.final, "average": paths.average}[what]
    if not (folder / "config.json").is_file():
        there = [name for name in WHAT if (run / name / "config.json").is_file()]
        instead = f"--what {' or '.join(there)} is there" if there else "it has none of best/, final/, average/ yet"
        raise UsageError(f"{run}: there is no model in {what}/; {instead}")
    if missing := [name for name in NEEDED if not (folder / name).is_file()]:
        raise UsageError(
            f"{folder}: is not whole, {', '.join(missing)} is missing; the run writes it again when resumed"
        )
    try:
        with safe_open(folder / "model.safetensors", "pt"):  # checks that the file is as long as its header says
            pass
        generation = json.loads((folder / "generation_config.json").read_bytes())
        positions = json.loads((folder / "config.json").read_bytes())["max_source_positions"]
        steps, said = _steps(paths, folder, what)
    except (SafetensorError, OSError, ValueError, LookupError) as error:
        raise UsageError(f"{folder}: cannot be read ({error}); the run writes it again when resumed") from error
    return ModelToPublish(what, folder, steps, said, generation, positions / POSITIONS_PER_SECOND)


def _steps(run: RunDir, folder: Path, what: What) -> tuple[tuple[int, ...], tuple[str, float] | None]:
    """Steps, metric and value: from best.json, or the README.md that the run wrote into the folder."""
    if what == "best":
        if run.published is None:
            raise ValueError("there is no best.json beside it")
        return (run.published.step,), (run.published.metric, run.published.value)
    told = (folder / "README.md").read_text(encoding="utf-8")
    title = told.splitlines()[0]
    steps = tuple(int(number) for number in re.findall(r"\d+", title))
    if not steps:
        raise ValueError("its README.md names no step")
    figure = re.search(r"^(\w+) on the held-out set: ([\d.e-]+)$", told, re.MULTILINE)
    return steps, (figure[1], float(figure[2])) if figure else None


@contextmanager
def bundled(chosen: ModelToPublish, made: dict[str, bytes], secret: list[str]) -> Iterator[Path]:
    """A folder with all that is uploaded: the files of the model as they are now, and those that were made for it.

    A run that goes on may replace its model at any time, so nothing is read from there later: the files are linked,
    or copied where they cannot be. UsageError if one holds a token or any of `secret`.
    """
    before = chosen.folder.stat().st_ino
    here = chosen.folder.parent if os.access(chosen.folder.parent, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix=".publish-", dir=here) as name:
        aside = Path(name)
        try:
            for path in sorted(chosen.folder.rglob("*")):
                inside = path.relative_to(chosen.folder)
                if path.is_file() and not any(part.startswith(".") for part in inside.parts):
                    (aside / inside).parent.mkdir(parents=True, exist_ok=True)
                    _link(path, aside / inside)
            replaced = chosen.folder.stat().st_ino != before
        except FileNotFoundError:
            replaced = True
        except OSError as error:
            raise DiskError(f"{aside}: {error.strerror or error}") from error
        if replaced:
            raise UsageError(f"{chosen.folder}: was replaced by the run just now; run the same command again")
        for file, content in made.items():
            (aside / file).unlink(missing_ok=True)  # never write through a link
            (aside / file).write_bytes(content)
        _refuse_secrets(aside, secret)
        yield aside


def files_of(folder: Path) -> dict[str, int]:
    """Size in bytes of each file, by its path in the folder."""
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*"))
            if path.is_file()}  # fmt: skip


def _link(path: Path, to: Path) -> None:
    try:
        os.link(path, to)
    except OSError:  # another file system, or one without links
        shutil.copyfile(path, to)


def _refuse_secrets(folder: Path, secret: list[str]) -> None:
    for name in files_of(folder):
        if name.endswith(TEXTS):
            content = (folder / name).read_bytes()
            if TOKEN.search(content):
                raise UsageError(f"{name}: holds what looks like a token of the Hub; remove it, and revoke the token")
            if found := next((text for text in secret if text.encode() in content), None):
                raise UsageError(f"{name}: holds {found}, which is of this machine; remove it from there")
