"""Packed windows: times that fit the samples, texts in order, and the same windows however they are read."""

import io
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.test_stream import KeepingCollator, Rows, clip, spoken
from whisper_ft.config.augment import AugmentConfig
from whisper_ft.config.data import DataConfig, SourceConfig, WeightedSourceConfig
from whisper_ft.config.packing import PackConfig
from whisper_ft.config.training import LabelsConfig
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.audio.noise_files import NoiseFiles
from whisper_ft.data.augment.spec_augment import SpecAugment
from whisper_ft.data.augment.transforms import Transforms
from whisper_ft.data.augment.waveform.chain import WaveformChain
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.labels.window_label import PlacedText
from whisper_ft.data.loader import StepBatches, TrainStream
from whisper_ft.data.packing.clip import Clip
from whisper_ft.data.packing.layout import BlockLayout, Layout
from whisper_ft.data.sampling.batch_plan import BatchPlan
from whisper_ft.data.sampling.block_partition import BlockPartition
from whisper_ft.data.sampling.order import Order, Place
from whisper_ft.data.sources import open_mixture, open_source
from whisper_ft.data.types import Window
from whisper_ft.data.window_builder import WindowBuilder, WindowSettings
from whisper_ft.data.window_reader import WindowReader
from whisper_ft.models.whisper import load_whisper
from whisper_ft.runtime.errors import UsageError
from whisper_ft.scoring.unicode_text import joined

RATE, STEP, WINDOW = 16_000, 320, 80_000  # samples: of a second, between two timestamps, of a window of 5 s
PACKED = PackConfig(enabled=True, block=4)


@pytest.fixture(scope="module")
def parts(micro_whisper: Path) -> tuple[Any, Any]:
    return load_whisper(str(micro_whisper))


@pytest.fixture(scope="module")
def encode(parts: tuple[Any, Any]) -> LabelEncoder:
    model, processor = parts
    return LabelEncoder.of(model, processor.tokenizer, "be", "transcribe")


@pytest.fixture(scope="module")
def log_mel(parts: tuple[Any, Any]) -> LogMel:
    return LogMel(parts[1].feature_extractor)


def settings(pack: PackConfig = PACKED, **labels: float) -> WindowSettings:
    return WindowSettings(3, pack, LabelsConfig(**labels))


