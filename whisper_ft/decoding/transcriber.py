"""Transcriber: decodes log-mel windows with one model, and joins the windows of an utterance into its prediction."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from statistics import fmean

import torch
from transformers import PreTrainedTokenizerBase, WhisperForConditionalGeneration

from whisper_ft.config.evaluation import DecodingConfig, Precision
from whisper_ft.data.audio.log_mel import pad_windows
from whisper_ft.data.labels.timestamp_tokens import timestamp_ids
from whisper_ft.data.labels.tokens import START_OF_PREVIOUS, LabelEncoder
from whisper_ft.data.labels.transcript import text_problem
from whisper_ft.data.types import Row
from whisper_ft.decoding.beam import BeamSearch
from whisper_ft.decoding.confidence import Thresholds, TranscriptConfidence
from whisper_ft.decoding.greedy import Decoded, GreedyDecoder
from whisper_ft.decoding.long_form import AudioWindow
from whisper_ft.decoding.sampling import Sampler
from whisper_ft.decoding.teacher_forced import label_losses
from whisper_ft.decoding.timestamp_check import TimestampCheck
from whisper_ft.decoding.timestamps import TimestampRules
from whisper_ft.decoding.window_transcript import (
    TimedPhrase,
    WindowTranscript,
    reference_times,
    segment_logprobs_of,
    segments_of,
    window_confidence_of,
)
from whisper_ft.decoding.word_times import Spoken, WordAligner
from whisper_ft.models.whisper import AUTOCAST, FRAMES_PER_POSITION
from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.rng import number_of, uniforms
from whisper_ft.scoring.scores import Prediction

FRAMES_AFTER_SOUND = 3
"""Log-mel frames after the last sample of a window: two that still cover it, and the frame of silence."""


class Transcriber:
    """A model with everything that decoding needs: prompt, search, timestamps, and the way from tokens to text.

    Parameters
        model: the model, in evaluation mode.
        tokenizer: its tokenizer.
        encode: makes the prompt of a row from its language and task.
        settings: search, limits, prompt text and timestamps.
        precision: number format of the computation.
        words: also find the times of the words of each window.
        is_long: the windows are of a set of long recordings: also check timestamps, and keep the times of references.
        detects_beside: also detect the language of each window, which has no effect on its text.

    Raises UsageError if the model lacks tokens for one of the settings, or has impossible alignment heads for `words`.
    """

    def __init__(
        self,
        model: WhisperForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        encode: LabelEncoder,
        settings: DecodingConfig,
        precision: Precision,
        words: bool = False,
        is_long: bool = False,
        detects_beside: bool = False,
    ) -> None:
        self._model, self._tokenizer, self._encode, self._settings = model, tokenizer, encode, settings
        self._precision, self._detects_beside = precision, detects_beside
        self._frames = FRAMES_PER_POSITION * model.config.max_source_positions
        self._context = _context_tokens(
            tokenizer, encode.previous_token, settings.prompt, model.config.max_target_positions // 2
        )
        if settings.detect_language and not encode.is_multilingual:
            raise UsageError("--decoding.detect_language: this model has a single language; set it to false")
        suppressed = list(model.generation_config.suppress_tokens or ())
        self._rules = TimestampRules.of(model, tokenizer) if settings.timestamps else None
        if self._rules is None:
            # A model that has learned little may write timestamps even when prompted with <|notimestamps|>.
            suppressed += timestamp_ids(model, tokenizer)
        if settings.no_speech_threshold is not None and encode.no_speech_token is None:
            raise UsageError(
                f"--{settings.SECTION}.no_speech_threshold: this model's tokenizer has no <|nospeech|>; leave it out"
            )
        self._thresholds = Thresholds.of(settings)
        first = model.generation_config.begin_suppress_tokens or ()
        self._greedy = GreedyDecoder(model, suppressed, first, encode.no_speech_token)
        self._beams = None
        if settings.num_beams > 1:
            self._beams = BeamSearch(model, settings.num_beams, suppressed, tokenizer.eos_token_id, self._rules)
        self._aligner = WordAligner(model, tokenizer) if words else None
        self._is_long, self._check = is_long, TimestampCheck.of(model, tokenizer) if is_long else None

    @property
    def notes(self) -> list[str]:
        """Lines for the user about this model."""
        return self._aligner.notes if self._aligner else []

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

        With `with_loss`, each window that is a whole, decoded utterance also gets the loss of its reference, and with
        `words` each window gets its words. The model must be in evaluation mode, as `inference` sets it.
        """
        device = self._model.device
        features = pad_windows([window.features for window in windows], self._frames).to(device)  # [B, M, T]
        with torch.autocast(device.type, AUTOCAST[self._precision], enabled=self._precision != "fp32"):
            states = self._greedy.encode(features)
            generate = self._generate_by_language if self._settings.detect_language else self._generate_rows
            transcripts = generate(windows, states, prompt)
            if self._detects_beside:
                codes = [self._encode.languages[token] for token in self._detected(states)]
                transcripts = [part._replace(language=code) for part, code in zip(transcripts, codes, strict=True)]
            if self._aligner is not None:
                found = self._aligner(states, [self._spoken(*pair) for pair in zip(windows, transcripts, strict=True)])
                transcripts = [part._replace(words=own) for part, own in zip(transcripts, found, strict=True)]
            return self._with_losses(windows, transcripts, states) if self._settings.with_loss else transcripts

    def _with_losses(
        self, windows: Sequence[AudioWindow], transcripts: list[WindowTranscript], states: torch.Tensor
    ) -> list[WindowTranscript]:
        """Add the loss of the reference to the transcript of each window that holds a whole, decoded utterance."""
        whole = [index for index, window in enumerate(windows) if window.windows == 1 and window.problem is None]
        losses = label_losses(self._model, self._encode, states[whole], [windows[index].row for index in whole])
        found = dict(zip(whole, losses, strict=True))
        return [part._replace(loss=found.get(index)) for index, part in enumerate(transcripts)]

    def _generate_by_language(
        self, windows: Sequence[AudioWindow], states: torch.Tensor, prompt: list[int]
    ) -> list[WindowTranscript]:
        """Detect the language of each row, then transcribe the rows of each language together."""
        detected = self._detected(states)
        transcripts: dict[int, WindowTranscript] = {}
        language_at = len(self._context) + 1
        for token in dict.fromkeys(detected):
            rows = [row for row, language in enumerate(detected) if language == token]
            of_language = [*prompt[:language_at], token, *prompt[language_at + 1 :]]
            code = self._encode.languages[token]
            generated = self._generate_rows([windows[row] for row in rows], states[rows], of_language, code)
            transcripts |= zip(rows, generated, strict=True)
        return [transcripts[row] for row in range(len(detected))]

    def _detected(self, states: torch.Tensor) -> list[int]:
        """Return the token of the language that is spoken in each row of encoder output."""
        return self._greedy.detect_language(states, self._encode.start, [*self._encode.languages])

    def _generate_rows(
        self, windows: Sequence[AudioWindow], states: torch.Tensor, prompt: list[int], language: str | None = None
    ) -> list[WindowTranscript]:
        """Transcribe windows with encoder outputs [B, S, D] and one prompt, each in as many attempts as it needs.

        The random numbers of an attempt depend on the row's id, the window's number and the attempt, and on nothing
        else. As in OpenAI's decoding, there are beams at temperature 0 only.
        """
        room = self._model.config.max_target_positions - len(prompt)
        limit, end = min(self._settings.max_new_tokens or room, room), self._tokenizer.eos_token_id
        if self._beams is None:
            rows = self._greedy(states, prompt, limit, end, self._rules)
        else:
            found = self._beams(states, prompt, limit)
            rows = self._greedy.score(states, prompt, found, limit, end, self._rules)
        attempts = [[self._to_transcript(row, limit, language)] for row in rows]
        for number, temperature in enumerate(self._settings.temperatures, start=1):
            again = [n for n, made in enumerate(attempts) if self._thresholds.is_doubtful(made[-1].confidence)]
            if not again:
                break
            keys = [(number_of(windows[n].row.id), windows[n].number, number) for n in again]
            sampler = Sampler(temperature, [uniforms(limit, *key) for key in keys])
            rows = self._greedy(states[again], prompt, limit, end, self._rules, sampler)
            for n, row in zip(again, rows, strict=True):
                attempts[n].append(self._to_transcript(row, limit, language, temperature))
        parts = [made[self._thresholds.preferred([part.confidence for part in made])] for made in attempts]
        if self._check is not None:
            checked = zip(parts, self._check(states, prompt, limit), strict=True)
            parts = [part._replace(timestamps=valid) for part, valid in checked]
        return [part.silenced() if self._thresholds.is_silence(part.confidence) else part for part in parts]

    def _to_transcript(
        self, decoded: Decoded, limit: int, language: str | None, temperature: float = 0.0
    ) -> WindowTranscript:
        tokens = decoded.tokens
        text = self._decode_text(self._rules.text(tokens) if self._rules else tokens)
        confidence = TranscriptConfidence.of(decoded, text, temperature)
        return WindowTranscript(text, tokens, len(tokens) >= limit, language, self._phrases(decoded), confidence)

    def _phrases(self, decoded: Decoded) -> list[TimedPhrase]:
        """Return the phrases of a transcript; [] without timestamps."""
        if (rules := self._rules) is None:
            return []
        pairs = zip(decoded.tokens, decoded.logprobs, strict=False)  # the last log-probability may be of the end token
        logprobs = iter([logprob for token, logprob in pairs if not rules.is_timestamp(token)])
        return [
            TimedPhrase(start, end, self._decode_text(tokens), fmean(islice(logprobs, len(tokens))))
            for start, end, tokens in rules.phrases(decoded.tokens)
        ]

    def _spoken(self, window: AudioWindow, transcript: WindowTranscript) -> Spoken:
        """Return the tokens of a window for the aligner, phrase by phrase and without timestamps."""
        prompt, _ = self._encode.prompt_or_default(window.row.language, window.row.task)
        languages = self._encode.languages
        if transcript.language is not None:
            prompt[1] = next(token for token, code in languages.items() if code == transcript.language)
        tasks = getattr(self._model.generation_config, "task_to_id", None) or {}
        language = "en" if tasks.get("translate") in prompt else languages.get(prompt[1], "en")
        phrases = [phrase.tokens for phrase in self._rules.phrases(transcript.ids)] if self._rules else [transcript.ids]
        frames = window.features.shape[1]
        frames -= 0 if frames == self._frames else FRAMES_AFTER_SOUND
        positions = max(frames // FRAMES_PER_POSITION, 1)
        return Spoken(prompt, phrases if transcript.is_speech else [], positions, language)

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
            segments=segments_of(windows, transcripts) if self._rules else None,
            segment_logprobs=segment_logprobs_of(transcripts) if self._rules else None,
            window_confidence=window_confidence_of(windows, transcripts, is_long=self._is_long),
            ref_segments=reference_times(row, utterance.seconds) if self._is_long else None,
            problem=utterance.problem or row.unread_part or self._label_problem(row),
            columns=row.columns,
            loss=transcripts[0].loss and transcripts[0].loss.total / transcripts[0].loss.tokens,
            label_tokens=transcripts[0].loss and transcripts[0].loss.tokens,
        )

    def _label_problem(self, row: Row) -> str | None:
        """Return the reason code for an unusable language, task or text of a row; None if all can be used."""
        _, unknown = self._encode.prompt_or_default(row.language, row.task)
        return unknown or ("bad_label" if text_problem(row.text) else None)


def _context_tokens(tokenizer: PreTrainedTokenizerBase, start: int | None, prompt: str, max_tokens: int) -> list[int]:
    """Return the tokens of `decoding.prompt`, which stand before the transcript like OpenAI's `prompt`.

    `start` is the token before them. An empty prompt has no tokens. Raises UsageError if there are `max_tokens` or
    more; OpenAI's limit is half of the decoder's positions.
    """
    if not prompt.strip():
        return []
    if start is None:
        raise UsageError(f"--decoding.prompt: this model's tokenizer has no {START_OF_PREVIOUS}; leave the prompt out")
    tokens = tokenizer.encode(f" {prompt.strip()}", add_special_tokens=False, split_special_tokens=True)
    if len(tokens) >= max_tokens:
        raise UsageError(f"--decoding.prompt: has {len(tokens)} tokens; this model takes fewer than {max_tokens}")
    return [start, *tokens]
