"""Sizes of models and efforts of the benchmark, as data: a further size is a further line."""

from dataclasses import dataclass, replace
from typing import Any

from whisper_ft.cli.demo.model import Shape


@dataclass(frozen=True)
class Size:
    """A model, and the batch size for its training."""

    name: str
    shape: Shape
    batch: int = 16
    learning_rate: float = 2e-3
    """High, because the evaluated model starts from random weights and must soon write sentences."""
    vocabulary: int | None = None
    """Rows of the token embedding; None for as many as the tokenizer has tokens."""
    # Shares of an effort, because a step of a larger model takes longer.
    measured_share: float = 1.0
    unmeasured_share: float = 1.0
    test_share: float = 1.0
    taught_share: float = 1.0
    """Share of the steps that train the evaluated model until its sentences end."""
    taught_utterances: int | None = None
    """Number of utterances for that training; None for all. With few, a model soon writes whole sentences."""


REAL_SHAPE: dict[str, Any] = {"window_seconds": 30, "max_label_tokens": 448, "init_std": 0.02}
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
        Shape(d_model=384, layers=4, heads=6, **REAL_SHAPE),
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
# Packed windows hold the text of 30 s, for which the micro model's 128 positions are too few.
PACKING_SIZE = Size("micro-30s", Shape(window_seconds=30, max_label_tokens=448))
# For a GPU: the dimensions of openai/whisper-small and -large-v3.
CARD_SIZES = (
    Size("small-30s", Shape(d_model=768, layers=12, heads=12, **REAL_SHAPE), 32, 1e-5, vocabulary=51_865),
    Size("large-v3-30s", Shape(d_model=1280, layers=32, heads=20, mel_bins=128, **REAL_SHAPE), 16, 1e-5, 51_866),
)


@dataclass(frozen=True)
class Effort:
    """Extent of a benchmark: numbers of steps, rounds and utterances."""

    measured_steps: int
    """Steps of each training contender."""
    unmeasured_steps: int
    """Steps before the measured ones. They allocate memory and fill the workers' queues."""
    repeats: int
    """Rounds of all contenders."""
    taught_steps: int
    """Steps that train the evaluated model; 0 takes the model of a contender."""
    train_utterances: int
    test_utterances: int
    loader_utterances: int
    """Utterances for the contenders that only prepare data, in whole rounds of the Trainer's buffer.

    In less than a round, the Trainer would hand out examples that it made before the clock ran.
    """
    patience_seconds: float
    """Longest wait for a quiet machine before each run."""
    attempts: int = 1
    """Largest number of attempts for a run, which is repeated if other processes were busy."""
    at_once: int = 1
    """Contenders that run at the same time."""
    packing_steps: int = 6
    """Measured steps of each contender of packing. A step has many utterances."""
    card_sizes: tuple[Size, ...] = CARD_SIZES

    def for_size(self, size: Size) -> "Effort":
        """Return the effort for a size: numbers of steps and utterances are multiplied by the size's shares."""
        return replace(
            self,
            measured_steps=max(round(self.measured_steps * size.measured_share), 2),
            unmeasured_steps=max(round(self.unmeasured_steps * size.unmeasured_share), 1),
            taught_steps=round(self.taught_steps * size.taught_share),
            test_utterances=max(round(self.test_utterances * size.test_share), 1),
        )

    def with_counts(self, steps: int | None, repeats: int | None) -> "Effort":
        """Return the effort with the numbers that the user gave. Raises ValueError if a number is below 1."""
        steps = self.measured_steps if steps is None else steps
        repeats = self.repeats if repeats is None else repeats
        for flag, value in (("--steps", steps), ("--repeats", repeats)):
            if value < 1:
                raise ValueError(f"{flag} must be at least 1, got {value}")
        return replace(self, measured_steps=steps, repeats=repeats)


# 32 steps of 16 utterances, about 500. The Trainer's buffer of 500 hands out 250 at once before it is filled again, and
# two workers have two buffers. In fewer steps it would train on what was made before the clock ran.
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
# Shows that everything runs; the figures mean nothing.
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
    packing_steps=1,
    card_sizes=SIZES[:1],
)
