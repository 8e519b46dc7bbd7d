"""Transcripts to the tokens that the decoder learns to write."""

import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any, Self

from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

from whisper_ft.failure import UsageError
from whisper_ft.window import UnusableError

TIMESTAMP = re.compile(r"<\|\d+\.\d\d\|>")
"""The text of a timestamp token."""
_INSIDE_A_TIMESTAMP = re.compile(r"(?<=<)(?=\|\d+\.\d\d\|>)")


# Each of Whisper's codes, then others of the same language: ISO 639-2 and 639-3, withdrawn ones, standard varieties.
_OTHER_CODES = """
af afr; am amh; ar ara arb; as asm; az aze azj; ba bak; be bel; bg bul; bn ben; bo bod; br bre; bs bos; ca cat;
cs ces; cy cym; da dan; de deu; el ell; en eng; es spa; et est ekk; eu eus; fa fas pes; fi fin; fo fao; fr fra;
gl glg; gu guj; ha hau; he heb iw; hi hin; hr hrv; ht hat; hu hun; hy hye; id ind in; is isl; it ita; ja jpn;
jw jv jav; ka kat; kk kaz; km khm; kn kan; ko kor; la lat; lb ltz; ln lin; lt lit; lv lav lvs; mg mlg plt; mi mri;
mk mkd; ml mal; mn mon khk; mr mar; ms msa zsm; mt mlt; my mya; ne nep npi; nl nld; nn nno; no nor nb nob; oc oci;
pa pan; pl pol; ps pus pbt; pt por; ro ron mo; ru rus; sa san; sd snd; si sin; sk slk; sl slv; sn sna; so som; sq sqi;
sr srp; su sun; sv swe; sw swa swh; ta tam; te tel; tg tgk; th tha; tk tuk; tl tgl fil; tr tur; tt tat; uk ukr;
ur urd; uz uzb uzn; vi vie; yi yid ji; yo yor; zh zho cmn
"""
_CODES = {code: entry.split()[0] for entry in _OTHER_CODES.split(";") for code in entry.split()}
_CODES |= {code: code for code in LANGUAGES}
_LOCALE = re.compile(r"([a-z]{2,3})(-[a-z0-9]{1,8})*([.@].*)?")
"""A code, then script, region and the like; POSIX puts an encoding behind."""


def whisper_language(language: str) -> str:
    """Whisper's code for a language given by code, locale, name or token: `be`, `bel`, `be-BY`, `Belarusian`, `<|be|>`.

    UsageError for any other.
    """
    wanted = language.strip().lower().removeprefix("<|").removesuffix("|>").replace("_", "-")
    code = TO_LANGUAGE_CODE.get(wanted.replace("-", " "))
    if code is None and (locale := _LOCALE.fullmatch(wanted)):
        code = _CODES.get(locale[1])
    if code is None:
        near = [word for word in re.findall(r"\w+", wanted) if word in TO_LANGUAGE_CODE]
        near += difflib.get_close_matches(wanted, TO_LANGUAGE_CODE, n=1, cutoff=0.8)  # Kurdish is not Turkish
        hint = f" (did you mean {near[0].title()}?)" if near else ""
        raise UsageError(
            f"language {language!r}: not one of Whisper's{hint}, such as be, be-BY, Belarusian; "
            "one that Whisper lacks can be taught as a near one that it has"
        )
    return str(code)


class Rewriting:
    """What becomes of a transcript before it is learned: a normaliser by name, for the language of the row.

    `get_normalizer(name, language)` gives it; ValueError for a name that it does not know.
    """

    def __init__(self, name: str, get_normalizer: Callable[[str, str | None], Callable[[str], str]]) -> None:
        self.name = name
        self._get_normalizer = get_normalizer
        self._of_language: dict[str | None, Callable[[str], str]] = {None: get_normalizer(name, None)}

    @classmethod
    def named(cls, name: str, get_normalizer: Callable[..., Callable[[str], str]]) -> Self | None:
        """That of `data.normalizer`; None for `keep`, which leaves transcripts as they are to the byte."""
        return None if name == "keep" else cls(name, get_normalizer)

    def __call__(self, text: str, language: str | None) -> str:
        """The text as it is to be written."""
        if language not in self._of_language:
            self._of_language[language] = self._get_normalizer(self.name, language)
        return self._of_language[language](text)

    def told(self, rows: Iterable[tuple[object, str | None]], shown: int = 3) -> list[str]:
        """For people: how many of some (transcript, language) it changes, and the first of them before and after."""
        texts = [(text, language) for text, language in rows if text_problem(text) is None]
        changed = [(text, new) for text, language in texts if (new := self(str(text), language)) != text]
        empty = sum(not new for _, new in changed)
        emptied = f"; nothing is left of {empty}" if empty else ""
        return [
            f"data.normalizer {self.name} changes {len(changed)} of the first {len(texts)} transcripts{emptied}",
            *(f"  {text!r} is learned as {new!r}" for text, new in changed[:shown]),
        ]


