"""Levels of the audio: peaks, clipping, DC offset and near-silence, counted over the rows."""

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from whisper_ft.cli.doctor.blocks import Block, Finding
from whisper_ft.cli.doctor.histogram import histogram, quantiles
from whisper_ft.cli.doctor.tally import Tally
from whisper_ft.data.audio.containers import Waveform

FLAT = 0.999  # share of the peak from which on a sample counts as clipped
FLAT_SAMPLES = 4  # such samples in a row; a sine of 220 Hz at 16 kHz has at most two
LOUD = 0.5  # peak from which on a flat top is clipping; resampling may move it from full scale
MAX_OFFSET = 0.02  # mean of the samples, whose full scale is 1.0
QUIET_DB = 50  # peak so far below full scale that hardly any speech is heard
HISTOGRAM_DB = 60  # peaks further below full scale share the last bar


@dataclass
class Levels:
    """Peaks of the rows, and rows with a conspicuous level. They are used in training all the same."""

    peaks: Counter[int] = field(default_factory=Counter)  # rows by peak in whole dB below full scale
    clipped: Tally = field(default_factory=Tally)
    offset: Tally = field(default_factory=Tally)
    quiet: Tally = field(default_factory=Tally)

    def add(self, row_id: str, waveform: Waveform) -> None:
        """Count a row by its waveform [samples], which is not silent."""
        peak, mean = float(np.abs(waveform).max()), float(waveform.mean(dtype=np.float64))
        below = -20 * math.log10(peak)
        self.peaks[max(int(below), 0)] += 1
        if below > QUIET_DB:
            self.quiet.add(row_id, f"the peak is {below:.0f} dB below full scale")
        elif abs(mean) > MAX_OFFSET:
            self.offset.add(row_id, f"the mean is {mean:+.3f}, and full scale is 1.0")
        if peak > LOUD and (tops := _flat_tops(waveform, peak)):
            self.clipped.add(row_id, f"{tops:,} flat tops at {peak:.3f}, and full scale is 1.0")

    def blocks(self) -> list[Block]:
        """Return the blocks of the report: a histogram of the peaks, and a finding for each conspicuous level."""
        findings = {
            "clipped": self.clipped,
            "with a DC offset": self.offset,
            "nearly silent": self.quiet,
        }
        return [
            histogram("peak in dB below full scale", self.peaks, 1, HISTOGRAM_DB, quantiles(self.peaks, 1)),
            *(
                Finding(name, f"{tally.rows:,}", "fair" if tally.rows else "good", tally.examples)
                for name, tally in findings.items()
            ),
        ]


def _flat_tops(waveform: Waveform, peak: float) -> int:
    """Number of runs of at least FLAT_SAMPLES samples that are all near the peak."""
    near = np.concatenate([[False], np.abs(waveform) >= FLAT * peak, [False]])
    edges = np.flatnonzero(near[1:] != near[:-1])  # beginnings and ends in turn
    return int(np.count_nonzero(edges[1::2] - edges[::2] >= FLAT_SAMPLES))
