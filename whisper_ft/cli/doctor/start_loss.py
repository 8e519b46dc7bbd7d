"""Teacher-forced loss of the start model on the first training rows, with and without a leading space."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from whisper_ft.cli.doctor.blocks import NumberTable
from whisper_ft.cli.doctor.data_check import first_rows
from whisper_ft.config.setting import LeadingSpace
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.audio.log_mel import LogMel, pad_windows
from whisper_ft.data.labels.rewrite import LabelNormalizer
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.sources import open_mixture
from whisper_ft.data.types import RejectedError
from whisper_ft.data.used_settings import languages_found
from whisper_ft.decoding.teacher_forced import LabelLoss, label_losses
from whisper_ft.models.adapters.adapted_whisper import attach
from whisper_ft.models.adapters.adapter_folder import read_adapter
from whisper_ft.models.adapters.quantised_base import load_base
from whisper_ft.models.precision import resolved_precision
from whisper_ft.models.whisper import LoadedWhisper

CPU = torch.device("cpu")
CHOICES: tuple[LeadingSpace, ...] = ("auto", "always", "never")
HEAD = ("labels.leading_space", "loss per token of the text", "loss of its first token")


def start_loss(
    config: TrainingConfig,
    most: int,
    rewrite: LabelNormalizer | None,
    progress: Callable[[str, int, int], None],
) -> NumberTable:
    """Compute the losses of the start model on at most `most` rows, in nats, for each `labels.leading_space`.

    The rows are the first of the data.

    The tokens of the text and <|endoftext|> count, but not those of the prompt. Rows that cannot be trained on are left
    out; if no row remains, the losses are "n/a". `progress` is called as by `check_data`.
    """
    source = open_mixture(config.data)
    rows, found = list(first_rows(source, most)), languages_found(source.parts)
    model, processor = _start_model(config)
    log_mel, tokenizer = LogMel(processor.feature_extractor), processor.tokenizer
    make = partial(LabelEncoder.of, model, tokenizer, config.data.languages[0], config.data.tasks[0], rewrite, found)
    encoders = {choice: make(choice) for choice in CHOICES}
    losses: dict[LeadingSpace, list[LabelLoss]] = {choice: [] for choice in CHOICES}
    frames = 2 * model.config.max_source_positions
    model.eval()
    for number, row in enumerate(rows):
        progress("rows for the loss", number, len(rows))
        try:
            waveform = decode(row.audio, log_mel.sample_rate, log_mel.window_seconds, row.offset, row.duration)
        except RejectedError:
            continue
        with torch.inference_mode():
            states = model.model.encoder(pad_windows([log_mel(waveform)], frames)).last_hidden_state
        for choice, encode in encoders.items():
            losses[choice] += [loss for loss in label_losses(model, encode, states, [row]) if loss]
    progress("rows for the loss", len(rows), len(rows))
    table = [
        (
            choice,
            _mean([loss.text for loss in found], [loss.text_tokens for loss in found]),
            _mean([loss.first for loss in found], [1] * len(found)),
        )
        for choice, found in losses.items()
    ]
    used = len(losses["auto"])
    return NumberTable((*HEAD, "rows"), [(*row, f"{used:,}") for row in table])


def _start_model(config: TrainingConfig) -> LoadedWhisper:
    """Load the model before the first update: with the quantised base of an adapter, and with `adapter.init`.

    Without `adapter.init`, an adapter has no effect before the first update, so it is left out.
    """
    base = config.adapter.base
    loaded = load_base(config.model.name, base, resolved_precision(config.precision, CPU), CPU)
    if config.adapter.init is not None:
        attach(loaded, read_adapter(Path(config.adapter.init)))
    return loaded


def _mean(sums: list[float], tokens: list[int]) -> str:
    return f"{sum(sums) / sum(tokens):.4f}" if tokens else "n/a"
