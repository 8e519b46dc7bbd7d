"""OpenAI's own weights through the files of other engines and back, where a machine has them.

    REAL_MODELS=DIR .venv/bin/python -m pytest -m real tests/test_real_imports.py

REAL_MODELS holds whisper-base and whisper-tiny.en.
"""

from pathlib import Path

import pytest
import torch

from tests.openai_weights import MODELS, SIZES, needs_weights
from whisper_ft.cli.export.__main__ import main as export
from whisper_ft.cli.import_model import main as import_model
from whisper_ft.models.whisper import load_whisper

TEXTS = (" the cat, and 1984 don't", " naïve сям'я العربية 日本語", "♪ (hm) --")

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(1200),
    needs_weights,
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", ["ct2", "ggml"])
def test_openais_weights_come_back_from_float16(tmp_path: Path, size: str, target: str):
    """OpenAI published them in float16. A ggml file lacks the lists, which then are OpenAI's of that size."""
    original = Path(MODELS or ".", size)
    arguments = ["--to", target, "--quantization", "float16", "--out", str(tmp_path / "out"), "--check", "0"]
    assert export([str(original), *arguments]) == 0
    model = tmp_path / "out" / ("ggml-model.bin" if target == "ggml" else "")
    assert import_model([str(model), "--out", str(tmp_path / "back")]) == 0
    ours, theirs = load_whisper(str(tmp_path / "back")), load_whisper(str(original))
    for name, tensor in theirs.model.state_dict().items():
        is_large = tensor.ndim > 1 and "positions" not in name
        stored = tensor.half().float() if target == "ct2" or is_large else tensor
        assert torch.equal(ours.model.state_dict()[name], stored), name
    for text in TEXTS:
        both = [each.processor.tokenizer.encode(text) for each in (ours, theirs)]
        assert both[0] == both[1]
    told, expected = ours.model.generation_config.to_dict(), theirs.model.generation_config.to_dict()
    for field in ("alignment_heads", "suppress_tokens", "begin_suppress_tokens", "is_multilingual"):
        assert told[field] == expected[field], field
