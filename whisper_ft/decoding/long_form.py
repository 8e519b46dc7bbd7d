"""Utterances to be transcribed: each of a set exactly once, whatever it is like, in windows that the model can hear.

A recording longer than the window is heard whole, in several: it is cut where it is quiet, as WhisperX does with the
speech that it detects (Bain et al. 2023, arXiv 2303.00747). Whisper's own way is to follow the timestamps that the
model writes, and one that was fine-tuned without them no longer writes any that can be followed.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.decode import decode_beginning
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.types import RejectedError, Row, Source

LONGEST_SECONDS = 7200.0  # of one recording: as samples it takes 64 kB a second
QUIET_SECONDS = 0.3  # a pause between words has as much; one within a word, before its p or t, has less
CUT_AFTER = 0.6  # of the window: a cut is looked for behind it, so that no piece is short of context


@dataclass(frozen=True)
class AudioWindow:
    """A window of an utterance to transcribe, mostly the only one; where there is a problem, what could be heard."""

    index: int  # of the utterance in the set, counted over all ranks
    row: Row
    features: torch.Tensor  # [M, t], as a Window has them
    seconds: float  # of the whole utterance
    problem: str | None = None
    number: int = 0  # of the window
    windows: int = 1  # of the utterance
    begin_seconds: float = 0.0  # of the window, in the utterance


def utterances_of(source: Source, max_utterances: int | None) -> int:
    """How many utterances of a set are to be transcribed, over all ranks."""
    return min(sum(source.rows), max_utterances or sum(source.rows))


def audio_windows(
    source: Source,
    log_mel: LogMel,
    rank: int,
    world: int,
    max_utterances: int | None = None,
    known: Collection[int] = (),
) -> Iterator[AudioWindow]:
    """This rank's part of a set, in order, each row once over the ranks, less the indexes that are `known`."""
    wanted = [index for index in range(utterances_of(source, max_utterances)) if index not in known]
    mine = wanted[rank * len(wanted) // world : (rank + 1) * len(wanted) // world]
    first, at = 0, 0  # index of the chunk's first row; how many of `mine` are behind
    for chunk, rows in enumerate(source.rows):
        here = list(islice(mine, at, at + rows))
        here = here[: next((n for n, index in enumerate(here) if index >= first + rows), len(here))]
        if here:
            read = source.read(chunk)
            for index in here:
                yield from _hear(index, read[index - first], log_mel)
        first, at = first + rows, at + len(here)


def _hear(index: int, row: Row, log_mel: LogMel) -> Iterator[AudioWindow]:
    """The windows of a row; silence, with the reason, when it cannot be decoded, and its beginning if it is endless."""
    problem = None
    try:
        if row.problem:
            raise RejectedError(*row.problem)
        waveform, seconds = decode_beginning(row.audio, log_mel.sample_rate, LONGEST_SECONDS, row.offset, row.duration)
        if seconds > LONGEST_SECONDS:
            problem = "too_long"
    except RejectedError as unusable:
        waveform, seconds, problem = np.zeros(0, dtype=np.float32), 0.0, unusable.reason
    pieces = split_at_silence(waveform, log_mel.window_samples, log_mel.sample_rate)
    begin = 0  # sample
    for number, piece in enumerate(pieces):
        yield AudioWindow(
            index, row, log_mel(piece), seconds, problem, number, len(pieces), begin / log_mel.sample_rate
        )
        begin += len(piece)


def split_at_silence(waveform: Waveform, window_samples: int, sample_rate: int) -> list[Waveform]:
    """A recording in pieces that fit the window, cut in the middle of the quietest moment behind CUT_AFTER of each.

    The last two share what is left about evenly. Nothing is lost and nothing comes twice. One that fits is one piece.
    """
    pieces = []
    while len(waveform) > window_samples:
        quiet = min(round(QUIET_SECONDS * sample_rate), window_samples // 8)
        first, last = round(CUT_AFTER * window_samples), window_samples
        if len(waveform) <= (1 + CUT_AFTER) * window_samples:
            first, last = round(0.4 * len(waveform)), round(0.6 * len(waveform))
        energy = np.cumsum(np.square(waveform[first:last], dtype=np.float64))
        at = first + quiet // 2 + int(np.argmin(energy[quiet:] - energy[:-quiet]))
        pieces.append(waveform[:at])
        waveform = waveform[at:]
    return [*pieces, waveform]
