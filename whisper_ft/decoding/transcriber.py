"""Transcription by generation: what the model writes for each utterance of a set, gathered from all ranks."""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import GenerationMixin, LogitsProcessorList

from whisper_ft.config.evaluation import DecodingConfig, Precision
from whisper_ft.data.audio.log_mel import pad_windows
from whisper_ft.data.labels.tokens import TIMESTAMP, LabelEncoder
from whisper_ft.data.labels.transcript import text_problem
from whisper_ft.data.types import Row
from whisper_ft.decoding.greedy import GreedyDecoder
from whisper_ft.decoding.long_form import AudioWindow
from whisper_ft.decoding.timestamps import TimestampLogitsProcessor, TimestampRules
from whisper_ft.models.whisper import AUTOCAST
from whisper_ft.runtime.errors import UsageError
from whisper_ft.scoring.scores import Prediction


class Generated(NamedTuple):
    """What the model wrote of one window."""

    text: str
    tokens: int
    hit_limit: bool
    language: str | None  # where it was detected
    phrases: list[tuple[float, float | None, str]]  # with their times in the window, where they were asked for


class Transcriber:
    """Greedy or beam search with language and task given, all parts of one model's decoding in one place."""

    def __init__(
        self, model: Any, tokenizer: Any, encode: LabelEncoder, settings: DecodingConfig, precision: Precision
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

    def prompt(self, utterance: AudioWindow) -> list[int]:
        """Tokens before the text of one utterance; utterances with the same can be transcribed together."""
        prompt = self._encode.prompt_or_default(utterance.row.language, utterance.row.task)[0]
        return [*self._context, *(prompt[:-1] if self._rules else prompt)]  # the last one is <|notimestamps|>

    @torch.inference_mode()
    def write(self, windows: Sequence[torch.Tensor], prompt: list[int]) -> list[Generated]:
        """What the model writes of windows [M, t] that share a prompt."""
        device = self._model.device
        features = pad_windows(windows, self._frames).to(device)  # [B, M, T]
        with torch.autocast(device.type, AUTOCAST[self._precision], enabled=self._precision != "fp32"):
            if not self._settings.detect_language:
                return self._write(features, prompt, None)
            states = self._greedy.encode(features)
            found = self._greedy.language(states, self._encode.start, [*self._encode.languages])
            written: dict[int, Generated] = {}
            for token in dict.fromkeys(found):
                rows = [row for row, language in enumerate(found) if language == token]
                code = self._encode.languages[token]
                spoken = [token if at == len(self._context) + 1 else other for at, other in enumerate(prompt)]
                written |= zip(rows, self._write(features[rows], spoken, code, states[rows]), strict=True)
            return [written[row] for row in range(len(found))]

    def _write(
        self, features: torch.Tensor, prompt: list[int], language: str | None, states: torch.Tensor | None = None
    ) -> list[Generated]:
        room = self._model.config.max_target_positions - len(prompt)
        limit = min(self._settings.max_new_tokens or room, room)
        if self._settings.num_beams == 1:
            states = self._greedy.encode(features) if states is None else states
            rows = self._greedy(states, prompt, limit, self._tokenizer.eos_token_id, self._rules)
        else:
            rows = self._beams(features, prompt, limit)
        return [self._written(row, len(row) >= limit, language) for row in rows]

    def _written(self, tokens: list[int], hit_limit: bool, language: str | None) -> Generated:
        if self._rules is None:
            return Generated(self._text(tokens), len(tokens), hit_limit, language, [])
        phrases = [(start, end, self._text(phrase)) for start, end, phrase in self._rules.phrases(tokens)]
        return Generated(self._text(self._rules.text(tokens)), len(tokens), hit_limit, language, phrases)

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
            logits_processor=LogitsProcessorList(
                [TimestampLogitsProcessor(self._rules, len(prompt))] if self._rules else []
            ),
        )
        end = self._tokenizer.eos_token_id
        rows = generated[:, len(prompt) :].tolist()  # padded with the end token
        return [tokens[: tokens.index(end)] if end in tokens else tokens for tokens in rows]

    def _text(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True)).strip()

    def prediction(self, windows: Sequence[AudioWindow], written: Sequence[Generated]) -> Prediction:
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


def _segments(windows: Sequence[AudioWindow], written: Sequence[Generated]) -> list[tuple[float, float, str]]:
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
