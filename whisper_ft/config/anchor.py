"""Settings of the anchor: terms that hold a model near the one from which its run started."""

from dataclasses import dataclass, fields, replace
from typing import Literal

from whisper_ft.config.data import SourceConfig, Task
from whisper_ft.config.setting import require, setting

DEFAULT_SHARE = 4  # utterances of a batch for each one of the anchor


@dataclass(frozen=True)
class AnchorConfig(SourceConfig):
    """Anchor: hold the model near its start model, so that it forgets less. Decision 23 explains the two terms.

    The settings of a source, such as `path` and `language`, describe the audio of `kl`. Its texts are only read.
    docs/remedies.md compares the terms with other remedies.
    """

    path: str = setting("free", "")  # its fingerprint is compared
    """Audio with transcripts for `kl`, given as data.path is. No set is scored on it."""
    language: str | None = setting("exact", None)
    """Whisper code or name of the language of the audio, as data.language. None: the `language` column of the audio, or
    else data.language."""
    task: Task | None = setting("exact", None, auto=None)
    """Task of the decoder: transcribe or translate. None: the `task` column of the audio, or else data.task."""
    prompt_column: str | None = setting("exact", None, before=None)
    """Not for an anchor, whose labels have no previous text."""
    l2: float = setting("change", 0.0, least=0, before=0.0)
    """Share of the distance to the start weights that an update takes back at the peak learning rate, such as 0.01. It
    falls with the schedule. 0: off."""
    kl: float = setting("change", 0.0, least=0, before=0.0)
    """Weight in the loss of the divergence KL(start model || model), the mean over the label tokens of anchor.path,
    such as 1. 0: off."""
    size: int | None = setting("exact", None, least=1, before=None)
    """Utterances of anchor.path in each update, beside those of batch.size. None: a quarter of batch.size."""
    reading: Literal[1, 2] = setting("exact", 2, before=2, auto=2)
    """Version of the rules by which data is read, as data.reading."""

    @property
    def enabled(self) -> bool:
        """True if any term holds the model."""
        return self.l2 > 0 or self.kl > 0

    def source_beside(self, data: SourceConfig) -> SourceConfig | None:
        """Return the settings of the audio; None if `kl` is off.

        A language or task that they leave open is that of `data`, the training data.
        """
        if not self.kl:
            return None
        own = SourceConfig(**{one.name: getattr(self, one.name) for one in fields(SourceConfig)})
        return replace(own, language=own.language or data.language, task=own.task or data.task)

    def utterances(self, batch_size: int) -> int:
        """Return the number of anchor utterances in an update, for a global batch of that size."""
        return self.size or max(batch_size // DEFAULT_SHARE, 1)

    def refuse_alone(self, changes: list[str]) -> None:
        """Raise ValueError for values out of range, and for settings without the one that gives them an effect.

        `changes` are the names in `allow_change`: a run that turns `kl` off on resume keeps its other settings.
        """
        require(self.l2 <= 1, "anchor.l2", self.l2, "from 0 to 1")
        if self.kl and not self.path:
            raise ValueError(
                f"--anchor.kl {self.kl:g}: needs audio with transcripts that the start model knows; set anchor.path"
            )
        if self.prompt_column:
            raise ValueError(
                f"--anchor.prompt_column {self.prompt_column}: labels of the anchor have no previous text; leave it out"
            )
        if self.kl or "anchor.kl" in changes:
            return
        plain = AnchorConfig()
        for name in (one.name for one in fields(self) if one.name not in ("l2", "kl")):
            if (value := getattr(self, name)) != getattr(plain, name):
                raise ValueError(
                    f"--anchor.{name} {value}: has no effect while anchor.kl is 0; set --anchor.kl 1, or leave it out"
                )

    def refuse_beside(self, adapter: str, evaluated: list[SourceConfig]) -> None:
        """Raise ValueError for `l2` beside an adapter, and for audio on which the run is also scored.

        Parameters
            adapter: kind of the adapter, or none.
            evaluated: the held-out set and those of eval.sets.
        """
        if self.l2 and adapter != "none":
            raise ValueError(
                f"--anchor.l2 {self.l2:g}: an adapter leaves the start weights as they are, and optim.weight_decay "
                "already draws it to zero effect; leave it out"
            )
        place = (self.path.rstrip("/"), self.split, self.config_name)
        if self.kl and place in [(one.path.rstrip("/"), one.split, one.config_name) for one in evaluated]:
            raise ValueError(
                f"--anchor.path {self.path}: the run is scored on this set, and a model held on it would hide what "
                "else it forgets; name other audio"
            )
