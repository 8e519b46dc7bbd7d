"""Job of an engine: an export and the clips to transcribe with it, and the result, both as files in one folder.

The folder connects two processes: the command, and the process that loads the engine. torch is not imported.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
SAMPLE_RATE = 16_000  # of every Whisper
JOB, RESULT = "job.json", "result.json"
FEATURES, WAVEFORMS, LOGITS = "features.npy", "waveforms.npy", "logits.npz"


@dataclass(frozen=True)
class JobClip:
    """One clip of at most a window, as the engines get it."""

    log_mel: Floats
    """Log-mel [M, t] as our own model got it; its last frame is that of silence, unless it fills the window."""
    frames: int
    """Frames T of a window."""
    waveform: Floats
    """Samples at 16 kHz."""
    prompt: list[int]
    """Tokens before the text."""
    language: str
    """Code of the language in the prompt; `en` for an English-only model."""
    task: str

    @property
    def features(self) -> Floats:
        """Log-mel [M, T], padded to the window by its last frame."""
        return np.pad(self.log_mel, ((0, 0), (0, self.frames - self.log_mel.shape[1])), mode="edge")

    @property
    def seconds(self) -> float:
        """Length of the waveform."""
        return len(self.waveform) / SAMPLE_RATE


@dataclass(frozen=True)
class EngineJob:
    """Job of an engine: to transcribe all clips greedily, one after another."""

    export: Path
    """Folder of the export."""
    quantization: str
    is_multilingual: bool
    limit: int
    """Largest number of tokens after the prompt: half of the decoder's positions, as in OpenAI's own decoding."""
    end: int
    """Id of the end token."""
    suppressed: list[int]
    """Ids that are never written: those of the generation config, and all timestamps."""
    timestamps: list[int]
    """The timestamps among them, for engines that take the others from the export."""
    suppressed_at_begin: list[int]
    device: str
    """`cpu` or `cuda`."""
    threads: int
    logits_clips: int
    """Number of clips, from the first, for which logits are wanted."""
    language_clips: int
    """Number of clips, from the first, whose language is to be detected; 0 for an English-only model."""
    clips: Sequence[JobClip] = field(repr=False, default=())

    def write(self, folder: Path) -> None:
        """Write the job into a folder. Raises OSError if the disk is full."""
        fields = {name: value for name, value in vars(self).items() if name != "clips"}
        rows = [
            {"samples": len(clip.waveform), "width": clip.log_mel.shape[1]}
            | {"frames": clip.frames, "prompt": clip.prompt, "language": clip.language, "task": clip.task}
            for clip in self.clips
        ]
        np.save(folder / WAVEFORMS, np.concatenate([clip.waveform for clip in self.clips]))
        np.save(folder / FEATURES, np.concatenate([clip.log_mel for clip in self.clips], axis=1))
        content = fields | {"export": str(self.export), "clips": rows}
        (folder / JOB).write_text(json.dumps(content), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "EngineJob":
        """Read the job that `write` has written."""
        fields = json.loads((folder / JOB).read_text(encoding="utf-8"))
        clips = list(_clips(folder, fields.pop("clips")))
        return cls(**{**fields, "export": Path(fields["export"]), "clips": clips})


def _clips(folder: Path, rows: Sequence[dict[str, Any]]) -> Iterator[JobClip]:
    features, waveforms = np.load(folder / FEATURES), np.load(folder / WAVEFORMS)
    frame = sample = 0
    for row in rows:
        next_frame, next_sample = frame + row.pop("width"), sample + row.pop("samples")
        yield JobClip(log_mel=features[:, frame:next_frame], waveform=waveforms[sample:next_sample], **row)
        frame, sample = next_frame, next_sample


@dataclass(frozen=True)
class EngineRow:
    """Output of an engine for one clip. At least one of tokens and text is given."""

    tokens: list[int] | None = None
    """Tokens after the prompt, without the end token."""
    text: str | None = None
    detected_language: str | None = None
    """Code of the language that the engine detects, if it was asked."""


@dataclass(frozen=True)
class EngineResult:
    """Output of an engine for all clips of a job."""

    version: str
    """Version of the package."""
    computed_in: str
    """Number format of the computation, which may be another than that of the weights."""
    seconds: float
    """Time for all transcripts, without loading the model."""
    rows: list[EngineRow]
    limit: int | None = None
    """Largest number of tokens in this engine, if it is another than that of the job."""
    logits: dict[int, Floats] = field(default_factory=dict)
    """Logits [n + 1, V] after the prompt and after each of the clip's own tokens, by number of the clip."""

    def write(self, folder: Path) -> None:
        """Write the result into a folder. Raises OSError if the disk is full."""
        arrays: dict[str, Any] = {str(number): logits for number, logits in self.logits.items()}
        np.savez(folder / LOGITS, **arrays)
        content = {name: value for name, value in vars(self).items() if name not in ("rows", "logits")}
        content["rows"] = [asdict(row) for row in self.rows]
        (folder / RESULT).write_text(json.dumps(content), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "EngineResult":
        """Read the result that `write` has written."""
        fields = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        with np.load(folder / LOGITS) as stored:
            logits = {int(number): stored[number] for number in stored.files}
        return cls(**{**fields, "rows": [EngineRow(**row) for row in fields["rows"]], "logits": logits})
