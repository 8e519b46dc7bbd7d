"""Ten kinds of sound without speech, on which Whisper invents words."""

from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
SECONDS = 20
LEVEL = 0.05  # root mean square: about that of quiet speech


def write_silence(folder: Path) -> Path:
    """Write a clip of each kind as FLAC, and a manifest with empty transcripts. Returns the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, samples in clips().items():
        soundfile.write(folder / f"{name}.flac", samples, RATE)
        rows.append(f'{{"audio": "{name}.flac", "text": ""}}\n')
    manifest = folder / "silence.jsonl"
    manifest.write_text("".join(rows), encoding="utf-8")
    return manifest


def clips() -> dict[str, np.ndarray]:
    """Return the samples of each kind by its name, the same at each call."""
    rng, count = np.random.default_rng(1), SECONDS * RATE
    time = np.arange(count) / RATE
    white = rng.standard_normal(count)
    frequencies = np.fft.rfftfreq(count, 1 / RATE)
    spectrum = np.fft.rfft(white)

    def coloured(power: float) -> np.ndarray:
        return np.fft.irfft(spectrum / np.maximum(frequencies, 20) ** power, count)

    breath = coloured(0.5) * np.clip(np.sin(2 * np.pi * 0.3 * time), 0, None)
    clicks = np.zeros(count)
    clicks[rng.integers(0, count, 40)] = 1
    keys = np.convolve(clicks, np.exp(-np.arange(800) / 100) * rng.standard_normal(800), "same")
    chord = sum(np.sin(2 * np.pi * tone * time) for tone in (220.0, 277.2, 329.6)) * (0.6 + 0.4 * np.sin(4 * time))
    kinds = {
        "zeros": np.zeros(count),
        "white-noise": white,
        "pink-noise": coloured(0.5),
        "brown-noise": coloured(1.0),
        "hum-50-hz": sum(np.sin(2 * np.pi * 50 * n * time) / n for n in range(1, 6)),
        "breath": breath,
        "keys": keys,
        "chord": chord,
        "beeps": np.sin(2 * np.pi * 1000 * time) * (time % 1 < 0.2),
        "sweep": np.sin(2 * np.pi * (100 + 150 * time) * time),
    }
    return {name: _levelled(samples) for name, samples in kinds.items()}


def _levelled(samples: np.ndarray) -> np.ndarray:
    """Scale samples to LEVEL, and limit their peaks."""
    loudness = float(np.sqrt(np.mean(samples**2)))
    scaled = samples * (LEVEL / loudness) if loudness else samples
    return np.clip(scaled, -0.99, 0.99).astype(np.float32)
