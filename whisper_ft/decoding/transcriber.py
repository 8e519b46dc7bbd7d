"""Transcriber: decodes log-mel windows with one model, and joins the windows of an utterance into its prediction."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from transformers import (
    GenerationMixin,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
    WhisperForConditionalGeneration,
)
from transformers.modeling_outputs import BaseModelOutput

from whisper_ft.config.evaluation import DecodingConfig, Precision
from whisper_ft.data.audio.log_mel import pad_windows
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.labels.transcript import text_problem
from whisper_ft.data.types import Row
from whisper_ft.decoding.greedy import GreedyDecoder
from whisper_ft.decoding.long_form import AudioWindow
from whisper_ft.decoding.teacher_forced import LabelLoss, label_losses
from whisper_ft.decoding.timestamps import TimestampLogitsProcessor, TimestampRules, timestamp_ids
from whisper_ft.models.whisper import AUTOCAST, FRAMES_PER_POSITION
from whisper_ft.runtime.errors import UsageError
from whisper_ft.scoring.scores import Prediction

START_OF_PREVIOUS = "<|startofprev|>"


class WindowTranscript(NamedTuple):
    """Transcript of one window, with the number of its tokens."""

    text: str
    tokens: int
    hit_limit: bool
    language: str | None  # code, if it was detected
    loss: LabelLoss | None  # of the reference, if losses are computed
    phrases: list[tuple[float, float | None, str]]  # (start, end, text) in seconds of the window, with timestamps only


class Transcriber:
    """A model with everything that decoding needs: prompt, search, timestamps, and the way from tokens to text.

    Parameters
        model: the model, in evaluation mode.
        tokenizer: its tokenizer.
        encode: makes the prompt of a row from its language and task.
        settings: search, limits, prompt text and timestamps.
        precision: number format of the computation.

    Raises UsageError if the model lacks tokens for one of the settings.
    """

    def __init__(
        self,
        model: WhisperForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        encode: LabelEncoder,
        settings: DecodingConfig,
        precision: Precision,
    ) -> None:
        self._model, self._tokenizer, self._encode, self._settings = model, tokenizer, encode, settings
        self._precision = precision
        self._frames = FRAMES_PER_POSITION * model.config.max_source_positions
        self._context = _context_tokens(tokenizer, settings.prompt, model.config.max_target_positions // 2)
        if settings.detect_language and not encode.is_multilingual:
            raise UsageError("--decoding.detect_language: this model has a single language; set it to false")
        self._generation_config = copy.deepcopy(model.generation_config)
        self._generation_config.num_beams = settings.num_beams
        suppressed = list(model.generation_config.suppress_tokens or ())
        self._rules = TimestampRules.of(model, tokenizer) if settings.timestamps else None
        if self._rules is None:
            # A model that has learned little may write timestamps even when prompted with <|notimestamps|>.
            suppressed += timestamp_ids(model, tokenizer)
        self._generation_config.suppress_tokens = suppressed
        self._greedy = GreedyDecoder(model, suppressed, model.generation_config.begin_suppress_tokens or ())

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Put the model into evaluation mode for the duration of a block, and then back into the mode it had before."""
        was_training = self._model.training
        self._model.eval()
        try:
            yield
        finally:
            self._model.train(was_training)

    def prompt(self, window: AudioWindow) -> list[int]:
        """Return the tokens that stand before the text of a window. Windows with equal prompts can share a batch."""
        prompt = self._encode.prompt_or_default(window.row.language, window.row.task)[0]
        return [*self._context, *(prompt[:-1] if self._rules else prompt)]  # the last token is <|notimestamps|>

    @torch.inference_mode()
    def generate(self, windows: Sequence[AudioWindow], prompt: list[int]) -> list[WindowTranscript]:
        """Transcribe windows that share a prompt, and return their transcripts in the same order.

        With `with_loss`, each window that is a whole, decoded utterance also gets the loss of its reference. The model
        must be in evaluation mode, as `inference` sets it.
        """
        device = self._model.device
        features = pad_windows([window.features for window in windows], self._frames).to(device)  # [B, M, T]
        with torch.autocast(device.type, AUTOCAST[self._precision], enabled=self._precision != "fp32"):
            states = self._greedy.encode(features)
            by_language = self._settings.detect_language
            transcripts = (
                self._generate_by_language(states, prompt) if by_language else self._generate_rows(states, prompt, None)
            )
            return self._with_losses(windows, transcripts, states) if self._settings.with_loss else transcripts

    def _with_losses(
        self, windows: Sequence[AudioWindow], transcripts: list[WindowTranscript], states: torch.Tensor
    ) -> list[WindowTranscript]:
        """Add the loss of the reference to the transcript of each window that holds a whole, decoded utterance."""
        whole = [index for index, window in enumerate(windows) if window.windows == 1 and window.problem is None]
        losses = label_losses(self._model, self._encode, states[whole], [windows[index].row for index in whole])
        found = dict(zip(whole, losses, strict=True))
        return [part._replace(loss=found.get(index)) for index, part in enumerate(transcripts)]

    def _generate_by_language(self, states: torch.Tensor, prompt: list[int]) -> list[WindowTranscript]:
        """Detect the language of each row, then transcribe the rows of each language together."""
        detected = self._greedy.detect_language(states, self._encode.start, [*self._encode.languages])
        transcripts: dict[int, WindowTranscript] = {}
        language_at = len(self._context) + 1
        for token in dict.fromkeys(detected):
            rows = [row for row, language in enumerate(detected) if language == token]
            of_language = [*prompt[:language_at], token, *prompt[language_at + 1 :]]
            code = self._encode.languages[token]
            generated = self._generate_rows(states[rows], of_language, code)
            transcripts |= zip(rows, generated, strict=True)
        return [transcripts[row] for row in range(len(detected))]

    def _generate_rows(self, states: torch.Tensor, prompt: list[int], language: str | None) -> list[WindowTranscript]:
        """Transcribe encoder outputs [B, S, D] with one prompt."""
        room = self._model.config.max_target_positions - len(prompt)
        limit = min(self._settings.max_new_tokens or room, room)
        if self._settings.num_beams == 1:
            rows = self._greedy(states, prompt, limit, self._tokenizer.eos_token_id, self._rules)
        else:
            rows = self._beam_search(states, prompt, limit)
        return [self._to_transcript(tokens, len(tokens) >= limit, language) for tokens in rows]

    def _beam_search(self, states: torch.Tensor, prompt: list[int], limit: int) -> list[list[int]]:
        """Return the tokens of each row by beam search, without the end token.

        `GenerationMixin.generate` is called instead of Whisper's own `generate`, which is made for hours of audio.
        Whisper's own takes any token after <|notimestamps|>, even one that a user added, for the end of a segment. It
        then drops the rest and decodes the window again. `GenerationMixin` begins with exactly the prompt of training.
        """
        # max_length counts the prompt. With max_new_tokens, transformers warns about the max_length of the config.
        self._generation_config.max_length = len(prompt) + limit
        generated = GenerationMixin.generate(
            self._model,
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            # All positions count, including padding, as in training; transformers warns if there is no mask.
            attention_mask=torch.ones(states.shape[:2], device=states.device),
            decoder_input_ids=torch.tensor([prompt], device=states.device).expand(len(states), -1),
            generation_config=self._generation_config,
            logits_processor=LogitsProcessorList(
                [TimestampLogitsProcessor(self._rules, len(prompt))] if self._rules else []
            ),
        )
        end = self._tokenizer.eos_token_id
        rows = generated[:, len(prompt) :].tolist()  # padded with the end token
        return [tokens[: tokens.index(end)] if end in tokens else tokens for tokens in rows]

    def _to_transcript(self, tokens: list[int], hit_limit: bool, language: str | None) -> WindowTranscript:
        if self._rules is None:
            return WindowTranscript(self._decode_text(tokens), len(tokens), hit_limit, language, None, [])
        phrases = [(start, end, self._decode_text(phrase)) for start, end, phrase in self._rules.phrases(tokens)]
        text = self._decode_text(self._rules.text(tokens))
        return WindowTranscript(text, len(tokens), hit_limit, language, None, phrases)

    def _decode_text(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True)).strip()

    def to_prediction(self, windows: Sequence[AudioWindow], transcripts: Sequence[WindowTranscript]) -> Prediction:
        """Join the transcripts of all windows of an utterance, in their order, into its prediction.

        A text that cannot be a reference becomes ""; `problem` then names the reason, as for unusable audio.
        """
        utterance, row = windows[0], windows[0].row
        language = row.language if row.language and isinstance(row.language, str) else self._encode.language
        return Prediction(
            id=row.id,
            ref=row.text if text_problem(row.text) is None else "",
            hyp=" ".join(filter(None, (transcript.text for transcript in transcripts))),
            audio_seconds=utterance.seconds,
            hyp_tokens=sum(transcript.tokens for transcript in transcripts),
            hit_token_limit=any(transcript.hit_limit for transcript in transcripts),
            language=language,
            detected_language=next((transcript.language for transcript in transcripts if transcript.language), None),
            speaker=row.speaker,
            windows=len(transcripts),
            segments=_segments(windows, transcripts) if self._rules else None,
            problem=utterance.problem or self._label_problem(row),
            columns=row.columns,
            loss=transcripts[0].loss and transcripts[0].loss.total / transcripts[0].loss.tokens,
            label_tokens=transcripts[0].loss and transcripts[0].loss.tokens,
        )

    def _label_problem(self, row: Row) -> str | None:
        """Return the reason code for an unusable language, task or text of a row; None if all can be used."""
        _, unknown = self._encode.prompt_or_default(row.language, row.task)
        return unknown or ("bad_label" if text_problem(row.text) else None)


