"""Targets of an export: formats with their writers, quantisations and engines. torch is not imported."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

from whisper_ft.runtime.errors import UsageError


@dataclass(frozen=True)
class Quantization:
    """Number format of the weights, with the limits of its check: the first two for float formats, else the third."""

    name: str
    bytes_per_weight: float
    max_gap: float | None = None
    """Largest difference of logits by which an engine may prefer another token than the model, for float formats."""
    max_logits: float | None = None
    """Largest difference of any log-probability, for float formats."""
    max_cer: float | None = None
    """Largest character error rate between both outputs, as a fraction, for quantised formats."""


FLOAT32 = Quantization("float32", 4, max_gap=0.02, max_logits=0.05)
FLOAT32_TWICE = Quantization("float32", 8, max_gap=0.02, max_logits=0.05)  # both layouts of ONNX
FLOAT16 = Quantization("float16", 2, max_gap=0.1, max_logits=0.5)
BFLOAT16 = Quantization("bfloat16", 2, max_gap=1.0, max_logits=4.0)


@dataclass(frozen=True)
class Engine:
    """A package that reads a format. Its module in `cli/export/engines/` transcribes with it."""

    name: str
    """Name on PyPI."""
    package: str
    """Name for `import`."""
    module: str
    max_cer: float | None = None
    """Limit of the character error rate, in place of the limits of a float format, for an engine whose own log-mel
    differs from Whisper's."""

    def limits(self, quantization: Quantization) -> Quantization:
        """Return a quantisation with the limits that count in this engine."""
        if self.max_cer is None or quantization.max_cer is not None:
            return quantization
        return replace(quantization, max_gap=None, max_logits=None, max_cer=self.max_cer)

    @property
    def install(self) -> str:
        """Command that installs the package."""
        return f"pip install {self.name}"

    @property
    def is_installed(self) -> bool:
        """True if the package is found; its import may still fail."""
        return find_spec(self.package) is not None


@dataclass(frozen=True)
class ExportTarget:
    """A format with everything that the command needs to know about it."""

    name: str
    what: str
    """The format in words, for help and card."""
    writer: str
    """Module in `models/export/`."""
    quantizations: tuple[Quantization, ...]
    """The first is the default."""
    engines: tuple[Engine, ...]
    usage: str
    """Program that transcribes a file with the export.

    `{out}` stands for the folder, and `{arguments}` for further arguments of a call, such as the language. `{language}`
    is the language alone, and `{item}` the language as an item of a dict.
    """
    needs: tuple[str, ...] = ()
    """Packages that the writer imports."""

    def quantization(self, name: str | None) -> Quantization:
        """Return a quantisation by its name, or the default one for None. Raises UsageError for an unknown name."""
        if name is None:
            return self.quantizations[0]
        for known in self.quantizations:
            if known.name == name:
                return known
        names = ", ".join(known.name for known in self.quantizations)
        raise UsageError(f"--quantization {name}: --to {self.name} takes {names}")

    def refuse_missing_packages(self) -> None:
        """Raise UsageError if a package that the writer imports is not installed."""
        if missing := [name for name in self.needs if find_spec(name) is None]:
            names = " ".join(missing)
            raise UsageError(f"--to {self.name}: the packages {names} are not installed; pip install {names}")


