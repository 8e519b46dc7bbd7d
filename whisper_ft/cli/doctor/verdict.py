"""Verdict on the data: reasons that block a run or its score, and the number of warnings."""

from collections.abc import Mapping, Sequence

from whisper_ft.cli.doctor.blocks import Block, Finding
from whisper_ft.cli.doctor.row_check import RowStatistics
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.leakage import Leakage
from whisper_ft.reports.text import percent
from whisper_ft.runtime.printable import counted
from whisper_ft.training.step_log import MIN_REJECTED_ROWS


def blocking_reasons(statistics: RowStatistics, shared: Leakage | None, config: TrainingConfig) -> list[str]:
    """Return the reasons why a run would stop, or its score would be worthless; [] if there are none.

    `shared` is the overlap with the held-out set, or None.
    """
    reasons, unusable, limit = [], statistics.unusable_rows, config.data.max_unusable_share
    if unusable == statistics.rows:
        reasons.append("no row can be used")
    elif unusable >= MIN_REJECTED_ROWS and unusable > limit * statistics.rows:
        share = percent(unusable / statistics.rows)
        reasons.append(f"{share} of the rows are unusable, and data.max_unusable_share is {percent(limit)}")
    if shared and shared.leaks:
        reasons.append("recordings of the held-out set are in the training data")
    return reasons


def warnings_of(sections: Mapping[str, Sequence[Block]]) -> list[str]:
    """Return a line for each finding that is no problem but should be looked at."""
    return [
        f"{title}: {block.name.removeprefix('warning: ')}: {block.count}"
        for title, blocks in sections.items()
        for block in blocks
        if isinstance(block, Finding) and block.level == "fair"
    ]


def verdict(blocking: Sequence[str], problems: Sequence[str], warnings: Sequence[str]) -> str:
    """Return the verdict: `nothing blocks; 3 warnings`. Problems that block nothing count as warnings."""
    others = max(len(problems) - len(blocking), 0) + len(warnings)
    return f"{'blocks: ' + ', and '.join(blocking) if blocking else 'nothing blocks'}; " + (
        counted(others, "warning") if others else "no warnings"
    )
