"""Dimensions of a Whisper model, on which its memory depends. Those of OpenAI's models are known without a download."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from whisper_ft.runtime.errors import UsageError, one_line
from whisper_ft.runtime.regular_file import read_regular, strict_json

KERNEL = 3  # width of both convolutions of every Whisper
MOST_BYTES = 1 << 20  # largest config.json that is read; real ones have a few kB

_TABLE = {  # layers of encoder and decoder, width, heads, mel bins, vocabulary
    "tiny": (4, 4, 384, 6, 80, 51_865),
    "base": (6, 6, 512, 8, 80, 51_865),
    "small": (12, 12, 768, 12, 80, 51_865),
    "medium": (24, 24, 1024, 16, 80, 51_865),
    "large-v2": (32, 32, 1280, 20, 80, 51_865),
    "large-v3": (32, 32, 1280, 20, 128, 51_866),
    "large-v3-turbo": (32, 4, 1280, 20, 128, 51_866),
}
_ENGLISH = {f"{size}.en": (*_TABLE[size][:-1], 51_864) for size in ("tiny", "base", "small", "medium")}


@dataclass(frozen=True)
class ModelDimensions:
    """Dimensions of a Whisper model. All counts of weights follow from them."""

    encoder_layers: int
    decoder_layers: int
    width: int
    heads: int
    mel_bins: int
    vocabulary: int
    encoder_inner: int
    """Width between the two linear layers of a feed-forward block, of the encoder."""
    decoder_inner: int
    positions: int = 1500
    """Positions of the encoder, each for two frames of 10 ms."""
    label_positions: int = 448
    """Positions of the decoder: the longest label with its prompt."""

    @classmethod
    def from_config(cls, config: Any) -> Self:
        """Take the dimensions from a mapping with the keys of config.json. Raises KeyError for a missing key."""
        return cls(
            encoder_layers=config["encoder_layers"],
            decoder_layers=config["decoder_layers"],
            width=config["d_model"],
            heads=config["encoder_attention_heads"],
            mel_bins=config["num_mel_bins"],
            vocabulary=config["vocab_size"],
            encoder_inner=config["encoder_ffn_dim"],
            decoder_inner=config["decoder_ffn_dim"],
            positions=config["max_source_positions"],
            label_positions=config["max_target_positions"],
        )

    @property
    def attention_matrices(self) -> int:
        """Weights of the four matrices of an attention."""
        return 4 * self.width**2

    @property
    def encoder_matrices(self) -> int:
        """Weights of the linear layers in an encoder layer, without biases."""
        return self.attention_matrices + 2 * self.width * self.encoder_inner

    @property
    def decoder_matrices(self) -> int:
        """Weights of the linear layers in a decoder layer, without biases."""
        return 2 * self.attention_matrices + 2 * self.width * self.decoder_inner

    @property
    def encoder_layer_weights(self) -> int:
        """Weights of an encoder layer: linear layers with biases (keys have none), and two norms."""
        return self.encoder_matrices + 3 * self.width + self.encoder_inner + self.width + 4 * self.width

    @property
    def decoder_layer_weights(self) -> int:
        """Weights of a decoder layer: linear layers with biases (keys have none), and three norms."""
        return self.decoder_matrices + 6 * self.width + self.decoder_inner + self.width + 6 * self.width

    @property
    def convolution_matrices(self) -> int:
        """Weights of the two convolutions, without biases."""
        return KERNEL * self.width * (self.mel_bins + self.width)

    @property
    def fixed_positions(self) -> int:
        """Weights of the encoder's positions, which are never trained."""
        return self.positions * self.width

    @property
    def encoder_weights(self) -> int:
        """Weights of the encoder that can be trained: convolutions, layers and the final norm."""
        return self.convolution_matrices + 4 * self.width + self.encoder_layers * self.encoder_layer_weights

    @property
    def token_embedding(self) -> int:
        """Weights of the token embedding, which is the output layer, too."""
        return self.vocabulary * self.width

    @property
    def embeddings(self) -> int:
        """Weights of the decoder's token and position embeddings."""
        return self.token_embedding + self.label_positions * self.width

    @property
    def decoder_body(self) -> int:
        """Weights of the decoder without its embeddings."""
        return self.decoder_layers * self.decoder_layer_weights + 2 * self.width

    @property
    def weights(self) -> int:
        """All weights of the model."""
        return self.encoder_weights + self.fixed_positions + self.embeddings + self.decoder_body


def _openai(row: tuple[int, int, int, int, int, int]) -> ModelDimensions:
    encoder_layers, decoder_layers, width, heads, mel_bins, vocabulary = row
    return ModelDimensions(encoder_layers, decoder_layers, width, heads, mel_bins, vocabulary, 4 * width, 4 * width)


OPENAI_MODELS = {size: _openai(row) for size, row in (_TABLE | _ENGLISH).items()}
"""Dimensions of OpenAI's models by their names, such as `base.en`. The feed-forward width is four times the width."""
_ALIASES = {"large": "large-v3", "large-v1": "large-v2", "turbo": "large-v3-turbo"}
_KNOWN = (
    OPENAI_MODELS
    | {alias: OPENAI_MODELS[size] for alias, size in _ALIASES.items()}
    | {f"openai/whisper-{size}": model for size, model in OPENAI_MODELS.items()}
    | {"openai/whisper-large": OPENAI_MODELS["large-v2"]}  # the first version, of the same dimensions
)


def dimensions_of(name: str) -> ModelDimensions:
    """Return the dimensions of a model: one of OpenAI's by its name, a folder, or a model on the Hub.

    Only config.json is read, and for OpenAI's names nothing. Raises UsageError if it cannot be had.
    """
    folder = Path(name)
    if not folder.exists() and name in _KNOWN:
        return _KNOWN[name]
    path = folder / "config.json" if folder.exists() else _downloaded(name)
    try:
        config = strict_json(read_regular(path, MOST_BYTES))
        return ModelDimensions.from_config(config)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else one_line(error)
        raise UsageError(f"--model.name {name}: its config.json does not describe a Whisper model: {reason}") from error


def _downloaded(name: str) -> Path:
    """Return the path of the config.json of a model on the Hub. Raises UsageError if it cannot be had."""
    from huggingface_hub import hf_hub_download  # takes 0.3 s, which OpenAI's names do not need

    try:
        return Path(hf_hub_download(name, "config.json"))
    except (OSError, ValueError, RuntimeError) as error:  # the classes of huggingface_hub are among these
        raise UsageError(
            f"--model.name {name}: no config.json can be had from the Hub ({one_line(error)[:200]}); give a folder, "
            f"or one of {', '.join(sorted(OPENAI_MODELS))}"
        ) from error
