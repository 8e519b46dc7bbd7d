"""Outcome of a merge onto one target: its error rate and logits beside those of the adapter."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from whisper_ft.cli.export.check_input import CheckInput
from whisper_ft.cli.export.engines.engine_job import Floats
from whisper_ft.cli.export.output_rates import OutputRates, rates_of
from whisper_ft.cli.export.own_decoder import OwnDecoder
from whisper_ft.models.adapters.merge import MergeTarget
from whisper_ft.models.whisper import LoadedWhisper
from whisper_ft.runtime.device_memory import memory_errors
from whisper_ft.scoring.normalizer import Normalizer

LOGITS_CLIPS = 8  # clips whose logits are compared: one of 30 tokens takes 6 MB


@dataclass(frozen=True)
class Transcripts:
    """Transcripts of a check's clips by one model, with their rates, and the logits of the first clips."""

    tokens: list[list[int]] = field(repr=False)
    rates: OutputRates
    logits: list[Floats] = field(repr=False)

    @classmethod
    @memory_errors("while the model transcribed")
    def of(
        cls,
        loaded: LoadedWhisper,
        given: CheckInput,
        normalize: Normalizer,
        device: torch.device,
        path: Sequence[list[int]] | None = None,
    ) -> "Transcripts":
        """Transcribe the clips in float32. `path` are the tokens after which the logits are taken; None: its own."""
        own = OwnDecoder(loaded.model.to(device).eval(), loaded.processor.tokenizer)
        jobs = [clip.job for clip in given.clips]
        tokens, _ = own.transcribe(jobs)
        texts, counts = [own.text(row) for row in tokens], [len(row) for row in tokens]
        rates = rates_of(given.clips, texts, counts, own.limit, normalize)
        logits = [own.logits(job, row) for job, row in zip(jobs[:LOGITS_CLIPS], path or tokens, strict=False)]
        return cls(tokens, rates, logits)


@dataclass(frozen=True)
class MergeOutcome:
    """Merged model on one target, compared with the adapter on its base."""

    onto: MergeTarget
    adapter: Transcripts
    merged: Transcripts

    @property
    def equal(self) -> int:
        """Clips with the same tokens."""
        return sum(a == b for a, b in zip(self.adapter.tokens, self.merged.tokens, strict=True))

    @property
    def largest_difference(self) -> float:
        """Largest difference of any logit, on the tokens that the adapter wrote."""
        pairs = zip(self.adapter.logits, self.merged.logits, strict=True)
        return max(float(np.abs(a[np.isfinite(a)] - b[np.isfinite(a)]).max()) for a, b in pairs)

    @property
    def rise(self) -> float | None:
        """Rise of the error rate by the merge, in percentage points; None if no reference has a word."""
        before, after = self.adapter.rates.rate, self.merged.rates.rate
        return None if before is None or after is None else 100 * (after - before)

    def summary(self) -> dict[str, Any]:
        """Return the outcome as JSON values."""
        return {
            "onto": self.onto,
            "metric": self.merged.rates.metric,
            "before": self.adapter.rates.rate,
            "after": self.merged.rates.rate,
            "rise": self.rise,
            "equal": self.equal,
            "max_logit_difference": self.largest_difference,
        }


def better(outcomes: Sequence[MergeOutcome]) -> MergeOutcome:
    """Return the outcome with the lowest error rate.

    Among equal rates, and if there are none, it is the outcome with the nearest logits.
    """
    return min(outcomes, key=lambda outcome: (outcome.rise or 0.0, outcome.largest_difference))
