"""Export to one ggml file for whisper.cpp, in float32, float16, or quantised in blocks.

whisper.cpp's own converter rounds all weights to float16 first, also for a file in float32. This writer does not.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from transformers import WhisperTokenizer

from whisper_ft.models.conversion.byte_level import VocabularyError, bytes_of
from whisper_ft.models.conversion.ggml_blocks import BLOCK, Q5_0, Q8_0, BlockType, quantise
from whisper_ft.models.conversion.ggml_file import FLOAT16, FLOAT32, file_parts, file_type, tensor_bytes
from whisper_ft.models.export.openai_layout import dimensions, openai_name, refuse_unlike_openai
from whisper_ft.models.generation_config import END
from whisper_ft.models.whisper import LoadedWhisper
from whisper_ft.runtime import atomic
from whisper_ft.runtime.errors import UsageError

FILE = "ggml-model.bin"
KINDS: dict[str, BlockType | int] = {"float32": FLOAT32, "float16": FLOAT16, "q5_0": Q5_0, "q8_0": Q8_0}
ALWAYS_FLOAT32 = ("encoder.positional_embedding", "decoder.positional_embedding")
COLUMNS = ("encoder.conv1.bias", "encoder.conv2.bias")  # stored with the shape (d, 1), which whisper.cpp expects


def refuse(loaded: LoadedWhisper) -> None:
    """Raise UsageError for a model that whisper.cpp cannot run."""
    refuse_unlike_openai(loaded, "whisper.cpp")
    if (width := loaded.model.config.d_model) % BLOCK:
        raise UsageError(f"whisper.cpp takes widths that are multiples of {BLOCK}, and this model has {width}")


def write(loaded: LoadedWhisper, out: Path, quantization: str) -> None:
    """Write the file FILE into a folder, one tensor at a time.

    `quantization` is one of KINDS. For a block type the convolutions are float16. Vectors and positions are always
    float32. Raises UsageError for a weight that is not finite in its number format.
    """
    config, processor, large = loaded.model.config, loaded.processor, KINDS[quantization]
    filters = np.ascontiguousarray(processor.feature_extractor.mel_filters.T, dtype=np.float32)
    header, tensors = {**dimensions(config), "ftype": file_type(large)}, _tensors(loaded.model.state_dict(), large)
    atomic.write_parts(out / FILE, file_parts(header, filters, token_bytes(processor.tokenizer), tensors))


def token_bytes(tokenizer: WhisperTokenizer) -> list[bytes]:
    """Return the bytes of all tokens before <|endoftext|>, by id. An id without a token gets no bytes.

    Raises UsageError if the tokenizer is not byte-level BPE.
    """
    vocabulary = tokenizer.get_vocab()
    texts = {number: text for text, number in vocabulary.items()}
    try:
        return [bytes_of(texts.get(number, "")) for number in range(vocabulary[END])]
    except VocabularyError as error:
        raise UsageError(f"the vocabulary {error}") from error


def _tensors(weights: Mapping[str, torch.Tensor], large: BlockType | int) -> Iterator[bytes]:
    for name, tensor in weights.items():
        if name == "proj_out.weight":  # the token embeddings
            continue
        theirs, values = openai_name(name), tensor.detach().float().cpu().contiguous().numpy()
        type, stored = _stored(theirs, values, large)
        if not np.isfinite(stored["scale"] if stored.dtype.names else stored).all():
            raise UsageError(f"{name}: its values are beyond the range of the number format in the ggml file")
        shape = (*values.shape, 1) if theirs in COLUMNS else values.shape
        yield tensor_bytes(theirs, shape, type, stored.tobytes())


def _stored(name: str, values: np.ndarray, large: BlockType | int) -> tuple[int, np.ndarray]:
    """Return the type of a tensor in the file, and its values in this type."""
    if values.ndim < 2 or name in ALWAYS_FLOAT32 or large == FLOAT32:
        return FLOAT32, values.astype("<f4", copy=False)
    if isinstance(large, BlockType) and values.ndim == 2:
        return large.tensor_type, quantise(values, large)
    with np.errstate(over="ignore"):  # infinity is reported by the caller
        return FLOAT16, values.astype("<f2")
