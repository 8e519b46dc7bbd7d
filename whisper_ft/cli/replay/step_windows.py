"""Windows of a training step, each with the utterances in it and their times."""

from collections.abc import Iterator

from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.labels.rewrite import LabelNormalizer
from whisper_ft.data.packing.layout import Layout
from whisper_ft.data.sources import open_mixture
from whisper_ft.models.whisper import load_parts
from whisper_ft.training.step_preview import StepPreview, encoder_of


def windows_of_step(config: TrainingConfig, step: int, rewrite: LabelNormalizer | None) -> Iterator[dict[str, object]]:
    """Yield the windows of a step in the order of their blocks, and after each block its rows that cannot be used.

    All processes of a run together train on these windows. `rewrite` is the normaliser of data.normalizer.
    """
    source, model = open_mixture(config.data), load_parts(config.model.name)
    log_mel = LogMel(model.processor.feature_extractor)
    preview = StepPreview.of(config, source, encoder_of(config, model, source, rewrite), log_mel)
    number = 0
    for block, (layouts, rejected) in enumerate(preview.blocks(step)):
        for layout in layouts:
            yield {"window": number, "block": block, **_window(layout, log_mel.sample_rate)}
            number += 1
            if preview.reader.builder.draws.no_speech(layout.key):
                yield {"window": number, "block": block, "utterances": [], "no_speech": True}
                number += 1
        yield from ({"unusable": row.id, "block": block, "reason": row.reason} for row in rejected)


def _window(layout: Layout, rate: int) -> dict[str, object]:
    """Return the utterances of a window with start and length in seconds, and the end of the last one."""
    utterances = [
        {"id": clip.id, "start": round(begin / rate, 4), "seconds": round(len(clip.waveform) / rate, 4)}
        for clip, begin in layout.placed
    ]
    window: dict[str, object] = {"utterances": utterances, "seconds": round(layout.placed[-1].end / rate, 4)}
    window["timestamps"] = layout.timestamps
    if layout.partial is not None:
        window["begins_at_end"] = {"id": layout.partial.clip.id, "start": round(layout.partial.begin / rate, 4)}
    return window
