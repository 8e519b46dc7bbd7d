"""ggml files: blocks as ggml's own code makes them, and the parts of a file that are OpenAI's."""

import ctypes
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.openai_tokenizer import ENGLISH, MULTILINGUAL, V3, Checkpoint, Vocabulary, needs_openai
from whisper_ft.models.conversion.byte_reader import reading
from whisper_ft.models.conversion.ggml_blocks import BLOCK, BLOCK_TYPES, Q5_0, Q8_0, BlockType, dequantise, quantise
from whisper_ft.models.conversion.ggml_file import HEADER, is_ggml, read_ggml
from whisper_ft.models.export import ggml
from whisper_ft.models.whisper import load_whisper


def their_library() -> ctypes.CDLL | None:
    """Library of ggml in the wheel of pywhispercpp."""
    spec = find_spec("_pywhispercpp")
    if spec is None or spec.origin is None:
        return None
    found = sorted(Path(spec.origin).parent.glob("pywhispercpp.libs/libggml-base*"))
    return ctypes.CDLL(str(found[0])) if found else None


THEIRS = their_library()
needs_ggml = pytest.mark.skipif(THEIRS is None, reason="needs pywhispercpp, whose wheel holds ggml")
VALUES = st.floats(-100, 100, width=32) | st.sampled_from([0.0, -0.0, 1e-30, -1e-7, 0.5, 1.5, 65_000.0])


def their_blocks(values: np.ndarray, kind: BlockType) -> bytes:
    assert THEIRS is not None
    quantize = THEIRS.ggml_quantize_chunk
    quantize.restype = ctypes.c_size_t
    quantize.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    out = ctypes.create_string_buffer(values.size // BLOCK * kind.layout.itemsize)
    size = quantize(kind.tensor_type, values.ctypes.data, out, 0, values.size // BLOCK, BLOCK, None)
    return out.raw[:size]


def their_values(blocks: bytes, kind: BlockType) -> np.ndarray:
    assert THEIRS is not None
    count = len(blocks) // kind.layout.itemsize * BLOCK
    out = np.empty(count, np.float32)
    dequantize = getattr(THEIRS, f"dequantize_row_{kind.name}")
    dequantize.restype, dequantize.argtypes = None, [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64]
    dequantize(blocks, out.ctypes.data, count)
    return out


@needs_ggml
@pytest.mark.parametrize("kind", [Q5_0, Q8_0], ids=lambda kind: kind.name)
@given(values=st.lists(VALUES, min_size=BLOCK, max_size=BLOCK))
def test_a_block_has_the_bytes_of_ggml(kind: BlockType, values: list[float]):
    row = np.array(values, np.float32)
    assert quantise(row, kind).tobytes() == their_blocks(row, kind)


@needs_ggml
@pytest.mark.parametrize("kind", [Q5_0, Q8_0], ids=lambda kind: kind.name)
def test_a_matrix_has_the_bytes_of_ggml(kind: BlockType):
    values = np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)
    assert quantise(values, kind).tobytes() == their_blocks(values, kind)


@needs_ggml
@pytest.mark.parametrize("kind", BLOCK_TYPES.values(), ids=lambda kind: kind.name)
def test_blocks_are_read_as_by_ggml(kind: BlockType):
    values = np.random.default_rng(1).normal(size=64 * BLOCK).astype(np.float32)
    blocks = their_blocks(values, kind)
    ours = dequantise(np.frombuffer(blocks, kind.layout), kind)
    assert np.array_equal(ours.ravel(), their_values(blocks, kind))


def test_rows_that_are_not_whole_blocks_are_refused():
    with pytest.raises(ValueError):
        quantise(np.zeros((4, 48), np.float32), Q8_0)


@pytest.mark.long
@needs_openai
@pytest.mark.parametrize(
    "vocabulary",
    [MULTILINGUAL, *(pytest.param(each, marks=pytest.mark.long) for each in (ENGLISH, V3))],
    ids=["99", "English", "100"],
)
def test_a_file_holds_the_filters_and_bytes_of_openai(tmp_path: Path, vocabulary: Vocabulary):
    bins = 128 if vocabulary is V3 else 80
    checkpoint = Checkpoint(vocabulary, d_model=32, encoder_layers=1, decoder_layers=1, heads=2, mel_bins=bins)
    ggml.write(load_whisper(str(checkpoint.write(tmp_path / "model"))), tmp_path, "float16")
    path = tmp_path / ggml.FILE
    assert is_ggml(path)
    file = read_ggml(path)
    theirs = vocabulary.theirs.encoding
    assert file.header["n_vocab"] == theirs.n_vocab
    ranks = {rank: token for token, rank in theirs._mergeable_ranks.items()}
    assert file.vocabulary == [ranks[rank] for rank in sorted(ranks)]
    with reading(path) as reader:
        reader.skip(4 * (len(HEADER) + 3), "the header")
        filters = np.frombuffer(reader.take(4 * bins * 201, "the filters"), np.float32).reshape(bins, 201)
    spec = find_spec("whisper")
    assert spec is not None
    assert spec.origin is not None
    with np.load(Path(spec.origin).parent / "assets/mel_filters.npz") as assets:
        assert np.abs(filters - assets[f"mel_{bins}"]).max() < 1e-8
