"""Times of words: the alignment is the cheapest path, words are whole, and no transcript changes."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from transformers import WhisperTokenizer

from tests.openai_tokenizer import MULTILINGUAL, needs_openai, write_tokenizer
from tests.wild_model import noise, wild
from whisper_ft.config.evaluation import DecodingConfig
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.decoding.dtw import first_columns
from whisper_ft.decoding.long_form import AudioWindow
from whisper_ft.decoding.transcriber import Transcriber
from whisper_ft.decoding.window_transcript import WindowTranscript
from whisper_ft.decoding.word_times import Spoken, Word, WordAligner
from whisper_ft.decoding.word_tokens import characters_of, words_of
from whisper_ft.models.whisper import load_whisper
from whisper_ft.runtime.errors import UsageError

# --- the path ---


def cheapest(costs: npt.NDArray[np.float64]) -> float:
    """Cost of the cheapest path, cell by cell."""
    rows, columns = costs.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    for row in range(rows):
        for column in range(columns):
            before = min(total[row, column], total[row, column + 1], total[row + 1, column])
            total[row + 1, column + 1] = costs[row, column] + before
    return float(total[-1, -1])


@given(arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(-9, 9).map(float)))
def test_the_path_is_the_cheapest(costs: npt.NDArray[np.float64]):
    """The cost follows from the columns at which the path enters rows: it leaves a row there, or one cell before."""
    entered = first_columns(costs)
    assert entered[0] == 0
    assert all(a <= b for a, b in pairwise(entered))
    ends = [*entered[1:], costs.shape[1] - 1]
    cost = 0.0
    for row, (begin, after) in enumerate(zip(entered, ends, strict=True)):
        leaves = [costs[row, begin : last + 1].sum() for last in {max(begin, after - 1), after}]
        is_last = row == len(costs) - 1
        cost += costs[row, begin : after + 1].sum() if is_last else min(leaves)
    assert cost == pytest.approx(cheapest(costs))


def test_a_matrix_without_cells_is_refused():
    with pytest.raises(ValueError, match="0 rows"):
        first_columns(np.zeros((0, 5)))


# --- words ---


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """OpenAI's multilingual tokenizer."""
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, MULTILINGUAL)
    return WhisperTokenizer.from_pretrained(folder)


def encoded(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


@needs_openai
@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", " Hello, world! It's well-known.", [" Hello,", " world!", " It's", " well-known."]),
        ("en", ' He said: "Yes." (twice)', [" He", " said:", ' "Yes."', " (twice)"]),
        ("en", " one - two – three", [" one", " - two –", " three"]),
        ("en", " 1,000.5 $5 50%", [" 1,000.5", " $5", " 50%"]),
        ("en", "No space first", ["No", " space", " first"]),
        ("es", " ¿Qué? ¡Sí!", [" ¿Qué?", " ¡Sí!"]),
        ("fr", " Oui ! « Non »", [" Oui !", " « Non »"]),
        ("be", " Сям'я з'ела раз’юшаны.", [" Сям'я", " з'ела", " раз’юшаны."]),
        ("hi", " मैं हिन्दी बोलता हूँ।", [" मैं", " हिन्दी", " बोलता", " हूँ।"]),
        ("ar", " مرحبا، كيف؟", [" مرحبا،", " كيف؟"]),
        ("en", " ...", [" ..."]),
        ("en", "", []),
    ],
)
def test_words_of_a_language_with_spaces(tokenizer: Any, language: str, text: str, expected: list[str]):
    assert [word.whole.text for word in words_of(tokenizer, encoded(tokenizer, text), language)] == expected


@needs_openai
@pytest.mark.parametrize(
    ("language", "text", "first", "last"),
    [
        ("zh", "我喜欢音乐。", "我", "。"),
        ("ja", "「こんにちは」と言った。", "「", "。"),
        ("th", "ที่บ้านมีน้ำ", "ท", ""),
        ("yue", "你好，世界！", "你", "！"),
        ("my", "မင်္ဂလာပါ", "မ", ""),
        ("zh", "我用 machine learning 做iPhone15。", "我", "。"),
    ],
)
def test_words_of_a_language_without_spaces(tokenizer: Any, language: str, text: str, first: str, last: str):
    words = [word.whole.text for word in words_of(tokenizer, encoded(tokenizer, text), language)]
    assert len(words) > 1
    assert "".join(words) == text
    assert words[0].startswith(first)
    assert words[-1].endswith(last)
    assert not any(word.strip() in ("。", "，", "！", "「", "」") for word in words), "punctuation stands with a word"
    assert not any("\ufffd" in word for word in words)
    if "machine" in text:
        assert {" machine", " learning"} <= set(words)
        assert any(word.endswith("iPhone15。") for word in words)


