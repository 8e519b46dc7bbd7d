"""Settings of decoding, for train.py and evaluate.py, and of the evaluations of a run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from whisper_ft.config.data import LongForm, NamedSourceConfig, SourceConfig, first_twice, long_problem, set_name
from whisper_ft.config.setting import require, setting, unused_message
from whisper_ft.config.waveform import transforms_in

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Device = Literal["auto", "cpu", "cuda", "mps"]
RATIO, LOGPROB = 2.4, -1.0  # thresholds of openai-whisper
GuardRule = Literal["warn", "no_best", "stop"]
HELD_OUT = "held-out"  # name of the set of eval.path, which chooses the best model
LONGEST_NAME = 64  # characters of a set's name, which is a folder and a column of tables
OPENAI_TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Temperatures at which openai-whisper decodes a window again, after an attempt at temperature 0."""


@dataclass(frozen=True)
class DecodingConfig:
    """Generation of hypotheses, the texts that the model writes for audio."""

    SECTION: ClassVar[str] = "decoding"
    """Section of these settings on a command line."""

    batch_size: int = setting("free", 16, least=1)
    """Utterances decoded together on one device."""
    num_beams: int = setting("change", 1, least=1)
    """Beams of the search; 1 is greedy."""
    detect_language: bool = setting("change", False)
    """Let the model detect the language, instead of using data.language and the `language` column."""
    timestamps: bool = setting("change", False)
    """Let the model write the time of each phrase, by Whisper's rules: `segments` in predictions.jsonl. A model
    fine-tuned without timestamps may have lost this ability."""
    prompt: str = setting("change", "")
    """Previous text for the model, with names and spellings that it does not know."""
    max_new_tokens: int | None = setting("change", None, least=1)
    """Largest number of tokens in a hypothesis. None: the limit of the decoder."""
    no_speech_threshold: float | None = setting("change", None)
    """Give a window the empty text if its probability of no speech is above this and its text is unlikely (see
    logprob_threshold). openai-whisper has 0.6. None: off."""
    temperature_fallback: bool | list[float] = setting("change", False)
    """Temperatures at which a window is decoded again, one after the other, while its text repeats itself or is
    unlikely: [0.2, 0.6, 1.0]. true: those of openai-whisper, 0.2 to 1.0. The texts of these attempts are drawn at
    random, the same at each start."""
    compression_ratio_threshold: float | None = setting("change", RATIO)
    """For temperature_fallback: a text repeats itself if zlib makes it smaller by more than this factor. Ordinary text
    in Indic scripts may be above 2.4. None: any text is accepted."""
    logprob_threshold: float | None = setting("change", LOGPROB)
    """For temperature_fallback and no_speech_threshold: a text is unlikely if the mean log-probability of its tokens is
    below this. None: any text is accepted, and the probability of no speech decides alone."""
    with_loss: bool = setting("free", False)
    """Also compute the loss of the references: the mean over all their tokens, in nats, as in training."""

    def __post_init__(self) -> None:
        threshold = self.no_speech_threshold
        within = threshold is None or 0 <= threshold <= 1
        require(within, f"{self.SECTION}.no_speech_threshold", threshold, "from 0 to 1")
        allowed = all(0 < temperature < math.inf for temperature in self.temperatures)
        above = "above 0: the first attempt, at 0, is always made"
        require(allowed, f"{self.SECTION}.temperature_fallback", self.temperature_fallback, above)
        self._refuse_unused_thresholds()

    def _refuse_unused_thresholds(self) -> None:
        """Raise ValueError for a threshold of attempts that are never made."""
        section, again, silent = self.SECTION, bool(self.temperatures), self.no_speech_threshold is not None
        fallback = f"{section}.temperature_fallback"
        if self.compression_ratio_threshold != RATIO and not again:
            state, name = f"{fallback} is off", f"{section}.compression_ratio_threshold"
            raise ValueError(unused_message(name, self.compression_ratio_threshold, state, "set that"))
        if self.logprob_threshold != LOGPROB and not again and not silent:
            state, name = f"{fallback} and {section}.no_speech_threshold are off", f"{section}.logprob_threshold"
            raise ValueError(unused_message(name, self.logprob_threshold, state, "set one of them"))

    @property
    def temperatures(self) -> list[float]:
        """Temperatures of the attempts after the first; [] if there is only one."""
        given = self.temperature_fallback
        return [*(OPENAI_TEMPERATURES if given else ())] if isinstance(given, bool) else [*given]

    @property
    def attempts(self) -> dict[str, Any] | None:
        """Settings of fall-back and no speech that transcripts depend on, as JSON values; None if both are off."""
        again = {"temperatures": self.temperatures, "compression_ratio": self.compression_ratio_threshold}
        if self.no_speech_threshold is None and not self.temperatures:
            return None
        shared = {"no_speech": self.no_speech_threshold, "logprob": self.logprob_threshold}
        return shared | (again if self.temperatures else {})

    @property
    def search(self) -> str:
        """Search in words: `greedy, again at temperatures 0.2, 0.4, no speech above 0.6`."""
        parts = ["greedy" if self.num_beams == 1 else f"{self.num_beams} beams"]
        if self.temperatures:
            parts.append(f"again at temperatures {', '.join(f'{each:g}' for each in self.temperatures)}")
        if self.no_speech_threshold is not None:
            parts.append(f"no speech above {self.no_speech_threshold:g}")
        return ", ".join(parts)


