"""Span of speech in a clip, by its level: from the first to the last sound that is clearly above the background."""

import numpy as np
import numpy.typing as npt

from whisper_ft.data.audio.containers import Waveform

FRAME_SECONDS = 0.02
HOP_SECONDS = 0.01
MIN_FRAMES = 4
"""Frames in a row that speech has at least; a click is shorter."""
LOUD_SHARE, QUIET_SHARE = 0.95, 0.1
"""Shares of the frames that are below the level of speech, and below that of the background."""
BELOW_SPEECH = 30.0
"""Decibels below the level of speech at which its softest sounds end."""
ABOVE_BACKGROUND = 8.0
"""Decibels above the level of the background at which speech begins."""
MIN_RANGE = 12.0
"""Least decibels between speech and background for a clear decision."""
PAD_SECONDS = 0.02
"""Seconds by which the span is longer at both ends, because sounds begin and end softly."""
FLOOR = 1e-10  # mean square, -100 dB: the level of digital silence


def speech_span(waveform: Waveform, rate: int, pad_seconds: float = PAD_SECONDS) -> tuple[int, int]:
    """Return the samples [begin, end) between the first and the last speech.

    Frames of 20 ms count as speech if their level is within 30 dB of the loud frames and 8 dB above the quiet ones, for
    40 ms at least. The whole clip is returned if loud and quiet frames differ by less than 12 dB.

    Parameters
        waveform: samples [n] of one utterance.
        rate: samples per second.
        pad_seconds: seconds by which the span is longer at both ends.
    """
    levels, hop = _levels(waveform, rate)
    if len(levels) < MIN_FRAMES:
        return 0, len(waveform)
    quiet, loud = np.quantile(levels, [QUIET_SHARE, LOUD_SHARE])
    if loud - quiet < MIN_RANGE:
        return 0, len(waveform)
    threshold = max(loud - BELOW_SPEECH, quiet + ABOVE_BACKGROUND)
    frames = np.lib.stride_tricks.sliding_window_view(levels > threshold, MIN_FRAMES)
    begins = np.flatnonzero(frames.all(axis=1))
    if not len(begins):
        return 0, len(waveform)
    pad, frame = round(pad_seconds * rate), round(FRAME_SECONDS * rate)
    end = (int(begins[-1]) + MIN_FRAMES - 1) * hop + frame
    return max(int(begins[0]) * hop - pad, 0), min(end + pad, len(waveform))


def _levels(waveform: Waveform, rate: int) -> tuple[npt.NDArray[np.float64], int]:
    """Return the level in dB of each frame, and the samples between the starts of two frames."""
    hop, frame = round(HOP_SECONDS * rate), round(FRAME_SECONDS * rate)
    sums = np.concatenate([[0.0], np.cumsum(np.square(waveform, dtype=np.float64))])
    begins = np.arange(0, max(len(waveform) - frame + 1, 0), hop)
    energy = (sums[begins + frame] - sums[begins]) / frame
    return 10 * np.log10(np.maximum(energy, FLOOR)), hop
