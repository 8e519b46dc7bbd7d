"""Parity of an engine with the model itself: equal tokens, or the logits where the two part."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt

from whisper_ft.cli.export.check_clips import CheckClip
from whisper_ft.cli.export.engines.engine_job import EngineResult, EngineRow, Floats
from whisper_ft.cli.export.own_decoder import OwnDecoder
from whisper_ft.cli.export.targets import Quantization
from whisper_ft.scoring.edit_distance import count_errors, total

OWN_ERRORS = 0.25  # share of the model's own CER that is added to the limit of a quantised format
MIN_AGREEING = 0.95  # share of clips that must have the same tokens, or part at nearly even ones


def finite(value: float | None) -> float | str | None:
    """Return a figure as a JSON value: the word `infinite` for a number that JSON lacks."""
    return value if value is None or np.isfinite(value) else "infinite"


@dataclass(frozen=True)
class Departure:
    """First place where an engine writes another token than the model."""

    clip: str
    """Id of the utterance."""
    position: int
    """Number of the token within the transcript, from 0."""
    ours: str
    theirs: str
    gap: float | None
    """Difference of the model's own logits between both tokens; infinite for a token that it never writes. None for a
    quantised format, in which it does not count."""

    def summary(self) -> dict[str, Any]:
        """Return the departure as JSON values, which have no infinity."""
        return vars(self) | {"gap": finite(self.gap)}

    def __str__(self) -> str:
        gap = "" if self.gap is None else f", whose logit is {self.gap:.2g} higher"
        return f"In {self.clip} token {self.position + 1} is {self.theirs!r} in place of {self.ours!r}{gap}"


@dataclass(frozen=True)
class Parity:
    """Comparison of the output of an engine with that of the model, over the clips of a check."""

    clips: int
    equal: int
    """Clips with the same tokens."""
    even: int
    """Further clips that part where the model's two tokens are nearly even."""
    departures: list[Departure] = field(default_factory=list)
    """All departures, with the largest gap first."""
    cer: float = 0.0
    """Characters by which both outputs differ, per character of the model's output. Loops are left out."""
    max_logit_difference: float | None = None
    """Largest difference of log-probabilities on the tokens of the first clips. None if the engine gives none, and
    infinite if one of them is no number."""
    languages: tuple[int, int] | None = None
    """Clips whose language is detected as by the model, or as one that is nearly even, and clips compared."""

    @property
    def agreeing(self) -> float:
        """Share of the clips with the same tokens or nearly even ones."""
        return (self.equal + self.even) / self.clips

    def problems(self, quantization: Quantization, own_cer: float) -> list[str]:
        """Return a line for each limit that is not kept; none if the check is passed.

        `own_cer` is the character error rate of the model itself, without loops. A model that errs often wavers between
        tokens, so rounding changes more of its text.
        """
        found = []
        if quantization.max_gap is not None and self.agreeing < MIN_AGREEING:
            found.append(
                f"{self.equal} of {self.clips} clips have the model's tokens, and {self.even} more part at two tokens "
                f"whose logits differ by at most {quantization.max_gap:g}; expected {MIN_AGREEING:.0%}. "
                f"{self.departures[0]}"
            )
        difference, allowed = self.max_logit_difference, quantization.max_logits
        if allowed is not None and difference is not None and difference > allowed:
            found.append(f"its log-probabilities differ by up to {difference:.2g}; expected at most {allowed:g}")
        max_cer = None if quantization.max_cer is None else quantization.max_cer + OWN_ERRORS * min(own_cer, 1.0)
        if max_cer is not None and self.cer > max_cer:
            found.append(
                f"{self.cer:.2%} of the characters differ from the model's output; expected at most {max_cer:.2%}"
            )
        if quantization.max_gap is not None and self.languages and self.languages[0] < MIN_AGREEING * self.languages[1]:
            found.append(
                f"the language of {self.languages[0]} of {self.languages[1]} clips is detected as by the model"
            )
        return found


