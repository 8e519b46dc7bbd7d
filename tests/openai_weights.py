"""OpenAI's own weights and real speech for the tests marked `real`, and the reasons for which these tests skip."""

import os
from pathlib import Path

import pytest

MODELS, CORPUS = os.environ.get("REAL_MODELS"), os.environ.get("REAL_CORPUS")
SIZES = ("whisper-base", "whisper-tiny.en")

needs_weights = pytest.mark.skipif(
    not MODELS or not all(Path(MODELS, size, "config.json").exists() for size in SIZES),
    reason=f"needs OpenAI's weights: REAL_MODELS=DIR with {' and '.join(SIZES)}",
)
needs_speech = pytest.mark.skipif(not CORPUS, reason="needs real speech: REAL_CORPUS=DIR with parquet files")
