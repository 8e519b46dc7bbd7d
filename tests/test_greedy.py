"""Greedy decoding gives the tokens of transformers' greedy search, independent of the rest of the batch."""

from typing import Any

import pytest
import torch
from transformers import GenerationMixin, WhisperConfig, WhisperForConditionalGeneration

from whisper_ft.decoding.greedy import GreedyDecoder

PROMPT, MAX_TOKENS = [3, 5, 8], 24
SUPPRESSED, SUPPRESSED_AT_BEGIN = [11, 12], [20, 21, 22]


@pytest.fixture(scope="module", params=[(2, 64), (4, 96)], ids=["2 layers", "4 layers"])
def model(request: pytest.FixtureRequest) -> Any:
    """A model with weights so large that it writes a different token at each position."""
    layers, width = request.param
    config = WhisperConfig(
        vocab_size=300, d_model=width, encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=2 * width, decoder_ffn_dim=2 * width, num_mel_bins=80,
        max_source_positions=50, max_target_positions=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=3, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(layers)
        model = WhisperForConditionalGeneration(config).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.dim() > 1:
                    weight.mul_(40 if "encoder_attn" in name else 8 if "layers" in name else 3)
    return model


@pytest.fixture(scope="module")
def features() -> torch.Tensor:
    return torch.randn(12, 80, 100, generator=torch.Generator().manual_seed(7))


def generated(model: Any, features: torch.Tensor, end: int) -> list[list[int]]:
    settings = model.generation_config
    settings.update(eos_token_id=end, pad_token_id=end, max_length=len(PROMPT) + MAX_TOKENS, num_beams=1)
    settings.suppress_tokens, settings.begin_suppress_tokens = SUPPRESSED, SUPPRESSED_AT_BEGIN
    rows = GenerationMixin.generate(
        model,
        features,
        attention_mask=torch.ones(len(features), features.shape[2]),
        decoder_input_ids=torch.tensor([PROMPT]).expand(len(features), -1),
        generation_config=settings,
    )[:, len(PROMPT) :].tolist()
    return [row[: row.index(end)] if end in row else row for row in rows]


@torch.inference_mode()
def ours(model: Any, features: torch.Tensor, end: int) -> list[list[int]]:
    decoder = GreedyDecoder(model, [*SUPPRESSED, 10**6], SUPPRESSED_AT_BEGIN)
    return [row.tokens for row in decoder(decoder.encode(features), PROMPT, MAX_TOKENS, end)]


def ends(model: Any, features: torch.Tensor) -> list[int]:
    """Tokens that some rows write, at different positions. As an end token, each ends rows at those positions."""
    rows = ours(model, features, end=-1)
    assert len({tuple(row) for row in rows}) == len(rows), "each row writes something of its own"
    return sorted({token for row in rows for token in row})[::5]


@pytest.mark.long
def test_the_tokens_are_those_of_transformers_and_rows_leave_when_they_end(model: Any, features: torch.Tensor):
    lengths = set()
    for end in ends(model, features):
        rows = ours(model, features, end)
        assert rows == generated(model, features, end)
        lengths |= {len(row) for row in rows}
    assert len(lengths) > 5
    assert MAX_TOKENS in lengths
    written = {token for row in ours(model, features, -1) for token in row}
    assert not written & {*SUPPRESSED}


def test_a_row_does_not_depend_on_the_rest_of_the_batch(model: Any, features: torch.Tensor):
    end = ends(model, features)[0]
    together = ours(model, features, end)
    assert [row for clip in features for row in ours(model, clip[None], end)] == together
    assert ours(model, features.flip(0), end) == together[::-1]


def test_bf16_starts_with_the_tokens_of_float32(model: Any, features: torch.Tensor):
    with torch.autocast("cpu", torch.bfloat16):
        rows = ours(model, features, 2)
    same = sum(a == b for a, b in zip(rows[0], ours(model, features, 2)[0], strict=False))
    assert same, "the first tokens, at least, are those of float32"


def test_a_row_that_ends_at_once_is_empty(model: Any, features: torch.Tensor):
    first = ours(model, features[:1], -1)[0][0]
    assert ours(model, features[:1], first) == [[]]


def test_the_detected_language_is_the_likeliest_of_the_allowed_ones(model: Any, features: torch.Tensor):
    with torch.inference_mode():
        logits = model(features, decoder_input_ids=torch.full((len(features), 1), 3)).logits[:, -1]
        decoder = GreedyDecoder(model, [], [])
        for first in range(25, 280, 12):
            expected = [int(row[first : first + 12].argmax()) + first for row in logits]
            assert decoder.detect_language(decoder.encode(features), 3, range(first, first + 12)) == expected
