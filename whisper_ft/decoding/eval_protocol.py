"""Protocol of an evaluation: everything that its transcripts and figures depend on, beside the model."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from whisper_ft.config.evaluation import DecodingConfig, EvalConfig
from whisper_ft.data.formats.fingerprint import changed


@dataclass(frozen=True)
class EvalProtocol:
    """Two evaluations can be compared if their protocols match. Checkpoints record the protocol in JSON values."""

    data: dict[str, Any]
    """Fingerprint of the evaluation set."""
    utterances: int
    num_beams: int
    max_new_tokens: int | None
    detect_language: bool
    prompt: str
    timestamps: bool
    precision: str
    rules: str = ""
    """Fingerprint of the normaliser; a version with another output has another fingerprint."""
    metric: str | None = None
    """Metric of the best model, its direction and its normaliser; None in evaluate.py, which chooses no best."""
    greater_is_better: bool | None = None
    normalizer: str | None = None

    @classmethod
    def of(cls, data: dict[str, Any], utterances: int, decoding: DecodingConfig, precision: str) -> Self:
        """Protocol of the transcripts alone."""
        return cls(
            data=data,
            utterances=utterances,
            num_beams=decoding.num_beams,
            max_new_tokens=decoding.max_new_tokens,
            detect_language=decoding.detect_language,
            prompt=decoding.prompt,
            timestamps=decoding.timestamps,
            precision=precision,
        )

    def judged_by(self, settings: EvalConfig, rules: str) -> Self:
        """The protocol with the settings by which a run chooses its best model."""
        return replace(
            self,
            rules=rules,
            metric=settings.metric,
            greater_is_better=settings.greater_is_better,
            normalizer=settings.normalizer,
        )

    def matches(self, other: Self) -> bool:
        """True if figures under both protocols can be compared."""
        return not changed(self.data, other.data) and replace(self, data={}) == replace(other, data={})

    def to_json(self) -> dict[str, Any]:
        """JSON values; fields that are None because no best is chosen are left out."""
        optional = ("metric", "greater_is_better", "normalizer")
        return {name: value for name, value in asdict(self).items() if value is not None or name not in optional}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Protocol from `to_json`, of this or an earlier version."""
        return cls(**{"timestamps": False, **fields})  # early versions had no timestamps
