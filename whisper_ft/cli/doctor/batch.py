"""The beginning of the first batch, as the model gets it, turned back into text."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from whisper_ft.cli.doctor.block import Block, Collated, Position
from whisper_ft.cli.doctor.spelling import shown
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.sampling.order import MixedOrder
from whisper_ft.data.types import Source, Window
from whisper_ft.data.windows import WindowReader

WINDOWS = 3  # of a batch: each is several lines, and of most sources in another chunk
IGNORE = -100  # the collator's mask, and that of torch's cross_entropy


def first_batch(
    config: TrainingConfig, source: Source, order: MixedOrder, encode: LabelEncoder, log_mel: LogMel, tokenizer: Any
) -> list[Block]:
    """The first windows of the run: ids, prompt, what the decoder reads and predicts at each position, and the mask.

    Made as the collator makes it: the decoder reads tokens[:-1] and predicts tokens[1:], both padded to the longest.
    """
    reader = WindowReader(source, log_mel, encode, cached_chunks=1)
    places = [order.locate(position) for position in range(min(WINDOWS, config.batch.size))]
    windows = [reader.window(place.chunk, place.row) for place in places]
    length = max((len(window.tokens) - 1 for window in windows if isinstance(window, Window)), default=0)
    blocks: list[Block] = [
        f"the first {len(windows)} of the {config.batch.size} utterances of update 0, padded to {length} positions"
    ]
    for window in windows:
        if isinstance(window, Window):
            blocks.append(_collated(window, (log_mel.bins, log_mel.frames), length, tokenizer))
        else:
            blocks.append(f"{window.id}: an empty slot ({window.reason}: {shown(window.detail, 200)})")
    return blocks


def _collated(window: Window, shape: tuple[int, int], length: int, tokenizer: Any) -> Collated:
    tokens, special = window.tokens, set(tokenizer.all_special_ids)
    words = next((index for index, token in enumerate(tokens) if token not in special), len(tokens) - 1)
    pad = _said([tokenizer.pad_token_id], tokenizer)
    said = _said(tokens, tokenizer)
    positions = [Position(*pair) for pair in pairwise(said)]
    return Collated(
        ids=", ".join(window.utterances),
        shape=shape,
        text=tokenizer.decode(tokens[words:-1]),
        prompt=said[:words],
        positions=positions + [Position(pad[0], None)] * (length - len(positions)),
        ignore=IGNORE,
    )


def _said(tokens: Sequence[int], tokenizer: Any) -> list[tuple[str, int]]:
    """Each token as text; of one that holds a part of a letter, as U+FFFD."""
    return [(tokenizer.decode([token]), token) for token in tokens]
