"""Normalisation of transcripts before they are learned."""

from collections.abc import Iterable
from typing import Self

from whisper_ft.data.labels.transcript import text_problem
from whisper_ft.scoring.normalizer import Normalizer, NormalizerFactory


class LabelNormalizer:
    """What becomes of a transcript before it is learned: a normaliser by name, for the language of the row.

    `get_normalizer(name, language)` gives it; ValueError for a name that it does not know.
    """

    def __init__(self, name: str, get_normalizer: NormalizerFactory) -> None:
        self.name = name
        self._get_normalizer = get_normalizer
        self._of_language: dict[str | None, Normalizer] = {None: get_normalizer(name, None)}

    @classmethod
    def named(cls, name: str, get_normalizer: NormalizerFactory) -> Self | None:
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
