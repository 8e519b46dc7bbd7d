"""Labels of windows: times, previous text, silence and their masks, token by token, with OpenAI's vocabularies."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from collator import SpeechCollator
from normalizers import get_normalizer
from tests.openai_tokenizer import MULTILINGUAL, V3, Checkpoint, Vocabulary, needs_openai
from whisper_ft.config.training import LabelsConfig
from whisper_ft.data.labels.draws import LabelDraws
from whisper_ft.data.labels.rewrite import LabelNormalizer
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.labels.window_label import PlacedText, WindowLabel, monotone
from whisper_ft.data.sampling.order import Place
from whisper_ft.data.types import IGNORE, RejectedError, Window
from whisper_ft.models.whisper import ModelParts, load_parts
from whisper_ft.runtime.errors import UsageError
from whisper_ft.scoring.unicode_text import joined

POSITIONS = 448
TWO = [PlacedText("one two", 6, 117), PlacedText("three", 125, 255)]


class Model(NamedTuple):
    parts: ModelParts
    encode: LabelEncoder
    theirs: Any
    """OpenAI's tokenizer."""

    def text(self, text: str) -> list[int]:
        return list(self.theirs.encode(text))

    @property
    def start(self) -> list[int]:
        language = dict(zip(self.theirs.all_language_codes, self.theirs.all_language_tokens, strict=True))["en"]
        return [self.theirs.sot, language, self.theirs.transcribe]

    def label(self, *texts: PlacedText, timestamps: bool = True, prompt: list[int] | None = None) -> WindowLabel:
        return self.encode.window(texts, "en", "transcribe", timestamps=timestamps, prompt=prompt or [])


def written(vocabulary: Vocabulary, folder: Path) -> ModelParts:
    checkpoint = Checkpoint(vocabulary, d_model=32, encoder_layers=1, decoder_layers=1, heads=2)
    return load_parts(str(checkpoint.write(folder)))


@pytest.fixture(scope="module", params=[51_865, 51_866])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    folder = tmp_path_factory.mktemp("model")
    vocabulary = {51_865: MULTILINGUAL, 51_866: V3}[request.param]
    parts = written(vocabulary, folder)
    assert parts.config.vocab_size == request.param
    yield Model(parts, LabelEncoder.of(parts, parts.processor.tokenizer, "en", "transcribe"), vocabulary.theirs)
    shutil.rmtree(folder)


@needs_openai
def test_a_label_with_times_has_each_text_between_its_own(model: Model):
    zero = model.theirs.timestamp_begin
    assert model.label(*TWO) == (
        [
            *model.start,
            *[zero + 6, *model.text(" one two"), zero + 117],
            *[zero + 125, *model.text(" three"), zero + 255],
            model.theirs.eot,
        ],
        1,
    )


@needs_openai
def test_a_label_without_times_is_that_of_the_joined_texts(model: Model):
    label = model.label(*TWO, timestamps=False)
    assert label.tokens == [*model.start, model.theirs.no_timestamps, *model.text(" one two three"), model.theirs.eot]
    assert label.tokens == model.encode("one two three", "en", "transcribe")


@needs_openai
def test_of_speech_that_goes_on_after_the_window_only_the_start_is_written(model: Model):
    zero, label = model.theirs.timestamp_begin, model.label(TWO[0], PlacedText("not this", 1460, None))
    assert label.tokens[-3:] == [zero + 117, zero + 1460, model.theirs.eot]
    assert model.label(TWO[0], PlacedText("not this", 1460, None), timestamps=False) == model.label(
        TWO[0], timestamps=False
    )


@needs_openai
def test_every_time_of_a_window_has_its_token(model: Model):
    assert len(model.encode.times) == 1501
    names = model.parts.processor.tokenizer.convert_ids_to_tokens([model.encode.times[0], model.encode.times[1500]])
    assert names == ["<|0.00|>", "<|30.00|>"]
    assert model.label(PlacedText("late", 1499, 1600)).tokens[-2] == model.encode.times[1500]


