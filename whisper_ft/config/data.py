"""Settings of the data: the sources, and how they are read."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from whisper_ft.config.local_paths import looks_local
from whisper_ft.config.setting import require, setting
from whisper_ft.config.waveform import WaveformSetting
from whisper_ft.runtime.redaction import redacted

Format = Literal[
    "auto",
    "parquet",
    "hub",
    "common_voice",
    "webdataset",
    "manifest",
    "audiofolder",
    "saved_dataset",
    "kaldi",
    "librispeech",
    "pairs",
    "subtitles",
]
Task = Literal["transcribe", "translate"]
DEFAULT_TASK: Task = "transcribe"
LongForm = bool | Literal["given"]
LONG_SECONDS = 120.0
"""Length of a joined recording in seconds: four windows of Whisper, so three cuts between windows."""
MAX_LONG_SECONDS = 1800.0
"""Greatest length of a joined recording in seconds, because a second takes some 300 kB of memory while it is read."""


@dataclass(frozen=True)
class SourceConfig:
    """Place and format of a set of utterances, each an audio clip with its transcript."""

    NEEDS_TEXT: ClassVar[bool] = True
    """False for data whose transcripts may be missing, because only the audio is read."""
    path: str = setting("free", "")  # the data may be moved, because its fingerprint is compared, not its path
    """File, folder, glob, fsspec address (hf://, s3://, gs://, https://) or the name of a data set on the Hub."""
    format: Format = setting("free", "auto")
    """Format of the data; auto detects it from file names."""
    split: str | None = setting("exact", None)
    """Split of a data set: train, or train+validation. None: train, if there are several. Common Voice also has
    validated-without-test, and parquet files have all."""
    config_name: str | None = setting("exact", None)
    """Configuration of a data set on the Hub or of a copy of it, often the language: be_by."""
    revision: str | None = setting("free", None)
    """Branch, tag or commit of a data set on the Hub; checkpoints record the commit."""
    audio_root: str | None = setting("free", None)
    """Folder of the audio files that a manifest (a list of files) names. None: the folder of the manifest."""
    allowed_folders: list[str] = field(default_factory=list, metadata={"resume": "free"})
    """Local folders outside of the data, in which links and absolute paths may end: [/disk2/clips, /disk3]."""
    audio_column: str | None = setting("exact", None)
    """Column with the audio or its path. None: the usual names, such as audio, path, audio_filepath."""
    text_column: str | None = setting("exact", None)
    """Column with the transcript; of a TextGrid, its tier. None: the usual names, such as sentence, text."""
    language: str | None = setting("exact", None)
    """Whisper code or name of the language spoken in all rows; only a named language_column takes precedence. None: the
    `language` column of the data, or else the default of the model."""
    task: Task | None = setting("exact", None, auto=None)
    """Task of the decoder: transcribe or translate; only a named task_column takes precedence. None: the `task` column
    of the data, or else transcribe."""
    language_column: str | None = setting("exact", None)
    """Column with the language of each row; a blank cell means `language`. For Kaldi, X is the file utt2X."""
    task_column: str | None = setting("exact", None)
    """Column with the task of each row; a blank cell means `task`. For Kaldi, X is the file utt2X."""
    segments_column: str | None = setting("exact", None, before=None)
    """Column with the times of the transcript: a list of {start, end, text} in seconds, or JSON text of it. Its texts
    are then the transcript; a blank cell means the column of text."""
    text_times: bool = setting("exact", False, before=False)
    """The transcript holds times, as in `<|0.00|> one<|1.20|><|1.50|> two<|2.00|>`, which are not part of its text."""
    prompt_column: str | None = setting("exact", None, before=None)
    """Column with text that comes before the transcript, or with names and terms in it, for labels.prompt_share. None:
    the text before in the recording, or of the speaker."""
    reading: Literal[1, 2] = setting("exact", 2, before=1, auto=2)
    """Version of the rules by which data is read; a resumed run keeps its own. 2: a setting without effect is refused,
    and `language` and `task` win over columns that are not named. Only an offset makes a segment, and a line with other
    fields than the header is bad_line. 1, for runs begun before: none of these."""


@dataclass(frozen=True)
class WeightedSourceConfig(SourceConfig):
    """A source of a mixture, with its weight."""

    weight: float = setting("exact", 1.0)
    """Share of this source in the training data, relative to the weights of the other sources."""

    def __post_init__(self) -> None:
        require(0 < self.weight < math.inf, "data.sources: weight", self.weight, "above 0")


@dataclass(frozen=True)
class DataConfig(SourceConfig):
    """Training data and how it is read. Fields with the rule `free` change neither order nor content of the data."""

    sources: list[WeightedSourceConfig] = field(default_factory=list, metadata={"resume": "exact"})
    """Several sources in place of `path`, mixed by weight: [{path: a, weight: 7}, {path: b, language: sv, weight: 3}].

    Each source gets a whole number of lanes (see `lanes`), so its share is rounded; the run prints the shares. A source
    without `language` or `task` has that of data.*."""
    normalizer: str = setting("exact", "keep")
    """Normaliser that rewrites the labels: keep (no change), lower, unpunctuated, golden; see normalizers.py."""
    lanes: int | None = setting("exact", None, least=1, auto=None)
    """Number of lanes: the data is divided into so many streams, read in turn. None: 16 to 64, by batch.size."""
    window_chunks: int = setting("exact", 4, least=1)
    """Chunks (parquet row groups) whose rows a lane shuffles together; more mix better and need more memory."""
    workers: int = setting("free", 0, least=0)
    """Worker processes of each training process, which decode audio and compute log-mels. 0: the training process does
    this itself."""
    prefetch: int = setting("free", 4, least=1)
    """Micro-batches that each worker prepares ahead, or blocks in a packed run."""
    cache_gb: float = setting("free", 4.0)
    """Gigabytes of encoded audio that all processes of a machine together keep in memory; a smaller cache reads files
    more often."""
    max_unusable_share: float = setting("free", 0.01)
    """Largest allowed share of unusable rows. If more rows are unusable, and at least 20, the run stops with exit code
    4."""

    @property
    def tasks(self) -> list[Task]:
        """Task of each source, in order, for rows without a task of their own. One task without `sources`."""
        if self.reading == 1 and len(self.sources) == 1:  # the task of a single source had no effect
            return [self.task or DEFAULT_TASK]
        return [source.task or self.task or DEFAULT_TASK for source in self.sources] or [self.task or DEFAULT_TASK]

    @property
    def languages(self) -> list[str | None]:
        """Language of each source, in order, for rows without a language of their own; None if no setting names it.

        One language without `sources`.
        """
        return [source.language or self.language for source in self.sources] or [self.language]

    def __post_init__(self) -> None:
        if self.sources and self.path:
            raise ValueError(f"--data.path {self.path}: data.sources names the data already; give one of the two")
        require(0 < self.cache_gb < math.inf, "data.cache_gb", self.cache_gb, "above 0")
        require(0 <= self.max_unusable_share <= 1, "data.max_unusable_share", self.max_unusable_share, "from 0 to 1")


@dataclass(frozen=True)
class NamedSourceConfig(SourceConfig):
    """One of several evaluation sets."""

    name: str = ""
    """Name of the set, which is also its folder below --out. Empty: the last part of its path, and its split."""
    long: LongForm = setting("free", False)
    """Score long recordings. true: the clips of each speaker are joined to recordings, or all clips if the data has no
    speakers. given: the recordings of the set are long already."""
    long_seconds: float | None = setting("free", None)
    """Length of a joined recording in seconds, for `long: true`; a few are shorter or longer by half. None: 120."""
    augment: WaveformSetting = field(default_factory=list, metadata={"resume": "free"})
    """Transforms of the sound before it is transcribed, as in augment.waveform: phone, or a list. The draws depend on
    the utterance alone, so they are the same in each evaluation. Empty: the sound as it is."""

    @property
    def is_long(self) -> bool:
        """True if long recordings are scored."""
        return self.long is not False

    @property
    def is_joined(self) -> bool:
        """True if the utterances of the set are clips that are joined."""
        return self.long is True


def long_problem(long: LongForm, long_seconds: float | None) -> str | None:
    """Return the reason why these settings of a set of long recordings cannot be used; None if they can."""
    if long_seconds is None:
        return None
    if long is not True:
        return "has no effect without long: true, which joins clips; leave it out"
    within = 0 < long_seconds <= MAX_LONG_SECONDS
    return None if within else f"must be above 0 and at most {MAX_LONG_SECONDS:g}"


def set_name(name: str, path: str, split: str | None) -> str:
    """Return the name of an evaluation set: `name`, or if it is empty, the last part of its path, and its split.

    Characters that do not suit a folder become hyphens. Credentials in an address are left out.
    """
    name = name or "-".join(filter(None, [Path(redacted(path)).name, split]))
    return re.sub(r"[^\w.+-]+", "-", name).strip(".-")


def first_twice(names: Iterable[str]) -> str | None:
    """Return the first name that occurs a second time; None if every name is there once."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def is_hub_name(path: str) -> bool:
    """Return True if a path is the `owner/name` of a data set on the Hub, and does not look like a local path."""
    return "://" not in path and not looks_local(path)
