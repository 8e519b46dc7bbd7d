"""Diagnosis of a run: the findings of all rules, and the parts that were looked at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from whisper_ft.reports.diagnosis.held_out_rules import (
    another_domain,
    early_end,
    evaluation_noise,
    leakage,
    overfitting,
)
from whisper_ft.reports.diagnosis.label_rules import another_convention, never_written, wrong_language
from whisper_ft.reports.diagnosis.length_rules import learned_too_little
from whisper_ft.reports.diagnosis.rate_rules import rate_too_high
from whisper_ft.reports.diagnosis.run_facts import RunFacts
from whisper_ft.reports.diagnosis.run_finding import Rule, RunFinding
from whisper_ft.reports.diagnosis.run_rules import (
    changed_on_resume,
    clipped_gradients,
    failed,
    no_gain,
    noisy_updates,
    unusable_rows,
)
from whisper_ft.reports.diagnosis.transcript_rules import cut_texts, ignored_audio, loops
from whisper_ft.runtime.printable import counted

RULES: Sequence[Rule] = (
    failed,
    wrong_language,
    cut_texts,
    another_domain,
    rate_too_high,
    leakage,
    overfitting,
    never_written,
    learned_too_little,
    another_convention,
    loops,
    early_end,
    unusable_rows,
    changed_on_resume,
    noisy_updates,
    clipped_gradients,
    evaluation_noise,
    ignored_audio,
    no_gain,
)
"""All rules. The order matters: a rule leaves out its finding if an earlier one explains the same signs."""


@dataclass(frozen=True)
class Diagnosis:
    """Findings about a run."""

    facts: RunFacts
    findings: tuple[RunFinding, ...]
    """Serious findings first."""

    @property
    def is_serious(self) -> bool:
        """True if any finding is serious."""
        return any(finding.severity == "serious" for finding in self.findings)

    @property
    def looked_at(self) -> list[str]:
        """Parts of the run that the rules looked at, a line each."""
        facts = self.facts
        history = facts.history
        lines = [f"{counted(len(history.logged.rows), 'logged step')} and the settings"]
        if history.evaluated:
            lines.append(counted(len(history.evaluated.rows), "evaluation") + " of the held-out set")
        if facts.last_texts is not None:
            lines.append(counted(len(facts.last_texts.rows), "transcript") + " of the newest evaluation")
        lines += [
            f"{counted(len(scores.rows), 'transcript')} of the set {name}" for name, scores in facts.set_texts.items()
        ]
        if facts.records:
            lines.append(counted(len(facts.records), "checkpoint") + ": state, data and settings")
        if facts.sample is not None:
            compared = f", compared with {facts.sample.compared_with}" if facts.sample.compared_with else ""
            lines.append(f"{counted(len(facts.sample.texts), 'row')} of the training data{compared}")
        if facts.suppressed is not None:
            lines.append("characters that the model may never write")
        if facts.heard:
            lines.append(f"{counted(facts.heard.total(), 'clip')} in which the start model detected the language")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the diagnosis as JSON values."""
        facts = self.facts
        return {
            "run": str(facts.run),
            "state": facts.history.state,
            "step": facts.step,
            "planned_steps": facts.planned_steps,
            "serious": self.is_serious,
            "findings": [finding.to_json() for finding in self.findings],
            "looked_at": self.looked_at,
            "not_looked_at": list(facts.missing),
        }


def diagnose(facts: RunFacts) -> Diagnosis:
    """Apply all rules to the facts of a run."""
    findings: list[RunFinding] = []
    for rule in RULES:
        findings += rule(facts, [finding.kind for finding in findings])
    return Diagnosis(facts, tuple(sorted(findings, key=lambda finding: finding.severity != "serious")))
