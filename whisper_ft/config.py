"""Every setting of a run: its meaning (the docstring under it is its --help), its default and its rule for resume.

Each field of a training run carries a resume rule as data (`rule(...)`):
  exact    must be what it was when the checkpoint was written: another value would be another run
  change   may change when named in `--allow_change`; the resumed run is then no longer that of the old settings
  free     may change at any time: it does not alter what is learned
"""

import math
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from whisper_ft.fields import flatten, leaves, to_plain
from whisper_ft.schedule import Kind

Rule = Literal["exact", "change", "free"]
Precision = Literal["fp32", "bf16", "fp16"]
Device = Literal["auto", "cpu", "cuda"]
Screen = Literal["auto", "live", "plain", "quiet"]
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
    normalizer: str = rule("exact", "keep")
    """What becomes of transcripts before they are learned: keep, lower, unpunctuated, golden; see normalizers.py."""
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
    layerdrop: float | None = rule("change", None)
    """Probability that a layer of encoder or decoder is passed by in training; None keeps the checkpoint's own."""
    freeze: list[Literal["encoder", "decoder", "embeddings"]] = field(
        default_factory=list, metadata={"resume": "exact"}
    )
    """Parts that are not trained: [encoder]. embeddings: those of the decoder, which are its output layer too."""
    gradient_checkpointing: bool = rule("free", False)
    """Compute activations again in the backward pass: a third more time, much less memory, the same gradients."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = rule("free", "sdpa")
    """Implementation of attention; flash_attention_2 needs a GPU and its package. Another one changes the last bits."""
    compile: bool = rule("free", False)
    """Train through torch.compile: minutes at the start, then faster on a GPU. Changes the last bits."""

    def __post_init__(self) -> None:
        for name in ("dropout", "layerdrop"):
            value = getattr(self, name)
            _require(value is None or 0 <= value < 1, f"model.{name}", value, "from 0 to below 1")


@dataclass(frozen=True)
class Augment:
    """SpecAugment: masks in the log-mel of each training utterance, other ones in each epoch."""

    time_masks: int = rule("change", 0, least=0)
    """Stretches of time that are masked; 0 masks none."""
    time_mask_seconds: float = rule("change", 1.0, least=0)
    """Longest of them; each is between 0 and this."""
    time_mask_share: float = rule("change", 0.2)
    """Longest of them as a share of the utterance, whichever is shorter."""
    frequency_masks: int = rule("change", 0, least=0)
    """Bands of mel bins that are masked; 0 masks none."""
    frequency_mask_bins: int = rule("change", 27, least=0)
    """Widest of them, of 80 or 128 bins."""

    def __post_init__(self) -> None:
        _require(0 <= self.time_mask_share <= 1, "augment.time_mask_share", self.time_mask_share, "from 0 to 1")


@dataclass(frozen=True)
class Loss:
    """What is minimised: cross-entropy over all label tokens of the global batch."""

    label_smoothing: float = rule("change", 0.0)
    """Share of the target that is spread evenly over the vocabulary; the logged loss has it too."""

    def __post_init__(self) -> None:
        _require(0 <= self.label_smoothing < 1, "loss.label_smoothing", self.label_smoothing, "from 0 to below 1")


@dataclass(frozen=True)
class Scaler:
    """Loss scaling, for precision fp16 alone: gradients too small for it are multiplied up, and divided again."""

    initial: float = rule("change", 65536.0)
    """Scale that a run begins with."""
    growth: float = rule("change", 2.0)
    """Factor of the scale after `growth_every` updates without an overflow."""
    growth_every: int = rule("change", 2000, least=1)
    """Updates in a row without an overflow before the scale grows."""
    backoff: float = rule("change", 0.5)
    """Factor of the scale at an overflow; that update is skipped."""
    floor: float = rule("change", 1.0)
    """Below this scale the run ends with exit code 5: it is not the scale that is wrong."""

    def __post_init__(self) -> None:
        for name in ("initial", "floor"):
            _require(getattr(self, name) > 0, f"scaler.{name}", getattr(self, name), "above 0")
        _require(self.initial >= self.floor, "scaler.initial", self.initial, f"at least scaler.floor, {self.floor:g}")
        _require(self.growth >= 1, "scaler.growth", self.growth, "at least 1")
        _require(0 < self.backoff < 1, "scaler.backoff", self.backoff, "between 0 and 1")


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

    name: Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd"] = rule("change", "adamw")
    """adamw keeps 8 bytes per weight, adamw_8bit (bitsandbytes) 2, for embeddings 8; paged_adamw_8bit moves them to the
    CPU's memory while the GPU's is short. adafactor: almost none. sgd: 4; it needs an `lr` far above the others'."""
    lr: float = rule("change", 1e-5)
    """Peak learning rate; schedule.* says how it gets there and back."""
    layer_decay: float = rule("change", 1.0)
    """Factor of the learning rate from each layer to the one below it, in encoder and decoder; 1 is off.

    Their top layers and final norms have `lr` itself, layer l of L (l from 1) lr * layer_decay^(L - l), and what is
    below layer 1 (convolutions, token embedding, which is the output layer too, positions) lr * layer_decay^L."""
    betas: tuple[float, float] = rule("change", (0.9, 0.98))
    """Decay rates of the two moments of the AdamWs."""
    eps: float = rule("change", 1e-6)
    """Added to the root of the second moment by the AdamWs."""
    momentum: float = rule("change", 0.9)
    """Of sgd; 0 is without."""
    weight_decay: float = rule("change", 0.0, least=0)
    """Decoupled weight decay of matrices; norms, biases and positions have none. sgd adds it to the gradient."""
    clip_norm: float = rule("change", 1.0, least=0)
    """Largest gradient norm of an update; 0 does not clip."""

    def __post_init__(self) -> None:
        _require(self.lr > 0, "optim.lr", self.lr, "above 0")
        _require(all(0 <= beta < 1 for beta in self.betas), "optim.betas", self.betas, "two numbers from 0 to below 1")
        _require(self.eps > 0, "optim.eps", self.eps, "above 0")
        _require(0 <= self.momentum < 1, "optim.momentum", self.momentum, "from 0 to below 1")
        _require(0 < self.layer_decay <= 1, "optim.layer_decay", self.layer_decay, "above 0 and at most 1")


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
    screen: Screen = rule("free", "auto")
    """live: a bar and figures that move; plain: a line for each logged step; quiet: warnings, errors and the last line.
    auto: live on a terminal, plain elsewhere and where CI is set."""


