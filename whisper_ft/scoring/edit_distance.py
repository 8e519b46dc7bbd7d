"""Edit distance between a reference and a hypothesis, counted by kind of error."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein


@dataclass(frozen=True, slots=True)  # slots because every utterance of a test set has two
class ErrorCount:
    """Error counts of one alignment or of many. Counts add up; rates cannot be added, so they cannot be averaged."""

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
        """Sum of substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference_length(self) -> int:
        """Number of words (or characters) of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float | None:
        """Errors per word (or character) of the reference, as a fraction; None if the reference is empty."""
        return self.errors / self.reference_length if self.reference_length else None


def count_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> ErrorCount:
    """Errors of the cheapest alignment. Their sum is unique; rapidfuzz picks one of the equal splits into kinds."""
    kinds = Counter(edit.tag for edit in Levenshtein.editops(reference, hypothesis))
    substitutions, deletions, insertions = kinds["replace"], kinds["delete"], kinds["insert"]
    return ErrorCount(len(reference) - substitutions - deletions, substitutions, deletions, insertions)


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs (reference token, hypothesis token) of the alignment that `count_errors` counts; "" for a missing token."""
    pairs: list[tuple[str, str]] = []
    for edit in Levenshtein.opcodes(reference, hypothesis):
        left = reference[edit.src_start : edit.src_end]
        right = hypothesis[edit.dest_start : edit.dest_end]
        if edit.tag == "delete":
            pairs += [(token, "") for token in left]
        elif edit.tag == "insert":
            pairs += [("", token) for token in right]
        else:  # equal or replace: the same length on both sides
            pairs += zip(left, right, strict=True)
    return pairs


def total(counts: Iterable[ErrorCount]) -> ErrorCount:
    """Sum of the counts."""
    return sum(counts, start=ErrorCount())
