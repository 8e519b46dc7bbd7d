"""Settings of decoding and evaluation, in training and in evaluate.py."""

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from whisper_ft.config.data import NamedSourceConfig, SourceConfig
from whisper_ft.config.setting import require_bounds, setting

Precision = Literal["fp32", "bf16", "fp16"]
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class DecodingConfig:
    """How hypotheses are generated."""

    batch_size: int = setting("free", 16, least=1)
    """Utterances decoded together on one device."""
    num_beams: int = setting("change", 1, least=1)
    """1 is greedy."""
    detect_language: bool = setting("change", False)
    """Let the model hear which language it is, in place of data.language and the rows' own."""
    timestamps: bool = setting("change", False)
    """Let the model write when each phrase was said, by Whisper's rules: `segments` in predictions.jsonl. One that was
    fine-tuned without timestamps may have forgotten how."""
    prompt: str = setting("change", "")
    """Text that the model takes for what was said before: names and spellings it would not know."""
    max_new_tokens: int | None = setting("change", None, least=1)
    """Most tokens of a hypothesis. None: all that the decoder has room for."""


@dataclass(frozen=True)
class EvalConfig(DecodingConfig):
    """Evaluation by generation while training; it says which model is the best."""

    path: str = setting("free", "")  # as data.path: its fingerprint decides whether figures can be compared
    """Held-out utterances, in the same format, columns and language as data.*; empty evaluates nothing."""
    split: str | None = setting("free", None)
    """Part of the held-out set, as data.split; alone, without eval.path, it is a part of data.path."""
    every: int = setting("free", 500, least=0)
    """Steps between two evaluations (there is always one at the end); 0 evaluates never."""
    normalizer: str = setting("change", "golden")
    """Applied to references and hypotheses before they are compared; see normalizers.py."""
    max_utterances: int | None = setting("change", None, least=1)
    """Evaluate on the first so many only."""
    metric: str = setting("change", "auto")
    """Figure of an evaluation that best/ is judged by: wer, cer, wer_orthographic, cer_orthographic, ser, or any other
    number of its row in metrics.jsonl. auto: wer, or cer where the language is written without spaces."""
    greater_is_better: bool = setting("change", False)
    """Whether a higher figure is a better one; it is not for error rates."""
    min_delta: float = setting("change", 0.0, least=0)
    """By how much a figure has to be better to count: 0.001 is a tenth of a percent of WER."""
    patience: int | None = setting("free", None, least=1)
    """The run ends after so many evaluations in a row without a better one; None: never before its last step."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Score a checkpoint by generation: `python evaluate.py --model DIR --data.path FILE_OR_DIR --out DIR`."""

    model: str = ""
    """Folder of a model, a run directory (its best model, else its final one), or a name on the Hub."""
    data: SourceConfig = field(default_factory=SourceConfig)
    sets: list[NamedSourceConfig] = field(default_factory=list)
    """Several sets in place of `data.path`, each into a folder of its own: [{path: a, split: test}, {path: b}].

    Their `language` is that of data.* where it is not given."""
    predictions: Path | None = None
    """A predictions.jsonl to score again, in place of a model and data."""
    compare: Path | None = None
    """A predictions.jsonl of another system on the same utterances: a paired test, and where the two differ."""
    columns: list[str] = field(default_factory=list)
    """Columns of the data, or of --predictions, to break the rates down by besides length, language and speaker:
    [gender, accents]. They are written to predictions.jsonl. Of its own there are: problem, windows, hit_token_limit,
    detected_language."""
    fail_above: float | None = field(default=None, metadata={"least": 0})
    """Exit code 8 if the rate (WER, or CER where a language is written without spaces) is above: 0.25 is 25 %."""
    sound: bool = True
    """Put the audio of the worst utterances into report.html, as far as it fits (16 MB)."""
    out: Path = Path("evaluation")
    """Folder for summary.json, predictions.jsonl and report.html."""
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    normalizer: str = "golden"
    """Applied to references and hypotheses before they are compared; see normalizers.py."""
    max_utterances: int | None = field(default=None, metadata={"least": 1})
    """Score the first so many only."""
    precision: Precision = "fp32"
    """Arithmetic of encoder and decoder. A training run evaluates in its own `precision`."""
    device: Device = "auto"
    """auto takes a GPU where there is one."""

    def __post_init__(self) -> None:
        require_bounds(self)
        if self.sets and self.data.path:
            raise ValueError(f"--data.path {self.data.path}: `sets` names the data already; give one of the two")
        if self.predictions and (self.model or self.data.path or self.sets):
            raise ValueError(
                "--predictions: is scored without a model and data; leave out --model, --data.path and sets"
            )
        if self.sets and self.compare:
            raise ValueError("--compare: is of one set; compare the others by their --predictions")
        names = [name for name, _ in self.named_sets]
        if len(set(names)) < len(names):
            raise ValueError(
                f"--sets: two are called {next(n for n in names if names.count(n) > 1)!r}; give each a name"
            )

    @property
    def named_sets(self) -> list[tuple[str, SourceConfig]]:
        """Name and place of each set; the only one of `data` has no name."""
        if not self.sets:
            return [("", self.data)]
        found = []
        for one in self.sets:
            own = {f.name: getattr(one, f.name) for f in fields(SourceConfig)}
            where = SourceConfig(**{**own, "language": one.language or self.data.language})
            name = one.name or "-".join(filter(None, [Path(one.path).name, one.split]))
            found.append((re.sub(r"[^\w.+-]+", "-", name).strip(".-"), where))
        return found