@dataclass(frozen=True)
class Track:
    """Trackers of other makers, besides metrics.jsonl, which is always written. They never stop or delay training."""

    to: list[Literal["tensorboard", "wandb", "trackio"]] = field(default_factory=list, metadata={"resume": "free"})
    """Those that get each logged step and evaluation: [tensorboard, wandb, trackio]. Each needs its own package."""
    project: str = rule("free", "whisper-ft")
    """What wandb and trackio file the run under."""
    name: str | None = rule("free", None)
    """What they call the run. None: the name of run_dir."""


@dataclass(frozen=True)
class Decoding:
    """How hypotheses are generated."""

    batch_size: int = rule("free", 16, least=1)
    """Utterances decoded together on one device."""
    num_beams: int = rule("change", 1, least=1)
    """1 is greedy."""
    detect_language: bool = rule("change", False)
    """Let the model hear which language it is, in place of data.language and the rows' own."""
    timestamps: bool = rule("change", False)
    """Let the model write when each phrase was said, by Whisper's rules: `segments` in predictions.jsonl. One that was
    fine-tuned without timestamps may have forgotten how."""
    prompt: str = rule("change", "")
    """Text that the model takes for what was said before: names and spellings it would not know."""
    max_new_tokens: int | None = rule("change", None, least=1)
    """Most tokens of a hypothesis. None: all that the decoder has room for."""


@dataclass(frozen=True)
class Eval(Decoding):
    """Evaluation by generation while training; it says which model is the best."""

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
    metric: str = rule("change", "auto")
    """Figure of an evaluation that best/ is judged by: wer, cer, wer_orthographic, cer_orthographic, ser, or any other
    number of its row in metrics.jsonl. auto: wer, or cer where the language is written without spaces."""
    greater_is_better: bool = rule("change", False)
    """Whether a higher figure is a better one; it is not for error rates."""
    min_delta: float = rule("change", 0.0, least=0)
    """By how much a figure has to be better to count: 0.001 is a tenth of a percent of WER."""
    patience: int | None = rule("free", None, least=1)
    """The run ends after so many evaluations in a row without a better one; None: never before its last step."""


