"""Sound prints: 32 bits for each frame of a sound, by which a part of it is found again in another recording.

A print survives cuts and lossy codecs (Haitsma and Kalker 2002, A Highly Robust Audio Fingerprinting System). A bit
tells if the energy difference of two neighbouring bands grew from one frame to the next.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import soxr

from whisper_ft.data.audio.containers import Waveform

RATE = 4_000  # Hz; speech has most of its energy below 2 kHz
FRAME, HOP = 1_480, 46  # samples: 0.37 s and 11.5 ms, as in the paper
FFT = 2_048
LOW, HIGH, BANDS = 300.0, 1_900.0, 33  # Hz; 33 bands have 32 differences
LOUD_SHARE = 1e-4  # of the energy of a loud frame: 40 dB below it there is only noise of codecs
STRETCH = 129  # loud frames that have to match: with the length of a frame 1.9 s
MAX_ERROR_SHARE = 0.2  # of the bits of a stretch; chance gives 0.5, and the paper allows 0.35 in 3 s
MAX_PAIRS = 1_000_000  # pairs of frames with equal codes that are looked at, those of the rarest codes
TRIED_SHIFTS = 32  # most frequent shifts between two sounds that are compared bit by bit
_FAR = 2**40  # more than any shift, in frames

Codes = npt.NDArray[np.uint32]


class SoundPrint(NamedTuple):
    """Print of a sound: a code for each frame, and True for each frame that is loud."""

    codes: Codes
    is_loud: npt.NDArray[np.bool_]


def _band_matrix() -> npt.NDArray[np.float32]:  # [FFT / 2 + 1, BANDS]
    """Return the matrix that sums powers of frequencies to energies of bands of equal ratio."""
    edges = np.geomspace(LOW, HIGH, BANDS + 1)
    frequencies = np.fft.rfftfreq(FFT, 1 / RATE)
    inside = (frequencies[:, None] >= edges[:-1]) & (frequencies[:, None] < edges[1:])
    return np.asarray(inside / np.maximum(inside.sum(0), 1), np.float32)


_BAND_MATRIX, _HANN = _band_matrix(), np.hanning(FRAME).astype(np.float32)


def sound_print(waveform: Waveform, sample_rate: int) -> SoundPrint:  # [samples] -> frames
    """Compute the print of a sound of up to some minutes; one that is shorter than two frames has none."""
    low = np.asarray(soxr.resample(waveform, sample_rate, RATE), np.float32)
    if len(low) < FRAME + HOP:
        return SoundPrint(np.zeros(0, np.uint32), np.zeros(0, np.bool_))
    frames = np.lib.stride_tricks.sliding_window_view(low, FRAME)[::HOP] * _HANN
    energies = (np.abs(np.fft.rfft(frames, FFT)) ** 2).astype(np.float32) @ _BAND_MATRIX  # [frames, BANDS]
    bits = np.diff(np.diff(energies, axis=1), axis=0) > 0  # [frames - 1, 32]
    codes = np.packbits(bits, axis=1).view(">u4")[:, 0].astype(np.uint32)
    total = energies[1:].sum(1)
    return SoundPrint(codes, total > max(LOUD_SHARE * float(np.quantile(total, 0.95)), 1e-9))


class SoundIndex:
    """Index of prints, in which parts of other sounds are found. `names` are those of the indexed sounds."""

    def __init__(self, prints: Sequence[SoundPrint], names: Sequence[str]) -> None:
        self._names = names
        self._codes = np.concatenate([one.codes for one in prints] or [np.zeros(0, np.uint32)])
        self._is_loud = np.concatenate([one.is_loud for one in prints] or [np.zeros(0, np.bool_)])
        self._begins = np.cumsum([0, *(len(one.codes) for one in prints)])
        places = np.flatnonzero(self._is_loud & (self._codes != 0) & (self._codes != 0xFFFFFFFF))
        self._order = places[np.argsort(self._codes[places], kind="stable")]
        self._sorted = self._codes[self._order]

    def find(self, sound: SoundPrint) -> str | None:
        """Return the name of an indexed sound that shares a stretch with this one; None if there is none."""
        frames, places = self._pairs(sound)
        numbers = np.searchsorted(self._begins, places, "right") - 1
        keys, counts = np.unique(numbers * 2 * _FAR + (places - frames + _FAR), return_counts=True)
        for key in keys[np.argsort(-counts, kind="stable")[:TRIED_SHIFTS]].tolist():
            number, shift = int(key // (2 * _FAR)), int(key % (2 * _FAR) - _FAR)
            if self._agrees(sound, number, shift):
                return self._names[number]
        return None

    def _pairs(self, sound: SoundPrint) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return pairs of frames with equal codes: the number in the sound, and the place in the index."""
        loud = np.flatnonzero(sound.is_loud)
        first = np.searchsorted(self._sorted, sound.codes[loud], "left")
        counts = np.searchsorted(self._sorted, sound.codes[loud], "right") - first
        rarest = np.argsort(counts, kind="stable")
        kept = rarest[np.cumsum(counts[rarest]) <= MAX_PAIRS]
        counts = counts[kept]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # of the frames of a code
        return np.repeat(loud[kept], counts), self._order[np.repeat(first[kept], counts) + within]

    def _agrees(self, sound: SoundPrint, number: int, shift: int) -> bool:
        """Return True if an indexed sound and this one, which begins at `shift` in the index, share a stretch."""
        begin = max(int(self._begins[number]), shift)
        end = min(int(self._begins[number + 1]), shift + len(sound.codes))
        here, there = slice(begin - shift, end - shift), slice(begin, end)
        loud = sound.is_loud[here] & self._is_loud[there]
        errors = np.bitwise_count(sound.codes[here] ^ self._codes[there])[loud]
        if len(errors) < STRETCH:
            return False
        sums = np.cumsum(np.insert(errors.astype(np.int64), 0, 0))
        return bool((sums[STRETCH:] - sums[:-STRETCH]).min() <= MAX_ERROR_SHARE * 32 * STRETCH)