def _context_tokens(tokenizer: PreTrainedTokenizerBase, prompt: str, max_tokens: int) -> list[int]:
    """Return the tokens of `decoding.prompt`, which stand before the transcript like OpenAI's `prompt`.

    An empty prompt has no tokens. Raises UsageError if there are `max_tokens` or more; OpenAI's limit is half of the
    decoder's positions.
    """
    if not prompt.strip():
        return []
    start = tokenizer.convert_tokens_to_ids(START_OF_PREVIOUS)
    if start is None or (start == tokenizer.unk_token_id and tokenizer.unk_token != START_OF_PREVIOUS):
        raise UsageError(f"--decoding.prompt: this model's tokenizer has no {START_OF_PREVIOUS}; leave the prompt out")
    tokens = tokenizer.encode(f" {prompt.strip()}", add_special_tokens=False, split_special_tokens=True)
    if len(tokens) >= max_tokens:
        raise UsageError(f"--decoding.prompt: has {len(tokens)} tokens; this model takes fewer than {max_tokens}")
    return [start, *tokens]


def _segments(
    windows: Sequence[AudioWindow], transcripts: Sequence[WindowTranscript]
) -> list[tuple[float, float, str]]:
    """Return the phrases of all windows as (start, end, text), in seconds of the recording.

    A phrase without an end lasts until its window ends.
    """
    window_ends = [*(window.begin_seconds for window in windows[1:]), windows[0].seconds]
    segments = []
    for window, transcript, window_end in zip(windows, transcripts, window_ends, strict=True):
        for start, end, text in transcript.phrases:
            until = window_end if end is None else min(window.begin_seconds + end, window_end)
            segments.append((round(min(window.begin_seconds + start, until), 2), round(until, 2), text))
    return segments
