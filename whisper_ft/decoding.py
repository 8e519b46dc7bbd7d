"""Transcription by generation: what the model writes for each utterance of a set, gathered from all ranks."""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

import torch
from transformers import GenerationMixin, LogitsProcessorList

from whisper_ft import config
from whisper_ft.agreement import Agreement
from whisper_ft.background import in_background
from whisper_ft.failure import UsageError
from whisper_ft.greedy import GreedyDecoder
from whisper_ft.hearing import Heard
from whisper_ft.labels import TIMESTAMP, LabelEncoder, text_problem
from whisper_ft.model import AUTOCAST
from whisper_ft.parts import Parts
from whisper_ft.scoring import Prediction
from whisper_ft.sources import Row
from whisper_ft.timestamps import OfGenerate, TimestampRules
from whisper_ft.window import NO_FEATURES, whole

AHEAD = 8  # batches whose windows are sorted by length, and as many are read ahead: a second of sound takes 32 kB


class Written(NamedTuple):
    """What the model wrote of one window."""

    text: str
    tokens: int
    hit_limit: bool
    language: str | None  # where it was detected
    phrases: list[tuple[float, float | None, str]]  # with their times in the window, where they were asked for


class Transcriber:
    """Greedy or beam search with language and task given, all parts of one model's decoding in one place."""

    def __init__(
        self, model: Any, tokenizer: Any, encode: LabelEncoder, settings: config.Decoding, precision: config.Precision
    ) -> None:
        self._model, self._tokenizer, self._encode, self._settings = model, tokenizer, encode, settings
        self._precision = precision
        self._frames = 2 * model.config.max_source_positions  # the encoder's second convolution halves them
        self._context = _context(tokenizer, settings.prompt, model.config.max_target_positions // 2)
        if settings.detect_language and not encode.is_multilingual:
            raise UsageError("--decoding.detect_language: this model has one language")
        self._generation_config = copy.deepcopy(model.generation_config)
        self._generation_config.num_beams = settings.num_beams
        silenced = list(model.generation_config.suppress_tokens or ())
        self._rules = _timestamp_rules(model, tokenizer) if settings.timestamps else None
        if self._rules is None:
            # Prompted with <|notimestamps|>, a model may still write timestamps while it knows little.
            silenced += _timestamps(model, tokenizer)
        self._generation_config.suppress_tokens = silenced
        self._greedy = GreedyDecoder(model, silenced, model.generation_config.begin_suppress_tokens or ())

    def prompt(self, utterance: Heard) -> list[int]:
        """Tokens before the text of one utterance; utterances with the same can be transcribed together."""
        prompt = self._encode.prompt_or_default(utterance.row.language, utterance.row.task)[0]
        return [*self._context, *(prompt[:-1] if self._rules else prompt)]  # the last one is <|notimestamps|>

    @torch.inference_mode()
    def write(self, windows: Sequence[torch.Tensor], prompt: list[int]) -> list[Written]:
        """What the model writes of windows [M, t] that share a prompt."""
        device = self._model.device
        features = whole(windows, self._frames).to(device)  # [B, M, T]
        with torch.autocast(device.type, AUTOCAST[self._precision], enabled=self._precision != "fp32"):
            if not self._settings.detect_language:
                return self._write(features, prompt, None)
            states = self._greedy.encode(features)
            found = self._greedy.language(states, self._encode.start, [*self._encode.languages])
            written: dict[int, Written] = {}
            for token in dict.fromkeys(found):
                rows = [row for row, language in enumerate(found) if language == token]
                code = self._encode.languages[token]
                spoken = [token if at == len(self._context) + 1 else other for at, other in enumerate(prompt)]
                written |= zip(rows, self._write(features[rows], spoken, code, states[rows]), strict=True)
            return [written[row] for row in range(len(found))]

    def _write(
        self, features: torch.Tensor, prompt: list[int], language: str | None, states: torch.Tensor | None = None
    ) -> list[Written]:
        room = self._model.config.max_target_positions - len(prompt)
        limit = min(self._settings.max_new_tokens or room, room)
        if self._settings.num_beams == 1:
            states = self._greedy.encode(features) if states is None else states
            rows = self._greedy(states, prompt, limit, self._tokenizer.eos_token_id, self._rules)
        else:
            rows = self._beams(features, prompt, limit)
        return [self._written(row, len(row) >= limit, language) for row in rows]

    def _written(self, tokens: list[int], hit_limit: bool, language: str | None) -> Written:
        if self._rules is None:
            return Written(self._text(tokens), len(tokens), hit_limit, language, [])
        phrases = [(start, end, self._text(phrase)) for start, end, phrase in self._rules.phrases(tokens)]
        return Written(self._text(self._rules.text(tokens)), len(tokens), hit_limit, language, phrases)

    def _beams(self, features: torch.Tensor, prompt: list[int], limit: int) -> list[list[int]]:
        """Tokens of each row by beam search, without the end token.

        Not by Whisper's own `generate`. That one is for hours of audio: it takes every token after <|notimestamps|>,
        also one that a user added to the vocabulary, for the end of a segment, drops what follows and decodes the
        window again. Beneath it is this one, which begins with the very prompt that training used.
        """
        # As max_length, which counts the prompt: beside the max_length of the model's own config, max_new_tokens warns.
        self._generation_config.max_length = len(prompt) + limit
        generated = GenerationMixin.generate(
            self._model,
            features,
            # Every frame counts, the padding too, as in training; without a mask transformers warns.
            attention_mask=torch.ones(features.shape[0], features.shape[2], device=features.device),
            decoder_input_ids=torch.tensor([prompt], device=features.device).expand(len(features), -1),
            generation_config=self._generation_config,
            logits_processor=LogitsProcessorList([OfGenerate(self._rules, len(prompt))] if self._rules else []),
        )
        end = self._tokenizer.eos_token_id
        rows = generated[:, len(prompt) :].tolist()  # padded with the end token
        return [tokens[: tokens.index(end)] if end in tokens else tokens for tokens in rows]

    def _text(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True)).strip()

    def prediction(self, windows: Sequence[Heard], written: Sequence[Written]) -> Prediction:
        """What was written of the windows of an utterance, as its transcript."""
        utterance, row = windows[0], windows[0].row
        language = row.language if row.language and isinstance(row.language, str) else self._encode.language
        return Prediction(
            id=row.id,
            ref=row.text if text_problem(row.text) is None else "",
            hyp=" ".join(filter(None, (part.text for part in written))),
            audio_seconds=utterance.seconds,
            hyp_tokens=sum(part.tokens for part in written),
            hit_token_limit=any(part.hit_limit for part in written),
            language=language,
            detected_language=next((part.language for part in written if part.language), None),
            speaker=row.speaker,
            windows=len(written),
            segments=_segments(windows, written) if self._rules else None,
            problem=utterance.problem or self._problem(row),
            columns=row.columns,
        )

    def _problem(self, row: Row) -> str | None:
        """Reason code of what a row says besides its audio, where that cannot be used."""
        _, unknown = self._encode.prompt_or_default(row.language, row.task)
        return unknown or ("bad_label" if text_problem(row.text) else None)


