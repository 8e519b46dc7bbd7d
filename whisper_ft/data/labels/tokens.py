"""Label tokens: the sequence of tokens that the decoder learns to write for a transcript."""

import re
from collections.abc import Sequence
from typing import Any, Self

from whisper_ft.config.setting import LeadingSpace
from whisper_ft.config.training import LabelsConfig
from whisper_ft.data.labels.languages import whisper_language
from whisper_ft.data.labels.rewrite import LabelNormalizer
from whisper_ft.data.labels.timestamp_tokens import window_times
from whisper_ft.data.labels.transcript import is_blank, text_problem
from whisper_ft.data.labels.window_label import LAST_TIME, PlacedText, WindowLabel, monotone
from whisper_ft.data.types import RejectedError
from whisper_ft.runtime.errors import UsageError
from whisper_ft.scoring.unicode_text import joint

NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")
"""Names of the token for a window without speech; large-v3 renamed it."""
START_OF_PREVIOUS = "<|startofprev|>"
_INSIDE_A_TIMESTAMP = re.compile(r"(?<=<)(?=\|\d+\.\d\d\|>)")


class LabelEncoder:
    """Encodes a text as `<|startoftranscript|><|language|><|task|><|notimestamps|>text<|endoftext|>`.

    The ids come from the generation config of the model and never from the state of the tokenizer, so that rows of
    different languages can follow each other. An English-only model has no tokens for language and task, so it ignores
    these columns.

    A row that cannot be encoded raises RejectedError. A missing or unknown default language, and an unknown default
    task, are the user's settings, so they raise UsageError.

    Parameters
        max_tokens: number of positions of the decoder.
        language: default for rows without a language.
        task: default for rows without a task.
        normalizer: rewrites transcripts before they are encoded.
        found: languages that the rows name themselves. With several of them there need not be a default; a row that
            names none is then unusable.
        leading_space: the setting `labels.leading_space`.
        times: ids of the timestamps of a window; None for all 1,501 of OpenAI's models.
    """

    def __init__(
        self,
        tokenizer: Any,
        generation_config: Any,
        max_tokens: int,
        language: str | None,
        task: str,
        normalizer: LabelNormalizer | None = None,
        found: Sequence[str] = (),
        leading_space: LeadingSpace = "auto",
        times: range | None = None,
    ) -> None:
        self.max_tokens = max_tokens
        self.normalizer = normalizer
        self._tokenizer = tokenizer
        self.start: int = generation_config.decoder_start_token_id
        self.end: int = tokenizer.eos_token_id
        self._no_timestamps: int = generation_config.no_timestamps_token_id
        self.times = range(self._no_timestamps + 1, self._no_timestamps + LAST_TIME + 2) if times is None else times
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        self.no_speech_token = next((vocabulary[name] for name in NO_SPEECH if name in vocabulary), None)
        self.previous_token = vocabulary.get(START_OF_PREVIOUS)
        self._languages: dict[str, int] | None = getattr(generation_config, "lang_to_id", None)
        self._tasks: dict[str, int] | None = getattr(generation_config, "task_to_id", None)
        self.language = language
        """Default language, for rows without a language; None if every row has to name its own."""
        self._fallback = language or next(iter(found), None)
        self._task = task
        self._leading_space = leading_space
        self._bare_space: list[int] = tokenizer.encode(" ", add_special_tokens=False)
        if self.is_multilingual and self._fallback is None:
            raise UsageError("--data.language is missing: this model writes many languages and has no default")
        try:
            self.prompt(self._fallback, task)  # refuses an unknown default now instead of at the first row
        except RejectedError as error:
            raise UsageError(error.detail) from error

    @classmethod
    def of(
        cls,
        model: Any,
        tokenizer: Any,
        language: str | None,
        task: str,
        normalizer: LabelNormalizer | None = None,
        found: Sequence[str] = (),
        leading_space: LeadingSpace = "auto",
    ) -> Self:
        """Build the encoder of a loaded model.

        If `language` is None, it is the only language in `found`, or that of an earlier fine-tuning, or English for an
        English-only model.
        Raises UsageError if the model has no such language or task.
        """
        refuse_all_but_english(model, language, task)
        generation = model.generation_config
        only = None if generation.is_multilingual else "en"
        of_rows = found[0] if only is None and len(found) == 1 else None
        language = language or of_rows or getattr(generation, "language", None) or only
        length, times = model.config.max_target_positions, window_times(model, tokenizer)
        return cls(tokenizer, generation, length, language, task, normalizer, found, leading_space, times)

    @property
    def is_multilingual(self) -> bool:
        """True if the model has tokens for languages and tasks. English-only models do not have such tokens."""
        return bool(self._languages and self._tasks)

    @property
    def languages(self) -> dict[int, str]:
        """Language codes of the model, by token id; empty for an English-only model."""
        return {token: name.strip("<|>") for name, token in (self._languages or {}).items()}

    def prompt(self, language: object = None, task: object = None) -> list[int]:
        """Return the tokens that stand before the text. None or a blank text stands for the default language or task.

        For an English-only model, both are ignored. Raises RejectedError (`unknown_language`, `unknown_task`) if the
        model has no token for the language or task, or if there is no default language.
        """
        if not self._languages or not self._tasks:
            return [self.start, self._no_timestamps]
        return [self.start, self._language_token(language), self._task_token(task), self._no_timestamps]

    def prompt_or_default(self, language: object, task: object) -> tuple[list[int], str | None]:
        """Return the prompt of a row in an evaluation, with the default in place of an unknown language or task.

        A row of an evaluation is never dropped. The second value is the reason code for the first unknown of the two;
        None if language and task are known.
        """
        problem = None
        for _ in ("language", "task"):
            try:
                return self.prompt(language, task), problem
            except RejectedError as error:
                problem = problem or error.reason
                if error.reason == "unknown_language":
                    language = self._fallback
                else:
                    task = None
        return self.prompt(language, task), problem

    def _language_token(self, language: object) -> int:
        language = self.language if is_blank(language) else language
        if language is None:
            raise RejectedError("unknown_language", "the row names no language, and --data.language is not given")
        if not isinstance(language, str):
            raise RejectedError("unknown_language", f"language {language!r}: not a text")
        try:
            code = whisper_language(language)
        except UsageError as error:
            raise RejectedError("unknown_language", str(error)) from error
        token = (self._languages or {}).get(f"<|{code}|>")
        if token is None:
            near = "; its nearest language is zh" if code == "yue" else ""  # yue came with large-v3
            raise RejectedError("unknown_language", f"language {code!r}: this model has no token for it{near}")
        return token

    def _task_token(self, task: object) -> int:
        task = self._task if is_blank(task) else task
        tasks = self._tasks or {}
        if not isinstance(task, str) or task not in tasks:
            raise RejectedError("unknown_task", f"task {task!r}: this model knows {', '.join(sorted(tasks))}")
        return tasks[task]

    def __call__(self, text: object, language: object = None, task: object = None) -> list[int]:
        """Return the tokens of one utterance, without timestamps. Raises RejectedError as `usable_text` does."""
        usable = self.usable_text(text, language, task)
        return self.window([PlacedText(usable, 0, 0)], language, task, timestamps=False).tokens

    def usable_text(self, text: object, language: object = None, task: object = None) -> str:
        """Return the text that is learned for a transcript: stripped, and rewritten by the normaliser.

        Raises RejectedError for a missing text (`bad_label`), an empty one (`empty_label`), more tokens than the
        decoder has positions (`label_too_long`), and for the reasons of `prompt`.
        """
        if problem := text_problem(text):
            raise RejectedError("bad_label", problem)
        text = str(text).strip()
        if not text:
            raise RejectedError("empty_label", "the transcript is empty")
        prompt = self.prompt(language, task)
        if self.normalizer is not None:
            original, text = text, self.normalizer(text, self.language if is_blank(language) else str(language))
            if not text:
                raise RejectedError(
                    "empty_label", f"data.normalizer {self.normalizer.name} leaves nothing of {original!r}"
                )
        # The decoder reads all tokens but the last and predicts all but the first. A token has a byte at least.
        if len(prompt) + len(f" {text}".encode()) > self.max_tokens:
            positions = len(prompt) + len(self.text_tokens(text))
            if positions > self.max_tokens:
                raise RejectedError("label_too_long", f"{positions} label tokens, the decoder has {self.max_tokens}")
        return text

    @property
    def capacity(self) -> int:
        """Largest sum of the `cost` of the texts in a window: the decoder's positions without those of the prompt."""
        return self.max_tokens - len(self.prompt(self._fallback)) + 1

    def cost(self, text: str) -> int:
        """Return the most tokens that a usable text takes in a window: its own, and two timestamps."""
        return max(len(self.text_tokens(text)), len(self._plain(f" {text}"))) + 2

    def window(
        self,
        texts: Sequence[PlacedText],
        language: object = None,
        task: object = None,
        *,
        timestamps: bool,
        prompt: Sequence[int] = (),
    ) -> WindowLabel:
        """Return the label of a window with some usable texts, in the order in which they are said.

        Timestamps that do not fit into the decoder's positions are left out, and so is then a `prompt` (of `previous`).
        The texts are always whole. They fit if the sum of their `cost` is at most `capacity`, or if there is only one.
        """
        tokens = self._timed(texts, language, task) if timestamps and self.times else []
        if not tokens or len(tokens) - 1 > self.max_tokens:
            tokens = self._untimed([text.text for text in texts if text.end is not None], language, task)
        if len(prompt) + len(tokens) - 1 > self.max_tokens:
            prompt = ()
        return WindowLabel([*prompt, *tokens], len(prompt) + 1)

    def no_speech(self) -> WindowLabel:
        """Return the label of a window without speech, for a model that has the token <|nospeech|>.

        OpenAI's models learnt to write this token in place of a language (Radford et al. 2022, arXiv 2212.04356, §2.3).
        Decoders read its probability there. An empty text would teach less, because generation may not begin with the
        end token (`begin_suppress_tokens`).
        """
        assert self.no_speech_token is not None, "refuse_unknown comes first"
        return WindowLabel([self.start, self.no_speech_token, self.end], 1)

    def refuse_unknown(self, settings: LabelsConfig) -> None:
        """Raise UsageError for a share of labels whose tokens the model does not have."""
        needed = {
            "timestamps_share": ("timestamps, such as <|0.00|>", bool(self.times)),
            "prompt_share": (START_OF_PREVIOUS, self.previous_token is not None),
            "no_speech_share": ("<|nospeech|>", self.no_speech_token is not None),
        }
        for name, (tokens, is_known) in needed.items():
            if getattr(settings, name) and not is_known:
                raise UsageError(f"--labels.{name}: this model has no {tokens}; leave it out")

    @property
    def most_previous(self) -> int:
        """Most tokens of a previous text, with `<|startofprev|>`: half of the decoder's positions."""
        return self.max_tokens // 2

    def previous(self, text: str | None) -> list[int]:
        """Return the tokens of a previous text: `<|startofprev|>` and its last tokens; none without text.

        At most 223 tokens of text are kept, one less than half of the decoder's positions, as OpenAI's decoding does.
        """
        text = (text or "").strip()
        if not text or self.previous_token is None or text_problem(text):
            return []
        return [self.previous_token, *self._plain(f" {text}")[1 - self.most_previous :]]

    def _timed(self, texts: Sequence[PlacedText], language: object, task: object) -> list[int]:
        tokens = self.prompt(language, task)[:-1]
        for text in monotone(texts, len(self.times) - 1):
            tokens.append(self.times[text.begin])
            if text.end is not None:
                tokens += [*self.text_tokens(text.text), self.times[text.end]]
        return [*tokens, self.end]

    def _untimed(self, texts: Sequence[str], language: object, task: object) -> list[int]:
        """Tokens of a label without timestamps. The texts keep their own tokens, so their `cost` holds."""
        tokens = self.prompt(language, task)
        for number, text in enumerate(texts):
            tokens += self._plain(joint(texts[number - 1], text) + text) if number else self.text_tokens(text)
        return [*tokens, self.end]

    def text_tokens(self, text: str) -> list[int]:
        """Return the tokens of a stripped text, with the leading space that the setting asks for.

        OpenAI's models write a space first: their own code encodes texts as `" " + text.strip()`
        (openai-whisper, `decoding.py`). A script without spaces has no tokens that begin with one, so the first token
        would be the bare space. Generation never writes it first, because it is in `begin_suppress_tokens`.
        """
        if self._leading_space == "never":
            return self._plain(text)
        spaced = self._plain(f" {text}")
        is_bare = spaced[: len(self._bare_space)] == self._bare_space
        return self._plain(text) if is_bare and self._leading_space == "auto" else spaced

    def text_of(self, label: list[int]) -> list[int]:
        """Return the tokens of the text in a label, without the prompt and the end token."""
        return label[label.index(self._no_timestamps) + 1 : -1]

    def _plain(self, text: str) -> list[int]:
        """Tokens of a text without special tokens: `<|endoftext|>` in a transcript is encoded as its characters.

        Tokens that a user added to the vocabulary without marking them as special are used.
        """
        # `split_special_tokens` splits special tokens. Timestamps are ordinary added tokens in Whisper's tokenizers, so
        # the text is cut inside each timestamp, which is then not found.
        return [
            token
            for part in _INSIDE_A_TIMESTAMP.split(text)
            for token in self._tokenizer.encode(part, add_special_tokens=False, split_special_tokens=True)
        ]


def refuse_all_but_english(model: Any, language: str | None, task: str) -> None:
    """Raise UsageError for a language or task that an English-only model has no tokens for.

    Nothing is refused of a multilingual model.
    """
    if model.generation_config.is_multilingual:
        return
    if task != "transcribe":
        raise UsageError(
            f"--data.task {task}: this model only transcribes; to translate, use one without .en in its name"
        )
    if language and whisper_language(language) != "en":
        raise UsageError(f"--data.language {language}: this model writes English only; use one without .en in its name")
