"""Transcripts to the tokens that the decoder learns to write."""

from typing import Any

from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

from whisper_ft.failure import UsageError
from whisper_ft.window import UnusableError


def whisper_language(language: str) -> str:
    """Whisper's code for a language given as code, locale or name: `be`, `be-BY`, `Belarusian`; else UsageError."""
    wanted = language.strip().lower().replace("_", "-")
    for name in (wanted, wanted.split("-")[0]):
        if code := TO_LANGUAGE_CODE.get(name, name if name in LANGUAGES else None):
            return str(code)
    raise UsageError(f"language {language!r}: not one of Whisper's, such as be, sv, as, en, Belarusian")


class LabelEncoder:
    """Text to `<|startoftranscript|><|language|><|task|><|notimestamps|>text<|endoftext|>`.

    The ids come from the model's generation config and never from the state of the tokenizer, so that rows of
    different languages can follow each other. An English-only model has neither language nor task tokens.
    """

    def __init__(
        self, tokenizer: Any, generation_config: Any, max_tokens: int, language: str | None, task: str
    ) -> None:
        self.max_tokens = max_tokens
        self._tokenizer = tokenizer
        self.start: int = generation_config.decoder_start_token_id
        self._end: int = tokenizer.eos_token_id
        self._no_timestamps: int = generation_config.no_timestamps_token_id
        self._languages: dict[str, int] | None = getattr(generation_config, "lang_to_id", None)
        self._tasks: dict[str, int] | None = getattr(generation_config, "task_to_id", None)
        self.language = language
        """Language of rows that name none."""
        self._task = task
        if self._languages and language is None:
            raise UsageError("--data.language is missing: this model writes many languages and has no default")
        self.prompt(language, task)  # an unknown language is found now, not at the first row

    @property
    def is_multilingual(self) -> bool:
        """False for the English-only models."""
        return bool(self._languages)

    def prompt(self, language: str | None = None, task: str | None = None) -> list[int]:
        """Tokens before the text; None takes the defaults given above."""
        if not self._languages or not self._tasks:
            return [self.start, self._no_timestamps]
        code = whisper_language(language or self.language or "")
        if f"<|{code}|>" not in self._languages:
            raise UsageError(f"language {code!r}: this model has no token for it")
        task = task or self._task
        if task not in self._tasks:
            raise UsageError(f"task {task!r}: this model knows {', '.join(sorted(self._tasks))}")
        return [self.start, self._languages[f"<|{code}|>"], self._tasks[task], self._no_timestamps]

    def generation_options(self, language: str | None = None, task: str | None = None) -> dict[str, str]:
        """Arguments that make `generate` begin with `prompt(language, task)`."""
        if not self._languages:
            return {}
        return {"language": whisper_language(language or self.language or ""), "task": task or self._task}

    def __call__(self, text: str, language: str | None = None, task: str | None = None) -> list[int]:
        """Tokens of one utterance; UnusableError for an empty text or more tokens than the decoder has positions."""
        text = text.strip()
        if not text:
            raise UnusableError("empty_label", "the transcript is empty")
        tokens = [*self.prompt(language, task), *self._tokenizer.encode(text, add_special_tokens=False), self._end]
        # The decoder reads all but the last token and predicts all but the first.
        if len(tokens) - 1 > self.max_tokens:
            raise UnusableError("label_too_long", f"{len(tokens) - 1} label tokens, the decoder has {self.max_tokens}")
        return tokens
