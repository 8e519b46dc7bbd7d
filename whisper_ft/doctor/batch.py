"""The beginning of the first batch, as the model gets it, turned back into text."""

from collections.abc import Sequence
from typing import Any

from whisper_ft.audio import LogMel
from whisper_ft.config import Config
from whisper_ft.doctor.spelling import shown
from whisper_ft.labels import LabelEncoder
from whisper_ft.order import Mixture
from whisper_ft.sources import Source
from whisper_ft.stream import WindowReader
from whisper_ft.window import Window

WINDOWS = 3  # of a batch: each is several lines
IGNORE = -100  # the collator's mask, and that of torch's cross_entropy


def batch_lines(
    config: Config, source: Source, order: Mixture, encode: LabelEncoder, log_mel: LogMel, tokenizer: Any
) -> list[str]:
    """The first windows of the run: ids, prompt, what the decoder reads and predicts at each position, and the mask.

    Made as the collator makes it: the decoder reads tokens[:-1] and predicts tokens[1:], both padded to the longest.
    """
    reader = WindowReader(source, log_mel, encode, cached_chunks=1)
    places = [order.locate(position) for position in range(min(WINDOWS, config.batch.size))]
    windows = [reader.window(place.chunk, place.row) for place in places]
    length = max((len(window.tokens) - 1 for window in windows if isinstance(window, Window)), default=0)
    lines = [f"update 0, its first {len(windows)} of {config.batch.size} utterances, padded to {length} positions"]
    for window in windows:
        if isinstance(window, Window):
            lines += _window_lines(window, length, tokenizer)
        else:
            lines.append(f"{window.id}: an empty slot ({window.reason}: {shown(window.detail, 200)})")
    return lines


def _window_lines(window: Window, length: int, tokenizer: Any) -> list[str]:
    tokens = window.tokens
    padding = length - (len(tokens) - 1)
    read = tokens[:-1] + [tokenizer.pad_token_id] * padding
    predicted = tokens[1:] + [IGNORE] * padding
    special = set(tokenizer.all_special_ids)
    words = next((index for index, token in enumerate(tokens) if token not in special), len(tokens) - 1)
    return [
        f"{', '.join(window.utterances)}: log-mel {tuple(window.features.shape)}",
        f"  text       {shown(tokenizer.decode(tokens[words:-1]), 200)}",
        f"  prompt     {_named(tokens[:words], tokenizer)}",
        f"  reads      {_ids(read)}",
        f"  predicts   {_ids(predicted)}",
        f"  mask       {length - padding} positions count, {padding} do not; the last that counts is "
        f"{_named(tokens[-1:], tokenizer)}",
    ]


def _named(tokens: Sequence[int], tokenizer: Any) -> str:
    return " ".join(f"{tokenizer.convert_ids_to_tokens(token)}={token}" for token in tokens)


def _ids(tokens: Sequence[int]) -> str:
    return " ".join(map(str, tokens))
