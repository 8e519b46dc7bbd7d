"""Cards of the page: each shows one utterance with its rate, alignment, audio and texts."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from whisper_ft.reports.evaluation.alignment import Alignment, aligned, worst_rows
from whisper_ft.reports.evaluation.audio_clips import AudioClips
from whisper_ft.scoring.comparison import Change, SystemComparison
from whisper_ft.scoring.confidence_figures import utterance_confidence
from whisper_ft.scoring.edit_distance import ErrorCount
from whisper_ft.scoring.hallucination import Check
from whisper_ft.scoring.scores import Prediction, ScoredRow, Scores

MAX_ROWS = 500  # utterances on a page: one of 10,000 would be slow on a phone; predictions.jsonl has them all
MAX_FLAGGED = 20  # utterances of one check
MAX_CHANGES = 10  # utterances that changed most between two systems, each way


@dataclass(frozen=True)
class UtteranceCard:
    """Card of one utterance with its errors."""

    prediction: Prediction
    count: ErrorCount
    alignment: Alignment
    audio: str | None  # address of the clip
    place: int  # index in the set
    signs: Sequence[Check] = ()  # checks that flag it

    @property
    def confidence(self) -> float | None:
        """Geometric mean of the probabilities of its tokens, from 0 to 1; None if they are not known."""
        windows = self.prediction.window_confidence
        mean = utterance_confidence(windows)["avg_logprob"] if windows else None
        return None if mean is None else round(math.exp(mean), 4)

    @property
    def level(self) -> Literal["good", "fair", "poor"]:
        """Class of the rate: `good` without an error, `poor` if at least half of the units are wrong, else `fair`."""
        count = self.count
        return "good" if not count.errors else "fair" if 2 * count.errors < count.reference_length else "poor"


@dataclass(frozen=True)
class FlaggedCard:
    """Card of one utterance that a check flagged, with the reason."""

    prediction: Prediction
    evidence: str
    audio: str | None


@dataclass(frozen=True)
class ChangeCard:
    """Card of one utterance as two systems transcribed it."""

    id: str
    more_errors: int  # of the second system; below zero if it is better
    systems: Sequence[tuple[str, str | None, Alignment]]  # name, language, alignment


def worst_cards(scores: Scores, checks: Sequence[Check], clips: AudioClips) -> list[UtteranceCard]:
    """Make cards of the 500 utterances with the highest error rates, the worst one first.

    Correct utterances are included if there is room. Clips are requested in this order.
    """
    places = {row.prediction.id: place for place, row in enumerate(scores.rows)}
    signs = signs_by_id(checks)
    return [
        UtteranceCard(
            row.prediction,
            scores.errors_of(row),
            aligned(row, scores.unit),
            clips.address(row.prediction.id),
            places[row.prediction.id],
            signs.get(row.prediction.id, ()),
        )
        for row in worst_rows(scores, MAX_ROWS)
    ]


def signs_by_id(checks: Sequence[Check]) -> Mapping[str, Sequence[Check]]:
    """Return the checks that flag an utterance, by its id."""
    signs = defaultdict[str, list[Check]](list)
    for check in checks:
        for flagged in check.flagged:
            signs[flagged.row.prediction.id].append(check)
    return signs


def flagged_cards(check: Check, clips: AudioClips) -> list[FlaggedCard]:
    """Make cards of the first 20 utterances that a check flagged."""
    return [
        FlaggedCard(flagged.row.prediction, flagged.evidence, clips.address(flagged.row.prediction.id))
        for flagged in check.flagged[:MAX_FLAGGED]
    ]


def change_cards(changes: Sequence[Change], comparison: SystemComparison) -> list[ChangeCard]:
    """Make cards of the first 10 of these changes, which must come in the order of their size."""
    unit = comparison.first.unit

    def system(name: str, row: ScoredRow) -> tuple[str, str | None, Alignment]:
        return name, row.prediction.language, aligned(row, unit)

    return [
        ChangeCard(
            change.first.prediction.id,
            change.more_errors,
            (system(comparison.names[0], change.first), system(comparison.names[1], change.second)),
        )
        for change in changes[:MAX_CHANGES]
    ]
