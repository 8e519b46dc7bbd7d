"""Errors of a text against its reference: counted along the cheapest alignment, and summed as counts."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein


@dataclass(frozen=True, slots=True)  # there are two for each utterance of a test set
class ErrorCount:
    """Counts of one alignment, or of many summed. There is no way to add rates, so none can be averaged by mistake."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    def __add__(self, other: "ErrorCount") -> "ErrorCount":
        return ErrorCount(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference_length(self) -> int:
        """Words (or characters) that the reference has."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float | None:
        """Errors per word (or character) of the reference, as a fraction; None where the reference has none."""
        return self.errors / self.reference_length if self.reference_length else None


def count_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> ErrorCount:
    """The errors of the cheapest alignment. Their sum is unique; among equals, rapidfuzz picks the split into kinds."""
    kinds = Counter(edit.tag for edit in Levenshtein.editops(reference, hypothesis))
    substitutions, deletions, insertions = kinds["replace"], kinds["delete"], kinds["insert"]
    return ErrorCount(len(reference) - substitutions - deletions, substitutions, deletions, insertions)


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs (from the reference, from the hypothesis) along the alignment that `count_errors` counts; "" for none."""
    pairs: list[tuple[str, str]] = []
    for edit in Levenshtein.opcodes(reference, hypothesis):
        left = reference[edit.src_start : edit.src_end]
        right = hypothesis[edit.dest_start : edit.dest_end]
        if edit.tag == "delete":
            pairs += [(token, "") for token in left]
        elif edit.tag == "insert":
            pairs += [("", token) for token in right]
        else:  # equal and replace: as long on both sides
            pairs += zip(left, right, strict=True)
    return pairs


def total(counts: Iterable[ErrorCount]) -> ErrorCount:
    """The sum of the counts."""
    return sum(counts, start=ErrorCount())
