"""Settings of packing: several utterances in one window of the model."""

from dataclasses import dataclass
from typing import Literal

from whisper_ft.config.setting import refuse_unused, require, setting

MAX_GAP = 5.0
"""Longest gap in seconds that can be set. Speech should fill a window of 30 s, and a few longer gaps would."""


@dataclass(frozen=True)
class PackConfig:
    """Packing: a window holds as many utterances as fit, in place of one utterance and silence."""

    enabled: bool = setting("exact", False, before=False)
    """Pack the utterances of a step into full windows. A window has one language and one task."""
    block: int = setting("exact", 48, least=1, before=48)
    """Utterances that are packed together, about: a step is divided into equal blocks. Larger blocks fill windows
    better; a step needs at least as many blocks as there are processes."""
    gap: tuple[float, float] = setting("exact", (0.1, 0.4))
    """Least and greatest length in seconds of the gap before each utterance; each gap is random between the two."""
    gap_sound: Literal["silence", "room"] = setting("exact", "silence", before="silence")
    """Sound of the gaps. room: the quietest 0.1 s of the utterance that follows, played forth and back."""
    partial_last_share: float | None = setting("exact", None, before=None)
    """Share of the windows with timestamps whose last second holds the beginning of another utterance, with its start
    time only. A model whose windows always end in silence skips speech there. None: 0.1 with timestamps, else 0."""

    def __post_init__(self) -> None:
        low, high = self.gap
        require(0 <= low <= high <= MAX_GAP, "pack.gap", list(self.gap), f"two rising seconds from 0 to {MAX_GAP:g}")
        share = self.partial_last_share
        require(share is None or 0 <= share <= 1, "pack.partial_last_share", share, "from 0 to 1")
        if not self.enabled:
            refuse_unused(self, "pack", "pack.enabled is false", "--pack.enabled true")

    def refuse_beside(self, batch_size: int, timestamps_share: float) -> None:
        """Raise ValueError for a block larger than a step, and for partial utterances without timestamps."""
        if self.enabled and self.block > batch_size:
            raise ValueError(
                f"--pack.block {self.block}: a step has only {batch_size} utterances (batch.size); lower pack.block, "
                "or raise batch.size, because several utterances now share a window"
            )
        if self.partial_last_share and not timestamps_share:
            raise ValueError(
                f"--pack.partial_last_share {self.partial_last_share}: only windows with timestamps end with the "
                "beginning of an utterance; set labels.timestamps_share, or leave it out"
            )

    def partial_share(self, timestamps_share: float) -> float:
        """Return the share of the windows with timestamps that end with the beginning of another utterance."""
        if not self.enabled or not timestamps_share:
            return 0.0
        return 0.1 if self.partial_last_share is None else self.partial_last_share
