"""Interfaces of a normaliser, for scoring and label rewriting. The implementation is passed in as an argument."""

from dataclasses import dataclass
from typing import Literal, Protocol, Self

Unit = Literal["words", "characters"]


class Normalizer(Protocol):
    """A function from a text to its normalised form, with an identity that is recorded beside every score."""

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
    """A function that makes the normaliser of a name for a language, as `get_normalizer` of `normalizers.py` does."""

    def __call__(self, name: str, language: str | None = None) -> Normalizer:
        """Return the normaliser; ValueError if the name is unknown."""


@dataclass(frozen=True)
class NormalizerIdentity:
    """The normaliser of a score as `summary.json` records it."""

    name: str
    language: str
    version: str
    fingerprint: str

    @classmethod
    def of(cls, normalizer: Normalizer) -> Self:
        """Copy the identity of a normaliser."""
        return cls(normalizer.name, normalizer.language, normalizer.version, normalizer.fingerprint)
