"""Every setting of a run: its meaning (the docstring under it is its --help), its default and its rule for resume.

Each field of a training run carries a resume rule as data (`rule(...)`):
  exact    must be what it was when the checkpoint was written: another value would be another run
  change   may change when named in `--allow_change`; the resumed run is then no longer that of the old settings
  free     may change at any time: it does not alter what is learned
"""

import math
import re
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

from whisper_ft.schedule import Kind

Rule = Literal["exact", "change", "free"]
Precision = Literal["fp32", "bf16"]
Device = Literal["auto", "cpu", "cuda"]
DEFAULT_STEPS = 4000
Format = Literal[
    "auto", "parquet", "hub", "common_voice", "webdataset", "manifest", "audiofolder", "saved_dataset", "kaldi"
]


def rule(kind: Rule, default: Any, least: int | None = None) -> Any:
    """A dataclass field with a default, a resume rule, and the smallest number allowed."""
    return field(default=default, metadata={"resume": kind, "least": least})


@dataclass(frozen=True)
class Source:
    """Where utterances come from."""

    path: str = rule("free", "")  # the same data may lie elsewhere; its fingerprint has to be the same
    """File, folder, glob, fsspec address (hf://, s3://, gs://, https://) or the name of a data set on the Hub."""
    format: Format = rule("free", "auto")
    """What lies there; auto sees it by the names of the files."""
    split: str | None = rule("exact", None)
    """Part of a data set that has parts: train, or train+validation. Common Voice also: validated-without-test."""
    config_name: str | None = rule("exact", None)
    """Configuration of a data set on the Hub, often the language: be_by."""
    revision: str | None = rule("free", None)
    """Branch, tag or commit of a data set on the Hub; checkpoints hold the commit it was."""
    audio_root: str | None = rule("free", None)
    """Folder that the audio files named in a manifest have to lie in. None: the folder of the manifest."""
    audio_column: str | None = rule("exact", None)
    """Column that holds the audio or its path. None: the usual names, such as audio, path, audio_filepath."""
    text_column: str | None = rule("exact", None)
    """Column that holds the transcript. None: the usual names, such as sentence, text, transcription."""
    language: str | None = rule("exact", None)
    """Whisper code or name of the language spoken; a `language` column wins. None: the model's own default."""
    task: Literal["transcribe", "translate"] = rule("exact", "transcribe")
    """What the decoder is asked to do; a `task` column wins."""


@dataclass(frozen=True)
class WeightedSource(Source):
    """One of several sources that are mixed."""

    weight: float = rule("exact", 1.0)
    """Share of the stream, relative to those of the others."""

    def __post_init__(self) -> None:
        _require(0 < self.weight < math.inf, "data.sources: weight", self.weight, "above 0")


@dataclass(frozen=True)
class Data(Source):
    """Training data and how it is read. Order and content depend on none of the `free` fields."""

    sources: list[WeightedSource] = field(default_factory=list, metadata={"resume": "exact"})
    """Several sources in place of `path`, mixed by weight: [{path: a, weight: 7}, {path: b, language: sv, weight: 3}].

    Each owns whole lanes; `language` is that of data.* where it is not given. The realised shares are printed."""
    lanes: int | None = rule("exact", None, least=1)
    """Interleaved streams the data is read in. None: from batch.size, 16 to 64."""
    window_chunks: int = rule("exact", 4, least=1)
    """Chunks (parquet row groups) a lane shuffles together: more mixes better and takes more memory."""
    workers: int = rule("free", 0, least=0)
    """Processes that decode and compute log-mels, per rank; 0 does it in the training process."""
    prefetch: int = rule("free", 4, least=1)
    """Micro-batches that each worker prepares ahead."""
    cache_gb: float = rule("free", 4.0)
    """Gigabytes of audio that the processes on one machine keep of the chunks they are in; less means reading again."""
    max_unusable_share: float = rule("free", 0.01)
    """The run stops with exit code 4 once at least 20 rows, and more than this share, turned out to be unusable."""

    @property
    def languages(self) -> list[str | None]:
        """Language of each source, for rows that name none."""
        return [source.language or self.language for source in self.sources] or [self.language]

    def __post_init__(self) -> None:
        if self.sources and self.path:
            raise ValueError(f"--data.path {self.path}: data.sources names the data already; give one of the two")
        _require(0 < self.cache_gb < math.inf, "data.cache_gb", self.cache_gb, "above 0")
        _require(0 <= self.max_unusable_share <= 1, "data.max_unusable_share", self.max_unusable_share, "from 0 to 1")


@dataclass(frozen=True)
class Model:
    """The model to start from."""

    name: str = rule("exact", "openai/whisper-small")
    """Name on the Hub or a local folder in the Hugging Face format."""
    dropout: float | None = rule("change", None)
    """Dropout probability while training; None keeps the checkpoint's own (0 for OpenAI's)."""

    def __post_init__(self) -> None:
        _require(self.dropout is None or 0 <= self.dropout < 1, "model.dropout", self.dropout, "from 0 to below 1")


