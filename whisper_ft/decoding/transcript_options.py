"""Options of a transcription, and the decoding of a model that they give."""

from dataclasses import dataclass

import torch

from whisper_ft.config.evaluation import DecodingConfig
from whisper_ft.data.labels.languages import whisper_language
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.decoding.transcriber import Transcriber
from whisper_ft.models.inference import InferenceModel
from whisper_ft.runtime.errors import UsageError

AUTO = "auto"
"""Language that stands for its detection."""
GPU_BATCH, CPU_BATCH = 16, 4
"""Windows at a time by default; 16 of whisper-base take 1.0 GB, mostly for keys and values. More windows on a CPU need
memory and gain little time."""


@dataclass(frozen=True)
class TranscriptOptions:
    """Options of a transcription, as a user gives them."""

    language: str | None = None
    """Code or name of the spoken language, or AUTO. None: that of the model's fine-tuning, else it is detected."""
    task: str = "transcribe"
    """`transcribe` or `translate`."""
    timestamps: bool = False
    """Let the model write the times of phrases."""
    words: bool = False
    """Find the times of words."""
    prompt: str = ""
    num_beams: int = 1
    max_new_tokens: int | None = None
    no_speech_threshold: float | None = None
    temperature_fallback: bool = False
    batch_size: int = 1
    """Windows at a time."""


@dataclass(frozen=True)
class Decoding:
    """Decoding of a model with some options."""

    transcriber: Transcriber
    settings: DecodingConfig
    language: str | None
    """Whisper's code of the language in the prompt; None if it is detected."""


def decoding_of(loaded: InferenceModel, options: TranscriptOptions) -> Decoding:
    """Build the decoding of a model. Raises UsageError if the model lacks something that an option needs."""
    model, tokenizer = loaded.model, loaded.processor.tokenizer
    own = getattr(model.generation_config, "language", None)
    wants_detection = options.language == AUTO or (options.language is None and not own)
    detect = model.generation_config.is_multilingual and wants_detection
    settings = DecodingConfig(
        batch_size=options.batch_size,
        num_beams=options.num_beams,
        detect_language=detect,
        timestamps=options.timestamps,
        prompt=options.prompt,
        max_new_tokens=options.max_new_tokens,
        no_speech_threshold=options.no_speech_threshold,
        temperature_fallback=options.temperature_fallback,
    )
    named = None if options.language == AUTO else options.language
    # With language detection the prompt needs some language; the detected one takes its place.
    encode = LabelEncoder.of(model, tokenizer, "en" if detect else named, options.task)
    transcriber = Transcriber(model, tokenizer, encode, settings, loaded.precision, words=options.words)
    language = None if detect else encode.language and whisper_language(encode.language)
    return Decoding(transcriber, settings, language)


def batch_size_on(device: torch.device, given: int | None) -> int:
    """Return the number of windows to decode at a time: the given one, or the default for a device."""
    return given or (CPU_BATCH if device.type == "cpu" else GPU_BATCH)


def message_about_option(error: UsageError, prefix: str = "--") -> str:
    """Return the message of an error of `decoding_of` with the names of the options, each after `prefix`.

    They are settings of evaluate.py in the error, such as `--decoding.prompt`.
    """
    message = str(error).replace("--data.", prefix).replace("--decoding.", prefix)
    return message.replace("; set it to false", "; leave it out")
