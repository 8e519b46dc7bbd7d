"""Settings of a training run, each with its default, its resume rule, and its help text in the docstring below.

The resume rule of a setting says if a resumed run may change it:

- exact: must equal the checkpoint's value, because another value would be another run
- change: may change if `--allow_change` names it; the resumed run then differs from an uninterrupted one
- free: may change at any time, because it does not alter the training
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from whisper_ft.config.adapter import AdapterConfig
from whisper_ft.config.alphas import TENTHS, alphas_in
from whisper_ft.config.anchor import AnchorConfig
from whisper_ft.config.augment import AugmentConfig
from whisper_ft.config.data import DataConfig, SourceConfig
from whisper_ft.config.evaluation import Device, EvalConfig, Precision
from whisper_ft.config.optimization import LossConfig, OptimConfig, ScalerConfig, ScheduleConfig
from whisper_ft.config.packing import PackConfig
from whisper_ft.config.setting import Auto, LeadingSpace, Suppress, decided, require, require_bounds, setting

ScreenMode = Literal["auto", "live", "plain", "quiet"]
DEFAULT_STEPS = 4000


@dataclass(frozen=True)
class ModelConfig:
    """The model to start from."""

    name: str = setting("exact", "openai/whisper-small")
    """Name on the Hub or a local folder in the Hugging Face format."""
    dropout: float | None = setting("change", None)
    """Dropout probability while training. None: the model's own (0 for OpenAI's models)."""
    layerdrop: float | None = setting("change", None)
    """Probability that a layer of encoder or decoder is skipped in training. None: the model's own."""
    freeze: list[Literal["encoder", "decoder", "embeddings"]] = field(
        default_factory=list, metadata={"resume": "exact"}
    )
    """Parts of the model that are not trained: [encoder]. `embeddings` are the decoder's, which are also its output
    layer."""
    suppress: Suppress = setting("exact", "auto", before="keep", auto="auto")
    """Text tokens that generation may never write: OpenAI's models suppress signs such as `(`, `:` and `"`. keep: as in
    the model's files; none: no text token. auto: as in the files, without those that the labels of the first 1,000 rows
    contain; the run records their ids, and such a list may be given, too. Special tokens stay suppressed."""
    gradient_checkpointing: bool = setting("free", False)
    """Recompute activations in the backward pass: a third more time, much less memory, the same gradients."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = setting("free", "sdpa")
    """Implementation of attention; flash_attention_2 needs a GPU and its package. Results differ in the last bits."""
    compile: bool = setting("free", False)
    """Use torch.compile: minutes at the start, then faster steps on a GPU. Results differ in the last bits."""

    def __post_init__(self) -> None:
        for name in ("dropout", "layerdrop"):
            value = getattr(self, name)
            require(value is None or 0 <= value < 1, f"model.{name}", value, "from 0 to below 1")


@dataclass(frozen=True)
class LabelsConfig:
    """Labels: the tokens that the model learns to write for a transcript."""

    leading_space: LeadingSpace = setting("exact", "auto", before="never")
    """Space before the text, as OpenAI's models write it. auto: a space, unless the first token would then be the bare
    space, which Whisper never writes first (Armenian, Bengali, Japanese, Telugu and others)."""
    timestamps_share: float = setting("exact", 0.0, before=0.0)
    """Share of the windows whose label has the times of its texts, as <|0.00|> text<|2.34|>. The others have none."""
    prompt_share: float = setting("exact", 0.0, before=0.0)
    """Share of the windows whose label begins with up to 223 tokens of previous text, which are read and not trained.
    It is the text before in the same recording or by the same speaker, or that of data.prompt_column."""
    no_speech_share: float = setting("exact", 0.0, before=0.0)
    """Windows without speech for each window with speech. Their label is <|nospeech|>."""
    no_speech_path: str | None = setting("exact", None, before=None)
    """Recordings without speech for these windows: a file, a folder or a pattern. None: the quietest part of
    utterances."""

    def __post_init__(self) -> None:
        for name in ("timestamps_share", "prompt_share", "no_speech_share"):
            require(0 <= getattr(self, name) <= 1, f"labels.{name}", getattr(self, name), "from 0 to 1")
        if self.no_speech_path and not self.no_speech_share:
            raise ValueError(
                f"--labels.no_speech_path {self.no_speech_path}: labels.no_speech_share is 0; set it, too, as to 0.02"
            )


@dataclass(frozen=True)
class BatchConfig:
    """Number of utterances in a step, and in a forward pass."""

    size: int = setting("exact", 16, least=1)
    """Utterances per optimizer update, in all processes together: the global batch."""
    per_device: int | Auto = setting("free", 16, least=1, auto="auto")
    """Utterances per forward pass on one device, or windows in a packed run; the number of passes per update
    follows. auto: as many as fit, found by passes of the longest windows before the first step, and recorded."""

    @property
    def per_pass(self) -> int:
        """`per_device` as a number. Raises ValueError for `auto`, which the start of a run resolves."""
        return decided(self.per_device, "batch.per_device")


@dataclass(frozen=True)
class LogConfig:
    """Output while training."""

    every: int = setting("free", 25, least=0)
    """Steps between two logged steps; 0 logs none."""
    screen: ScreenMode = setting("free", "auto")
    """live: a progress bar with the newest figures; plain: a line for each logged step; quiet: warnings, errors and the
    last line. auto: live on a terminal, plain elsewhere and if CI is set."""


@dataclass(frozen=True)
class TrackConfig:
    """Experiment trackers besides metrics.jsonl, which is always written. A tracker never stops or delays training."""

    to: list[Literal["tensorboard", "wandb", "trackio"]] = field(default_factory=list, metadata={"resume": "free"})
    """Trackers that get each logged step and evaluation: [tensorboard, wandb, trackio]. Each needs its own package."""
    project: str = setting("free", "whisper-ft")
    """Project of the run in wandb and trackio."""
    name: str | None = setting("free", None)
    """Name of the run in the trackers. None: the name of run_dir."""


@dataclass(frozen=True)
class AverageConfig:
    """Average of the weights of several checkpoints, as a model beside best/ and final/."""

    of: Literal["none", "last", "best"] = setting("free", "none")
    """last: average the newest checkpoints of save.every; best: average the checkpoints of the best evaluations."""
    checkpoints: int = setting("free", 5, least=2)
    """Number of checkpoints to average; as many are kept on disk."""
    interpolate: bool | list[float] = setting("free", False)
    """At the end, also mix the best model with the start model, score each mixture on the held-out set and eval.sets,
    and write the best one within the guards: interpolated/. true: in steps of 0.1; or a list: [0.3, 0.5, 0.7]."""

    @property
    def alphas(self) -> list[float]:
        """Shares of the best model in the mixtures; [] if none is made. Raises ValueError for numbers out of range."""
        if isinstance(self.interpolate, bool):
            return alphas_in(TENTHS) if self.interpolate else []
        return alphas_in(self.interpolate)

    def refuse_interpolation(self, adapter: str, remedy: str) -> None:
        """Raise ValueError for mixtures that cannot be made or chosen.

        `adapter` is its kind, or none. `remedy` is the way to a held-out set for a run without one, else "".
        """
        shown = f"--average.interpolate {str(self.interpolate).lower()}"
        try:
            wanted = bool(self.alphas)
        except ValueError as error:
            raise ValueError(f"{shown}: {error}") from error
        if wanted and remedy:
            raise ValueError(f"{shown}: no held-out set is evaluated, which chooses the mixture; {remedy}")
        if wanted and adapter != "none":
            raise ValueError(
                f"{shown}: is for a run that trains the model itself; after this run, "
                "`python -m whisper_ft interpolate RUN` mixes the merged model in best/"
            )


@dataclass(frozen=True)
class SaveConfig:
    """Checkpoints to resume from."""

    every: int = setting("free", 500, least=0)
    """Steps between two checkpoints. One is also written at the end, and one for each new best."""
    keep: int = setting("free", 2, least=2)
    """Number of newest checkpoints to keep, besides the best one. It is at least 2, in case the newest is damaged.

    A checkpoint with a file named `pinned` in its folder is kept, too."""
    keep_every: int = setting("free", 0, least=0)
    """Also keep each checkpoint whose step is a multiple of this number; 0 is off."""
    background: bool = setting("free", False)
    """Continue training while a checkpoint is written. The checkpoint is copied to host memory first, which needs room
    for it."""


@dataclass(frozen=True)
class TrainingConfig:
    """Fine-tune Whisper: `./launch.sh --config FILE [--section.field VALUE ...]`."""

    run_dir: Path = setting("free", Path("runs/default"))
    """Folder for all files of the run; its README.txt explains them."""
    seed: int = setting("exact", 1, least=0)
    """Seed of the data order, dropout, and all other randomness."""
    steps: int | None = setting("change", None, least=1)
    """Number of optimizer updates in the whole run. None: set by `epochs`, or 4000 without `epochs`."""
    epochs: float | None = setting("change", None)
    """Length of the run in passes over all rows, in place of `steps`. The last update ends exactly at the last row."""
    resume: str = setting("free", "auto")
    """auto: continue from the newest checkpoint in run_dir, or start if it has none. never: refuse a run_dir that holds
    a run. best: continue from the checkpoint of the best evaluation. Or the path of a checkpoint to continue from."""
    overwrite: bool = setting("free", False)
    """With `resume` never: move an existing run to RUN_DIR.replaced-1, -2 and so on, instead of refusing to start."""
    allow_change: list[str] = field(default_factory=list, metadata={"resume": "free"})
    """Settings with the rule `change` that may differ from the checkpoint: --allow_change '[optim.lr, steps]'."""
    precision: Precision = setting("change", "auto", auto="auto")
    """Number format of forward and backward pass: fp32, bf16 or fp16. auto: bf16 on a GPU that has it, else fp16, and
    fp32 on a CPU; chosen once and recorded. Weights, optimizer moments and loss are always float32."""
    device: Device = setting("free", "auto")
    """auto uses a GPU if there is one. mps is the GPU of an Apple processor, in fp32 and untested (docs/install.md)."""
    rank_timeout: float = setting("free", 600.0)
    """Longest wait in seconds for another process within a step. Evaluations and saves may take hours."""
    model: ModelConfig = field(default_factory=ModelConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    anchor: AnchorConfig = field(default_factory=AnchorConfig)
    data: DataConfig = field(default_factory=DataConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    pack: PackConfig = field(default_factory=PackConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    scaler: ScalerConfig = field(default_factory=ScalerConfig)
    log: LogConfig = field(default_factory=LogConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    save: SaveConfig = field(default_factory=SaveConfig)
    average: AverageConfig = field(default_factory=AverageConfig)

    def __post_init__(self) -> None:
        require_bounds(self)
        require(self.epochs is None or self.epochs > 0, "epochs", self.epochs, "above 0")
        require(self.rank_timeout > 0, "rank_timeout", self.rank_timeout, "above 0")
        self.adapter.refuse_beside(self.model.freeze, self.average.of)
        remedy = "" if self.held_out else self.eval.held_out_remedy
        self.average.refuse_interpolation(self.adapter.kind, remedy)
        self.anchor.refuse_alone(self.allow_change)
        self.anchor.refuse_beside(self.adapter.kind, [*filter(None, [self.held_out]), *self.eval.sets])
        self.pack.refuse_beside(self.batch.size, self.labels.timestamps_share)
        if self.overwrite and self.resume != "never":
            raise ValueError(f"--overwrite goes with --resume never, not {self.resume}: it begins a run anew")
        prompts = [source.prompt_column for source in (self.data, *self.data.sources) if source.prompt_column]
        if prompts and not self.labels.prompt_share:
            raise ValueError(
                f"--data.prompt_column {prompts[0]}: labels.prompt_share is 0, so no label has it; set it, as to 0.5"
            )
        if self.data.sources and self.eval.split and not self.eval.path:
            raise ValueError("--eval.split: of which of data.sources? Give --eval.path")
        if self.average.of == "best" and self.held_out is None:
            raise ValueError(
                f"--average.of best: no held-out set is evaluated; {self.eval.held_out_remedy}, or average `last`"
            )
        for one in self.eval.sets if self.held_out is None else ():
            if one.rule == "no_best":
                raise ValueError(
                    f"--eval.sets: {one.name or one.path}: rule no_best: has no effect without a held-out set, which "
                    f"chooses the best model; {self.eval.held_out_remedy}, or set rule warn or stop"
                )
        if self.steps is not None and self.epochs is not None:
            raise ValueError(f"--steps {self.steps} and --epochs {self.epochs:g}: give one of the two")

    def steps_over(self, rows: int) -> int:
        """Return the number of updates of this run if its data has `rows` rows."""
        end = self.end_of(rows)
        return -(-end // self.batch.size) if end else self.steps or DEFAULT_STEPS

    def end_of(self, rows: int) -> int | None:
        """Return the number of utterances after which a run with `epochs` ends; None for a run with `steps`.

        The run may end within a batch. `rows` is the number of rows of the data.
        """
        return None if self.epochs is None else max(round(self.epochs * rows), 1)

    @property
    def held_out(self) -> SourceConfig | None:
        """Source of the held-out set: eval.path, or eval.split of data.path. None if the run has no evaluation.

        All settings but path and split are those of data.*.
        """
        if not self.eval.every or not (self.eval.path or self.eval.split):
            return None
        shared = {f.name: getattr(self.data, f.name) for f in fields(SourceConfig)}
        return SourceConfig(**shared | {"path": self.eval.path or self.data.path, "split": self.eval.split})

    @property
    def inherited(self) -> frozenset[str]:
        """Names of the settings of data.* that also apply to eval.path, where they may be without effect.

        Empty if eval.path is not given, because the held-out set is then part of the same data.
        """
        names = {f.name for f in fields(SourceConfig)} - {"path", "split"}
        return frozenset(names) if self.eval.path else frozenset()