def _context(tokenizer: Any, prompt: str, most: int) -> list[int]:
    """Tokens of a text that stands before the transcript, as OpenAI's `prompt`; none of an empty one.

    UsageError for one of over `most` tokens, half of what the decoder has room for.
    """
    if not prompt.strip():
        return []
    before = tokenizer.convert_tokens_to_ids("<|startofprev|>")
    if before is None or (before == tokenizer.unk_token_id and tokenizer.unk_token != "<|startofprev|>"):
        raise UsageError("--decoding.prompt: this model's tokenizer has no <|startofprev|>")
    tokens = tokenizer.encode(f" {prompt.strip()}", add_special_tokens=False, split_special_tokens=True)
    if len(tokens) >= most:
        raise UsageError(f"--decoding.prompt: has {len(tokens)} tokens, this model takes fewer than {most}")
    return [before, *tokens]


def _segments(windows: Sequence[Heard], written: Sequence[Written]) -> list[tuple[float, float, str]]:
    """Phrases of an utterance with their times in it; one that has no end lasts as long as its window."""
    ends = [*(window.begin_seconds for window in windows[1:]), windows[0].seconds]
    found = []
    for window, part, window_end in zip(windows, written, ends, strict=True):
        for start, end, text in part.phrases:
            until = window_end if end is None else min(window.begin_seconds + end, window_end)
            found.append((round(min(window.begin_seconds + start, until), 2), round(until, 2), text))
    return found


