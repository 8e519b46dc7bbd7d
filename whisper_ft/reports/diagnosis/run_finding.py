"""Finding about a run: a likely cause of a poor result, with its evidence and the settings to change."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from whisper_ft.reports.diagnosis.run_facts import RunFacts

Severity = Literal["serious", "notice"]
"""serious: the result is wrong, or much worse than it could be. notice: it should be looked at."""


@dataclass(frozen=True)
class RunFinding:
    """Likely cause of a poor result."""

    kind: str
    """Name for programs, such as `rate_too_high`; docs/diagnose.md lists all."""
    severity: Severity
    summary: str
    evidence: tuple[str, ...]
    """Numbers, steps and examples, a line each."""
    remedy: tuple[str, ...]
    """Changes to try, in this order, a line each."""

    def to_json(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "summary": self.summary,
            "evidence": list(self.evidence),
            "remedy": list(self.remedy),
        }


Rule = Callable[[RunFacts, Sequence[str]], Iterator[RunFinding]]
"""Function that yields the findings of one subject. It also gets the kinds of the findings before it."""