HF_USAGE = """\
from transformers import pipeline
recognize = pipeline("automatic-speech-recognition", "{out}", chunk_length_s=30)
print(recognize("clip.mp3", generate_kwargs={{{item}"num_beams": 1}})["text"])"""
CT2_USAGE = """\
from faster_whisper import WhisperModel
segments, _ = WhisperModel("{out}").transcribe("clip.mp3"{arguments})
print(*(segment.text for segment in segments))"""
OPENAI_USAGE = """\
import whisper
print(whisper.load_model("{out}/model.pt").transcribe("clip.mp3"{arguments})["text"])"""
GGML_USAGE = """\
from pywhispercpp.model import Model  # or: whisper-cli -nfa -m {out}/ggml-model.bin -f clip.wav
model = Model("{out}/ggml-model.bin", context_params={{"flash_attn": False}})  # its flash attention changes words
segments = model.transcribe("clip.wav"{language})
print(*(segment.text for segment in segments))"""
ONNX_USAGE = """\
import sherpa_onnx, soundfile  # transformers.js takes the folder {out} as it is
parts = [f"{out}/sherpa-onnx/model-{{part}}" for part in ("encoder.onnx", "decoder.onnx", "tokens.txt")]
recognizer = sherpa_onnx.OfflineRecognizer.from_whisper(*parts{language})
stream = recognizer.create_stream()
samples, rate = soundfile.read("clip.wav", dtype="float32")
stream.accept_waveform(rate, samples)
recognizer.decode_stream(stream)
print(stream.result.text)"""
MLX_USAGE = """\
import mlx_whisper
print(mlx_whisper.transcribe("clip.mp3", path_or_hf_repo="{out}"{arguments})["text"])"""

TARGETS: dict[str, ExportTarget] = {
    target.name: target
    for target in (
        ExportTarget(
            name="hf",
            what="Hugging Face folder, for transformers",
            writer="hf",
            quantizations=(FLOAT16, FLOAT32, BFLOAT16),
            engines=(Engine("transformers", "transformers", "transformers"),),
            usage=HF_USAGE,
        ),
        ExportTarget(
            name="ct2",
            what="CTranslate2, for faster-whisper",
            writer="ct2",
            quantizations=(
                FLOAT16,
                FLOAT32,
                Quantization("int8", 1, max_cer=0.03),
                Quantization("int8_float16", 1, max_cer=0.03),
            ),
            engines=(
                Engine("ctranslate2", "ctranslate2", "ctranslate2"),
                Engine("faster-whisper", "faster_whisper", "faster_whisper"),
            ),
            usage=CT2_USAGE,
            needs=("ctranslate2",),
        ),
        ExportTarget(
            name="openai",
            what="OpenAI's own format, for openai-whisper",
            writer="openai",
            quantizations=(FLOAT16, FLOAT32),
            engines=(Engine("openai-whisper", "whisper", "openai_whisper"),),
            usage=OPENAI_USAGE,
        ),
        ExportTarget(
            name="ggml",
            what="ggml, for whisper.cpp",
            writer="ggml",
            quantizations=(
                FLOAT16,
                FLOAT32,
                Quantization("q8_0", 34 / 32, max_cer=0.03),
                Quantization("q5_0", 22 / 32, max_cer=0.08),
            ),
            engines=(Engine("pywhispercpp", "pywhispercpp", "pywhispercpp"),),
            usage=GGML_USAGE,
        ),
        ExportTarget(
            name="onnx",
            what="ONNX, for sherpa-onnx and transformers.js",
            writer="onnx",
            quantizations=(FLOAT32_TWICE, Quantization("int8", 4, max_cer=0.05)),
            engines=(
                Engine("onnxruntime", "onnxruntime", "onnxruntime"),
                Engine("sherpa-onnx", "sherpa_onnx", "sherpa_onnx", max_cer=0.03),
            ),
            usage=ONNX_USAGE,
            needs=("onnx", "onnxscript", "onnxruntime"),
        ),
        ExportTarget(
            name="mlx",
            what="MLX, for mlx-whisper on Apple's processors",
            writer="mlx",
            quantizations=(FLOAT16, FLOAT32),
            engines=(Engine("mlx-whisper", "mlx_whisper", "mlx_whisper"),),
            usage=MLX_USAGE,
        ),
    )
}


def quantization_names() -> Sequence[str]:
    """Return the names of all quantisations of all targets, each once."""
    return list(dict.fromkeys(known.name for target in TARGETS.values() for known in target.quantizations))