@needs_openai
@given(text=st.text(max_size=60), language=st.sampled_from(["en", "zh", "th"]))
def test_every_token_is_in_one_word_and_the_words_are_the_text(tokenizer: Any, text: str, language: str):
    tokens = encoded(tokenizer, text)
    words = words_of(tokenizer, tokens, language)
    assert "".join(word.whole.text for word in words) == tokenizer.decode(tokens)
    edges = [0, *(word.whole.end for word in words)]
    assert [word.whole.begin for word in words] == edges[:-1]
    assert edges[-1] == len(tokens)
    for word in words:
        assert word.whole.begin <= word.spoken.begin < word.spoken.end <= word.whole.end
        assert word.spoken.text in word.whole.text


@pytest.mark.long
@needs_openai
@given(tokens=st.lists(st.integers(0, 50256), max_size=20))
def test_tokens_that_are_half_letters_are_grouped_as_they_are_decoded(tokenizer: Any, tokens: list[int]):
    spans = [*characters_of(tokenizer, tokens)]
    assert "".join(span.text for span in spans) == tokenizer.decode(tokens)
    assert [span.begin for span in spans] == [0, *(span.end for span in spans)][: len(spans)]


@needs_openai
def test_the_punctuation_of_a_word_is_not_spoken(tokenizer: Any):
    tokens = encoded(tokenizer, ' "Hello, world".')
    assert [word.spoken.text for word in words_of(tokenizer, tokens, "en")] == ["Hello", " world"]


def test_a_token_that_a_user_added_is_a_text(micro_whisper: Path):
    _, processor = load_whisper(str(micro_whisper))
    processor.tokenizer.add_tokens(["日本"])
    tokens = [*encoded(processor.tokenizer, " так"), processor.tokenizer.convert_tokens_to_ids("日本")]
    words = words_of(processor.tokenizer, [*tokens, *encoded(processor.tokenizer, " не")], "be")
    assert [word.whole.text for word in words] == [" так日本", " не"]


# --- times ---


@pytest.fixture(scope="module")
def micro(micro_whisper: Path) -> tuple[Any, Any]:
    return wild(micro_whisper)


def decoded(micro: tuple[Any, Any], windows: list[AudioWindow], words: bool, **settings: Any) -> list[WindowTranscript]:
    model, processor = micro
    encode = LabelEncoder.of(model, processor.tokenizer, "be", "transcribe")
    decoding = DecodingConfig(**({"max_new_tokens": 30} | settings))
    decoder = Transcriber(model, processor.tokenizer, encode, decoding, "fp32", words=words)
    return decoder.generate(windows, decoder.prompt(windows[0]))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"timestamps": True},
        {"num_beams": 2},
        {"detect_language": True},
        {"prompt": "Мінск"},
        {"max_new_tokens": None},
        {"temperature_fallback": [0.5], "logprob_threshold": 0.0},
    ],
    ids=str,
)
def test_words_are_the_transcript_in_order_of_time_and_change_nothing(micro: tuple[Any, Any], settings: dict[str, Any]):
    windows = [noise(micro[0], index) for index in range(3)]
    without = decoded(micro, windows, words=False, **settings)
    parts = decoded(micro, windows, words=True, **settings)
    assert [part._replace(words=None) for part in parts] == without
    assert any(part.words for part in parts)
    for part in parts:
        assert part.words is not None
        if part.phrases:
            for number, phrase in enumerate(part.phrases):
                own = "".join(word.text for word in part.words if word.phrase == number)
                assert own.strip() == phrase.text
        else:
            assert "".join(word.text for word in part.words).strip() == part.text
            assert {word.phrase for word in part.words} <= {0}
        assert all(0 <= word.start <= word.end <= 5.0 for word in part.words)
        assert all(a.start <= b.start for a, b in pairwise(part.words))
        assert all(0 < word.probability <= 1 for word in part.words)


def test_a_window_without_speech_has_no_words(micro: tuple[Any, Any]):
    settings = {"no_speech_threshold": 0.0, "logprob_threshold": None}
    assert [part.words for part in decoded(micro, [noise(micro[0], 0)], words=True, **settings)] == [[]]


def test_the_words_of_a_row_do_not_depend_on_the_batch(micro: tuple[Any, Any]):
    windows = [noise(micro[0], index) for index in range(4)]
    together = decoded(micro, windows, words=True)
    for window, expected in zip(windows, together, strict=True):
        [alone] = decoded(micro, [window], words=True)
        assert [word.text for word in alone.words or ()] == [word.text for word in expected.words or ()]
        differences = [abs(a.start - b.start) for a, b in zip(alone.words or (), expected.words or (), strict=True)]
        assert np.median(differences) <= 0.02


def test_words_lie_within_the_sound_of_a_short_window(micro: tuple[Any, Any]):
    whole = noise(micro[0], 0)
    short = AudioWindow(0, whole.row, whole.features[:, :103], 1.0)  # one second, and three frames after it
    [part] = decoded(micro, [short], words=True)
    assert part.words
    assert max(word.end for word in part.words) <= 1.0


