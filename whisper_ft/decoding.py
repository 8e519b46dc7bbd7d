"""Transcription by generation: what the model writes for each utterance of a set, gathered from all ranks."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch

from whisper_ft import config
from whisper_ft.agreement import Agreement
from whisper_ft.labels import LabelEncoder
from whisper_ft.scoring import Prediction
from whisper_ft.stream import Heard


class Transcriber:
    """Greedy or beam search with language and task given, all parts of one model's decoding in one place."""

    def __init__(
        self, model: Any, tokenizer: Any, encode: LabelEncoder, settings: config.Decoding, precision: config.Precision
    ) -> None:
        self._model, self._tokenizer, self._encode, self._settings = model, tokenizer, encode, settings
        self._precision = precision
        # A copy with `max_length` unset: transformers warns at every call that has it beside max_new_tokens.
        self._generation_config = copy.deepcopy(model.generation_config)
        self._generation_config.max_length = None
        # Prompted with <|notimestamps|>, a model may still write one while it knows little; `generate` would then take
        # it for the end of a segment and decode the rest of the window again.
        timestamps = range(model.generation_config.no_timestamps_token_id + 1, model.config.vocab_size)
        self._generation_config.suppress_tokens = [*(model.generation_config.suppress_tokens or ()), *timestamps]

    @torch.inference_mode()
    def transcribe(self, batch: Sequence[Heard]) -> list[tuple[int, Prediction]]:
        """(index, prediction) of utterances that share language and task."""
        prompt = self._encode.prompt(batch[0].row.language, batch[0].row.task)
        room = self._model.config.max_target_positions - len(prompt)
        limit = min(self._settings.max_new_tokens or room, room)
        device = self._model.device
        features = torch.stack([utterance.features for utterance in batch]).to(device)  # [B, M, T]
        with torch.autocast(device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            # attention_mask: every frame counts, the padding too, as in training; without one transformers warns.
            generated = self._model.generate(
                features,
                attention_mask=torch.ones(features.shape[0], features.shape[2], device=device),
                generation_config=self._generation_config,
                max_new_tokens=limit,
                num_beams=self._settings.num_beams,
                return_timestamps=False,
                **self._encode.generation_options(batch[0].row.language, batch[0].row.task),
            )
        return [
            (utterance.index, self._prediction(utterance, tokens, limit))
            for utterance, tokens in zip(batch, generated.tolist(), strict=True)
        ]

    def _prediction(self, utterance: Heard, tokens: list[int], limit: int) -> Prediction:
        end = self._tokenizer.eos_token_id
        written = tokens[: tokens.index(end)] if end in tokens else tokens  # generate pads with the end token
        row = utterance.row
        return Prediction(
            id=row.id,
            ref=row.text,
            hyp=self._tokenizer.decode(written, skip_special_tokens=True).strip(),
            audio_seconds=utterance.seconds,
            hyp_tokens=len(written),
            hit_token_limit=end not in tokens and len(tokens) >= limit,
            language=row.language or self._encode.language,
            speaker=row.speaker,
            problem=utterance.problem,
        )


def transcribe(
    transcriber: Transcriber,
    utterances: Iterable[Heard],
    batch_size: int,
    total: int,
    agreement: Agreement,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Prediction]:
    """Predictions of a whole set in its order, the same list on every rank: each utterance exactly once.

    A collective. `utterances` is this rank's part and `total` the size of the set; RuntimeError if any is missing or
    doubled, on all ranks.
    """
    mine: list[tuple[int, Prediction]] = []
    failure: Exception | None = None
    try:
        for batch in _batches(utterances, batch_size):
            mine += transcriber.transcribe(batch)
            progress(len(batch))
    except Exception as error:  # noqa: BLE001 - told to all ranks below and raised there
        failure = error
    agreement.raise_together(failure)
    gathered = [pair for part in agreement.gather(mine) for pair in part]
    if sorted(index for index, _ in gathered) != list(range(total)):
        raise RuntimeError(f"{len(gathered)} transcripts of {total} utterances: each must be there exactly once")
    return [prediction for _, prediction in sorted(gathered, key=lambda pair: pair[0])]


def _batches(utterances: Iterable[Heard], size: int) -> Iterator[list[Heard]]:
    """Runs of at most `size` utterances with one language and task."""
    for _, run in groupby(utterances, key=lambda utterance: (utterance.row.language, utterance.row.task)):
        batch: list[Heard] = []
        for utterance in run:
            batch.append(utterance)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch
