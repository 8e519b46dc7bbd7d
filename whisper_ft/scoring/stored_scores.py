"""Scores from the stored rows of an evaluation. Their normalised texts are compared again, without a normaliser."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whisper_ft.runtime.jsonl import rows_with
from whisper_ft.scoring.edit_distance import count_errors, total
from whisper_ft.scoring.normalizer import NormalizerIdentity, Unit
from whisper_ft.scoring.scores import CHARACTERS, Prediction, ScoredRow, Scores
from whisper_ft.scoring.unicode_text import as_written, without_optional_spaces

UNKNOWN = NormalizerIdentity("unknown", "und", "", "")


def stored_scores(path: Path, unit: Unit) -> Scores | None:
    """Read a file of predictions as a run writes it; None if it is missing or has no usable row.

    A row that was cut short is left out, and so is a second one with the same id. `unit` is that of the main rate.
    Raises OSError if the file cannot be read.
    """
    rows: dict[str, ScoredRow] = {}
    for fields in rows_with(path, "ref_norm"):
        row = _scored_row(fields, unit)
        if row is not None:
            rows.setdefault(row.prediction.id, row)
    if not rows:
        return None
    scored = [row for row in rows.values() if row.is_scored]
    written = [(as_written(row.prediction.ref), as_written(row.prediction.hyp)) for row in scored]
    return Scores(
        rows=tuple(rows.values()),
        words=total(row.words for row in scored),
        chars=total(row.chars for row in scored),
        words_orthographic=total(count_errors(ref.split(), hyp.split()) for ref, hyp in written),
        chars_orthographic=total(count_errors(ref, hyp) for ref, hyp in written),
        unit=unit,
        normalizer=UNKNOWN,
    )


def _scored_row(fields: Mapping[str, Any], unit: Unit) -> ScoredRow | None:
    """Build a scored row from the fields of a record; None if one that is needed is missing or has another type."""
    texts = {name: fields.get(name) for name in ("id", "ref", "hyp", "ref_norm", "hyp_norm")}
    if not all(isinstance(text, str) for text in texts.values()):
        return None
    ref, hyp = str(texts["ref_norm"]), str(texts["hyp_norm"])
    spaced = (ref, hyp) if unit != CHARACTERS else (without_optional_spaces(ref), without_optional_spaces(hyp))
    seconds, tokens = fields.get("audio_seconds"), fields.get("hyp_tokens")
    prediction = Prediction(
        id=str(texts["id"]),
        ref=str(texts["ref"]),
        hyp=str(texts["hyp"]),
        audio_seconds=float(seconds) if isinstance(seconds, int | float) else float("nan"),
        hyp_tokens=tokens if isinstance(tokens, int) else 0,
        hit_token_limit=fields.get("hit_token_limit") is True,
        language=_text(fields.get("language")),
        speaker=_text(fields.get("speaker")),
        detected_language=_text(fields.get("detected_language")),
        problem=_text(fields.get("problem")),
        label_tokens=fields["label_tokens"] if isinstance(fields.get("label_tokens"), int) else None,
    )
    return ScoredRow(prediction, ref, hyp, count_errors(ref.split(), hyp.split()), count_errors(*spaced))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