@dataclass(frozen=True)
class Batch:
    """How many utterances make a step, and how they fit."""

    size: int = rule("exact", 16, least=1)
    """Utterances per optimizer update, over all processes: the global batch."""
    per_device: int = rule("free", 16, least=1)
    """Utterances per forward pass on one device; the number of passes per update follows."""


@dataclass(frozen=True)
class Optim:
    """The optimizer."""

    name: Literal["adamw"] = rule("change", "adamw")
    """AdamW, fused where torch can."""
    lr: float = rule("change", 1e-5)
    """Peak learning rate; schedule.* says how it gets there and back."""
    betas: tuple[float, float] = rule("change", (0.9, 0.98))
    """Decay rates of the two moments."""
    eps: float = rule("change", 1e-6)
    """Added to the root of the second moment."""
    weight_decay: float = rule("change", 0.0, least=0)
    """Decoupled weight decay of matrices; norms, biases and positions have none."""
    clip_norm: float = rule("change", 1.0, least=0)
    """Largest gradient norm of an update; 0 does not clip."""

    def __post_init__(self) -> None:
        _require(self.lr > 0, "optim.lr", self.lr, "above 0")
        _require(all(0 <= beta < 1 for beta in self.betas), "optim.betas", self.betas, "two numbers from 0 to below 1")
        _require(self.eps > 0, "optim.eps", self.eps, "above 0")


@dataclass(frozen=True)
class Schedule:
    """The learning rate over the run."""

    kind: Kind = rule("change", "linear")
    """Shape after the warm-up: linear or cosine down to 0, constant, or wsd (stable, then down over `decay`)."""
    warmup: float = rule("change", 0.1)
    """Updates of warm-up; below 1 a share of `steps`."""
    decay: float = rule("change", 0.2)
    """Updates of the final decay of wsd; below 1 a share of `steps`."""

    def __post_init__(self) -> None:
        for name, value in (("warmup", self.warmup), ("decay", self.decay)):
            allowed = value >= 0 and (value < 1 or float(value).is_integer())
            _require(allowed, f"schedule.{name}", value, "a whole number of updates, or a share of the run below 1")


@dataclass(frozen=True)
class Log:
    """What is shown while training."""

    every: int = rule("free", 25, least=0)
    """Steps between two logged ones; 0 logs none."""


@dataclass(frozen=True)
class Decoding:
    """How hypotheses are generated."""

    batch_size: int = rule("free", 16, least=1)
    """Utterances decoded together on one device."""
    num_beams: int = rule("change", 1, least=1)
    """1 is greedy."""
    max_new_tokens: int | None = rule("change", None, least=1)
    """Most tokens of a hypothesis. None: all that the decoder has room for."""


@dataclass(frozen=True)
class Eval(Decoding):
    """Evaluation by generation while training; the best model is the one with the lowest WER."""

    path: str = rule("free", "")  # as data.path: its fingerprint decides whether figures can be compared
    """Held-out utterances, in the same format, columns and language as data.*; empty evaluates nothing."""
    split: str | None = rule("free", None)
    """Part of the held-out set, as data.split; alone, without eval.path, it is a part of data.path."""
    every: int = rule("free", 500, least=0)
    """Steps between two evaluations (there is always one at the end); 0 evaluates never."""
    normalizer: str = rule("change", "golden")
    """Applied to references and hypotheses before they are compared; see normalizers.py."""
    max_utterances: int | None = rule("change", None, least=1)
    """Evaluate on the first so many only."""


@dataclass(frozen=True)
class Save:
    """Checkpoints to resume from."""

    every: int = rule("free", 500, least=0)
    """Steps between two checkpoints (one is always written at the end, and one for each new best)."""
    keep: int = rule("free", 2, least=2)
    """Newest checkpoints to keep, besides the best one; at least 2, so that a damaged one has a predecessor."""


