"""Transcription by generation: what the model writes for each utterance of a set, gathered from all ranks."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from transformers import GenerationMixin

from whisper_ft import config
from whisper_ft.agreement import Agreement
from whisper_ft.labels import TIMESTAMP, LabelEncoder, text_problem
from whisper_ft.scoring import Prediction
from whisper_ft.sources import Row
from whisper_ft.stream import Heard


class Transcriber:
    """Greedy or beam search with language and task given, all parts of one model's decoding in one place."""

    def __init__(
        self, model: Any, tokenizer: Any, encode: LabelEncoder, settings: config.Decoding, precision: config.Precision
    ) -> None:
        self._model, self._tokenizer, self._encode, self._settings = model, tokenizer, encode, settings
        self._precision = precision
        self._generation_config = copy.deepcopy(model.generation_config)
        self._generation_config.num_beams = settings.num_beams
        # Prompted with <|notimestamps|>, a model may still write timestamps while it knows little.
        silenced = [*(model.generation_config.suppress_tokens or ()), *_timestamps(model, tokenizer)]
        self._generation_config.suppress_tokens = silenced

    def prompt(self, utterance: Heard) -> list[int]:
        """Tokens before the text of one utterance; utterances with the same can be transcribed together."""
        return self._encode.prompt_or_default(utterance.row.language, utterance.row.task)[0]

    @torch.inference_mode()
    def transcribe(self, batch: Sequence[Heard]) -> list[tuple[int, Prediction]]:
        """(index, prediction) of utterances that share a prompt."""
        prompt = self.prompt(batch[0])
        room = self._model.config.max_target_positions - len(prompt)
        limit = min(self._settings.max_new_tokens or room, room)
        # As max_length, which counts the prompt: beside the max_length of the model's own config, max_new_tokens warns.
        self._generation_config.max_length = len(prompt) + limit
        device = self._model.device
        features = torch.stack([utterance.features for utterance in batch]).to(device)  # [B, M, T]
        with torch.autocast(device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            # Not Whisper's own `generate`. That one is for hours of audio: it takes every token after <|notimestamps|>,
            # also one that a user added to the vocabulary, for the end of a segment, drops what follows and decodes
            # the window again. Beneath it is this one, which begins with the very prompt that training used.
            generated = GenerationMixin.generate(
                self._model,
                features,
                # Every frame counts, the padding too, as in training; without a mask transformers warns.
                attention_mask=torch.ones(features.shape[0], features.shape[2], device=device),
                decoder_input_ids=torch.tensor([prompt], device=device).expand(len(batch), -1),
                generation_config=self._generation_config,
            )
        return [
            (utterance.index, self._prediction(utterance, tokens, limit))
            for utterance, tokens in zip(batch, generated[:, len(prompt) :].tolist(), strict=True)
        ]

    def _prediction(self, utterance: Heard, tokens: list[int], limit: int) -> Prediction:
        end = self._tokenizer.eos_token_id
        written = tokens[: tokens.index(end)] if end in tokens else tokens  # generate pads with the end token
        row = utterance.row
        return Prediction(
            id=row.id,
            ref=row.text if text_problem(row.text) is None else "",
            hyp=self._tokenizer.decode(written, skip_special_tokens=True).strip(),
            audio_seconds=utterance.seconds,
            hyp_tokens=len(written),
            hit_token_limit=end not in tokens and len(tokens) >= limit,
            language=row.language if row.language and isinstance(row.language, str) else self._encode.language,
            speaker=row.speaker,
            problem=utterance.problem or self._problem(row),
        )

    def _problem(self, row: Row) -> str | None:
        """Reason code of what a row says besides its audio, where that cannot be used."""
        _, unknown = self._encode.prompt_or_default(row.language, row.task)
        return unknown or ("bad_label" if text_problem(row.text) else None)


def _timestamps(model: Any, tokenizer: Any) -> list[int]:
    """Ids of the timestamps, named so or, in a tokenizer without them, not named at all.

    Not simply all ids after <|notimestamps|>: tokens that users add to the vocabulary come there, too.
    """
    named = {number for token, number in tokenizer.get_vocab().items() if not TIMESTAMP.fullmatch(token)}
    after = range(model.generation_config.no_timestamps_token_id + 1, model.config.vocab_size)
    return [number for number in after if number not in named]


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
        for batch in _batches(utterances, batch_size, transcriber.prompt):
            mine += transcriber.transcribe(batch)
            progress(len(batch))
    except Exception as error:  # noqa: BLE001 - told to all ranks below and raised there
        failure = error
    agreement.raise_together(failure)
    gathered = [pair for part in agreement.gather(mine) for pair in part]
    if sorted(index for index, _ in gathered) != list(range(total)):
        raise RuntimeError(f"{len(gathered)} transcripts of {total} utterances: each must be there exactly once")
    return [prediction for _, prediction in sorted(gathered, key=lambda pair: pair[0])]


def _batches(utterances: Iterable[Heard], size: int, prompt: Callable[[Heard], list[int]]) -> Iterator[list[Heard]]:
    """Runs of at most `size` utterances with one prompt."""
    for _, run in groupby(utterances, key=prompt):
        batch: list[Heard] = []
        for utterance in run:
            batch.append(utterance)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch
