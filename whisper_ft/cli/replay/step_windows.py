"""Windows of a training step, each with the utterances in it, their times, and their sound on request."""

from collections.abc import Iterator
from pathlib import Path

import soundfile

from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.labels.rewrite import LabelNormalizer
from whisper_ft.data.packing.clip import Clip
from whisper_ft.data.packing.layout import Layout
from whisper_ft.data.sources import open_mixture
from whisper_ft.models.whisper import load_parts
from whisper_ft.runtime.atomic import disk_errors
from whisper_ft.training.step_preview import StepPreview, encoder_of


def windows_of_step(
    config: TrainingConfig, step: int, rewrite: LabelNormalizer | None, audio: Path | None = None
) -> Iterator[dict[str, object]]:
    """Yield the windows of a step in the order of their blocks, and after each block its rows that cannot be used.

    All processes of a run together train on these windows. `rewrite` is the normaliser of data.normalizer. With
    `audio`, each window is also written into this folder as it is heard, as WAV of 24 bits. Raises DiskError if
    it cannot be written.
    """
    source, model = open_mixture(config.data), load_parts(config.model.name)
    log_mel = LogMel(model.processor.feature_extractor)
    preview, number = StepPreview.of(config, source, encoder_of(config, model, source, rewrite), log_mel), 0
    builder, rate = preview.reader.builder, log_mel.sample_rate
    for block, (clips, layouts, rejected) in enumerate(preview.blocks(step)):
        for layout in layouts:
            sounds = [(_window(layout, rate), builder.audio(layout))]
            if builder.draws.no_speech(layout.key):
                sounds.append(({"utterances": [], "no_speech": True}, builder.silence(clips, layout.key)))
            for window, waveform in sounds:
                written = {} if audio is None else {"audio": _written(audio, step, number, waveform, rate)}
                yield {"window": number, "block": block, **window, **written}
                number += 1
        yield from ({"unusable": row.id, "block": block, "reason": row.reason} for row in rejected)


def _written(folder: Path, step: int, number: int, waveform: Waveform, rate: int) -> str:
    """Write the sound of a window, and return the name of its file."""
    name = f"step-{step:08d}-window-{number:04d}.wav"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, waveform, rate, subtype="PCM_24")
    return name


def _window(layout: Layout, rate: int) -> dict[str, object]:
    """Return the utterances of a window with start and length in seconds, and the end of the last one."""
    utterances = [_utterance(clip, begin, rate) for clip, begin in layout.placed]
    window: dict[str, object] = {"utterances": utterances, "seconds": round(layout.placed[-1].end / rate, 4)}
    window["timestamps"] = layout.timestamps
    if layout.partial is not None:
        window["begins_at_end"] = {"id": layout.partial.clip.id, "start": round(layout.partial.begin / rate, 4)}
    return window


def _utterance(clip: Clip, begin: int, rate: int) -> dict[str, object]:
    """Return start and length of an utterance in seconds, and the transforms of its sound with their draws."""
    placed: dict[str, object] = {
        "id": clip.id,
        "start": round(begin / rate, 4),
        "seconds": round(len(clip.waveform) / rate, 4),
    }
    return placed | ({"augmented": [one.record for one in clip.drawn]} if clip.drawn else {})
