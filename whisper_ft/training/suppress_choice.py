"""Suppressed tokens in the labels of a run: their count at its start, and the decision of `model.suppress`."""

from collections.abc import Callable, Iterator
from contextlib import suppress

from transformers import PreTrainedTokenizerBase

from whisper_ft.config.setting import Suppress
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import with_values
from whisper_ft.data.formats.mixture import MixedSource
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.labels.usable_transcript import UsableTranscript
from whisper_ft.data.types import RejectedError
from whisper_ft.models.suppression import SuppressedCount, SuppressedTokens, release, released_tokens
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.training.learner import Learner

ROWS = 1000  # rows whose labels decide `auto`: enough for every common sign, and read in a second from a disk


def settle_suppression(
    config: TrainingConfig,
    source: MixedSource,
    learner: Learner,
    collectives: Collectives,
    say: Callable[[str], object],
    *,
    is_new: bool,
) -> TrainingConfig:
    """Decide `model.suppress` once, apply it to the model, and return the configuration with the decision.

    Every rank must call it. The count is reported to `say` if the run is new or the setting is still `auto`. A resumed
    run repeats no decision, because its setting holds the ids.
    """
    tokenizer, choice = learner.processor.tokenizer, config.model.suppress
    tokens = SuppressedTokens.of(learner.model.generation_config, tokenizer)
    count = None
    if is_new or choice == "auto":
        count = collectives.broadcast_from_main(lambda: count_suppressed(config, source, learner.encode, tokens))
        choice = decided(choice, count)
    released = released_tokens(choice, tokens, tokenizer, config.labels.leading_space)
    for line in count.lines(tokenizer, released) if count else ():
        say(f"{line} (model.suppress: {_shown(config.model.suppress)})")
    release(learner.model, released)
    return with_values(config, {"model.suppress": choice})


def released_by(
    config: TrainingConfig,
    source: MixedSource,
    encode: LabelEncoder,
    tokens: SuppressedTokens,
    tokenizer: PreTrainedTokenizerBase,
) -> list[int]:
    """Return the ids of the suppressed tokens that a new run with this configuration releases.

    The first 1,000 rows of the data may be read for it.
    """
    choice = decided(config.model.suppress, count_suppressed(config, source, encode, tokens))
    return released_tokens(choice, tokens, tokenizer, config.labels.leading_space)


def count_suppressed(
    config: TrainingConfig, source: MixedSource, encode: LabelEncoder, tokens: SuppressedTokens
) -> SuppressedCount:
    """Count the suppressed tokens in the labels of the first 1,000 rows. Rows that cannot be labels are left out.

    No row is read for a model whose suppressed tokens cannot occur in a label.
    """
    count = SuppressedCount()
    if tokens.anywhere or (tokens.first and config.labels.leading_space == "always"):
        for label in _labels(source, encode):
            count.add(tokens.among(encode.text_of(label)))
    return count


def decided(choice: Suppress, count: SuppressedCount) -> Suppress:
    """Return the value of `model.suppress` with the ids of the counted tokens in place of `auto`."""
    return sorted(count.times) if choice == "auto" else choice


def _labels(source: MixedSource, encode: LabelEncoder) -> Iterator[list[int]]:
    for row in source.beginning(ROWS):
        with suppress(RejectedError):
            yield UsableTranscript.of(row, encode).plain_label(row, encode)


def _shown(choice: Suppress) -> str:
    return "given ids" if isinstance(choice, list) else choice
