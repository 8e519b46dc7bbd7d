"""Section of the report about packing: the fill of the first blocks, and one window with its layout and its sound."""

from collections.abc import Sequence
from itertools import islice

from whisper_ft.cli.doctor.blocks import Block, NumberTable
from whisper_ft.cli.doctor.sounds import sound
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.packing.layout import Layout
from whisper_ft.reports.text import percent
from whisper_ft.runtime.printable import counted
from whisper_ft.training.step_preview import PreviewedBlock, StepPreview

BLOCKS = 3  # blocks that are packed: their audio is decoded, about 50 utterances each


def packing_section(preview: StepPreview, encode: LabelEncoder, log_mel: LogMel) -> list[Block]:
    """Pack the first blocks of step 0, at most BLOCKS. Returns their fill, and the layout and sound of one window."""
    blocks = list(islice(preview.blocks(0), BLOCKS))
    lines: list[Block] = [
        f"block {number} of step 0: {_filled(block.layouts, log_mel)}" for number, block in enumerate(blocks)
    ]
    every = [layout for block in blocks for layout in block.layouts]
    if not every:
        return [*lines, "no row of these blocks can be used, so there is no window to show"]
    lines.append(f"together: {_filled(every, log_mel)}")
    first = next(block for block in blocks if block.layouts)
    return [*lines, *_window(first, preview, encode, log_mel)]


def _filled(layouts: Sequence[Layout], log_mel: LogMel) -> str:
    """Return words for the fill of some windows: the share of their length with utterances and gaps."""
    filled, room = sum(layout.placed[-1].end for layout in layouts), len(layouts) * log_mel.window_samples
    utterances = counted(sum(len(layout.placed) for layout in layouts), "utterance")
    share = f", filled to {percent(filled / room)} of {log_mel.window_seconds:g} s each" if layouts else ""
    return f"{utterances} in {counted(len(layouts), 'window')}{share}"


def _window(block: PreviewedBlock, preview: StepPreview, encode: LabelEncoder, log_mel: LogMel) -> list[Block]:
    """Return layout and sound of the first window of a block."""
    layout, rate = block.layouts[0], log_mel.sample_rate
    rows = [
        (
            clip.id,
            f"{begin / rate:.2f}",
            f"{(begin + len(clip.waveform)) / rate:.2f}",
            f"{sum(len(encode.text_tokens(text.text)) for text in clip.texts)}",
        )
        for clip, begin in layout.placed
    ]
    if layout.partial is not None:
        cut = layout.partial
        rows.append((f"{cut.clip.id} (its beginning)", f"{cut.begin / rate:.2f}", f"{log_mel.window_seconds:.2f}", "0"))
    times = "with" if layout.timestamps else "without"
    return [
        f"the first window, {times} timestamps:",
        NumberTable(("utterance", "start s", "end s", "tokens of the text"), rows),
        sound("sound of this window", preview.reader.builder.audio(layout), rate),
    ]
