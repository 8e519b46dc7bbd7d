"""Tally of rows: the number of rows of one kind, with the first few of them as examples."""

from dataclasses import dataclass, field

MAX_EXAMPLES = 5  # examples of each finding


@dataclass
class Tally:
    """A number of rows of one kind, with the first few of them as examples."""

    rows: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)  # id of the row, and a detail

    def add(self, row_id: str, detail: str) -> None:
        """Count one more row, and keep it as an example if there are fewer than MAX_EXAMPLES."""
        self.rows += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append((row_id, detail))
