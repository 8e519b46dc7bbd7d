"""Audio windows for transcription: each utterance is one window, and a long recording is cut into several.

A recording longer than the model's window is cut where it is quiet, as WhisperX cuts detected speech (Bain et al. 2023,
arXiv 2303.00747). Whisper itself follows the timestamps that the model writes, but a model that was fine-tuned without
timestamps no longer writes usable ones.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.decode import decode_beginning
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.augment.waveform.chain import WaveformChain
from whisper_ft.data.augment.waveform.waveform_transform import Surroundings
from whisper_ft.data.sampling.order import Place
from whisper_ft.data.types import RejectedError, Row, Source

MAX_RECORDING_SECONDS = 7200.0  # limits memory: samples take 64 kB a second
QUIET_SECONDS = 0.3  # span whose energy is minimised: a pause between words is as long, one within a word is shorter
MIN_WINDOW_SHARE = 0.6  # no cut is made before this share of the window, so that pieces have enough context


@dataclass(frozen=True)
class AudioWindow:
    """One window of an utterance, ready to be transcribed. Most utterances have a single window."""

    index: int  # of the utterance in the set, over all ranks
    row: Row
    features: torch.Tensor  # [M, t] log-mel, as in `Window`; silence if the audio could not be decoded
    seconds: float  # duration of the whole utterance
    problem: str | None = None  # reason code of audio that could not be decoded or was cut
    number: int = 0  # of the window within the utterance
    windows: int = 1  # of the utterance; 0 while the end of a recording on disk is not read
    begin_seconds: float = 0.0  # start of the window within the utterance
    window_seconds: float = 0.0  # duration of the window, without padding


def utterances_of(source: Source, max_utterances: int | None) -> int:
    """Return the number of utterances to transcribe, over all ranks: at most `max_utterances`, or all if it is None."""
    return min(sum(source.rows), max_utterances or sum(source.rows))


def audio_windows(
    source: Source,
    log_mel: LogMel,
    rank: int,
    world: int,
    max_utterances: int | None = None,
    known: Collection[int] = (),
    augment: WaveformChain | None = None,
) -> Iterator[AudioWindow]:
    """Read the windows of the utterances that this rank transcribes, in order. Each utterance belongs to one rank.

    Parameters
        source: the set.
        log_mel: feature extractor.
        rank: of this process.
        world: number of processes.
        max_utterances: transcribe only so many utterances from the beginning of the set; None for all.
        known: indexes of utterances to leave out because they are transcribed already.
        augment: transforms of the sound, as in the first epoch of a training; None for none.
    """
    wanted = [index for index in range(utterances_of(source, max_utterances)) if index not in known]
    mine = wanted[rank * len(wanted) // world : (rank + 1) * len(wanted) // world]
    first, done = 0, 0  # index of the chunk's first row; number of `mine` in the chunks before
    for chunk, rows in enumerate(source.rows):
        indexes = list(islice(mine, done, done + rows))
        indexes = indexes[: next((n for n, index in enumerate(indexes) if index >= first + rows), len(indexes))]
        if indexes:
            content = source.read(chunk)
            for index in indexes:
                place = Place(0, chunk, index - first)
                yield from _windows_of(index, content, place, log_mel, augment)
        first, done = first + rows, done + len(indexes)


def _windows_of(
    index: int, rows: Sequence[Row], place: Place, log_mel: LogMel, augment: WaveformChain | None
) -> Iterator[AudioWindow]:
    """Make the windows of one row, given the rows of its chunk.

    Audio that cannot be decoded becomes silence with a reason code. If a recording is longer than
    MAX_RECORDING_SECONDS, only its beginning is used.
    """
    problem, row = None, rows[place.row]
    try:
        if row.problem:
            raise RejectedError(*row.problem)
        waveform, seconds = decode_beginning(
            row.audio, log_mel.sample_rate, MAX_RECORDING_SECONDS, row.offset, row.duration
        )
        if seconds > MAX_RECORDING_SECONDS:
            problem = "too_long"
        if augment is not None:
            before = len(waveform)
            waveform = augment(waveform, Surroundings(place, rows, log_mel.sample_rate, None)).waveform
            seconds += (len(waveform) - before) / log_mel.sample_rate
    except RejectedError as rejected:
        waveform, seconds, problem = np.zeros(0, dtype=np.float32), 0.0, rejected.reason
    pieces = split_at_silence(waveform, log_mel.window_samples, log_mel.sample_rate)
    begin = 0  # in samples
    for number, piece in enumerate(pieces):
        start, length = begin / log_mel.sample_rate, len(piece) / log_mel.sample_rate
        yield AudioWindow(index, row, log_mel(piece), seconds, problem, number, len(pieces), start, length)
        begin += len(piece)


def split_at_silence(waveform: Waveform, window_samples: int, sample_rate: int) -> list[Waveform]:
    """Cut a recording into pieces of at most `window_samples`, each time in the middle of the quietest moment.

    A piece has at least MIN_WINDOW_SHARE of a window, except the last two, which share the rest about evenly. The
    pieces joined are the recording, and share its memory. A recording that fits into one window stays a single piece.
    """
    return [*pieces_at_silence([waveform], window_samples, sample_rate)]


def pieces_at_silence(blocks: Iterable[Waveform], window_samples: int, sample_rate: int) -> Iterator[Waveform]:
    """Cut a recording that is read in blocks; the pieces do not depend on the length of the blocks.

    At most 1 + MIN_WINDOW_SHARE windows and a block are in memory.
    """
    quiet, rest = min(round(QUIET_SECONDS * sample_rate), window_samples // 8), np.zeros(0, dtype=np.float32)
    shortest = round(MIN_WINDOW_SHARE * window_samples)
    for block in blocks:
        rest = np.concatenate([rest, block]) if len(rest) else block
        while len(rest) > (1 + MIN_WINDOW_SHARE) * window_samples:
            at = _quietest_moment(rest, shortest, window_samples, quiet)
            yield rest[:at]
            rest = rest[at:]
    if len(rest) > window_samples:
        at = _quietest_moment(rest, round(0.4 * len(rest)), round(0.6 * len(rest)), quiet)
        yield rest[:at]
        rest = rest[at:]
    yield rest


def _quietest_moment(waveform: Waveform, first: int, last: int, quiet: int) -> int:
    """Return the middle of the `quiet` samples with the least energy, between two samples of a recording."""
    energy = np.cumsum(np.square(waveform[first:last], dtype=np.float64))
    return first + quiet // 2 + int(np.argmin(energy[quiet:] - energy[:-quiet]))
