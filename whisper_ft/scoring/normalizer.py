"""Interfaces that a normaliser must have for scoring and label rewriting. The normaliser itself is an argument."""

from dataclasses import dataclass
from typing import Literal, Protocol, Self

Unit = Literal["words", "characters"]


class Normalizer(Protocol):
    """Function that normalises a text. It has an identity, which is recorded with every score."""

    @property
    def name(self) -> str:
        """Name of the rules, such as `golden`."""

    @property
    def language(self) -> str:
        """Code of the language whose rules apply; `und` for an unknown one."""

    @property
    def unit(self) -> Unit:
        """Unit of the headline rate: `characters` for languages written without spaces."""

    @property
    def version(self) -> str:
        """Version of the rules, raised whenever an output changes."""

    @property
    def fingerprint(self) -> str:
        """Hash of rules and data. Scores with different fingerprints are not comparable."""

    def __call__(self, text: str, /) -> str:
        """Return the normalised text."""


class NormalizerFactory(Protocol):
    """Function that returns the normaliser for a name and a language, such as `get_normalizer` of `normalizers.py`."""

    def __call__(self, name: str, language: str | None = None) -> Normalizer:
        """Return the normaliser. Raises ValueError if the name is unknown; None is an unknown language."""


@dataclass(frozen=True)
class NormalizerIdentity:
    """Identity of the normaliser of a score, as `summary.json` records it."""

    name: str
    language: str
    version: str
    fingerprint: str

    @classmethod
    def of(cls, normalizer: Normalizer) -> Self:
        """Copy the identity of a normaliser."""
        return cls(normalizer.name, normalizer.language, normalizer.version, normalizer.fingerprint)
