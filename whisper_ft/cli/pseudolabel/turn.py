"""Turn of a labelling: one transcription of the whole pool, by one model with one search."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from whisper_ft.config.data import DEFAULT_TASK
from whisper_ft.config.evaluation import DecodingConfig
from whisper_ft.config.pseudolabel import PseudolabelConfig
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.labels.languages import whisper_language
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.types import RejectedError, Row
from whisper_ft.decoding.transcriber import Transcriber
from whisper_ft.models.inference import InferenceModel
from whisper_ft.models.suppression import fingerprint
from whisper_ft.runtime.errors import UsageError


@dataclass(frozen=True)
class Turn:
    """Model and search of a turn."""

    number: int
    model: str
    base: str | None
    num_beams: int

    def __str__(self) -> str:
        """Return model and search in words."""
        return f"{self.model}, {'greedy' if self.num_beams == 1 else f'{self.num_beams} beams'}"

    @property
    def is_main(self) -> bool:
        """True for the turn that writes the labels; another one is only compared with them."""
        return self.number == 0


def turns_of(config: PseudolabelConfig) -> list[Turn]:
    """Return the turns of a labelling, the main one first."""
    models = [(config.model, config.base, config.decoding.num_beams)]
    if config.second is not None:
        models.append((config.second, None, config.decoding.num_beams))
    if config.agree_beams is not None:
        models.append((config.model, config.base, config.agree_beams))
    return [Turn(number, *each) for number, each in enumerate(models)]


class TurnDecoder:
    """Model of a turn with everything that decoding needs.

    Parameters
        loaded: the model
        has_languages: the rows may name their language

    Raises UsageError for a setting that the model cannot honour.
    """

    def __init__(self, loaded: InferenceModel, config: PseudolabelConfig, turn: Turn, *, has_languages: bool) -> None:
        self.turn, self.log_mel = turn, LogMel(loaded.processor.feature_extractor)
        self._loaded, self._task = loaded, config.data.task or DEFAULT_TASK
        generation = loaded.model.generation_config
        named = config.data.language
        is_known = named or has_languages or getattr(generation, "language", None)
        self._detects = generation.is_multilingual and (config.decoding.detect_language or not is_known)
        self._compares = turn.is_main and config.require_language
        if self._compares and (self._detects or not generation.is_multilingual):
            missing = "the wanted language is not known; give it as --data.language"
            raise UsageError(f"--require_language true: {missing if self._detects else 'the model has one language'}")
        codes = [name.strip("<|>") for name in getattr(generation, "lang_to_id", None) or {}]
        self._encode = LabelEncoder.of(
            loaded.model,
            loaded.processor.tokenizer,
            "en" if self._detects else named,
            self._task,
            found=codes[:2] if has_languages and not named else (),
        )
        self._settings: DecodingConfig = replace(
            config.decoding, num_beams=turn.num_beams, detect_language=self._detects
        )
        self.transcriber = Transcriber(
            loaded.model,
            loaded.processor.tokenizer,
            self._encode,
            self._settings,
            loaded.precision,
            detects_beside=self._compares,
        )

    @property
    def batch_size(self) -> int:
        """Windows that are decoded at a time."""
        return self._settings.batch_size

    @property
    def job(self) -> dict[str, Any]:
        """Everything on which the transcripts depend besides the audio, as JSON values."""
        return {
            "model": self._loaded.sha256,
            "decoding": {**asdict(self._settings), "batch_size": None},
            "language": self._encode.language,
            "task": self._task,
            "precision": self._loaded.precision,
            "suppressed": fingerprint(self._loaded.model.generation_config),
            "window": [self.log_mel.window_samples, self.log_mel.sample_rate],
        }

    @property
    def revision(self) -> str | None:
        """Commit of a model from the Hub; None for one of this machine."""
        return getattr(self._loaded.model.config, "_commit_hash", None)

    def label_problem(self, row: Row) -> tuple[str, str] | None:
        """Return the reason for which no text can be written for a row: an unknown language or task."""
        if self._detects:
            return None
        try:
            self._encode.prompt(row.language, row.task)
        except RejectedError as error:
            return error.reason, error.detail
        return None

    def language_of(self, row: Row, detected: str | None) -> str | None:
        """Return the code of the language in which the text of a row is written."""
        if self._detects:
            return detected
        language = row.language or self._encode.language
        return whisper_language(language) if language else None

    def task_of(self, row: Row) -> str:
        """Return the task of a row."""
        return row.task or self._task