@needs_openai
@pytest.mark.parametrize("timestamps", [False, True])
def test_a_prompt_is_read_and_everything_from_the_language_on_is_learnt(model: Model, timestamps: bool):
    prompt = model.encode.previous("said before")
    assert prompt == [model.theirs.sot_prev, *model.text(" said before")]
    label, plain = model.label(*TWO, timestamps=timestamps, prompt=prompt), model.label(*TWO, timestamps=timestamps)
    assert label == ([*prompt, *plain.tokens], len(prompt) + 1)
    window = Window(torch.zeros(4, 6), label.tokens, ("u",), first_target=label.first_target)
    batch = SpeechCollator(model.encode.start, model.encode.end, (4, 6))([window])
    assert batch.decoder_input_ids[0].tolist() == label.tokens[:-1]
    assert batch.labels[0].tolist() == [IGNORE] * len(prompt) + plain.tokens[1:]


@needs_openai
def test_a_prompt_has_the_last_223_tokens(model: Model):
    words = " ".join(map(str, range(400)))
    assert model.encode.previous(words) == [model.theirs.sot_prev, *model.text(f" {words}")[-223:]]
    assert len(model.encode.previous(words)) == 224
    assert model.encode.previous(" ") == model.encode.previous(None) == []


def of_tokens(model: Model, tokens: int) -> str:
    text = " ".join(["a"] * tokens)
    assert len(model.encode.text_tokens(text)) == tokens
    return text


@needs_openai
@pytest.mark.parametrize(
    ("tokens", "prompt_tokens", "timestamps", "prompt"),
    [
        (443, 0, True, False),  # start, language, task, two times: 448 positions
        (444, 0, False, False),  # times do not fit
        (219, 224, True, True),
        (220, 224, True, False),  # the prompt does not fit, and times are kept
        (444, 224, False, False),
        (443, 1, True, False),
    ],
)
def test_a_prompt_is_dropped_and_times_are_left_out_where_they_do_not_fit(
    model: Model, tokens: int, prompt_tokens: int, timestamps: bool, prompt: bool
):
    text, before = of_tokens(model, tokens), model.encode.previous(of_tokens(model, 223))[:prompt_tokens]
    label = model.label(PlacedText(text, 0, 100), prompt=before)
    assert label.first_target == (prompt_tokens if prompt else 0) + 1
    assert (model.theirs.no_timestamps not in label.tokens) == timestamps
    assert len(label.tokens) - 1 <= POSITIONS
    assert [token for token in label.tokens[label.first_target :] if token < model.theirs.eot] == model.text(f" {text}")


@needs_openai
def test_texts_whose_costs_fill_the_capacity_fit_exactly(model: Model):
    texts = [of_tokens(model, tokens) for tokens in (100, 200, 139)]
    assert sum(map(model.encode.cost, texts)) == model.encode.capacity == 445
    label = model.label(*(PlacedText(text, 10 * n, 10 * n + 5) for n, text in enumerate(texts)))
    assert len(label.tokens) - 1 == POSITIONS
    assert label.tokens[-2] in model.encode.times
    with pytest.raises(RejectedError, match="label_too_long"):
        model.encode.usable_text(of_tokens(model, 445))


@needs_openai
def test_silence_has_its_own_label(model: Model):
    assert model.encode.no_speech() == ([model.theirs.sot, model.theirs.no_speech, model.theirs.eot], 1)


JOINED = [
    (["one", "two"], "one two"),
    (["Раз.", "Два"], "Раз. Два"),
    (["你好。", "世界"], "你好。世界"),
    (["日本の", "ネコ"], "日本のネコ"),
    (["ภาษา", "ไทย"], "ภาษาไทย"),
    (["ພາສາ", "ລາວ"], "ພາສາລາວ"),
    (["မြန်မာ", "စာ"], "မြန်မာစာ"),
    (["ភាសា", "ខ្មែរ"], "ភាសាខ្មែរ"),
    (["안녕", "세계"], "안녕 세계"),
    (["हिन्दी", "भाषा"], "हिन्दी भाषा"),
    (["Hello", "世界"], "Hello 世界"),
    (["世界", "again"], "世界 again"),
    (["20", "30"], "20 30"),
]


@pytest.mark.parametrize(("texts", "whole"), JOINED)
def test_texts_are_joined_as_their_scripts_are_written(texts: list[str], whole: str):
    assert joined(texts) == whole


@needs_openai
@pytest.mark.parametrize(("texts", "whole"), JOINED)
def test_the_text_of_a_joined_label_is_the_joined_text(model: Model, texts: list[str], whole: str):
    label = model.label(*(PlacedText(text, 0, 10) for text in texts), timestamps=False)
    tokenizer = model.parts.processor.tokenizer
    assert tokenizer.decode(model.encode.text_of(label.tokens)).strip() == whole


