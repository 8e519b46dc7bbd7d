"""First windows of the first training batch, as the model gets them, with their tokens decoded to text."""

from transformers import WhisperTokenizer

from whisper_ft.cli.doctor.blocks import BatchRow, Block, Position
from whisper_ft.cli.doctor.spelling import shown
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.types import Batch, CollatorFactory, Window
from whisper_ft.runtime.printable import counted
from whisper_ft.training.step_preview import StepPreview

WINDOWS = 3  # windows shown: each takes several lines, and most sources have them in different chunks


def first_batch(
    config: TrainingConfig,
    preview: StepPreview,
    encode: LabelEncoder,
    log_mel: LogMel,
    tokenizer: WhisperTokenizer,
    collator: CollatorFactory,
) -> list[Block]:
    """Collate the first windows of a run, at most WINDOWS, and return the tokens read and predicted at each position.

    A window is the audio of one training example, with its tokens. The first line counts them, and each gives a block.
    A row that cannot be used gives a line with the reason instead. The windows of a packed run are those of its first
    block.
    """
    plan, is_packed = preview.plan, config.pack.enabled
    blocks = [block for portion in range(plan.portions) for block in plan.blocks(0, portion)]
    slots = [
        slot
        for block in blocks[: 1 if is_packed else WINDOWS]
        for slot in preview.reader.windows(plan.places(block))
        if isinstance(slot, Window) or not is_packed
    ]
    whole = (
        f"{counted(len(slots), 'window')} of the first block" if is_packed else counted(config.batch.size, "utterance")
    )
    slots = slots[:WINDOWS] if is_packed else slots
    windows = [slot for slot in slots if isinstance(slot, Window)]
    collate = collator(
        start_token=encode.start,
        pad_token=tokenizer.pad_token_id,
        feature_shape=(log_mel.bins, log_mel.frames),
        pin_memory=False,
    )
    batch = collate(windows)
    length = batch.labels.shape[1] if windows else 0
    rows = (_batch_row(window, batch, index, tokenizer) for index, window in enumerate(windows))
    return [
        f"the first {len(slots)} of {whole} of step 0, padded to {length} positions",
        *(
            next(rows)
            if isinstance(slot, Window)
            else f"{slot.id}: an empty slot ({slot.reason}: {shown(slot.detail, 200)})"
            for slot in slots
        ),
    ]


def _batch_row(window: Window, batch: Batch, index: int, tokenizer: WhisperTokenizer) -> BatchRow:
    special = set(tokenizer.all_special_ids)
    read, labels = batch.decoder_input_ids[index].tolist(), batch.labels[index].tolist()

    def token(number: int) -> tuple[str, int]:
        # A part of a letter becomes U+FFFD. Without the argument, times would be empty texts.
        return tokenizer.decode([number], decode_with_timestamps=True), number

    start = window.first_target - 1  # previous text stands before it
    body = (place for place, number in enumerate(read) if place > start and number not in special)
    prompt = next(body, len(window.tokens) - 1)
    return BatchRow(
        ids=", ".join(window.utterances) or "no speech",
        shape=tuple(batch.input_features[index].shape),
        text=tokenizer.decode(window.tokens[prompt:-1], decode_with_timestamps=True),
        prompt=[token(number) for number in read[:prompt]],
        positions=[
            Position(token(number), token(label) if label >= 0 else None, label)
            for number, label in zip(read, labels, strict=True)
        ],
    )
