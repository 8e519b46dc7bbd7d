"""Teacher-forced loss: the cross-entropy of transcripts, each token predicted after the correct tokens before it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from transformers import WhisperForConditionalGeneration

from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.types import IGNORE, RejectedError, Row


class LabelLoss(NamedTuple):
    """Loss of one transcript, in nats."""

    total: float
    """Sum over all predicted tokens: language, task and <|notimestamps|>, as in training, then text and end."""
    tokens: int
    """Number of predicted tokens."""
    first: float
    """Loss of the first token of the text."""
    text: float
    """Sum over the tokens of the text and the end token."""
    text_tokens: int


@torch.inference_mode()
def label_losses(
    model: WhisperForConditionalGeneration,
    encode: LabelEncoder,
    states: torch.Tensor,  # [B, S, D]
    rows: Sequence[Row],
) -> list[LabelLoss | None]:
    """Return the loss of each row's transcript, or None for a row whose transcript cannot be trained on.

    Parameters
        model: the model, in evaluation mode.
        encode: makes the label tokens, as in training.
        states: encoder outputs of the rows' audio.
        rows: the B rows.
    """
    labels = {index: tokens for index, row in enumerate(rows) if (tokens := _tokens_of(encode, row))}
    if not labels:
        return [None] * len(rows)
    length, end = max(map(len, labels.values())) - 1, model.generation_config.eos_token_id
    read, targets = torch.full((len(labels), length), end), torch.full((len(labels), length), IGNORE)  # [B', L]
    for row, tokens in enumerate(labels.values()):
        read[row, : len(tokens) - 1] = torch.tensor(tokens[:-1])
        targets[row, : len(tokens) - 1] = torch.tensor(tokens[1:])
    device = states.device
    hidden = model.model.decoder(
        input_ids=read.to(device), encoder_hidden_states=states[[*labels]], use_cache=False
    ).last_hidden_state
    # One row at a time: logits of a whole batch would take gigabytes.
    losses = [
        F.cross_entropy(model.proj_out(row).float(), target, reduction="none", ignore_index=IGNORE).cpu().double()
        for row, target in zip(hidden, targets.to(device), strict=True)
    ]
    result: list[LabelLoss | None] = [None] * len(rows)
    for (index, tokens), loss in zip(labels.items(), losses, strict=True):
        first = len(encode.prompt_or_default(rows[index].language, rows[index].task)[0]) - 1
        count = len(tokens) - 1
        result[index] = LabelLoss(
            float(loss.sum()), count, float(loss[first]), float(loss[first:].sum()), count - first
        )
    return result


def _tokens_of(encode: LabelEncoder, row: Row) -> list[int]:
    """Return the label tokens of a row; [] if there are none."""
    try:
        return encode(row.text, row.language, row.task)
    except RejectedError:
        return []
