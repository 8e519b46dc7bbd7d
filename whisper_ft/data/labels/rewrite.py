"""Normalisation of transcripts before they are learned."""

from collections.abc import Iterable
from typing import Self

from whisper_ft.data.labels.transcript import text_problem
from whisper_ft.scoring.normalizer import Normalizer, NormalizerFactory


class LabelNormalizer:
    """Rewrites transcripts before they are learned, by a named normaliser for the language of each row.

    `get_normalizer(name, language)` makes the normaliser and raises ValueError for an unknown name.
    """

    def __init__(self, name: str, get_normalizer: NormalizerFactory) -> None:
        self.name = name
        self._get_normalizer = get_normalizer
        self._of_language: dict[str | None, Normalizer] = {None: get_normalizer(name, None)}

    @classmethod
    def named(cls, name: str, get_normalizer: NormalizerFactory) -> Self | None:
        """Label normaliser for a value of `data.normalizer`; None for `keep`, which changes nothing in a transcript.

        Raises ValueError for an unknown name.
        """
        if name == "keep":
            return None
        try:
            return cls(name, get_normalizer)
        except ValueError as error:
            raise ValueError(f"{error}, or keep for transcripts as they are") from error

    def __call__(self, text: str, language: str | None) -> str:
        """Return the text that the model learns to write for a transcript; it may be empty.

        None as the language stands for a normaliser that is for no language in particular.
        """
        if language not in self._of_language:
            self._of_language[language] = self._get_normalizer(self.name, language)
        return self._of_language[language](text)

    def examples(self, rows: Iterable[tuple[object, str | None]], limit: int = 3) -> list[str]:
        """Return lines for the user: how many transcripts change, how many become empty, and the first `limit` changes.

        Each row is a pair (transcript, language). A transcript that is not a valid text is not counted.
        """
        texts = [(text, language) for text, language in rows if text_problem(text) is None]
        changed = [(text, new) for text, language in texts if (new := self(str(text), language)) != text]
        empty = sum(not new for _, new in changed)
        emptied = f"; {empty} of them become empty" if empty else ""
        return [
            f"data.normalizer {self.name} changes {len(changed)} of the first {len(texts)} transcripts{emptied}",
            *(f"  {text!r} is learned as {new!r}" for text, new in changed[:limit]),
        ]