TEXTS = st.builds(PlacedText, st.just("a"), st.integers(-10, 2000), st.none() | st.integers(-10, 2000))


@given(texts=st.lists(TEXTS, max_size=8), last=st.integers(0, 1500))
def test_times_never_go_back_and_stay_in_the_window(texts: list[PlacedText], last: int):
    times = [time for text in monotone(texts, last) for time in (text.begin, text.end) if time is not None]
    assert times == sorted(times)
    assert all(0 <= time <= last for time in times)
    whole = [text for text in texts if text.end is not None]
    kept = [text for text in monotone(texts, last) if text.end is not None]
    assert len(kept) == len(whole), "no text is lost"


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=1, max_size=6))
def test_times_in_order_stay_as_they_are(steps: list[tuple[int, int]]):
    texts, at = list[PlacedText](), 0
    for gap, length in steps:
        texts.append(PlacedText("a", at + gap, at + gap + length))
        at += gap + length
    assert monotone(texts, 1500) == texts


def test_a_model_with_a_short_window_has_the_times_of_its_window(micro_whisper: Path):
    parts = load_parts(str(micro_whisper))
    encode = LabelEncoder.of(parts, parts.processor.tokenizer, "be", "transcribe")
    last = encode.window([PlacedText("так", 0, 1500)], timestamps=True).tokens[-2]
    assert parts.processor.tokenizer.convert_ids_to_tokens(last) == "<|5.00|>"


def test_a_share_of_labels_whose_tokens_the_model_lacks_is_refused(micro_whisper: Path, tmp_path: Path):
    shutil.copytree(micro_whisper, tmp_path / "model")
    for file in (tmp_path / "model").glob("*.json"):
        text = file.read_text(encoding="utf-8")
        file.write_text(
            text.replace("<|nospeech|>", "<|nosound|>").replace("<|startofprev|>", "<|sop|>"), encoding="utf-8"
        )
    parts = load_parts(str(tmp_path / "model"))
    encode = LabelEncoder.of(parts, parts.processor.tokenizer, "be", "transcribe")
    encode.refuse_unknown(LabelsConfig(timestamps_share=0.5))
    for name in ("no_speech_share", "prompt_share"):
        with pytest.raises(UsageError, match=rf"--labels\.{name}: "):
            encode.refuse_unknown(LabelsConfig(**{name: 0.1}))
    parts.generation_config.no_timestamps_token_id = parts.config.vocab_size - 1
    with pytest.raises(UsageError, match=r"--labels\.timestamps_share: "):
        LabelEncoder.of(parts, parts.processor.tokenizer, "be", "transcribe").refuse_unknown(
            LabelsConfig(timestamps_share=0.5)
        )


def test_a_usable_text_is_stripped_and_normalised(micro_whisper: Path):
    parts = load_parts(str(micro_whisper))
    rewrite = LabelNormalizer("golden", get_normalizer)
    encode = LabelEncoder.of(parts, parts.processor.tokenizer, "be", "transcribe", rewrite)
    assert encode.usable_text(" Так, Раз’яднаць! ") == "так раз'яднаць"
    for text, reason in (("?!", "empty_label"), (None, "bad_label")):
        with pytest.raises(RejectedError, match=reason):
            encode.usable_text(text)


PLACES = [Place(epoch, chunk, row) for epoch in range(2) for chunk in range(20) for row in range(50)]


@pytest.mark.parametrize("draw", ["timestamps", "prompt", "no_speech", "partial_last"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_a_share_of_the_windows_is_drawn(draw: str, share: float):
    settings = LabelsConfig(timestamps_share=share, prompt_share=share, no_speech_share=share)
    drawn = [getattr(LabelDraws(7, settings, share), draw)(place) for place in PLACES]
    assert sum(drawn) / len(drawn) == pytest.approx(share, abs=0.03)
    if share in (0, 1):
        assert set(drawn) == {bool(share)}


def test_the_draws_of_a_window_are_independent_of_each_other():
    draws = LabelDraws(7, LabelsConfig(timestamps_share=0.5, prompt_share=0.5, no_speech_share=0.5), 0.5)
    both = sum(draws.timestamps(place) and draws.prompt(place) for place in PLACES) / len(PLACES)
    assert both == pytest.approx(0.25, abs=0.03)
    again = LabelDraws(8, draws.settings, 0.5)
    assert [draws.prompt(place) for place in PLACES] != [again.prompt(place) for place in PLACES]