@dataclass(frozen=True)
class Average:
    """The mean of the weights of several checkpoints, as a model beside best/ and final/."""

    of: Literal["none", "last", "best"] = rule("free", "none")
    """last: the newest checkpoints of save.every; best: those of the best evaluations."""
    checkpoints: int = rule("free", 5, least=2)
    """How many; so many are then kept."""


@dataclass(frozen=True)
class Save:
    """Checkpoints to resume from."""

    every: int = rule("free", 500, least=0)
    """Steps between two checkpoints (one is always written at the end, and one for each new best)."""
    keep: int = rule("free", 2, least=2)
    """Newest checkpoints to keep, besides the best one; at least 2, so that a damaged one has a predecessor.

    One with a file named `pinned` in its folder is kept too."""
    keep_every: int = rule("free", 0, least=0)
    """Keep also each checkpoint whose step is a multiple of this; 0 keeps none besides the others."""
    background: bool = rule("free", False)
    """Go on training while a checkpoint is written: it is copied to the host's memory first, which has to hold it."""


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
    overwrite: bool = rule("free", False)
    """With `resume` never: a run that is in run_dir is not refused but moved to RUN_DIR.replaced-1, -2 and so on."""
    allow_change: list[str] = field(default_factory=list, metadata={"resume": "free"})
    """Settings with the rule `change` that may differ from the checkpoint's: --allow_change '[optim.lr, steps]'."""
    precision: Precision = rule("change", "fp32")
    """Arithmetic of forward and backward; weights, moments and loss are always float32."""
    device: Device = rule("free", "auto")
    """auto takes a GPU where there is one."""
    rank_timeout: float = rule("free", 600.0)
    """Seconds that the processes of a run wait for one of them in a step; evaluations and saves may take hours."""
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    batch: Batch = field(default_factory=Batch)
    loss: Loss = field(default_factory=Loss)
    optim: Optim = field(default_factory=Optim)
    schedule: Schedule = field(default_factory=Schedule)
    scaler: Scaler = field(default_factory=Scaler)
    log: Log = field(default_factory=Log)
    track: Track = field(default_factory=Track)
    eval: Eval = field(default_factory=Eval)
    save: Save = field(default_factory=Save)
    average: Average = field(default_factory=Average)

    def __post_init__(self) -> None:
        _require_bounds(self)
        _require(self.epochs is None or self.epochs > 0, "epochs", self.epochs, "above 0")
        _require(self.rank_timeout > 0, "rank_timeout", self.rank_timeout, "above 0")
        if self.overwrite and self.resume != "never":
            raise ValueError(f"--overwrite goes with --resume never, not {self.resume}: it begins a run anew")
        if self.data.sources and self.eval.split and not self.eval.path:
            raise ValueError("--eval.split: of which of data.sources? Give --eval.path")
        if self.average.of == "best" and self.held_out is None:
            raise ValueError(
                "--average.of best: nothing is evaluated; give --eval.path or --eval.split, or average `last`"
            )
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
class NamedSource(Source):
    """One of several sets that are scored in one call."""

    name: str = ""
    """Its folder below --out; empty: the last part of its path, and its split."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Score a checkpoint by generation: `python evaluate.py --model DIR --data.path FILE_OR_DIR --out DIR`."""

    model: str = ""
    """Folder of a model, a run directory (its best model, else its final one), or a name on the Hub."""
    data: Source = field(default_factory=Source)
    sets: list[NamedSource] = field(default_factory=list)
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
    def named_sets(self) -> list[tuple[str, Source]]:
        """Name and place of each set; the only one of `data` has no name."""
        if not self.sets:
            return [("", self.data)]
        found = []
        for one in self.sets:
            own = {f.name: getattr(one, f.name) for f in fields(Source)}
            where = Source(**{**own, "language": one.language or self.data.language})
            name = one.name or "-".join(filter(None, [Path(one.path).name, one.split]))
            found.append((re.sub(r"[^\w.+-]+", "-", name).strip(".-"), where))
        return found


def is_hub_name(path: str) -> bool:
    """True for `owner/name` of a data set on the Hub; where there is a folder `owner`, it is a path."""
    return bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path)) and not Path(path.split("/")[0]).exists()


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
