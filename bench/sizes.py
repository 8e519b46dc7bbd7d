"""What is measured, and how thoroughly: data, so that another size is another line."""

from dataclasses import dataclass, replace

from whisper_ft.demo.model import Shape


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
    share: float = 1.0
    """Of the steps and utterances of an effort: a larger model takes longer for each."""
    taught_share: float = 1.0
    """Of the steps that teach the model that is evaluated: until its sentences end."""


SIZES = (
    Size("micro-5s", Shape()),
    Size("micro-30s", Shape(window_seconds=30), share=0.2, taught_share=0.3),
    # The dimensions of openai/whisper-tiny, with random weights.
    Size(
        "tiny-30s",
        Shape(d_model=384, layers=4, heads=6, window_seconds=30, max_label_tokens=448, init_std=0.02),
        batch=4,
        learning_rate=1e-3,
        vocabulary=51_865,
        share=0.12,
        taught_share=0.15,
    ),
)
# So little to compute that a step takes as long as all that is neither model nor data.
BARE = Size("bare", Shape(d_model=16, layers=1, heads=1), batch=1)


@dataclass(frozen=True)
class Effort:
    """How long everything runs."""

    steps: int
    """Of each training contender, the first ones included."""
    unmeasured_steps: int
    """At the start: memory is allocated, workers fill their queues."""
    repeats: int
    """Of all contenders in turn."""
    taught_steps: int
    """Training of the model that is evaluated: enough that its sentences end. 0 takes what a contender has trained."""
    train_utterances: int
    test_utterances: int
    patience_seconds: float
    """To wait before each run for a machine on which nothing else runs."""
    attempts: int = 1
    """At each run, for one beside which nothing else ran."""
    at_once: int = 1
    """Contenders that run at the same time."""

    def for_size(self, size: Size) -> "Effort":
        """What of it is spent on a size: its share, and never so little that nothing is left to measure."""
        return replace(
            self,
            steps=max(round(self.steps * size.share), self.unmeasured_steps + 2, 4),
            unmeasured_steps=min(self.unmeasured_steps, max(round(self.steps * size.share) // 4, 1)),
            taught_steps=round(self.taught_steps * size.taught_share),
        )

    def of(self, steps: int | None, repeats: int | None) -> "Effort":
        """The same with what the user asked for; ValueError if that leaves nothing to measure."""
        steps = self.steps if steps is None else steps
        repeats = self.repeats if repeats is None else repeats
        if steps <= self.unmeasured_steps:
            raise ValueError(f"--steps must be above the {self.unmeasured_steps} that are not measured, got {steps}")
        if repeats < 1:
            raise ValueError(f"--repeats must be at least 1, got {repeats}")
        return replace(self, steps=steps, repeats=repeats)


# 50 steps of 16 are 800 utterances: less than an epoch of the demo's corpus.
FULL = Effort(50, 10, 5, taught_steps=400, train_utterances=1_000, test_utterances=200, patience_seconds=20, attempts=3)
# Shows that everything runs; its figures mean nothing.
QUICK = Effort(6, 1, 1, taught_steps=0, train_utterances=64, test_utterances=4, patience_seconds=0, at_once=2)
