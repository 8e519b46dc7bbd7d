"""Settings of `python -m whisper_ft interpolate`. torch is not imported, so that --help is quick."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from whisper_ft.config.alphas import TENTHS, alphas_in
from whisper_ft.config.data import SourceConfig
from whisper_ft.config.evaluation import DecodingConfig, Device, EvalSetConfig, Precision
from whisper_ft.config.parse import given_settings, load_config
from whisper_ft.config.setting import require_bounds
from whisper_ft.runtime.errors import UsageError

PROGRAM = "python -m whisper_ft interpolate"


@dataclass(frozen=True)
class InterpolateConfig:
    """Mix a model with the one from which it was tuned, score each mixture, and write the best one.

    Call: interpolate RUN --out DIR, or interpolate START TUNED --data.path FILE_OR_DIR --out DIR. A run names its start
    model and its sets, of which data.path and sets take the place. Interrupted, the same command continues.
    """

    start: str = ""
    """Start model: a folder or a name on the Hub. It is also the first of two arguments."""
    tuned: str = ""
    """Model tuned from it: a folder or a run (its best model, else its final one). It is also the last argument."""
    alpha: str = TENTHS
    """Shares of the tuned model: first:last:step, as in 0:1:0.1, or numbers, as in 0,0.3,1. 0 and 1 are always scored,
    because they are the models themselves."""
    data: SourceConfig = field(default_factory=SourceConfig)
    """Set on which the best mixture is chosen, such as a validation set."""
    sets: list[EvalSetConfig] = field(default_factory=list)
    """Further sets, as eval.sets of a run. A mixture that is worse than the start model by more than the `max_worse` of
    any of them is not chosen: [{name: en, path: a, language: en, max_worse: 0.01}]."""
    out: Path | None = None
    """Folder for interpolation.json, interpolation.html, the transcripts, and best/, the chosen model."""
    metric: str = "auto"
    """Figure that chooses, as eval.metric of a run."""
    greater_is_better: bool = False
    """True if a higher figure is better."""
    normalizer: str = "golden"
    """Normaliser of references and hypotheses."""
    max_utterances: int | None = field(default=None, metadata={"least": 1})
    """Number of utterances of data.path, from its start. None: all."""
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    precision: Precision = "auto"
    """Arithmetic, as in evaluate.py."""
    device: Device = "auto"
    """auto uses a GPU if there is one."""

    def __post_init__(self) -> None:
        require_bounds(self)
        try:
            alphas_in(self.alpha)
        except ValueError as error:
            raise ValueError(f"--alpha {self.alpha}: {error}") from error
        if self.sets and not self.data.path:
            raise ValueError("--sets: are scored beside data.path, which chooses the mixture; give it, too")
        for one in self.sets:
            name = f"--sets: {one.name or one.path}"
            if one.every is not None:
                raise ValueError(
                    f"{name}: every {one.every}: has no effect, because each mixture is scored; leave it out"
                )
            if one.rule == "stop":
                raise ValueError(f"{name}: rule stop: has no effect, because there is no run to end; leave it out")

    @property
    def alphas(self) -> list[float]:
        """Shares of the tuned model, in rising order."""
        return alphas_in(self.alpha)


def parse_arguments(argv: Sequence[str]) -> tuple[InterpolateConfig, Collection[str]]:
    """Parse the command line, and return the names of the given settings beside the configuration.

    Raises UsageError for one that cannot work.
    """
    models = list[str]()
    for argument in argv:
        if argument.startswith("-"):
            break
        models.append(argument)
    if len(models) > 2:
        raise UsageError(f"{' '.join(models)}: expected RUN, or START and TUNED; got {len(models)} arguments")
    named = dict(zip(("tuned", "start"), reversed(models), strict=False))
    options = [text for name, value in named.items() for text in (f"--{name}", value)] + [*argv[len(models) :]]
    config = load_config(InterpolateConfig, options, PROGRAM)
    if not config.tuned or config.out is None:
        lacks = "RUN, or START and TUNED" if not config.tuned else "--out DIR"
        raise UsageError(f"missing: {lacks}; for example `interpolate runs/mine --out mine-mixed`")
    return config, given_settings(InterpolateConfig, options)