def _timestamp_rules(model: Any, tokenizer: Any) -> TimestampRules:
    """UsageError for a model without timestamps."""
    first, known = model.generation_config.no_timestamps_token_id + 1, set(_timestamps(model, tokenizer))
    last = first - 1
    while last + 1 in known and last - first < model.config.max_source_positions:
        last += 1
    if last <= first:
        raise UsageError("--decoding.timestamps: this model has no tokens for them")
    latest = getattr(model.generation_config, "max_initial_timestamp_index", None)
    return TimestampRules(first, last, tokenizer.eos_token_id, first - 1, latest)


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
    progress: Callable[[Prediction], None] = lambda done: None,
    parts: Parts | None = None,
) -> list[Prediction]:
    """Predictions of a whole set in its order, the same list on every rank: each utterance exactly once.

    A collective. `utterances` is this rank's part and `total` the size of the set, those in `parts` included, which
    were transcribed before and are kept there; RuntimeError if any is missing or doubled, on all ranks.
    """
    mine: list[tuple[int, Prediction]] = []
    failure: Exception | None = None
    try:
        with closing(in_background(utterances, AHEAD * batch_size)) as windows:
            for done in _transcribed(transcriber, _batches(windows, batch_size, transcriber.prompt)):
                mine.append(done)
                if parts is not None:
                    parts.keep(*done)
                progress(done[1])
    except Exception as error:  # noqa: BLE001 - told to all ranks below and raised there
        failure = error
    agreement.raise_together(failure)
    gathered = [pair for part in agreement.gather(mine) for pair in part]
    gathered += parts.known.items() if parts is not None else ()
    if sorted(index for index, _ in gathered) != list(range(total)):
        raise RuntimeError(f"{len(gathered)} transcripts of {total} utterances: each must be there exactly once")
    return [prediction for _, prediction in sorted(gathered, key=lambda pair: pair[0])]


def _transcribed(transcriber: Transcriber, batches: Iterable[list[Heard]]) -> Iterator[tuple[int, Prediction]]:
    """(index, prediction) of each utterance once all its windows are written, in any order."""
    written: dict[int, dict[int, tuple[Heard, Written]]] = defaultdict(dict)  # by index, by number of the window
    for batch in batches:
        rows = transcriber.write([window.features for window in batch], transcriber.prompt(batch[0]))
        for window, row in zip(batch, rows, strict=True):
            # Without the log-mel: a long recording has many, and none is needed again.
            written[window.index][window.number] = replace(window, features=NO_FEATURES), row
            if len(written[window.index]) == window.windows:
                of_utterance = written.pop(window.index)
                windows, parts = zip(*(of_utterance[number] for number in range(window.windows)), strict=True)
                yield window.index, transcriber.prediction(windows, parts)


def _batches(windows: Iterable[Heard], size: int, prompt: Callable[[Heard], list[int]]) -> Iterator[list[Heard]]:
    """Windows in batches of one prompt and, of AHEAD batches, of like length: short ones do not wait for long ones.

    Of fewer at the beginning, where the model would wait until all of them are decoded.
    """
    coming, batches = iter(windows), 1
    while ahead := list(islice(coming, batches * size)):
        batches = min(2 * batches, AHEAD)
        by_prompt: dict[tuple[int, ...], list[Heard]] = defaultdict(list)
        for window in sorted(ahead, key=lambda one: -one.seconds):
            by_prompt[tuple(prompt(window))].append(window)
        for alike in by_prompt.values():
            yield from (alike[begin : begin + size] for begin in range(0, len(alike), size))
