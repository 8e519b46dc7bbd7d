"""What is measured, and how thoroughly: data, so that another size is another line."""

from dataclasses import dataclass, replace
from typing import Any

from whisper_ft.cli.demo.model import Shape


@dataclass(frozen=True)
class Size:
    """A model and the batch it is trained with."""

    name: str
    shape: Shape
    batch: int = 16
    learning_rate: float = 2e-3
    """High: the model of the evaluation starts from nothing and has to write sentences soon."""
    vocabulary: int | None = None
    """Rows of the token embedding; None has as many as the tokenizer has tokens."""
    # A larger model takes longer for each: of an effort it gets a share.
    measured_share: float = 1.0
    unmeasured_share: float = 1.0
    test_share: float = 1.0
    taught_share: float = 1.0
    """Of the steps that teach the model that is evaluated: until its sentences end."""
    taught_utterances: int | None = None
    """It learns only these: of few a model soon writes whole sentences, though not what was said. None: all."""


OF_A_REAL_ONE: dict[str, Any] = {"window_seconds": 30, "max_label_tokens": 448, "init_std": 0.02}
SIZES = (
    Size("micro-5s", Shape()),
    Size(
        "micro-30s",
        Shape(window_seconds=30),
        measured_share=0.5,
        unmeasured_share=0.2,
        test_share=0.5,
        taught_share=0.3,
    ),
    # The dimensions of openai/whisper-tiny, with random weights.
    Size(
        "tiny-30s",
        Shape(d_model=384, layers=4, heads=6, **OF_A_REAL_ONE),
        batch=4,
        learning_rate=1e-3,
        vocabulary=51_865,
        measured_share=0.3,
        unmeasured_share=0.2,
        test_share=0.12,
        taught_share=0.3,
        taught_utterances=24,
    ),
)
# So little to compute that a step takes as long as all that is neither model nor data.
BARE = Size("bare", Shape(d_model=16, layers=1, heads=1), batch=1, measured_share=10)
# For a GPU: the dimensions of openai/whisper-small and -large-v3.
CARD_SIZES = (
    Size("small-30s", Shape(d_model=768, layers=12, heads=12, **OF_A_REAL_ONE), 32, 1e-5, vocabulary=51_865),
    Size("large-v3-30s", Shape(d_model=1280, layers=32, heads=20, mel_bins=128, **OF_A_REAL_ONE), 16, 1e-5, 51_866),
)


@dataclass(frozen=True)
class Effort:
    """How long everything runs."""

    measured_steps: int
    """Of each training contender."""
    unmeasured_steps: int
    """Before them: memory is allocated, workers fill their queues."""
    repeats: int
    """Of all contenders in turn."""
    taught_steps: int
    """Training of the model that is evaluated: enough that its sentences end. 0 takes what a contender has trained."""
    train_utterances: int
    test_utterances: int
    loader_utterances: int
    """Of the data alone: whole rounds of the Trainer's buffer, or it hands out what was made before the clock."""
    patience_seconds: float
    """To wait before each run for a machine on which nothing else runs."""
    attempts: int = 1
    """At each run, for one beside which nothing else ran."""
    at_once: int = 1
    """Contenders that run at the same time."""
    card_sizes: tuple[Size, ...] = CARD_SIZES

    def for_size(self, size: Size) -> "Effort":
        """What of it is spent on a size, and never so little that nothing is left to measure."""
        return replace(
            self,
            measured_steps=max(round(self.measured_steps * size.measured_share), 2),
            unmeasured_steps=max(round(self.unmeasured_steps * size.unmeasured_share), 1),
            taught_steps=round(self.taught_steps * size.taught_share),
            test_utterances=max(round(self.test_utterances * size.test_share), 1),
        )

    def of(self, steps: int | None, repeats: int | None) -> "Effort":
        """The same with what the user asked for; ValueError if that leaves nothing to measure."""
        steps = self.measured_steps if steps is None else steps
        repeats = self.repeats if repeats is None else repeats
        for flag, value in (("--steps", steps), ("--repeats", repeats)):
            if value < 1:
                raise ValueError(f"{flag} must be at least 1, got {value}")
        return replace(self, measured_steps=steps, repeats=repeats)


# 32 steps of 16, about 500: the Trainer's buffer of 500 hands out 250 at once, then as many are made, and two workers
# have two of them. In fewer steps it would train on what was made before the clock.
FULL = Effort(
    measured_steps=32,
    unmeasured_steps=10,
    repeats=5,
    taught_steps=400,
    train_utterances=1_000,
    test_utterances=200,
    loader_utterances=2_000,
    patience_seconds=20,
    attempts=3,
)
# Shows that everything runs; its figures mean nothing.
QUICK = Effort(
    measured_steps=5,
    unmeasured_steps=1,
    repeats=1,
    taught_steps=0,
    train_utterances=64,
    test_utterances=4,
    loader_utterances=64,
    patience_seconds=0,
    at_once=2,
    card_sizes=SIZES[:1],
)