def clip_of(number: int, samples: int, encode: LabelEncoder, text: str | None = None) -> Clip:
    """A clip that is all speech, of loud noise."""
    text = f"слова {number}" if text is None else text
    waveform = np.random.default_rng(number).uniform(-0.5, 0.5, samples).astype(np.float32)
    texts = [PlacedText(text, 0, -(-samples // STEP))]
    return Clip(f"row-{number}", Place(0, 0, number), waveform, texts, encode.cost(text), "be", "transcribe")


def laid_out(clips: Sequence[Clip], encode: LabelEncoder, of: WindowSettings) -> list[Layout]:
    return BlockLayout(of.pack, of.draws, encode, WINDOW, RATE)(clips)


SAMPLES = st.lists(st.integers(1_600, WINDOW), min_size=1, max_size=12)
GAPS = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda pair: tuple(sorted(one / 20 for one in pair)))


@given(SAMPLES, GAPS, st.sampled_from([0.0, 0.5, 1.0]))
def test_a_window_holds_its_texts_in_order_at_their_times(
    encode: LabelEncoder, log_mel: LogMel, samples: list[int], gap: tuple[float, float], share: float
):
    clips = [clip_of(number, length, encode) for number, length in enumerate(samples)]
    of = settings(PackConfig(enabled=True, gap=gap), timestamps_share=share)
    layouts = laid_out(clips, encode, of)
    builder = WindowBuilder(log_mel, encode, Transforms(), of)
    placed = [one.clip.place.row for layout in layouts for one in layout.placed]
    assert sorted(placed) == list(range(len(clips))), "each utterance once"
    for layout in layouts:
        rows = [one.clip.place.row for one in layout.placed]
        assert rows == sorted(rows)
        free, window, audio = 0, builder.window(layout), builder.audio(layout)
        for one in layout.placed:
            assert one.begin % STEP == 0
            assert (audio[free : one.begin] == 0).all(), "a gap"
            assert np.array_equal(audio[one.begin : one.end], one.clip.waveform)
            assert one.begin - free >= min(gap[0] * RATE - STEP, WINDOW - len(one.clip.waveform) - STEP)
            free = one.end
        assert len(audio) <= WINDOW
        assert window.audio_samples == sum(samples[row] for row in rows)
        assert window.filled_samples == free
        assert len(window.tokens) - 1 <= encode.max_tokens
        assert_label_fits(window, layout, encode)


def assert_label_fits(window: Window, layout: Layout, encode: LabelEncoder) -> None:
    """Texts in the order of the clips; times that rise, end with the window, and are within 0.02 s of the samples."""
    first_time = encode.prompt()[-1] + 1
    body = window.tokens[3:-1]
    times = [token - first_time for token in body if token >= first_time]
    text_of = lambda tokens: encode._tokenizer.decode(tokens, skip_special_tokens=True)  # noqa: E731
    assert (
        text_of([t for t in body if t < first_time - 1]).split()
        == " ".join(text.text for one in layout.placed for text in one.clip.texts).split()
    )
    assert (len(times) > 0) == layout.timestamps
    if not layout.timestamps:
        return
    assert times == sorted(times)
    assert 0 <= times[0] <= times[-1] <= WINDOW // STEP
    spoken_at = [sample for one in layout.placed for sample in (one.begin, one.end)]
    spoken_at += [] if layout.partial is None else [layout.partial.begin]
    assert len(times) == len(spoken_at)
    for time, sample in zip(times, spoken_at, strict=True):
        assert abs(time * STEP - sample) <= STEP


def test_dense_text_never_takes_more_positions_than_the_decoder_has(encode: LabelEncoder, log_mel: LogMel):
    clips = [clip_of(number, 16_000, encode, "вельмі доўгі радок густога тэксту " * 2) for number in range(9)]
    of = settings(timestamps_share=1.0)
    layouts = laid_out(clips, encode, of)
    windows = [WindowBuilder(log_mel, encode, Transforms(), of).window(layout) for layout in layouts]
    assert max(len(window.tokens) - 1 for window in windows) <= encode.max_tokens
    assert all(encode.prompt()[-1] not in window.tokens for window in windows), "with timestamps, which all fit"
    assert len(layouts) > 3, "three would do by their seconds"


def test_a_window_has_one_language_and_one_task(encode: LabelEncoder):
    kinds = [("be", "transcribe"), ("sv", "transcribe"), ("be", "translate"), ("be", None), (None, None)]
    clips = [
        replace(clip_of(number, 20_000, encode), language=language, task=task)
        for number, (language, task) in enumerate(kinds * 3)
    ]
    for layout in laid_out(clips, encode, settings()):
        assert len({tuple(encode.prompt(one.clip.language, one.clip.task)) for one in layout.placed}) == 1
    counts = [len(layout.placed) for layout in laid_out(clips, encode, settings())]
    assert sum(counts) == 15
    assert max(counts) > 1


def test_nothing_follows_speech_that_goes_on_after_its_clip(encode: LabelEncoder):
    clips = [clip_of(number, 20_000, encode) for number in range(8)]
    texts = [*clips[3].texts, PlacedText("", 60, None)]
    clips[3] = replace(clips[3], texts=texts)
    (layout,) = (one for one in laid_out(clips, encode, settings()) if any(p.clip is clips[3] for p in one.placed))
    assert len(layout.placed) == 1


def test_some_windows_with_timestamps_end_with_the_beginning_of_another_utterance(
    encode: LabelEncoder, log_mel: LogMel
):
    clips = [clip_of(number, 22_000 + 700 * number, encode) for number in range(16)]
    pack = PackConfig(enabled=True, partial_last_share=1.0)
    of = settings(pack, timestamps_share=1.0)
    layouts = laid_out(clips, encode, of)
    ends = [layout for layout in layouts if layout.partial is not None]
    assert ends
    builder = WindowBuilder(log_mel, encode, Transforms(), of)
    for layout in ends:
        cut, audio, window = layout.partial, builder.audio(layout), builder.window(layout)
        assert cut is not None
        assert len(audio) == WINDOW
        assert np.array_equal(audio[cut.begin :], cut.clip.waveform[: WINDOW - cut.begin])
        assert WINDOW - cut.begin >= 0.3 * RATE
        assert cut.clip.id not in window.utterances
        assert window.tokens[-2] == encode.prompt()[-1] + 1 + cut.begin // STEP, "its start time is the last token"
    assert sorted(one.clip.place.row for layout in layouts for one in layout.placed) == list(range(16))
    never = laid_out(clips, encode, settings(PackConfig(enabled=True, partial_last_share=0.0), timestamps_share=1.0))
    assert not [layout for layout in never if layout.partial is not None]


@given(st.permutations(range(12)), st.integers(1, 6))
def test_no_row_of_a_window_is_in_its_prompt(encode: LabelEncoder, log_mel: LogMel, order: list[int], words: int):
    rows = [
        replace(spoken(number), text=f"{chr(1072 + number)}{'о слова' * words}", speaker="a") for number in range(12)
    ]
    reader = WindowReader(Rows(rows, 12), log_mel, encode, 1, settings=settings(prompt_share=1.0))
    windows = [one for one in reader.windows([Place(0, 0, row) for row in order]) if isinstance(one, Window)]
    for window in windows:
        prompt, label = window.tokens[: window.first_target - 1], window.tokens[window.first_target - 1 :]
        read = encode._tokenizer.decode(prompt, skip_special_tokens=True)
        numbers = [int(name.removeprefix("row-")) for name in window.utterances]
        assert not any(rows[number].text in read for number in numbers)
        before = [row.text for row in rows[: numbers[0]]]
        allowed = not set(before) & {rows[number].text for number in numbers}
        if before and allowed and len(encode.previous(joined(before))) + len(label) - 1 <= encode.max_tokens:
            assert prompt == encode.previous(joined(before))


@given(SAMPLES, GAPS)
def test_the_beginning_of_another_utterance_is_in_the_last_second_after_a_gap(
    encode: LabelEncoder, samples: list[int], gap: tuple[float, float]
):
    clips = [clip_of(number, length, encode) for number, length in enumerate(samples)]
    pack = PackConfig(enabled=True, gap=gap, partial_last_share=1.0)
    for layout in laid_out(clips, encode, settings(pack, timestamps_share=1.0)):
        if (cut := layout.partial) is not None:
            assert cut.begin % STEP == 0
            assert 0.3 * RATE <= WINDOW - cut.begin <= RATE
            least = min(gap[0] * RATE, WINDOW - len(cut.clip.waveform)) - STEP  # a long clip has a shorter gap
            assert cut.begin - layout.placed[-1].end >= least
            assert cut.clip not in [one.clip for one in layout.placed]


def test_masks_stay_inside_their_utterance_and_are_those_of_the_utterance_alone(encode: LabelEncoder, log_mel: LogMel):
    clips = [clip_of(number, 20_000 + 1_111 * number, encode) for number in range(8)]
    augment = SpecAugment(AugmentConfig(time_masks=2, frequency_masks=2), 3, 100)
    plain, masked = (
        WindowBuilder(log_mel, encode, Transforms(features=transforms), settings()) for transforms in ((), [augment])
    )
    for layout in plain.layouts(clips):
        before, after = plain.window(layout).features, masked.window(layout).features
        inside = torch.zeros_like(before, dtype=torch.bool)
        for one in layout.placed:
            first, seconds = one.begin // 160, len(one.clip.waveform) / RATE
            frames = slice(first, first + round(seconds * 100))
            inside[:, frames] = True
            assert torch.equal(after[:, frames], augment(before[:, frames], seconds, one.clip.place))
        assert torch.equal(after[~inside], before[~inside])
        assert not torch.equal(after, before)


@pytest.mark.parametrize("sound", ["silence", "room"])
def test_gaps_are_silence_or_the_quietest_part_of_the_next_utterance(encode: LabelEncoder, log_mel: LogMel, sound: Any):
    clips = [clip_of(number, 24_000, encode) for number in range(4)]
    for one in clips:
        one.waveform[8_000:10_000] *= 0.01  # a pause
    of = settings(PackConfig(enabled=True, gap_sound=sound))
    for layout in laid_out(clips, encode, of):
        audio, free = WindowBuilder(log_mel, encode, Transforms(), of).audio(layout), 0
        for one in layout.placed:
            gap = audio[free : one.begin]
            assert len(gap) > 0
            assert 0 <= np.abs(gap).max() <= 0.006
            assert bool(gap.any()) == (sound == "room")
            free = one.end


def stream(
    source: Any,
    encode: LabelEncoder,
    log_mel: LogMel,
    of: WindowSettings,
    *,
    size: int = 16,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    first_step: int = 0,
    end: int | None = None,
    transforms: Transforms | None = None,
) -> Any:
    """A stream of packed windows as train.py builds it, whose collator keeps them."""
    order = Order(source.rows, seed=7, lanes=16, window=2)
    share = BlockPartition(size, of.pack.block, rank, world, 16, (0,) * 16)
    return TrainStream(
        WindowReader(source, log_mel, encode, 64, transforms=transforms, settings=of),
        BatchPlan(order, share, max(workers, 1), end),
        KeepingCollator(log_mel, encode.start),
        first_step=first_step,
        windows_at_once=3,
        workers=workers,
    )


def drawn(some: Any, steps: int) -> list[StepBatches]:
    with closing(some):
        return [some.draw() for _ in range(steps)]


MIXED_LABELS = {"timestamps_share": 0.5, "no_speech_share": 0.3, "prompt_share": 0.5}
SOUND = [{"speed": {"factor": [0.9, 1.1], "p": 0.5}}, {"noise": {"of": ["white", "babble"], "p": 0.5}}]


@pytest.mark.parametrize(
    ("world", "workers", "sound"),
    [
        pytest.param(2, 0, [], marks=pytest.mark.long),
        (4, 0, []),
        pytest.param(1, 1, [], marks=pytest.mark.matrix),
        pytest.param(1, 3, [], marks=pytest.mark.matrix),
        (2, 0, SOUND),
        pytest.param(1, 2, SOUND, marks=pytest.mark.matrix),
        pytest.param(2, 2, SOUND, marks=pytest.mark.long),
    ],
)
def test_windows_are_the_same_for_any_number_of_processes_and_workers(
    corpus: Path, encode: LabelEncoder, log_mel: LogMel, world: int, workers: int, sound: list[Any]
):
    where = SourceConfig(path=str(corpus / "train"), prompt_column="client_id")
    of, transforms = settings(**MIXED_LABELS), Transforms(WaveformChain.of(sound, 3, "augment.waveform"))
    source = open_source(where)
    common = {"transforms": transforms, "workers": workers}
    alone = [facts(step) for step in steps_of([stream(source, encode, log_mel, of, transforms=transforms)], 2)]
    assert any(tokens[0] == encode.previous_token for step in alone for _, tokens, _ in step), "some have prompts"
    ranks = [stream(source, encode, log_mel, of, rank=rank, world=world, **common) for rank in range(world)]
    assert [facts(step) for step in steps_of(ranks, 2)] == alone
    later = [stream(source, encode, log_mel, of, first_step=1, **common)]
    assert facts(steps_of(later, 1)[0]) == alone[1], "also after a kill"


def steps_of(ranks: list[Any], steps: int) -> list[list[Window]]:
    """The windows of all ranks in each step."""
    windows: list[list[Window]] = [[] for _ in range(steps)]
    for one in ranks:
        counts = [step.counts.windows for step in drawn(one, steps)]
        kept = iter(one._collate.windows)  # in the order of the steps, with those drawn ahead at the end
        for step, count in enumerate(counts):
            windows[step] += islice(kept, count)
    return windows


def facts(windows: list[Window]) -> list[tuple[tuple[str, ...], tuple[int, ...], bytes]]:
    """Utterances, tokens and the bytes of the features of each window, sorted."""
    return sorted((w.utterances, tuple(w.tokens), w.features.numpy().tobytes()) for w in windows)


def test_an_epoch_has_each_utterance_once_and_its_last_step_is_partial(encode: LabelEncoder, log_mel: LogMel):
    source = Rows([spoken(number) for number in range(40)])
    steps = drawn(stream(source, encode, log_mel, settings(), end=40), 3)
    ids = [name for step in steps for batch in step.micro_batches for name in batch.utterances]
    assert sorted(ids) == sorted(f"row-{number}" for number in range(40))
    assert [step.counts.utterances for step in steps] == [16, 16, 8]
    for step in steps:
        counts = step.counts
        assert counts.audio_samples == counts.utterances * RATE, "speech alone"
        assert counts.audio_samples < (counts.filled_samples or 0) <= (counts.windows or 0) * WINDOW
        assert counts.windows == sum(len(batch.input_features) for batch in step.micro_batches)
        lengths = [
            (batch.labels[row] != -100).sum() for batch in step.micro_batches for row in range(len(batch.labels))
        ]
        assert lengths == sorted(lengths, reverse=True), "windows with about as many tokens share a micro-batch"


def test_an_unusable_row_is_only_missing_and_moves_no_gap(encode: LabelEncoder, log_mel: LogMel):
    rows = [spoken(number) for number in range(16)]
    rows[5] = replace(rows[5], audio=b"no audio")
    (step,) = drawn(stream(Rows(rows), encode, log_mel, settings()), 1)
    ids = [name for batch in step.micro_batches for name in batch.utterances]
    assert sorted(ids) == sorted(f"row-{number}" for number in range(16) if number != 5)
    assert [(row.id, row.reason) for row in step.rejected] == [("row-5", "decode_error")]
    assert (step.counts.unusable, step.counts.unusable_rows, step.counts.utterances) == (1, 1, 15)


def test_a_step_without_a_usable_row_has_one_empty_micro_batch(encode: LabelEncoder, log_mel: LogMel):
    rows = [spoken(number, audio=b"no audio") for number in range(16)]
    (step,) = drawn(stream(Rows(rows), encode, log_mel, settings()), 1)
    assert [batch.utterances for batch in step.micro_batches] == [()]
    assert (step.counts.windows, step.counts.label_tokens, len(step.rejected)) == (0, 0, 16)


def test_a_block_of_a_mixture_has_one_source(corpus: Path, encode: LabelEncoder, log_mel: LogMel):
    sources = [
        WeightedSourceConfig(path=str(corpus / "train"), language="be", weight=3),
        WeightedSourceConfig(path=str(corpus / "validation"), language="sv", weight=1),
    ]
    source = open_mixture(DataConfig(sources=sources))
    order = source.order(seed=1, lanes=16, window=4)
    plan = BatchPlan(order, BlockPartition(16, 4, 0, 1, 16, order.sources_of_lanes), 1)
    reader = WindowReader(source, log_mel, encode, 64, settings=settings())
    languages = {"0": encode.prompt("be")[1], "1": encode.prompt("sv")[1]}
    for portion in range(plan.portions):
        for block in plan.blocks(0, portion):
            windows = [item for item in reader.windows(plan.places(block)) if isinstance(item, Window)]
            named = {name.split("/")[0] for window in windows for name in window.utterances}
            assert len(named) == 1
            assert {window.tokens[1] for window in windows} == {languages[name] for name in named}


def test_windows_without_speech_follow_others_and_train_their_own_label(encode: LabelEncoder, log_mel: LogMel):
    source = Rows([spoken(number) for number in range(32)])
    (step,) = drawn(some := stream(source, encode, log_mel, settings(no_speech_share=1.0), size=32), 1)
    silent = [window for window in some._collate.windows if not window.utterances]
    assert len(silent) * 2 == step.counts.windows
    assert {tuple(window.tokens) for window in silent} == {tuple(encode.no_speech().tokens)}
    assert step.counts.audio_samples == 32 * RATE


def test_noise_comes_from_the_named_recordings(encode: LabelEncoder, log_mel: LogMel, tmp_path: Path):
    ramp = np.linspace(0.0, 0.5, 20 * RATE)  # a sample tells where it stood
    for name, samples in (("long.wav", ramp), ("deep/short.flac", -ramp[: 2 * RATE])):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, samples, RATE)
    noise, begins = NoiseFiles.found(str(tmp_path)), set()
    for key in range(12):
        part = noise.part(RATE, 5.0, 1, key)
        assert np.array_equal(part, noise.part(RATE, 5.0, 1, key))
        assert len(part) == (2 * RATE if part.min() < 0 else 5 * RATE)
        begins.add(round(float(part[0]), 4))
    assert len(begins) > 4
    of = replace(settings(no_speech_share=1.0), noise=noise)
    drawn(some := stream(Rows([spoken(number) for number in range(16)]), encode, log_mel, of), 1)
    lengths = {window.filled_samples for window in some._collate.windows if not window.utterances}
    assert lengths <= {2 * RATE, 5 * RATE}


def test_other_recordings_without_speech_are_other_data(tmp_path: Path):
    first, moved = tmp_path / "noise", tmp_path / "moved"
    first.mkdir()
    soundfile.write(first / "a.wav", np.zeros(RATE), RATE)
    found = NoiseFiles.found(str(first))
    before = found.fingerprint
    first.rename(moved)
    opened = NoiseFiles.found(str(moved))
    assert (opened.fingerprint, opened.content) == (before, found.content)
    soundfile.write(moved / "a.wav", np.full(RATE, 0.1), RATE)
    assert NoiseFiles.found(str(moved)).fingerprint == before
    assert NoiseFiles.found(str(moved)).content != opened.content == found.content
    soundfile.write(moved / "a.wav", np.zeros(2 * RATE), RATE)
    assert opened.fingerprint == before, "of the files as the run found them, also if a save comes later"
    assert NoiseFiles.found(str(moved)).fingerprint != before


@pytest.mark.parametrize(
    ("content", "facts"),
    [(None, ["there is no recording"]), (b"", ["a.wav", "empty"]), (b"no audio at all", ["a.wav", "cannot be used"])],
)
def test_recordings_that_cannot_be_used_are_refused_in_one_line(
    tmp_path: Path, content: bytes | None, facts: list[str]
):
    if content is not None:
        (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(UsageError) as refused:
        NoiseFiles.found(str(tmp_path))
    assert all(fact in str(refused.value) for fact in ["--labels.no_speech_path", *facts])
    assert "\n" not in str(refused.value)


def test_without_packing_a_window_is_the_utterance_as_before(encode: LabelEncoder, log_mel: LogMel):
    source = Rows([spoken(number) for number in range(4)])
    windows = WindowReader(source, log_mel, encode, 4).windows([Place(0, 0, row) for row in range(4)])
    for number, window in enumerate(windows):
        assert isinstance(window, Window)
        assert window.tokens == encode(f"слова {number}")
        samples, _ = soundfile.read(io.BytesIO(clip(1.0)), dtype="float32")
        assert torch.equal(window.features, log_mel(samples))
        assert (window.audio_samples, window.filled_samples, window.first_target) == (RATE, RATE, 1)