def test_the_attention_is_that_of_transformers(micro_whisper: Path):
    """Only `eager` returns weights; ours are computed from the same queries and keys."""
    model, processor = wild(micro_whisper)
    model.set_attn_implementation("eager")
    aligner = WordAligner(model, processor.tokenizer)
    encode = LabelEncoder.of(model, processor.tokenizer, "be", "transcribe")
    tokens = torch.tensor([encode("слова і яшчэ адно")])
    states = model.model.encoder(noise(model, 0).features[None]).last_hidden_state
    with torch.inference_mode(), aligner._cross_attention() as recorded:
        outputs = model.model.decoder(input_ids=tokens, encoder_hidden_states=states, output_attentions=True)
    assert recorded
    for layer, (queries, keys) in recorded.items():
        attention = model.model.decoder.layers[layer].encoder_attn
        split = [part[0].unflatten(-1, (-1, attention.head_dim)).transpose(0, 1) for part in (queries, keys)]
        weights = (split[0] * attention.scaling @ split[1].transpose(1, 2)).softmax(-1)
        torch.testing.assert_close(weights, outputs.cross_attentions[layer][0], rtol=1e-3, atol=1e-5)


def test_times_follow_the_attention(micro_whisper: Path):
    """Attention that moves through the sound at a known pace gives the times of that pace."""
    model, processor = load_whisper(str(micro_whisper))
    encode = LabelEncoder.of(model.eval(), processor.tokenizer, "be", "transcribe")
    text = encode.text_of(encode("адзін два тры чатыры пяць шэсць"))
    prompt, positions = encode.prompt(), model.config.max_source_positions
    pace = positions // (len(text) + 1)
    attention = model.model.decoder.layers[-1].encoder_attn
    blocks = torch.randn(positions, model.config.d_model, generator=torch.Generator().manual_seed(1))

    def queries(module: Any, given: Any, output: torch.Tensor) -> torch.Tensor:
        numbers = [max(place - len(prompt) + 1, 0) for place in range(output.shape[1])]
        return 4 * blocks[numbers][None]

    def keys(module: Any, given: Any, output: torch.Tensor) -> torch.Tensor:
        return blocks[torch.arange(positions) // pace][None]

    hooks = [attention.q_proj.register_forward_hook(queries), attention.k_proj.register_forward_hook(keys)]
    try:
        states = model.model.encoder(noise(model, 0).features[None]).last_hidden_state
        with torch.inference_mode():
            [words] = WordAligner(model, processor.tokenizer)(states, [Spoken(prompt, [text], positions, "be")])
    finally:
        for hook in hooks:
            hook.remove()
    spoken = words_of(processor.tokenizer, text, "be")
    for word, expected in list(zip(words, spoken, strict=True))[1:-1]:
        assert word.start == pytest.approx(expected.spoken.begin * pace * 0.02, abs=0.06)
        assert word.end == pytest.approx(expected.spoken.end * pace * 0.02, abs=0.06)


def test_a_model_without_alignment_heads_says_so_and_takes_the_upper_half(micro_whisper: Path):
    model, processor = load_whisper(str(micro_whisper))
    assert WordAligner(model, processor.tokenizer).notes == []
    del model.generation_config.alignment_heads
    aligner = WordAligner(model, processor.tokenizer)
    assert len(aligner.notes) == 1
    assert {layer for layer, _ in aligner._heads} == {1}


@pytest.mark.parametrize("heads", [[[7, 0]], [[0, 99]], [[1]], [[0, 1, 2]]])
def test_heads_that_the_model_does_not_have_are_refused(micro_whisper: Path, heads: list[list[int]]):
    model, processor = load_whisper(str(micro_whisper))
    model.generation_config.alignment_heads = heads
    with pytest.raises(UsageError, match="alignment_heads") as refused:
        WordAligner(model, processor.tokenizer)
    assert "\n" not in str(refused.value)


def test_a_word_that_contains_a_pause_is_shortened():
    from whisper_ft.decoding.word_times import _without_pauses

    words = [
        Word(" So", 0.0, 3.0, 1.0, 0),  # silence before the first word
        Word(" it", 3.0, 3.3, 1.0, 0),
        Word(" ends.", 3.3, 3.6, 1.0, 0),
        Word(" Then", 3.6, 6.0, 1.0, 0),  # a pause between two sentences
        Word(" more", 6.0, 6.3, 1.0, 0),
        Word(" ends", 6.3, 9.0, 1.0, 0),  # silence after the last word
    ]
    times = [(word.start, word.end) for word in _without_pauses(words)]
    assert times[1:3] + times[4:5] == [(3.0, 3.3), (3.3, 3.6), (6.0, 6.3)]
    assert [round(end - start, 2) for start, end in (times[0], times[3], times[5])] == [1.4] * 3
