"""Section of the report about augmented waveforms: utterances before and after, with the values that were drawn."""

from collections.abc import Iterator
from itertools import chain, islice

from whisper_ft.cli.doctor.blocks import Block
from whisper_ft.cli.doctor.sounds import sound
from whisper_ft.cli.doctor.spelling import shown
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.augment.waveform.waveform_transform import words_of
from whisper_ft.data.packing.clip import Clip
from whisper_ft.runtime.printable import counted
from whisper_ft.training.step_preview import StepPreview

PAIRS = 10
"""Utterances that are shown before and after."""
MOST_SECONDS = 8.0
"""Seconds of an utterance that can be played: ten pairs then take about 4 MB of the page."""
MOST_CLIPS = 64
"""Utterances of step 0 that are read to find PAIRS that were changed."""


def augment_section(preview: StepPreview, log_mel: LogMel) -> list[Block]:
    """Return the first utterances of step 0 that are augmented, each as it is and as the model hears it."""
    seen = [*islice(_clips(preview), MOST_CLIPS)]
    changed = [clip for clip in seen if clip.drawn]
    blocks: list[Block] = [
        f"{len(changed)} of the first {counted(len(seen), 'usable utterance')} of step 0 are changed"
    ]
    for clip in changed[:PAIRS]:
        row, rate, most = (
            preview.reader.row(*clip.place[1:]),
            log_mel.sample_rate,
            round(MOST_SECONDS * log_mel.sample_rate),
        )
        before = decode(row.audio, rate, log_mel.window_seconds, row.offset, row.duration)
        blocks += [
            f"{shown(clip.id)}: {words_of(clip.drawn)}",
            sound("before", before[:most], rate),
            sound("after", clip.waveform[:most], rate),
        ]
    return blocks


def _clips(preview: StepPreview) -> Iterator[Clip]:
    return chain.from_iterable(block.clips for block in preview.blocks(0))
