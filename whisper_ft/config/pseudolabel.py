"""Settings of pseudolabel: the audio, the models that transcribe it, and the limits of kept transcripts."""

import math
from collections.abc import Collection
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from whisper_ft.config.data import SourceConfig
from whisper_ft.config.evaluation import DecodingConfig, Device, Precision
from whisper_ft.config.setting import require, require_bounds
from whisper_ft.config.tree import flatten, to_plain, with_values
from whisper_ft.runtime.errors import UsageError

FREE = ("out", "keep_from", "device", "base", "decoding.batch_size", "data.path", "data.audio_root")
"""Settings on which no byte of the result depends; the data are compared by their fingerprint."""
TEXT_SETTINGS = ("segments_column", "text_times", "prompt_column")
MAX_GROUP_MB = 1_000  # arrow counts the bytes of a column in 31 bits


@dataclass(frozen=True)
class UnlabelledConfig(SourceConfig):
    """Audio to transcribe: a folder or glob of audio files, or rows of a data set, whose texts may be missing."""

    NEEDS_TEXT: ClassVar[bool] = False


@dataclass(frozen=True)
class KeepLimits:
    """Limits within which a window is kept. None switches a limit off."""

    min_logprob: float | None = -1.0
    """Least mean log-probability of the tokens of a text; -1.0 is the limit of openai-whisper."""
    max_compression: float | None = 2.4
    """Largest factor by which zlib makes a text smaller; 2.4 is the limit of openai-whisper. A loop has more."""
    max_no_speech: float | None = 0.6
    """Largest probability of no speech; 0.6 is the limit of openai-whisper."""
    max_disagreement: float | None = 0.2
    """Largest share of letters in which two transcripts of a window differ, with --second or --agree_beams."""
    min_pace: float | None = 1.0
    """Fewest letters and digits a second. A text of fewer leaves most of the speech out."""
    max_pace: float | None = 30.0
    """Most letters and digits a second, twice those of fast speech."""
    require_language: bool = False
    """Keep a window only if the model detects the language of data.language, or of its row, in it."""

    def __post_init__(self) -> None:
        for name in ("max_no_speech", "max_disagreement"):
            value = getattr(self, name)
            require(value is None or 0 <= value <= 1, name, value, "from 0 to 1")
        for name in ("max_compression", "min_pace", "max_pace"):
            value = getattr(self, name)
            require(value is None or value >= 0, name, value, "at least 0")
        require(self.min_logprob is None or self.min_logprob <= 0, "min_logprob", self.min_logprob, "at most 0")
        low, high = self.min_pace, self.max_pace
        require(low is None or high is None or low < high, "min_pace", low, f"below max_pace, which is {high}")


@dataclass(frozen=True)
class PseudolabelConfig(KeepLimits):
    """Transcribe audio without text into training data: MODEL --data.path FOLDER|GLOB|DATA --out DIR.

    The windows whose transcripts are trusted become parquet shards, which are a source of training data as they are.
    Each other window is listed in rejected.jsonl with its reason. After a stop, the same command continues.
    """

    model: str = ""
    """Model that transcribes, usually the first argument: a run directory, a folder of a model or an adapter, or a name
    on the Hub."""
    base: str | None = None
    """Base of the adapter in `model`. None: the one that the adapter's files name."""
    data: UnlabelledConfig = field(default_factory=UnlabelledConfig)
    out: Path | None = None
    """Folder for the shards, rejected.jsonl, windows.jsonl and pseudolabel.html."""
    held_out: list[SourceConfig] = field(default_factory=list)
    """Sets for scoring, whose audio and sentences must not be learned: --held_out PATH, repeatable, or a list such as
    [{path: a, split: test}]. A window with the same audio or text is left out."""
    second: str | None = None
    """Another model that transcribes each window, too, named as `model` is; see max_disagreement."""
    agree_beams: int | None = field(default=None, metadata={"least": 2})
    """Beams of a further search by the same model, whose text is compared, too; see max_disagreement."""
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    precision: Precision = "auto"
    """Arithmetic of the models, as in evaluate.py."""
    device: Device = "auto"
    """auto uses a GPU if there is one."""
    keep_from: Path | None = None
    """Finished folder of this command. Its windows are filtered by other limits, and nothing is transcribed again."""
    shard_mb: float = 500.0
    """Largest size of a shard in megabytes, unless one row group is larger."""
    group_mb: float = 16.0
    """Largest size of a row group in megabytes, unless one row is larger."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_bounds(self)
        require(0 < self.group_mb <= MAX_GROUP_MB, "group_mb", self.group_mb, f"above 0, up to {MAX_GROUP_MB}")
        require(0 < self.shard_mb < math.inf, "shard_mb", self.shard_mb, "above 0")
        for name in TEXT_SETTINGS:
            if value := getattr(self.data, name):
                raise ValueError(
                    f"--data.{name} {value}: has no effect, because transcripts are not read; leave it out"
                )
        for one in self.held_out:
            require(bool(one.path), "held_out: path", "nothing", "given for each set")
        if self.decoding.with_loss:
            raise ValueError("--decoding.with_loss true: has no effect, because there are no references; leave it out")
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        """Raise ValueError for settings that have no effect beside others."""
        if self.max_disagreement != KeepLimits.max_disagreement and not self.is_compared:
            raise ValueError(
                f"--max_disagreement {self.max_disagreement}: has an effect only with --second or --agree_beams"
            )
        if self.decoding.detect_language and self.data.language:
            raise ValueError(
                f"--decoding.detect_language true: --data.language {self.data.language} names it; leave one of them out"
            )
        if self.decoding.detect_language and self.require_language:
            raise ValueError("--require_language true: compares with --data.language; name it, and detect no language")
        if self.agree_beams is not None and self.agree_beams == self.decoding.num_beams:
            raise ValueError(
                f"--agree_beams {self.agree_beams}: is the search of --decoding.num_beams; give another number"
            )

    @property
    def is_compared(self) -> bool:
        """True if each window has a second transcript."""
        return self.second is not None or self.agree_beams is not None

    def described(self) -> dict[str, Any]:
        """Return the settings on which the result depends, by dotted name, as JSON values.

        The sets of `held_out` are described by their paths and splits.
        """
        plain = flatten(to_plain(self))
        plain.pop("data.allowed_folders")
        return {name: value for name, value in plain.items() if name not in FREE}


LATER = (*(limit.name for limit in fields(KeepLimits)), "out", "keep_from", "held_out", "shard_mb", "group_mb")
"""Settings that may be given with --keep_from."""
PLACES = ("data.path", "data.audio_root", "data.allowed_folders")


def filtered_again(before: PseudolabelConfig, now: PseudolabelConfig, given: Collection[str]) -> PseudolabelConfig:
    """Return the settings of a finished folder with the settings that a user gave with --keep_from.

    Raises UsageError for a setting on which the transcripts depend.
    """
    values = {}
    for name in sorted(given):
        top = name.partition(".")[0]
        if name in PLACES:
            values[name] = getattr(now.data, name.partition(".")[2])
        elif top in LATER:
            values[top] = getattr(now, top)
        elif name not in ("config", "device"):
            raise UsageError(f"--{name}: has no effect with --keep_from, which transcribes nothing; leave it out")
    try:
        return replace(with_values(before, values), out=now.out, keep_from=now.keep_from)
    except ValueError as error:
        raise UsageError(str(error)) from error
