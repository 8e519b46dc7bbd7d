"""Error rates of one output of a check: that of the model itself, or of an engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from whisper_ft.cli.export.check_clips import CheckClip
from whisper_ft.runtime.errors import DataError
from whisper_ft.scoring.edit_distance import total
from whisper_ft.scoring.hallucination import run_checks
from whisper_ft.scoring.normalizer import Normalizer
from whisper_ft.scoring.runaway import SIGNS, Runaway
from whisper_ft.scoring.scores import Prediction, score


@dataclass(frozen=True)
class OutputRates:
    """Main rate of an output, and its runaway transcripts."""

    metric: str
    """`wer`, or `cer` for a language written without spaces."""
    rate: float | None
    """The rate as a fraction; None if no reference has a word."""
    rate_without_loops: float | None
    cer_without_loops: float | None
    loops: frozenset[str]
    """Ids of utterances whose transcript repeats itself or reaches the token limit."""
    words: int
    """Words of the normalised references."""

    def summary(self) -> dict[str, Any]:
        """Return the rates as JSON values. `loops` becomes a number, and `words` is left out."""
        return {
            "metric": self.metric,
            "rate": self.rate,
            "rate_without_loops": self.rate_without_loops,
            "cer_without_loops": self.cer_without_loops,
            "loops": len(self.loops),
        }


def rates_of(
    clips: Sequence[CheckClip], texts: Sequence[str], tokens: Sequence[int], limit: int, normalize: Normalizer
) -> OutputRates:
    """Score an output with the scoring of evaluate.py. `texts` and `tokens` (counts) are those of each clip.

    The windows of a long recording are joined. Raises DataError if two utterances have the same id.
    """
    rows = sorted(zip(clips, texts, tokens, strict=True), key=lambda row: (row[0].window.index, row[0].window.number))
    groups = (list(group) for _, group in groupby(rows, key=lambda row: row[0].window.index))
    try:
        scores = score([_prediction(group, limit) for group in groups], normalize)
    except ValueError as error:
        raise DataError(f"--check: {error}") from error
    checks = run_checks(scores)
    loops = {item.row.prediction.id for check in checks if check.name in SIGNS for item in check.flagged}
    name, rate = scores.headline
    without = Runaway.of(scores, checks).others.rate
    characters = total(row.chars for row in scores.rows if row.is_scored and row.prediction.id not in loops)
    return OutputRates(name, rate, without, characters.rate, frozenset(loops), scores.words.reference_length)


def _prediction(group: Sequence[tuple[CheckClip, str, int]], limit: int) -> Prediction:
    first = group[0][0].window
    return Prediction(
        id=first.row.id,
        ref=first.row.text if isinstance(first.row.text, str) else "",
        hyp=" ".join(filter(None, (text for _, text, _ in group))),
        audio_seconds=first.seconds,
        hyp_tokens=sum(count for _, _, count in group),
        hit_token_limit=any(count >= limit for _, _, count in group),
        language=group[0][0].job.language,
        speaker=first.row.speaker,
        windows=len(group),
    )
