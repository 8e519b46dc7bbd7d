"""Sizes of OpenAI's Whisper: recognition by the architecture, and the values that a file of another engine may lack."""

from whisper_ft.models.conversion.foreign_model import Architecture

LAYERS = {  # layers of encoder and decoder, width
    (4, 4, 384): "tiny",
    (6, 6, 512): "base",
    (12, 12, 768): "small",
    (24, 24, 1024): "medium",
    (32, 32, 1280): "large",
    (32, 4, 1280): "large-turbo",
}
NAMES = {  # by the name in LAYERS and the size of the vocabulary: English, 99 languages, 100 languages
    **{(size, 51_864): f"{size}.en" for size in ("tiny", "base", "small", "medium")},
    **{(size, 51_865): size for size in ("tiny", "base", "small", "medium")},
    ("large", 51_865): "large-v2",
    ("large", 51_866): "large-v3",
    ("large-turbo", 51_866): "large-v3-turbo",
}
ALIGNMENT_HEADS = {
    "tiny.en": "1.0 2.0 2.5 3.0 3.1 3.2 3.3 3.4",
    "tiny": "2.2 3.0 3.2 3.3 3.4 3.5",
    "base.en": "3.3 4.7 5.1 5.5 5.7",
    "base": "3.1 4.2 4.3 4.7 5.1 5.2 5.4 5.6",
    "small.en": "6.6 7.0 7.3 7.8 8.2 8.5 8.7 9.0 9.4 9.8 9.10 10.0 10.1 10.2 10.3 10.6 10.11 11.2 11.4",
    "small": "5.3 5.9 8.0 8.4 8.7 8.8 9.0 9.7 9.9 10.5",
    "medium.en": "11.4 14.1 14.12 14.14 15.4 16.0 16.4 16.9 17.12 17.14 18.7 18.10 18.15 20.0 20.3 20.9 20.14 21.12",
    "medium": "13.15 15.4 15.15 16.1 20.0 23.4",
    "large-v2": "10.12 13.17 16.11 16.12 16.13 17.15 17.16 18.4 18.11 18.19 19.11 21.2 21.3 22.3 22.9 22.12 23.5 23.7 "
    "23.13 25.5 26.1 26.12 27.15",
    "large-v3": "7.0 10.17 12.18 13.12 16.1 17.14 19.11 21.4 24.1 25.6",
    "large-v3-turbo": "2.4 2.11 3.3 3.6 3.11 3.14",
}
"""Cross-attention heads that follow the time of the words, as layer.head (openai-whisper 20250625)."""


def size_of(architecture: Architecture) -> str | None:
    """Return OpenAI's name of a size, such as `base.en`, or None. large-v1 has the shape of large-v2 and its name."""
    layers = (architecture.encoder_layers, architecture.decoder_layers, architecture.d_model)
    return NAMES.get((LAYERS.get(layers, ""), architecture.vocab_size))


def alignment_heads(size: str) -> list[list[int]]:
    """Return the alignment heads of a size as pairs of layer and head, as generation_config.json has them."""
    return [[*map(int, pair.split("."))] for pair in ALIGNMENT_HEADS[size].split()]
