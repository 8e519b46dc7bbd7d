"""Transcription of a whole set on all ranks, each utterance exactly once."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice

from whisper_ft.data.types import NO_FEATURES
from whisper_ft.decoding.long_form import AudioWindow
from whisper_ft.decoding.resume_log import ResumeLog
from whisper_ft.decoding.transcriber import Generated, Transcriber
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.prefetch import prefetch
from whisper_ft.scoring.scores import Prediction

AHEAD = 8  # batches whose windows are sorted by length, and as many are read ahead: a second of sound takes 32 kB


def transcribe(
    transcriber: Transcriber,
    utterances: Iterable[AudioWindow],
    batch_size: int,
    total: int,
    agreement: Collectives,
    progress: Callable[[Prediction], None] = lambda done: None,
    parts: ResumeLog | None = None,
) -> list[Prediction]:
    """Predictions of a whole set in its order, the same list on every rank: each utterance exactly once.

    A collective. `utterances` is this rank's part and `total` the size of the set, those in `parts` included, which
    were transcribed before and are kept there; RuntimeError if any is missing or doubled, on all ranks.
    """
    mine: list[tuple[int, Prediction]] = []
    failure: Exception | None = None
    try:
        with closing(prefetch(utterances, AHEAD * batch_size)) as windows:
            for done in _transcribed(transcriber, _batches(windows, batch_size, transcriber.prompt)):
                mine.append(done)
                if parts is not None:
                    parts.keep(*done)
                progress(done[1])
    except Exception as error:  # noqa: BLE001 - told to all ranks below and raised there
        failure = error
    agreement.raise_on_all(failure)
    gathered = [pair for part in agreement.gather(mine) for pair in part]
    gathered += parts.known.items() if parts is not None else ()
    if sorted(index for index, _ in gathered) != list(range(total)):
        raise RuntimeError(f"{len(gathered)} transcripts of {total} utterances: each must be there exactly once")
    return [prediction for _, prediction in sorted(gathered, key=lambda pair: pair[0])]


def _transcribed(transcriber: Transcriber, batches: Iterable[list[AudioWindow]]) -> Iterator[tuple[int, Prediction]]:
    """(index, prediction) of each utterance once all its windows are written, in any order."""
    written: dict[int, dict[int, tuple[AudioWindow, Generated]]] = defaultdict(
        dict
    )  # by index, by number of the window
    for batch in batches:
        rows = transcriber.write([window.features for window in batch], transcriber.prompt(batch[0]))
        for window, row in zip(batch, rows, strict=True):
            # Without the log-mel: a long recording has many, and none is needed again.
            written[window.index][window.number] = replace(window, features=NO_FEATURES), row
            if len(written[window.index]) == window.windows:
                of_utterance = written.pop(window.index)
                windows, parts = zip(*(of_utterance[number] for number in range(window.windows)), strict=True)
                yield window.index, transcriber.prediction(windows, parts)


def _batches(
    windows: Iterable[AudioWindow], size: int, prompt: Callable[[AudioWindow], list[int]]
) -> Iterator[list[AudioWindow]]:
    """Windows in batches of one prompt and, of AHEAD batches, of like length: short ones do not wait for long ones.

    Of fewer at the beginning, where the model would wait until all of them are decoded.
    """
    coming, batches = iter(windows), 1
    while ahead := list(islice(coming, batches * size)):
        batches = min(2 * batches, AHEAD)
        by_prompt: dict[tuple[int, ...], list[AudioWindow]] = defaultdict(list)
        for window in sorted(ahead, key=lambda one: -one.seconds):
            by_prompt[tuple(prompt(window))].append(window)
        for alike in by_prompt.values():
            yield from (alike[begin : begin + size] for begin in range(0, len(alike), size))
