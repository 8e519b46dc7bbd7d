"""Settings of evaluate.py: the model or adapters, the sets, and the scoring."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from whisper_ft.config.data import LongForm, NamedSourceConfig, SourceConfig, first_twice, set_name
from whisper_ft.config.evaluation import DecodingConfig, Device, Precision, refuse_long, refuse_prompt_columns
from whisper_ft.config.setting import LeadingSpace, require_bounds
from whisper_ft.config.tree import flatten, to_plain
from whisper_ft.config.waveform import WaveformSetting, transforms_in

ADAPTER_FOLDERS = ("best-adapter", "final-adapter", "average-adapter")  # of a run that trains an adapter
OF_TRANSCRIPTION = ("decoding", "max_utterances", "leading_space", "precision", "device")
"""Settings of a transcription, beside those of the model and the data."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Score a checkpoint by generation: `python evaluate.py --model DIR --data.path FILE_OR_DIR --out DIR`."""

    model: str = ""
    """Folder of a model or an adapter, its name on the Hub, a run directory (its best model, else its final one), or a
    checkpoint of a run."""
    base: str | None = None
    """Base of the adapter in `model`. None: the one that the adapter's files name."""
    adapters: list[str] = field(default_factory=list)
    """Several adapters of one base, scored one after the other, each in its own folder: [runs/a, runs/b/best-adapter].
    `model` may then name the base."""
    data: SourceConfig = field(default_factory=SourceConfig)
    sets: list[NamedSourceConfig] = field(default_factory=list)
    """Several sets in place of `data.path`, each with its own folder: [{path: a, split: test}, {path: b}].

    A set without `language` or `task` has that of data.*."""
    predictions: Path | None = None
    """File predictions.jsonl to score again, in place of a model and data."""
    compare: Path | None = None
    """File predictions.jsonl of another system on the same utterances, for a paired test and a list of differences."""
    columns: list[str] = field(default_factory=list)
    """Columns by whose values the error rates are also broken down: [gender, accents]. They are columns of the data,
    which predictions.jsonl then contains, or of --predictions. The evaluation itself adds the columns problem,
    windows, hit_token_limit and detected_language."""
    fail_above: float | None = field(default=None, metadata={"least": 0})
    """Exit code 8 if the rate (WER, or CER for a language written without spaces) is above this: 0.25 is 25 %."""
    sound: bool = True
    """Put the audio of the utterances with the highest error rates into report.html, up to 16 MB."""
    out: Path = Path("evaluation")
    """Folder for summary.json, predictions.jsonl and report.html."""
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    normalizer: str = "golden"
    """Normaliser of references and hypotheses before the comparison; see normalizers.py."""
    max_utterances: int | None = field(default=None, metadata={"least": 1})
    """Number of utterances to score, from the start of the set. None: all."""
    long: LongForm = False
    """Score long recordings. true: the clips of each speaker are joined to recordings, or all clips if the data has no
    speakers. given: the recordings of the data are long already."""
    long_seconds: float | None = None
    """Length of a joined recording in seconds, for `long: true`; a few are shorter or longer by half. None: 120."""
    augment: WaveformSetting = field(default_factory=list)
    """Transforms of the sound before it is transcribed, as augment.waveform of a run: phone, or a list. The draws
    depend on the utterance alone. Empty: the sound as it is."""
    leading_space: LeadingSpace = "auto"
    """Space before the text of a reference, for decoding.with_loss; a run has it as labels.leading_space."""
    precision: Precision = "auto"
    """Arithmetic of encoder and decoder. auto: as in the run which wrote the model, so the rates are those of its log.
    For any other model, auto is bf16 on a GPU that has it, else fp16, and fp32 on a CPU, as in training."""
    device: Device = "auto"
    """auto uses a GPU if there is one."""

    def __post_init__(self) -> None:
        require_bounds(self)
        refuse_prompt_columns([self.data, *self.sets], "--data.")
        if self.sets and self.data.path:
            raise ValueError(f"--data.path {self.data.path}: `sets` names the data already; give one of the two")
        beside = "sets" if self.sets else "--predictions" if self.predictions else None
        taken = ("path", "language", "task") if self.sets else ("path", "language")
        for inner in fields(SourceConfig) if beside else ():
            value = getattr(self.data, inner.name)
            if inner.name not in taken and value != getattr(SourceConfig(), inner.name):
                raise ValueError(f"--data.{inner.name} {value}: has no effect beside {beside}; leave it out")
        if self.predictions:
            self._refuse_beside_predictions()
        if self.sets and self.compare:
            raise ValueError("--compare: is of one set; compare the others by their --predictions")
        self._refuse_bad_long(beside)
        self._refuse_bad_augmentation(beside)
        self._refuse_bad_adapters()
        if twice := first_twice(name for name, _ in self.named_sets):
            raise ValueError(f"--sets: two are called {twice!r}; give each a name")

    def _refuse_beside_predictions(self) -> None:
        """Raise ValueError for settings of a transcription, because stored transcripts are scored as they are."""
        if self.model or self.base or self.data.path or self.sets:
            raise ValueError(
                "--predictions: is scored without a model and data; leave out --model, --base, --data.path and sets"
            )
        now, default = (flatten(to_plain(one)) for one in (self, EvaluationConfig()))
        for name, value in now.items():
            if name.partition(".")[0] in OF_TRANSCRIPTION and value != default[name]:
                raise ValueError(f"--{name} {value}: has no effect beside --predictions; leave it out")

    def _refuse_bad_adapters(self) -> None:
        """Raise ValueError for adapters beside a setting with which they cannot be combined, or of one name."""
        if not self.adapters:
            return
        for name, is_given in (("predictions", self.predictions), ("compare", self.compare), ("base", self.base)):
            if is_given:
                instead = "name the base with --model" if name == "base" else "score the adapters alone"
                raise ValueError(f"--{name}: cannot be used beside --adapters; {instead}")
        if twice := first_twice(name.casefold() for name, _ in self.named_adapters):
            raise ValueError(f"--adapters: two are called {twice!r}, which is a folder; rename or link one of them")

    def _refuse_bad_long(self, beside: str | None) -> None:
        """Raise ValueError for settings of long recordings that cannot be used, or have no effect beside another."""
        refuse_long("", self.long, self.long_seconds)
        for one in self.sets:
            refuse_long("sets: ", one.long, one.long_seconds)
        if beside and self.long is not False:
            reason = "give it to each set" if self.sets else "predictions.jsonl says which recordings are long"
            raise ValueError(f"--long {str(self.long).lower()}: has no effect beside {beside}; {reason}")
        if self.decoding.with_loss and all(one.is_long for _, one in self.named_sets):
            raise ValueError(
                "--decoding.with_loss true: has no effect on long recordings, whose references are longer than a window"
            )

    def _refuse_bad_augmentation(self, beside: str | None) -> None:
        """Raise ValueError for transforms that cannot be used, or have no effect beside another setting."""
        transforms_in(self.augment, "augment")
        for number, one in enumerate(self.sets):
            transforms_in(one.augment, f"sets[{number}].augment")
        if beside and self.augment:
            reason = "give it to each set" if self.sets else "the transcripts are made already"
            raise ValueError(f"--augment {self.augment}: has no effect beside {beside}; {reason}")

    @property
    def label_space(self) -> LeadingSpace | None:
        """Leading space of the labels whose loss is computed; None if no loss is computed."""
        return self.leading_space if self.decoding.with_loss else None

    @property
    def named_adapters(self) -> list[tuple[str, str]]:
        """Name and path of each adapter, in order. That of `runs/a/best-adapter` is `a`, as that of the run itself.

        If two of one run are given, each has the name of its folder, too: `a-best-adapter`.
        """
        folders = [Path(path).absolute() for path in self.adapters]
        runs = [folder.parent if folder.name in ADAPTER_FOLDERS else folder for folder in folders]
        names = [
            f"{run.name}-{folder.name}" if runs.count(run) > 1 and run != folder else run.name
            for run, folder in zip(runs, folders, strict=True)
        ]
        return [(set_name("", name, None), path) for name, path in zip(names, self.adapters, strict=True)]

    @property
    def named_sets(self) -> list[tuple[str, NamedSourceConfig]]:
        """Name and source of each evaluation set, in order. If `data` is the only set, its name is empty.

        A set without language or task gets that of `data`. Characters of a name that do not suit a folder become
        hyphens.
        """
        if not self.sets:
            own = {f.name: getattr(self.data, f.name) for f in fields(SourceConfig)}
            return [
                ("", NamedSourceConfig(**own, long=self.long, long_seconds=self.long_seconds, augment=self.augment))
            ]
        return [
            (
                set_name(one.name, one.path, one.split),
                replace(one, language=one.language or self.data.language, task=one.task or self.data.task),
            )
            for one in self.sets
        ]
