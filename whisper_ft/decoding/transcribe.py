"""Transcription of a set, distributed over all ranks; each utterance is transcribed exactly once."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice

from whisper_ft.data.types import NO_FEATURES
from whisper_ft.decoding.long_form import AudioWindow
from whisper_ft.decoding.resume_log import ResumeLog
from whisper_ft.decoding.transcriber import Transcriber
from whisper_ft.decoding.window_transcript import WindowTranscript
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.device_memory import memory_errors
from whisper_ft.runtime.errors import DecodingMemoryError
from whisper_ft.runtime.prefetch import prefetch
from whisper_ft.scoring.scores import Prediction

# Batches that are read ahead and sorted by length together. A second of audio takes 32 kB.
AHEAD = 8


def transcribe(
    transcriber: Transcriber,
    utterances: Iterable[AudioWindow],
    batch_size: int,
    total: int,
    collectives: Collectives,
    progress: Callable[[Prediction], None] = lambda prediction: None,
    resume_log: ResumeLog | None = None,
) -> list[Prediction]:
    """Transcribe a set. Every rank must call it, and gets the same list, in the order of the set.

    Parameters
        transcriber: the model and its decoding.
        utterances: windows of the utterances that this rank transcribes.
        batch_size: windows per batch.
        total: number of utterances of the set over all ranks, including the ones in `resume_log`.
        collectives: the group of all ranks.
        progress: called with each prediction of this rank when it is complete.
        resume_log: predictions of an interrupted evaluation, which are part of the result. New predictions are appended
            to it, except those whose audio could not be read.

    An error on one rank is raised on all; lack of memory becomes DecodingMemoryError. Raises RuntimeError on all ranks
    if an utterance is missing or occurs twice.
    """
    mine: list[tuple[int, Prediction]] = []
    failure: Exception | None = None
    try:
        told = memory_errors("while transcribing", DecodingMemoryError)
        with told, closing(prefetch(utterances, AHEAD * batch_size)) as windows:
            for index, prediction in _predictions(transcriber, batches_of(windows, batch_size, transcriber.prompt)):
                mine.append((index, prediction))
                if resume_log is not None and prediction.is_heard:  # the next start tries to read other rows again
                    resume_log.append(index, prediction)
                progress(prediction)
    except Exception as error:  # noqa: BLE001 - raised on all ranks below
        failure = error
    collectives.raise_on_all(failure)
    gathered = [pair for share in collectives.gather(mine) for pair in share]
    gathered += resume_log.known.items() if resume_log is not None else ()
    if sorted(index for index, _ in gathered) != list(range(total)):
        raise RuntimeError(f"{len(gathered)} transcripts for {total} utterances; each must be there exactly once")
    return [prediction for _, prediction in sorted(gathered, key=lambda pair: pair[0])]


def _predictions(transcriber: Transcriber, batches: Iterable[list[AudioWindow]]) -> Iterator[tuple[int, Prediction]]:
    """Yield (index, prediction) of each utterance as soon as all its windows are transcribed; the order varies."""
    pending: dict[int, dict[int, tuple[AudioWindow, WindowTranscript]]] = defaultdict(dict)  # by index, window number
    for batch in batches:
        transcripts = transcriber.generate(batch, transcriber.prompt(batch[0]))
        for window, transcript in zip(batch, transcripts, strict=True):
            # A long recording has many windows, and their log-mel is not needed again.
            pending[window.index][window.number] = replace(window, features=NO_FEATURES), transcript
            if len(pending[window.index]) == window.windows:
                by_number = pending.pop(window.index)
                windows, parts = zip(*(by_number[number] for number in range(window.windows)), strict=True)
                yield window.index, transcriber.to_prediction(windows, parts)


def batches_of(
    windows: Iterable[AudioWindow], size: int, prompt: Callable[[AudioWindow], list[int]], most: int = AHEAD
) -> Iterator[list[AudioWindow]]:
    """Group windows into batches that share a prompt, sorted by length within groups of `most` batches.

    Windows of similar length share a batch, so that short ones do not wait for long ones. The first groups are smaller,
    so that decoding starts before `most` batches are read.
    """
    remaining, batches = iter(windows), 1
    while group := list(islice(remaining, batches * size)):
        batches = min(2 * batches, most)
        by_prompt: dict[tuple[int, ...], list[AudioWindow]] = defaultdict(list)
        for window in sorted(group, key=lambda window: -window.seconds):
            by_prompt[tuple(prompt(window))].append(window)
        for same_prompt in by_prompt.values():
            yield from (same_prompt[begin : begin + size] for begin in range(0, len(same_prompt), size))