@dataclass(frozen=True)
class Config:
    """Fine-tune Whisper: `./launch.sh --config FILE [--section.field VALUE ...]`."""

    run_dir: Path = rule("free", Path("runs/default"))
    """Everything the run writes; see README.txt in it."""
    seed: int = rule("exact", 1, least=0)
    """Order of the data, dropout, and whatever else is random."""
    steps: int | None = rule("change", None, least=1)
    """Optimizer updates of the whole run. None: from `epochs`, or 4000."""
    epochs: float | None = rule("change", None)
    """The same as passes over all rows of the data, in place of `steps`: the last update ends with the last row."""
    resume: str = rule("free", "auto")
    """auto: from the newest checkpoint in run_dir; never: only into an unused run_dir; best; or a checkpoint's path."""
    allow_change: list[str] = field(default_factory=list, metadata={"resume": "free"})
    """Settings with the rule `change` that may differ from the checkpoint's: --allow_change '[optim.lr, steps]'."""
    precision: Precision = rule("change", "fp32")
    """Arithmetic of forward and backward; weights, moments and loss are always float32."""
    device: Device = rule("free", "auto")
    """auto takes a GPU where there is one."""
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    batch: Batch = field(default_factory=Batch)
    optim: Optim = field(default_factory=Optim)
    schedule: Schedule = field(default_factory=Schedule)
    log: Log = field(default_factory=Log)
    eval: Eval = field(default_factory=Eval)
    save: Save = field(default_factory=Save)

    def __post_init__(self) -> None:
        _require_bounds(self)
        _require(self.epochs is None or self.epochs > 0, "epochs", self.epochs, "above 0")
        if self.steps is not None and self.epochs is not None:
            raise ValueError(f"--steps {self.steps} and --epochs {self.epochs:g}: give one of the two")

    def steps_over(self, rows: int) -> int:
        """Updates of a run over so many rows."""
        end = self.end_of(rows)
        return -(-end // self.batch.size) if end else self.steps or DEFAULT_STEPS

    def end_of(self, rows: int) -> int | None:
        """Position of the stream where a run of `epochs` ends, also within a batch; None for one of `steps`."""
        return None if self.epochs is None else max(round(self.epochs * rows), 1)

    @property
    def held_out(self) -> Source | None:
        """What the run is evaluated on: eval.path, or eval.split of data.path."""
        if not self.eval.every or not (self.eval.path or self.eval.split):
            return None
        shared = {f.name: getattr(self.data, f.name) for f in fields(Source)}
        return Source(**shared | {"path": self.eval.path or self.data.path, "split": self.eval.split})


@dataclass(frozen=True)
class EvaluateConfig:
    """Score a checkpoint by generation: `python evaluate.py --model DIR --data.path FILE_OR_DIR --out DIR`."""

    model: str = ""
    """Folder of a model (runs/NAME/best, say) or a name on the Hub."""
    data: Source = field(default_factory=Source)
    out: Path = Path("evaluation")
    """Folder for summary.json, predictions.jsonl and report.html."""
    decoding: Decoding = field(default_factory=Decoding)
    normalizer: str = "golden"
    """Applied to references and hypotheses before they are compared; see normalizers.py."""
    max_utterances: int | None = field(default=None, metadata={"least": 1})
    """Score the first so many only."""
    precision: Precision = "fp32"
    """Arithmetic of encoder and decoder. A training run evaluates in its own `precision`."""
    device: Device = "auto"
    """auto takes a GPU where there is one."""

    def __post_init__(self) -> None:
        _require_bounds(self)


def is_hub_name(path: str) -> bool:
    """True for `owner/name` of a data set on the Hub; where there is a folder `owner`, it is a path."""
    return bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path)) and not Path(path.split("/")[0]).exists()


def differences(saved: dict[str, Any], now: dict[str, Any], kind: Rule) -> list[tuple[str, Any, Any]]:
    """(name, saved value, value now) of every setting under a rule that is not what it was; both as from `to_plain`."""
    then, today, kinds = _settings(saved), _settings(now), rules()
    return [
        (name, then.get(name), value)
        for name, value in today.items()
        if kinds[re.sub(r"\.\d+\.", ".", name)] == kind and then.get(name, value) != value
    ]


def _settings(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """As `flatten`, and each section of a list under its number, beside how many there are."""
    settings: dict[str, Any] = {}
    for name, value in flatten(plain, prefix).items():
        if not isinstance(value, list) or not all(isinstance(section, dict) for section in value):
            settings[name] = value
            continue
        settings[name] = len(value)
        for number, section in enumerate(value):
            settings |= _settings(section, f"{name}.{number}.")
    return settings


def rules() -> dict[str, Rule]:
    """The resume rule of every setting of a training run, by dotted name."""
    found = [*leaves(Config), *leaves(WeightedSource, "data.sources.")]
    return {name: setting.metadata["resume"] for name, setting in found}


def to_plain(config: Config | EvaluateConfig) -> dict[str, Any]:
    """Nested dict of JSON values, as written to run_dir/config.yaml and into checkpoints."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        return str(value) if isinstance(value, Path) else value

    return dict(plain(asdict(config)))


def _require(allowed: bool, name: str, value: Any, what: str) -> None:
    if not allowed:
        raise ValueError(f"--{name} must be {what}, got {value}")


def _require_bounds(config: Config | EvaluateConfig) -> None:
    """ValueError for a number that is infinite, none at all, or below the `least` of its field."""
    values = flatten(to_plain(config))
    for name, found in leaves(type(config)):
        value, least = values[name], found.metadata.get("least")
        _require(least is None or value is None or value >= least, name, value, f"at least {least}")
        for number in value if isinstance(value, list) else [value]:
            _require(not isinstance(number, float) or math.isfinite(number), name, value, "finite")


def leaves(cls: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted name and dataclass field of every setting that is not a section."""
    hints = get_type_hints(cls)
    found: list[tuple[str, Any]] = []
    for inner in fields(cls):
        if is_dataclass(hints[inner.name]):
            found += leaves(hints[inner.name], f"{prefix}{inner.name}.")
        else:
            found.append((f"{prefix}{inner.name}", inner))
    return found


def flatten(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dict to {dotted name: value}."""
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
