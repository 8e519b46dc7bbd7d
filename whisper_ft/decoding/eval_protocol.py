"""Protocol of an evaluation: everything besides the model on which its transcripts and figures depend."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from whisper_ft.config.data import SourceConfig
from whisper_ft.config.evaluation import DecodingConfig, EvalConfig
from whisper_ft.data.formats.fingerprint import changed

READ_AS = (
    *("language", "task", "language_column", "task_column", "audio_column", "text_column"),
    *("segments_column", "text_times"),
)
"""Settings of a set that decide about prompts and references, and that its fingerprint does not cover."""


@dataclass(frozen=True)
class EvalProtocol:
    """Facts that two evaluations must share so that their figures can be compared.

    Checkpoints record the protocol as JSON values.
    """

    data: dict[str, Any]
    """Fingerprint of the evaluation set."""
    utterances: int
    num_beams: int
    max_new_tokens: int | None
    detect_language: bool
    prompt: str
    timestamps: bool
    precision: str
    suppressed: str = ""
    """Fingerprint of the tokens that decoding never writes; "" in the records of early versions."""
    attempts: dict[str, Any] | None = None
    """Settings of temperature fall-back and no speech; None if both are off, and in the records of early versions."""
    rules: str = ""
    """Fingerprint of the normaliser, which differs if its output may differ."""
    metric: str | None = None
    """Metric that chooses the best model. Like the next two, it is None in evaluate.py, which chooses no best model."""
    greater_is_better: bool | None = None
    normalizer: str | None = None
    read_as: dict[str, str] = field(default_factory=dict)
    """Settings READ_AS of a set of eval.sets; empty for the held-out set, whose settings are exact in data.*."""
    joined: dict[str, Any] = field(default_factory=dict)
    """Rule by which clips are joined to long recordings; empty if the rows of the set are the utterances."""
    augment: dict[str, Any] = field(default_factory=dict)
    """Transforms of the sound before it is transcribed; empty for the sound as it is."""

    @classmethod
    def of(
        cls,
        data: dict[str, Any],
        utterances: int,
        decoding: DecodingConfig,
        precision: str,
        suppressed: str,
        joined: Mapping[str, Any] | None = None,
        augment: Mapping[str, Any] | None = None,
    ) -> Self:
        """Make the protocol of transcripts alone, without metric and normaliser."""
        return cls(
            data=data,
            utterances=utterances,
            num_beams=decoding.num_beams,
            max_new_tokens=decoding.max_new_tokens,
            detect_language=decoding.detect_language,
            prompt=decoding.prompt,
            timestamps=decoding.timestamps,
            precision=precision,
            suppressed=suppressed,
            attempts=decoding.attempts,
            joined=dict(joined or {}),
            augment=dict(augment or {}),
        )

    def judged_by(self, settings: EvalConfig, rules: str) -> Self:
        """Return the protocol with the settings by which a run chooses its best model."""
        return replace(
            self,
            rules=rules,
            metric=settings.metric,
            greater_is_better=settings.greater_is_better,
            normalizer=settings.normalizer,
        )

    def scored_by(self, normalizer: str, rules: str, where: SourceConfig) -> Self:
        """Return the protocol of a set of eval.sets, which has no part in the choice of the best model.

        `where` are the settings of the set, and `rules` is the fingerprint of the normaliser.
        """
        read_as = {name: value for name in READ_AS if (value := getattr(where, name))}
        return replace(self, rules=rules, normalizer=normalizer, read_as=read_as)

    def matches(self, other: Self) -> bool:
        """Return True if figures under both protocols can be compared. An unknown `suppressed` matches any other."""
        # Early versions did not record the suppressed tokens, and kept those of the model's files.
        both = self.suppressed and other.suppressed
        mine, theirs = (replace(each, data={}, suppressed=both and each.suppressed) for each in (self, other))
        return not changed(self.data, other.data) and mine == theirs

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, without those that are None or empty because they do not apply."""
        optional = ("attempts", "metric", "greater_is_better", "normalizer", "read_as", "joined", "augment")
        return {name: value for name, value in asdict(self).items() if value not in (None, {}) or name not in optional}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Make the protocol from values that `to_json` of this or an earlier version returned."""
        return cls(**{"timestamps": False, **fields})  # early versions had no timestamps