class LabelEncoder:
    """Text to `<|startoftranscript|><|language|><|task|><|notimestamps|>text<|endoftext|>`.

    The ids come from the model's generation config and never from the state of the tokenizer, so that rows of
    different languages can follow each other. An English-only model has neither language nor task tokens: what a row
    says of them is not looked at.

    What a row says is not to be trusted: it is checked here, and a row that cannot be used is an UnusableError. The
    defaults are the user's; UsageError if this model does not know them.
    """

    def __init__(
        self,
        tokenizer: Any,
        generation_config: Any,
        max_tokens: int,
        language: str | None,
        task: str,
        rewrite: Rewriting | None = None,
    ) -> None:
        self.max_tokens = max_tokens
        self._rewrite = rewrite
        self._tokenizer = tokenizer
        self.start: int = generation_config.decoder_start_token_id
        self._end: int = tokenizer.eos_token_id
        self._no_timestamps: int = generation_config.no_timestamps_token_id
        self._languages: dict[str, int] | None = getattr(generation_config, "lang_to_id", None)
        self._tasks: dict[str, int] | None = getattr(generation_config, "task_to_id", None)
        self.language = language
        """Language of rows that name none."""
        self._task = task
        if self.is_multilingual and language is None:
            raise UsageError("--data.language is missing: this model writes many languages and has no default")
        try:
            self.prompt(language, task)  # an unknown language is found now, not at the first row
        except UnusableError as unknown:
            raise UsageError(unknown.detail) from unknown

    @classmethod
    def of(cls, model: Any, tokenizer: Any, language: str | None, task: str, rewrite: Rewriting | None = None) -> Self:
        """The encoder of a loaded model; `language` None takes the one it was fine-tuned for or the only one it has."""
        refuse_all_but_english(model, language, task)
        generation = model.generation_config
        only = None if generation.is_multilingual else "en"
        language = language or getattr(generation, "language", None) or only
        return cls(tokenizer, generation, model.config.max_target_positions, language, task, rewrite)

    @property
    def is_multilingual(self) -> bool:
        """False for the English-only models."""
        return bool(self._languages and self._tasks)

    @property
    def languages(self) -> dict[int, str]:
        """Code of each language that the model has a token for, by the token."""
        return {token: name.strip("<|>") for name, token in (self._languages or {}).items()}

    def prompt(self, language: object = None, task: object = None) -> list[int]:
        """Tokens before the text; None takes the defaults given above.

        UnusableError (`unknown_language`, `unknown_task`) for one that this model has no token for.
        """
        if not self._languages or not self._tasks:
            return [self.start, self._no_timestamps]
        return [self.start, self._language_token(language), self._task_token(task), self._no_timestamps]

    def prompt_or_default(self, language: object, task: object) -> tuple[list[int], str | None]:
        """The prompt of a row that has to be transcribed whatever it says: with the default for what is unknown.

        The second is the reason code of what was unknown, None if nothing was.
        """
        problem = None
        for _ in ("language", "task"):
            try:
                return self.prompt(language, task), problem
            except UnusableError as unknown:
                problem = problem or unknown.reason
                if unknown.reason == "unknown_language":
                    language = None
                else:
                    task = None
        return self.prompt(language, task), problem

    def _language_token(self, language: object) -> int:
        language = self.language if _is_blank(language) else language
        if not isinstance(language, str):
            raise UnusableError("unknown_language", f"language {language!r}: not a text")
        try:
            code = whisper_language(language)
        except UsageError as unknown:
            raise UnusableError("unknown_language", str(unknown)) from unknown
        token = (self._languages or {}).get(f"<|{code}|>")
        if token is None:
            near = "; zh is the nearest that it has" if code == "yue" else ""  # which came with large-v3
            raise UnusableError("unknown_language", f"language {code!r}: this model has no token for it{near}")
        return token

    def _task_token(self, task: object) -> int:
        task = self._task if _is_blank(task) else task
        tasks = self._tasks or {}
        if not isinstance(task, str) or task not in tasks:
            raise UnusableError("unknown_task", f"task {task!r}: this model knows {', '.join(sorted(tasks))}")
        return tasks[task]

    def __call__(self, text: object, language: object = None, task: object = None) -> list[int]:
        """Tokens of one utterance.

        UnusableError for no text (`bad_label`), an empty one, more tokens than the decoder has positions, and where
        `prompt` raises it.
        """
        if problem := text_problem(text):
            raise UnusableError("bad_label", problem)
        text = str(text).strip()
        if not text:
            raise UnusableError("empty_label", "the transcript is empty")
        prompt = self.prompt(language, task)
        if self._rewrite is not None:
            written, text = text, self._rewrite(text, self.language if _is_blank(language) else str(language))
            if not text:
                raise UnusableError(
                    "empty_label", f"data.normalizer {self._rewrite.name} leaves nothing of {written!r}"
                )
        tokens = [*prompt, *self._plain(text), self._end]
        # The decoder reads all but the last token and predicts all but the first.
        if len(tokens) - 1 > self.max_tokens:
            raise UnusableError("label_too_long", f"{len(tokens) - 1} label tokens, the decoder has {self.max_tokens}")
        return tokens

    def _plain(self, text: str) -> list[int]:
        """Tokens of a text in which nothing is a command: `<|endoftext|>` in a transcript is thirteen characters.

        Tokens that a user added to the vocabulary, and did not call special, are used.
        """
        # `split_special_tokens` takes special tokens apart, but in Whisper's tokenizers timestamps are ordinary added
        # tokens: they are not found in a text that is cut inside them.
        return [
            token
            for part in _INSIDE_A_TIMESTAMP.split(text)
            for token in self._tokenizer.encode(part, add_special_tokens=False, split_special_tokens=True)
        ]


def refuse_all_but_english(model: Any, language: str | None, task: str) -> None:
    """UsageError where a user asks of an English-only model what it has no tokens for."""
    if model.generation_config.is_multilingual:
        return
    if task != "transcribe":
        raise UsageError(f"--data.task {task}: this model only transcribes; one without .en in its name translates")
    if language and whisper_language(language) != "en":
        raise UsageError(
            f"--data.language {language}: this model writes English only; take one without .en in its name"
        )


def text_problem(text: object) -> str | None:
    """Why a transcript is none, for people; None if it is one."""
    if not isinstance(text, str):
        return f"the transcript is not a text but {type(text).__name__}"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "the transcript has half a character (a lone surrogate)"
    return None


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
