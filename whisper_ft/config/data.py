"""Settings of the data: where utterances come from and how they are read."""

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
    """Where utterances come from."""

    path: str = setting("free", "")  # the same data may lie elsewhere; its fingerprint has to be the same
    """File, folder, glob, fsspec address (hf://, s3://, gs://, https://) or the name of a data set on the Hub."""
    format: Format = setting("free", "auto")
    """What lies there; auto sees it by the names of the files."""
    split: str | None = setting("exact", None)
    """Part of a data set that has parts: train, or train+validation. Common Voice also: validated-without-test."""
    config_name: str | None = setting("exact", None)
    """Configuration of a data set on the Hub, often the language: be_by."""
    revision: str | None = setting("free", None)
    """Branch, tag or commit of a data set on the Hub; checkpoints hold the commit it was."""
    audio_root: str | None = setting("free", None)
    """Folder that the audio files named in a manifest have to lie in. None: the folder of the manifest."""
    audio_column: str | None = setting("exact", None)
    """Column that holds the audio or its path. None: the usual names, such as audio, path, audio_filepath."""
    text_column: str | None = setting("exact", None)
    """Column that holds the transcript. None: the usual names, such as sentence, text, transcription."""
    language: str | None = setting("exact", None)
    """Whisper code or name of the language spoken; a `language` column wins. None: the model's own default."""
    task: Literal["transcribe", "translate"] = setting("exact", "transcribe")
    """What the decoder is asked to do; a `task` column wins."""


@dataclass(frozen=True)
class WeightedSourceConfig(SourceConfig):
    """One of several sources that are mixed."""

    weight: float = setting("exact", 1.0)
    """Share of the stream, relative to those of the others."""

    def __post_init__(self) -> None:
        require(0 < self.weight < math.inf, "data.sources: weight", self.weight, "above 0")


@dataclass(frozen=True)
class DataConfig(SourceConfig):
    """Training data and how it is read. Order and content depend on none of the `free` fields."""

    sources: list[WeightedSourceConfig] = field(default_factory=list, metadata={"resume": "exact"})
    """Several sources in place of `path`, mixed by weight: [{path: a, weight: 7}, {path: b, language: sv, weight: 3}].

    Each owns whole lanes; `language` is that of data.* where it is not given. The realised shares are printed."""
    normalizer: str = setting("exact", "keep")
    """What becomes of transcripts before they are learned: keep, lower, unpunctuated, golden; see normalizers.py."""
    lanes: int | None = setting("exact", None, least=1)
    """Interleaved streams the data is read in. None: from batch.size, 16 to 64."""
    window_chunks: int = setting("exact", 4, least=1)
    """Chunks (parquet row groups) a lane shuffles together: more mixes better and takes more memory."""
    workers: int = setting("free", 0, least=0)
    """Processes that decode and compute log-mels, per rank; 0 does it in the training process."""
    prefetch: int = setting("free", 4, least=1)
    """Micro-batches that each worker prepares ahead."""
    cache_gb: float = setting("free", 4.0)
    """Gigabytes of audio that the processes on one machine keep of the chunks they are in; less means reading again."""
    max_unusable_share: float = setting("free", 0.01)
    """The run stops with exit code 4 once at least 20 rows, and more than this share, turned out to be unusable."""

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
    """One of several sets that are scored in one call."""

    name: str = ""
    """Its folder below --out; empty: the last part of its path, and its split."""


def is_hub_name(path: str) -> bool:
    """True for `owner/name` of a data set on the Hub; where there is a folder `owner`, it is a path."""
    return bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path)) and not Path(path.split("/")[0]).exists()
