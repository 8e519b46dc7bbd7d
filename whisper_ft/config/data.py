"""Settings of the data: its sources and how they are read."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from whisper_ft.config.setting import require, setting

Format = Literal[
    "auto", "parquet", "hub", "common_voice", "webdataset", "manifest", "audiofolder", "saved_dataset", "kaldi"
]


@dataclass(frozen=True)
class SourceConfig:
    """A source of utterances."""

    path: str = setting("free", "")  # the same data may lie elsewhere; its fingerprint has to be the same
    """File, folder, glob, fsspec address (hf://, s3://, gs://, https://) or the name of a data set on the Hub."""
    format: Format = setting("free", "auto")
    """Format of the data; auto detects it from file names."""
    split: str | None = setting("exact", None)
    """Split of a data set: train, or train+validation. Common Voice also has validated-without-test."""
    config_name: str | None = setting("exact", None)
    """Configuration of a data set on the Hub, often the language: be_by."""
    revision: str | None = setting("free", None)
    """Branch, tag or commit of a data set on the Hub; checkpoints record the commit."""
    audio_root: str | None = setting("free", None)
    """Folder of the audio files that a manifest names. None: the folder of the manifest."""
    audio_column: str | None = setting("exact", None)
    """Column with the audio or its path. None: the usual names, such as audio, path, audio_filepath."""
    text_column: str | None = setting("exact", None)
    """Column with the transcript. None: the usual names, such as sentence, text, transcription."""
    language: str | None = setting("exact", None)
    """Whisper code or name of the spoken language; a `language` column wins. None: the model's own default."""
    task: Literal["transcribe", "translate"] = setting("exact", "transcribe")
    """Task of the decoder; a `task` column wins."""


@dataclass(frozen=True)
class WeightedSourceConfig(SourceConfig):
    """One source of a mixture."""

    weight: float = setting("exact", 1.0)
    """Share of the stream, relative to the weights of the other sources."""

    def __post_init__(self) -> None:
        require(0 < self.weight < math.inf, "data.sources: weight", self.weight, "above 0")


@dataclass(frozen=True)
class DataConfig(SourceConfig):
    """Training data and how it is read. Order and content depend on none of the `free` fields."""

    sources: list[WeightedSourceConfig] = field(default_factory=list, metadata={"resume": "exact"})
    """Several sources in place of `path`, mixed by weight: [{path: a, weight: 7}, {path: b, language: sv, weight: 3}].

    Each owns whole lanes of the stream, so shares are rounded; the run prints them. `language` defaults to data.*'s."""
    normalizer: str = setting("exact", "keep")
    """Normaliser of the labels: keep, lower, unpunctuated, golden; see normalizers.py."""
    lanes: int | None = setting("exact", None, least=1, auto=None)
    """Interleaved streams in which the data is read. None: 16 to 64, by batch.size."""
    window_chunks: int = setting("exact", 4, least=1)
    """Chunks (parquet row groups) that a lane shuffles together; more mix better and need more memory."""
    workers: int = setting("free", 0, least=0)
    """Processes per rank that decode and compute log-mels; 0 uses the training process."""
    prefetch: int = setting("free", 4, least=1)
    """Micro-batches that each worker prepares ahead."""
    cache_gb: float = setting("free", 4.0)
    """Gigabytes of audio that all processes of a machine cache of their chunks; a smaller cache reads more often."""
    max_unusable_share: float = setting("free", 0.01)
    """Largest share of unusable rows. Above it, and with at least 20 such rows, the run stops with exit code 4."""

    @property
    def languages(self) -> list[str | None]:
        """Language of each source, for rows that name none."""
        return [source.language or self.language for source in self.sources] or [self.language]

    def __post_init__(self) -> None:
        if self.sources and self.path:
            raise ValueError(f"--data.path {self.path}: data.sources names the data already; give one of the two")
        require(0 < self.cache_gb < math.inf, "data.cache_gb", self.cache_gb, "above 0")
        require(0 <= self.max_unusable_share <= 1, "data.max_unusable_share", self.max_unusable_share, "from 0 to 1")


@dataclass(frozen=True)
class NamedSourceConfig(SourceConfig):
    """One set of several in a call of evaluate.py."""

    name: str = ""
    """Folder of the set below --out; empty: the last part of its path, and its split."""


def is_hub_name(path: str) -> bool:
    """True for the `owner/name` of a data set on the Hub; if a folder `owner` exists, it is a path."""
    return bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path)) and not Path(path.split("/")[0]).exists()