@dataclass(frozen=True)
class EvalSetConfig(NamedSourceConfig):
    """A set that is scored beside the held-out set. With `max_worse` it is a guard against forgetting."""

    name: str = setting("free", "")
    """Name of the set, which begins the names of its figures: NAME/wer. Empty: the last part of its path, and its
    split."""
    every: int | None = setting("free", None, least=0)
    """Steps between two evaluations of the set; one more follows at the end. None: eval.every. 0: never."""
    max_utterances: int | None = setting("free", None, least=1)
    """Number of utterances, from the start of the set. None: all."""
    max_worse: float | None = setting("free", None)
    """Largest change for the worse against the start model, in the unit of `metric`: 0.01 is one point of WER. None:
    the set is only reported."""
    metric: str = setting("free", "auto")
    """Figure that max_worse limits: wer, cer, loss, timestamps, invented_words_per_minute, or any other figure that
    docs/forgetting.md lists. auto: wer, or cer for a language written without spaces."""
    rule: GuardRule = setting("free", "warn")
    """Effect of a change beyond max_worse. warn: a line. no_best: the evaluation cannot be the best one. stop: the run
    also ends."""


@dataclass(frozen=True)
class EvalConfig(DecodingConfig):
    """Evaluation by generation while training. It selects the best model."""

    SECTION: ClassVar[str] = "eval"
    with_loss: bool = setting("free", True, before=False)
    """Also compute the loss of the references: the mean over all their tokens, in nats, as in training."""
    path: str = setting("free", "")  # free as data.path is; comparisons of figures use its fingerprint
    """Held-out utterances, in format, columns and language as data.*. Empty: none, unless eval.split is given."""
    split: str | None = setting("free", None)
    """Split of eval.path to evaluate on, or of data.path if eval.path is empty."""
    every: int = setting("free", 500, least=0)
    """Steps between two evaluations; one more follows at the end. 0: no evaluation."""
    sets: list[EvalSetConfig] = field(default_factory=list, metadata={"resume": "free"})
    """Sets that are scored beside the held-out set, with figures such as NAME/wer: [{name: en, path: a, language: en}].

    A set has the settings of data.sources, and `name`, `every`, `max_utterances`, `long` and `long_seconds`. Without
    `language` or `task` it has that of data.*. The best model, `patience` and averages depend on the held-out set, and
    on sets with `max_worse` and `rule` no_best or stop (docs/forgetting.md)."""
    at_start: bool = setting("free", True, before=False)
    """Also evaluate the model before the first update. It is logged as step 0 and never becomes the best model."""
    normalizer: str = setting("change", "golden")
    """Normaliser of references and hypotheses before the comparison; see normalizers.py."""
    max_utterances: int | None = setting("change", None, least=1)
    """Number of utterances, from the start of the set. None: all."""
    metric: str = setting("change", "auto")
    """Figure that selects the best model: wer, cer, wer_orthographic, cer_orthographic, ser, or any other number of the
    evaluation's row in metrics.jsonl. auto: wer, or cer for a language written without spaces."""
    greater_is_better: bool = setting("change", False)
    """True if a higher figure is better, which is false for error rates."""
    min_delta: float = setting("change", 0.0, least=0)
    """An evaluation is better only if the figure improves by more than this; 0.001 is 0.1 percentage points of WER."""
    patience: int | None = setting("free", None, least=1)
    """Number of evaluations without improvement after which the run ends early. None: it never ends early."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_bad_sets(self.sets)
        for one in self.sets:
            _refuse_bad_guard(one, self.every if one.every is None else one.every)

    @property
    def held_out_remedy(self) -> str:
        """Change that gives a run without a held-out set one."""
        return "set eval.every above 0" if self.path or self.split else "give --eval.path or --eval.split"

    def sets_beside(self, data: SourceConfig) -> list[EvalSetConfig]:
        """Return the sets that are scored, with nothing left open: each has a name, a cadence, a language and a task.

        A language or task that neither the set nor `data`, the training data, names stays None.
        """
        complete = [
            replace(
                one,
                name=set_name(one.name, one.path, one.split),
                every=self.every if one.every is None else one.every,
                language=one.language or data.language,
                task=one.task or data.task,
            )
            for one in self.sets
        ]
        return [one for one in complete if one.every]


def _refuse_bad_sets(sets: Sequence[EvalSetConfig]) -> None:
    """Raise ValueError for a set of eval.sets without path, with a name that cannot be used, or with a bad number."""
    refuse_prompt_columns(sets, "--eval.sets: ")
    for number, one in enumerate(sets):
        require(bool(one.path), "eval.sets: path", "nothing", "given for each set")
        name = set_name(one.name, one.path, one.split)
        require(
            one.name in ("", name), "eval.sets: name", one.name, f"letters, digits or _ . + -, such as {name or 'read'}"
        )
        require(
            0 < len(name) <= LONGEST_NAME, "eval.sets: name", name, f"given, with at most {LONGEST_NAME} characters"
        )
        require(
            name.casefold() != HELD_OUT, "eval.sets: name", name, f"another one than {HELD_OUT}, the set of eval.path"
        )
        require(one.every is None or one.every >= 0, "eval.sets: every", one.every, "at least 0")
        limit = one.max_utterances
        require(limit is None or limit >= 1, "eval.sets: max_utterances", limit, "at least 1")
        refuse_long("eval.sets: ", one.long, one.long_seconds)
        transforms_in(one.augment, f"eval.sets[{number}].augment")
    # Folders of predictions have these names, and some file systems do not tell upper case from lower case.
    if twice := first_twice(set_name(one.name, one.path, one.split).casefold() for one in sets):
        raise ValueError(f"--eval.sets: two are called {twice!r}; give each a name of its own")


def _refuse_bad_guard(one: EvalSetConfig, every: int) -> None:
    """Raise ValueError for settings of a guard that are bad or without effect in a set scored after `every` steps."""
    name = f"eval.sets: {set_name(one.name, one.path, one.split)}"
    if one.max_worse is None:
        for setting_name, value, default in (("metric", one.metric, "auto"), ("rule", one.rule, "warn")):
            if value != default:
                raise ValueError(
                    f"--{name}: {setting_name} {value}: has no effect without max_worse; set it, as to 0.01, or leave "
                    f"{setting_name} out"
                )
        return
    require(0 <= one.max_worse < math.inf, f"{name}: max_worse", one.max_worse, "a number from 0")
    if not every:
        raise ValueError(
            f"--{name}: max_worse {one.max_worse:g}: has no effect, because the set is never scored; set eval.every or "
            "the set's `every` above 0"
        )


def refuse_prompt_columns(sets: Sequence[SourceConfig], prefix: str) -> None:
    """Raise ValueError for a set with a column of previous text, which only labels have."""
    for where in sets:
        if where.prompt_column:
            raise ValueError(
                f"{prefix}prompt_column {where.prompt_column}: is for the labels of training, and no evaluation "
                "reads it; leave it out"
            )


def refuse_long(prefix: str, long: LongForm, long_seconds: float | None) -> None:
    """Raise ValueError for settings of long recordings that cannot be used. `prefix` begins their names."""
    if problem := long_problem(long, long_seconds):
        raise ValueError(f"--{prefix}long_seconds {long_seconds:g}: {problem}")
