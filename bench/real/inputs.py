"""Inputs of `make real`: the model and the sets, from folders or from the Hub."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

HUB_MODEL = "openai/whisper-base"
HUB_REVISION = "refs/convert/parquet"


class InputError(Exception):
    """An input of `make real` is missing or cannot be used."""


@dataclass(frozen=True)
class Set:
    """Settings of a data set, as train.py and evaluate.py have them, without their section."""

    settings: Mapping[str, str] = field(default_factory=dict)

    def arguments(self, section: str = "data") -> list[str]:
        """Return the set as arguments: `--data.path DIR …`."""
        return [text for name, value in self.settings.items() for text in (f"--{section}.{name}", value)]


@dataclass(frozen=True)
class Inputs:
    """Everything that `make real` reads."""

    model: str
    name: str
    """Name of the corpus, for the table."""
    language: str
    train: Set
    test: Set
    english: Set | None
    """English test set, which shows what the fine-tune forgets; None if there is none."""


def inputs_of(environment: Mapping[str, str] = os.environ) -> Inputs:
    """Find the inputs that the environment names.

    Parameters
        environment: variables with the names below; others are ignored.

    - REAL_MODELS: folder that holds `whisper-base`. Without it the model comes from the Hub.
    - REAL_CORPUS: folder with train and test. Without it the corpus is FLEURS of the Hub.
    - REAL_LANGUAGE: language of the corpus. Without it, the one in the column `language`.
    - REAL_ENGLISH: folder with an English test set. Without it, `ljspeech-en` beside the corpus.

    Raises InputError if a folder lacks something.
    """
    model = _model(environment.get("REAL_MODELS"))
    corpus, language = environment.get("REAL_CORPUS"), environment.get("REAL_LANGUAGE")
    if not corpus:
        language = language or "lb"
        fleurs = {"path": "google/fleurs", "revision": HUB_REVISION, "text_column": "raw_transcription"}
        own = fleurs | {"config_name": environment.get("REAL_FLEURS", "lb_lu"), "language": language}
        english = fleurs | {"config_name": "en_us", "language": "en", "split": "test"}
        train, test = (Set(own | {"split": split}) for split in ("train", "test"))
        return Inputs(model, f"FLEURS {own['config_name']}", language, train, test, Set(english))
    folder = Path(corpus)
    files = {split: _split(folder, split) for split in ("train", "test")}
    language = language or _language_of(files["test"])
    beside = Path(environment.get("REAL_ENGLISH") or folder.resolve().parent / "ljspeech-en")
    english_set = Set({"path": str(_split(beside, "test")), "language": "en"}) if beside.is_dir() else None
    train, test = (Set({"path": str(files[split]), "language": language}) for split in ("train", "test"))
    return Inputs(model, folder.resolve().name, language, train, test, english_set)


def _model(folder: str | None) -> str:
    """Return the model: REAL_MODELS/whisper-base, or its name on the Hub."""
    if not folder:
        return HUB_MODEL
    for path in (Path(folder, "whisper-base"), Path(folder)):
        if (path / "config.json").is_file():
            return str(path)
    raise InputError(f"REAL_MODELS={folder}: holds no whisper-base with a config.json")


def _split(folder: Path, split: str) -> Path:
    """Return the file or folder of a split: DIR/train, DIR/train.parquet or DIR/train-*.parquet."""
    candidates: Sequence[Path] = [folder / split, folder / f"{split}.parquet", *sorted(folder.glob(f"{split}.*"))]
    found = next((path for path in candidates if path.exists()), None)
    if found is None:
        raise InputError(f"{folder}: holds no {split}, neither as a folder nor as a file such as {split}.parquet")
    return found


def _language_of(data: Path) -> str:
    """Return the single value of the column `language`."""
    files = sorted(data.glob("*.parquet")) if data.is_dir() else [data]
    if files and files[0].suffix == ".parquet" and "language" in pq.read_schema(files[0]).names:
        values = set(pq.read_table(files[0], columns=["language"]).column("language").to_pylist())
        if len(values) == 1 and isinstance(value := values.pop(), str):
            return value
    raise InputError(
        f"REAL_LANGUAGE is missing: {data} has no column `language` with one value; give a code such as lb"
    )