def compare(
    clips: Sequence[CheckClip],
    own_rows: Sequence[list[int]],
    result: EngineResult,
    own: OwnDecoder,
    max_gap: float | None,
    loops: Collection[str] = (),
) -> Parity:
    """Compare the output of an engine with that of the model.

    Parameters
        clips: the clips of the check.
        own_rows: tokens of the model for each clip.
        result: output of the engine.
        own: decoder of the model.
        max_gap: largest difference of two logits that are nearly even; None if only equal tokens count.
        loops: ids of utterances with a runaway transcript, which the character error rate leaves out.
    """
    departures = [
        found
        for clip, ours, row in zip(clips, own_rows, result.rows, strict=True)
        if (found := departure(clip, ours, row, own, result.limit or own.limit, max_gap is not None))
    ]
    texts = [
        (own.text(ours), text_of(row, own))
        for clip, ours, row in zip(clips, own_rows, result.rows, strict=True)
        if clip.window.row.id not in loops
    ]
    gaps = [found.gap for found in departures if found.gap is not None]
    return Parity(
        clips=len(clips),
        equal=len(clips) - len(departures),
        even=sum(gap <= (max_gap or 0.0) for gap in gaps),
        departures=sorted(departures, key=lambda found: -(found.gap or 0.0)),
        cer=total(count_errors(ours, theirs) for ours, theirs in texts).rate or 0.0,
        max_logit_difference=_logit_difference(clips, result, own),
        languages=_languages(clips, result.rows, own, max_gap),
    )


def text_of(row: EngineRow, own: OwnDecoder) -> str:
    """Return the text of an engine's row, decoded by our tokenizer if the engine gives tokens only."""
    return own.text(row.tokens or ()) if row.text is None else row.text.strip()


def departure(
    clip: CheckClip, ours: list[int], row: EngineRow, own: OwnDecoder, limit: int, with_gap: bool
) -> Departure | None:
    """Return the first place where an engine parts from the model; None if it does not.

    Of a transcript that reached a token limit, only the tokens before the limit are compared. An engine without tokens
    is compared by its text, and its tokens are those of our tokenizer for this text.
    """
    theirs = row.tokens if row.tokens is not None else own.tokens_of(text_of(row, own))
    if row.tokens is None and text_of(row, own) == own.text(ours):
        return None
    cut = min(own.limit, limit)
    at = next((n for n, (a, b) in enumerate(zip_longest(ours[:cut], theirs[:cut])) if a != b), None)
    if at is None:
        return None
    our_token, their_token = (tokens[at] if at < len(tokens) else own.end for tokens in (ours, theirs))
    gap = None
    if with_gap:
        logits = own.logits(clip.job, ours[:at])[-1]
        gap = float(logits[our_token] - logits[their_token])
    return Departure(clip.window.row.id, at, own.token_text(our_token), own.token_text(their_token), gap)


def _logit_difference(clips: Sequence[CheckClip], result: EngineResult, own: OwnDecoder) -> float | None:
    """Return the largest difference of log-probabilities between an engine and the model, on the engine's tokens."""
    largest = None
    for number, theirs in result.logits.items():
        ours = own.logits(clips[number].job, (result.rows[number].tokens or [])[: len(theirs) - 1])
        allowed = np.isfinite(ours)
        difference = np.abs(_log_softmax(ours, allowed) - _log_softmax(theirs, allowed))[allowed].max()
        largest = max(largest or 0.0, float(np.nan_to_num(difference, nan=np.inf)))
    return largest


def _log_softmax(logits: Floats, allowed: npt.NDArray[np.bool_]) -> Floats:
    """Log-probabilities [n, V] among the allowed tokens; 0 for the others."""
    masked = np.where(allowed, logits, -np.inf)
    masked = masked - masked.max(axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        sums = np.log(np.exp(masked).sum(axis=1, keepdims=True))
    found: Floats = np.where(allowed, masked - sums, 0.0)
    return found


def _languages(
    clips: Sequence[CheckClip], rows: Sequence[EngineRow], own: OwnDecoder, max_gap: float | None
) -> tuple[int, int] | None:
    """Count the clips whose language is detected as by the model, or as one whose logit is nearly as high."""
    asked = [(clip, row.detected_language) for clip, row in zip(clips, rows, strict=True) if row.detected_language]
    if not asked:
        return None
    agreeing = 0
    for clip, code in asked:
        logits = own.language_logits(clip.job)
        agreeing += max(logits.values()) - logits.get(code, -np.inf) <= (max_gap or 0.0)
    return agreeing, len(asked)
