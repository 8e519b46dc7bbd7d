"""Edit distance between a reference and a hypothesis, counted by kind of error."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein


@dataclass(frozen=True, slots=True)  # slots because every utterance of a test set has two
class ErrorCount:
    """Hits, substitutions, deletions and insertions, in words or in characters, of one utterance or of many.

    Add the counts of several utterances, then take `rate` of the sum, because rates cannot be added.
    """

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
    """Count the errors of a cheapest alignment. Their sum is unique.

    Several alignments may be equally cheap and differ in the kinds of errors; rapidfuzz picks one of them.
    """
    kinds = Counter(edit.tag for edit in Levenshtein.editops(reference, hypothesis))
    substitutions, deletions, insertions = kinds["replace"], kinds["delete"], kinds["insert"]
    return ErrorCount(len(reference) - substitutions - deletions, substitutions, deletions, insertions)


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[str, str]]:
    """Return (reference token, hypothesis token) for each place of an alignment; "" stands for a missing token.

    The alignment is the one that `count_errors` counts.
    """
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


def deleted_places(reference: Sequence[str], hypothesis: Sequence[str]) -> list[int]:
    """Return the places in the reference of its deleted tokens, in the alignment that `count_errors` counts."""
    return [edit.src_pos for edit in Levenshtein.editops(reference, hypothesis) if edit.tag == "delete"]


def total(counts: Iterable[ErrorCount]) -> ErrorCount:
    """Add up error counts; the sum of none is zero."""
    return sum(counts, start=ErrorCount())
