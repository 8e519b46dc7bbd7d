"""Log-mel features, equal to those of Whisper's feature extractor, and their padding."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from whisper_ft.data.audio.containers import Waveform

MIN_FRAMES = 64
"""Fewest frames that are computed. BLAS multiplies a narrower matrix in another order, which changes the last bit."""


def pad_windows(features: Sequence[torch.Tensor], frames: int, pin_memory: bool = False) -> torch.Tensor:
    """Pad the features [M, t] of at least one window to an encoder input [B, M, T], in new memory.

    The last frame of each window is its silence frame, which is repeated up to T (`frames`). `pin_memory` puts the
    result into page-locked memory.
    """
    padded = torch.empty(len(features), len(features[0]), frames, pin_memory=pin_memory)
    for row, window in zip(padded, features, strict=True):
        row[:, : window.shape[1]] = window
        row[:, window.shape[1] :] = window[:, -1:]
    return padded


class FeatureExtractor(Protocol):
    """Parameters of the log-mel, named as in transformers' WhisperFeatureExtractor."""

    sampling_rate: int
    n_samples: int
    nb_max_frames: int
    feature_size: int
    n_fft: int
    hop_length: int
    mel_filters: npt.NDArray[np.floating]


class LogMel:
    """Whisper's log-mel, computed over the real audio only and equal to the extractor's to the last bit.

    Most of a 30 s window around a 3 s clip is padding, and all frames that cover only zeros have the same value. The
    order of operations is that of transformers' extractor (`_torch_extract_fbank_features`), so the bits are equal; a
    test compares them. LogMel is 7 times faster than the extractor for clips of 2.5 s.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        self.sample_rate: int = extractor.sampling_rate
        self.window_samples: int = extractor.n_samples
        self.frames: int = extractor.nb_max_frames
        self.bins: int = extractor.feature_size
        self._n_fft: int = extractor.n_fft
        self._hop: int = extractor.hop_length
        self._hann = torch.hann_window(self._n_fft)
        self._filters = torch.from_numpy(extractor.mel_filters).to(torch.float32)  # [frequencies, M]

    @property
    def window_seconds(self) -> float:
        """Length of the model's input in seconds."""
        return self.window_samples / self.sample_rate

    def __call__(self, waveform: Waveform) -> torch.Tensor:  # [samples] -> [M, t]
        """Return the log-mel [M, t] of a clip and one frame of silence, which `pad_windows` repeats.

        A clip that fills the window has no frame of silence. A clip longer than the window is cut at its end.
        """
        samples = min(len(waveform), self.window_samples)
        # Frame t covers samples around t * hop; frames from this number on cover zeros only.
        covered = min(self.frames, -(-(samples + self._n_fft // 2) // self._hop))
        computed = min(max(covered, MIN_FRAMES), self.frames)
        edge = self._n_fft // 2  # added by stft with center=True, here in one step with the silence
        length = self.window_samples if computed == self.frames else computed * self._hop
        padded = np.zeros(edge + length + edge, dtype=np.float32)
        padded[edge : edge + samples] = waveform[:samples]
        padded[:edge] = padded[2 * edge : edge : -1]  # reflected
        if computed == self.frames:  # else silence is reflected at the end
            padded[-edge:] = padded[-edge - 2 : -2 * edge - 2 : -1]
        stft = torch.stft(
            torch.from_numpy(padded), self._n_fft, self._hop, window=self._hann, center=False, return_complex=True
        )
        power = (stft[..., :-1].abs() ** 2).contiguous()
        mel = self._filters.T @ power
        log_mel = torch.clamp(mel, min=1e-10).log10()
        loudest = log_mel.max()
        features = torch.empty(self.bins, min(covered + 1, self.frames))
        features[:, :covered] = (torch.maximum(log_mel[:, :covered], loudest - 8.0) + 4.0) / 4.0
        features[:, covered:] = (torch.maximum(torch.tensor(-10.0), loudest - 8.0) + 4.0) / 4.0
        return features
