"""Transforms of waveforms: ratios, lengths, bands and delays as promised, and draws by the utterance alone."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import example, given
from hypothesis import strategies as st

from tests.test_stream import Rows, spoken
from whisper_ft.config.packing import PackConfig
from whisper_ft.config.training import LabelsConfig
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.augment.transforms import Transforms
from whisper_ft.data.augment.waveform.chain import Augmented, WaveformChain
from whisper_ft.data.augment.waveform.level import power, speech_power
from whisper_ft.data.augment.waveform.room import SOUND_SPEED, drawn_room, impulse_response
from whisper_ft.data.augment.waveform.tempo import HOP_SECONDS, SEARCH_SECONDS
from whisper_ft.data.augment.waveform.waveform_transform import Surroundings
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.packing.clip import Clip
from whisper_ft.data.sampling.order import Place
from whisper_ft.data.types import Row, TextSegment, Window
from whisper_ft.data.window_builder import WindowSettings
from whisper_ft.data.window_reader import WindowReader
from whisper_ft.models.whisper import load_whisper
from whisper_ft.runtime.errors import UsageError

RATE = 16_000
WINDOW = 30 * RATE
PLACE = Place(0, 2, 1)


def speech(seconds: float = 2.0, seed: int = 0, peak: float = 0.25) -> Waveform:
    """Syllables of a harmonic sound, four in a second, between silent edges of 0.2 s."""
    time = np.arange(round(seconds * RATE)) / RATE
    voice = sum(np.sin(2 * np.pi * (110 + 20 * seed) * k * time) / k for k in range(1, 40))
    voice = voice * (0.05 + np.sin(2 * np.pi * 2 * time) ** 2)
    voice[: RATE // 5] = voice[-RATE // 5 :] = 0
    return (peak * voice / np.abs(voice).max()).astype(np.float32)


def as_row(waveform: Waveform, number: int = 0, **fields: Any) -> Row:
    file = io.BytesIO()
    soundfile.write(file, waveform, RATE, format="WAV", subtype="FLOAT")
    return Row(**{"id": f"row-{number}", "audio": file.getvalue(), "text": f"слова {number}"} | fields)


ROWS = [as_row(speech(1.5, number), number) for number in range(4)]


def augmented(
    transforms: Any,
    waveform: Waveform,
    place: Place = PLACE,
    seed: int = 7,
    rows: Sequence[Row] = ROWS,
    most: int | None = WINDOW,
) -> Augmented:
    chain = WaveformChain.of(transforms, seed, "augment.waveform")
    assert chain is not None
    return chain(waveform, Surroundings(place, rows, RATE, most))


@pytest.fixture(scope="module")
def noise_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a long noise at 44.1 kHz, a short one, and a silent one."""
    folder, random = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    soundfile.write(folder / "long.flac", random.uniform(-0.5, 0.5, 5 * 44_100), 44_100)
    soundfile.write(folder / "short.wav", random.uniform(-0.1, 0.1, RATE // 2), RATE)
    return folder


@pytest.mark.parametrize("kind", ["white", "pink", "babble", "folder"])
@pytest.mark.parametrize("snr_db", [-5, 7.3, 30])
def test_the_ratio_of_speech_to_noise_is_right_to_a_tenth_of_a_decibel(kind: str, snr_db: float, noise_folder: Path):
    of = str(noise_folder) if kind == "folder" else kind
    for row in range(3):
        clean = speech(2.0 + row, peak=0.02)
        noisy = augmented([{"noise": {"of": of, "snr_db": snr_db, "p": 1}}], clean, Place(0, 0, row)).waveform
        noise = noisy.astype(np.float64) - clean
        assert 10 * np.log10(speech_power(clean, RATE) / power(noise)) == pytest.approx(snr_db, abs=0.1)
    tone = np.zeros(3 * RATE, np.float32)  # steady from 0.5 to 2.5 s, so its edges are certain
    tone[RATE // 2 : RATE * 5 // 2] = 0.02 * np.sin(2 * np.pi * 150 * np.arange(2 * RATE) / RATE)
    noisy = augmented([{"noise": {"of": of, "snr_db": snr_db, "p": 1}}], tone).waveform
    ratio = 10 * np.log10(0.02**2 / 2 / power(noisy.astype(np.float64) - tone))
    assert ratio == pytest.approx(snr_db, abs=0.1)


def test_a_silent_clip_and_a_silent_noise_leave_a_clip_as_it_is(tmp_path: Path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    clean = speech()
    result = augmented([{"noise": {"of": str(tmp_path), "p": 1}}], clean)
    assert result.waveform is clean
    assert result.drawn[0].parameters["left_out"] == "silent"


@pytest.mark.parametrize(("kind", "slope"), [("white", 0.0), ("pink", -3.0)])
def test_noise_has_the_colour_of_its_name(kind: str, slope: float):
    clean = speech(10.0, peak=0.001)
    noise = augmented([{"noise": {"of": kind, "snr_db": 0, "p": 1}}], clean).waveform - clean
    density = np.abs(np.fft.rfft(noise)) ** 2
    bands = [10 * np.log10(density[low * 10 : 2 * low * 10].mean()) for low in (250, 500, 1000, 2000)]
    assert np.diff(bands) == pytest.approx([slope] * 3, abs=0.5)


def test_babble_is_of_other_utterances_and_without_any_of_the_own_one_backwards():
    clean = speech(1.5, peak=0.2)
    setting = [{"noise": {"of": "babble", "snr_db": 0, "p": 1}}]
    of_others = augmented(setting, clean, rows=[as_row(clean), as_row(clean), as_row(speech(1.5, 9))])
    alone = augmented(setting, clean, Place(0, 0, 0), rows=[as_row(clean)])
    broken = augmented(setting, clean, Place(0, 0, 0), rows=[as_row(clean), as_row(clean, audio=b"no audio")])
    assert not np.array_equal(of_others.waveform, alone.waveform)
    assert np.array_equal(broken.waveform, alone.waveform), "a row that cannot be decoded is no voice"


@pytest.mark.long
@given(st.floats(0.5, 2.0), st.integers(1_600, 40_000))
def test_speed_and_tempo_have_the_length_of_their_factor(factor: float, samples: int):
    clean = speech(3.0)[:samples]
    for name in ("speed", "tempo"):
        result = augmented([{name: {"factor": factor, "p": 1}}], clean)
        assert abs(len(result.waveform) - samples / factor) <= 1
        assert result.times(samples / RATE) == pytest.approx(len(result.waveform) / RATE, abs=1 / RATE)


def pitch_of(waveform: Waveform) -> float:
    """Pitch in Hz: the first strong peak of the autocorrelation."""
    middle = waveform[len(waveform) // 3 : len(waveform) // 3 + 4096].astype(np.float64)
    likeness = np.correlate(middle, middle, "full")[len(middle) - 1 :]
    return float(RATE / (60 + likeness[60:400].argmax()))


def test_speed_moves_the_pitch_tempo_keeps_it_and_pitch_keeps_the_length():
    clean = speech(4.0)
    own = pitch_of(clean)
    faster = augmented([{"speed": {"factor": 1.25, "p": 1}}], clean).waveform
    stretched = augmented([{"tempo": {"factor": 1.25, "p": 1}}], clean).waveform
    higher = augmented([{"pitch": {"semitones": 4, "p": 1}}], clean).waveform
    assert pitch_of(faster) == pytest.approx(own * 1.25, rel=0.02)
    assert pitch_of(stretched) == pytest.approx(own, rel=0.02)
    assert pitch_of(higher) == pytest.approx(own * 2 ** (4 / 12), rel=0.02)
    assert len(higher) == len(clean)
    assert power(stretched) == pytest.approx(power(clean), rel=0.1), "overlapped frames add up in phase"


def test_a_clip_never_gets_longer_than_the_window():
    clean = speech(29.0)
    for name in ("speed", "tempo"):
        result = augmented([{name: {"factor": 0.8, "p": 1}}], clean)
        assert len(result.waveform) == WINDOW
        assert result.drawn[0].parameters["factor"] == pytest.approx(29 / 30)
    padded = augmented([{"pad": {"before": 0.9, "after": 0.9, "p": 1}}], clean)
    assert len(padded.waveform) == WINDOW
    assert len(augmented([{"speed": {"factor": 0.8, "p": 1}}], clean, most=None).waveform) == round(29 * RATE / 0.8)


CODECS = ["gsm", "ulaw", "alaw", "mp3@8", "mp3@16", "mp3@24", "mp3@40", "mp3@64", "opus@6", "opus@32", "vorbis@48"]


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_changes_the_sound_and_neither_its_length_nor_its_times(codec: str):
    clean = speech(2.0)
    after = augmented([{"codec": {"of": codec, "p": 1}}], clean).waveform
    assert len(after) == len(clean)
    assert not np.array_equal(after, clean)
    likeness = np.correlate(after, clean[2_000:-2_000], "valid")
    assert abs(int(likeness.argmax()) - 2_000) <= 8, "half a millisecond"
    assert np.corrcoef(after, clean)[0, 1] > 0.8


def above(waveform: Waveform, hz: float) -> float:
    """Share of the power above a frequency, in dB."""
    spectrum, frequencies = np.abs(np.fft.rfft(waveform)) ** 2, np.fft.rfftfreq(len(waveform), 1 / RATE)
    return float(10 * np.log10(spectrum[frequencies > hz].sum() / spectrum.sum()))


def test_a_telephone_codec_leaves_nothing_above_4_khz():
    hiss = np.random.default_rng(0).uniform(-0.5, 0.5, 2 * RATE).astype(np.float32)
    assert above(hiss, 4_000) > -4
    for codec in ("gsm", "ulaw", "alaw"):
        assert above(augmented([{"codec": {"of": codec, "p": 1}}], hiss).waveform, 4_000) < -30


def test_a_band_keeps_its_frequencies_and_removes_the_others():
    hiss = np.random.default_rng(0).uniform(-0.1, 0.1, 2 * RATE).astype(np.float32)
    after = augmented([{"band": {"hz": [300, 3400], "p": 1}}], hiss).waveform
    ratio = np.abs(np.fft.rfft(after)) / np.abs(np.fft.rfft(hiss))
    frequencies = np.fft.rfftfreq(len(hiss), 1 / RATE)
    assert np.median(ratio[(frequencies > 320) & (frequencies < 3_380)]) == pytest.approx(1, abs=0.01)
    assert np.median(ratio[(frequencies < 180) | (frequencies > 3_520)]) < 0.01


def test_a_room_keeps_times_and_power_and_fades_in_its_time():
    clean = speech(2.0)
    result = augmented([{"reverb": {"of": "room", "rt60": 0.5, "p": 1}}], clean)
    assert len(result.waveform) == len(clean)
    assert result.times(1.0) == 1.0
    assert power(result.waveform) == pytest.approx(power(clean), rel=0.01)
    before = np.flatnonzero(clean)[0]
    assert np.abs(result.waveform[:before]).max() < 1e-5, "no sound before the direct one"
    assert np.abs(result.waveform[before : before + 160]).max() > 0, "and the direct one is not delayed"


@pytest.mark.parametrize("rt60", [0.2, 0.5, 1.0])
def test_the_response_of_a_room_decays_by_60_decibels_in_its_reverberation_time(rt60: float):
    slopes = []
    for seed in range(8):
        numbers = np.random.default_rng(seed).uniform(size=9)
        response = impulse_response(drawn_room(numbers, rt60), RATE, np.random.default_rng(seed)).astype(np.float64)
        assert response[0] == 1.0
        left = 10 * np.log10(np.cumsum(response[::-1] ** 2)[::-1])
        begin, end = round(0.1 * rt60 * RATE), round(0.6 * rt60 * RATE)
        slopes.append((left[end] - left[begin]) / (0.5 * rt60))
    assert np.mean(slopes) == pytest.approx(-60 / rt60, rel=0.15)


def test_images_and_late_noise_meet_at_the_same_power():
    """The first 50 ms are image sources, the rest is noise: around the seam both have the power of the theory."""
    rooms = [drawn_room(np.random.default_rng(seed).uniform(size=9), 0.8) for seed in range(60)]
    early = late = 0.0
    for seed, room in enumerate(rooms):
        response = impulse_response(room, RATE, np.random.default_rng(seed)).astype(np.float64)
        direct = np.linalg.norm(room.speaker - room.microphone)
        scale = np.prod(room.size) / direct**2 * np.exp(6 * np.log(10) * direct / SOUND_SPEED / room.rt60)
        early += scale * power(response[560:800])
        late += scale * power(response[800:1_040])
    assert 10 * np.log10(early / late) == pytest.approx(0, abs=2)


def test_a_recorded_response_is_aligned_and_of_its_first_channel(tmp_path: Path):
    response = np.zeros((RATE // 2, 2))
    response[300, 0], response[500, 0], response[100, 1] = 1.0, 0.5, 1.0
    soundfile.write(tmp_path / "room.wav", response, RATE, subtype="FLOAT")
    clean = speech(2.0)
    after = augmented([{"reverb": {"of": str(tmp_path), "p": 1}}], clean).waveform
    echo = clean.copy()
    echo[200:] += 0.5 * clean[:-200]
    expected = echo * np.sqrt(power(clean) / power(echo))
    assert after == pytest.approx(expected, abs=1e-4)


def test_gain_and_clip_have_their_levels_and_a_peak_over_1_is_scaled_down():
    clean = speech(peak=0.5)
    quieter = augmented([{"gain": {"db": -6, "p": 1}}], clean).waveform
    assert power(quieter) == pytest.approx(power(clean) * 10**-0.6, rel=1e-3)
    louder = augmented([{"gain": {"db": 20, "p": 1}}], clean).waveform
    assert np.abs(louder).max() == pytest.approx(1.0)
    assert louder * 0.5 == pytest.approx(clean, abs=1e-6), "scaled as a whole, not cut"
    cut = augmented([{"clip": {"db": 6, "p": 1}}], clean).waveform
    assert np.abs(cut).max() == pytest.approx(0.5 * 10**-0.3, rel=1e-3)
    assert (np.abs(cut) == np.abs(cut).max()).sum() > 20


EVERYTHING: list[dict[str, Any]] = [
    {"speed": {"p": 1}},
    {"tempo": {"p": 1}},
    {"pitch": {"p": 1}},
    {"reverb": {"p": 1}},
    {"noise": {"of": ["white", "pink", "babble"], "p": 1}},
    {"band": {"p": 1}},
    {"codec": {"p": 1}},
    {"clip": {"p": 1}},
    {"gain": {"p": 1}},
    {"pad": {"p": 1}},
]


def test_the_draws_depend_on_seed_epoch_and_utterance_and_on_no_global_generator():
    clean = speech()
    first = augmented(EVERYTHING, clean)
    np.random.seed(0)
    again = augmented(EVERYTHING, clean)
    assert np.array_equal(first.waveform, again.waveform)
    assert (first.drawn, first.times) == (again.drawn, again.times)
    state = np.random.get_state()[1].copy()
    for place, seed in ((Place(1, 2, 1), 7), (Place(0, 3, 1), 7), (Place(0, 2, 2), 7), (PLACE, 8)):
        other = augmented(EVERYTHING, clean, place, seed)
        assert all(
            one.parameters != two.parameters
            for one, two in zip(first.drawn, other.drawn, strict=True)
            if one.name not in ("band", "codec")
        )
    assert np.array_equal(state, np.random.get_state()[1])


def test_a_removed_transform_changes_the_draws_of_no_other():
    clean, drawn = speech(), {one.name: one.parameters for one in augmented(EVERYTHING, speech()).drawn}
    for left_out in range(len(EVERYTHING)):
        rest = EVERYTHING[:left_out] + EVERYTHING[left_out + 1 :]
        for one in augmented(rest[::-1], clean).drawn:
            assert one.parameters == drawn[one.name], "also in another order"
    half = [{name: {**values, "p": 0.5}} for item in EVERYTHING for name, values in item.items()]
    for one in augmented(half, clean).drawn:
        assert one.parameters == drawn[one.name], "also with another probability"
    two = augmented([{"gain": {"p": 1}}, {"gain": {"p": 1}}], clean).drawn
    assert two[0].parameters != two[1].parameters, "two of one name draw by their number"


def test_each_transform_comes_as_often_as_its_probability_says():
    clean, names = (
        speech(0.6),
        [name for item in EVERYTHING for name in item if name not in ("tempo", "pitch", "codec")],
    )
    counts = dict.fromkeys(names, 0)
    for row in range(300):
        chain = [{name: {"p": 0.3}} for name in names]
        for one in augmented(chain, clean, Place(0, 0, row), rows=[as_row(clean)] * 300).drawn:
            counts[one.name] += 1
    assert all(60 <= count <= 120 for count in counts.values()), counts


def test_a_probability_of_0_returns_the_same_waveform_and_1_always_another():
    clean = speech()
    result = augmented([{name: {**values, "p": 0}} for item in EVERYTHING for name, values in item.items()], clean)
    assert result.waveform is clean
    assert result.drawn == ()
    before = clean.copy()
    assert [one.name for one in augmented(EVERYTHING, clean).drawn] == [name for item in EVERYTHING for name in item]
    assert np.array_equal(clean, before), "the given waveform is not written to"


@pytest.mark.long
@given(st.lists(st.sampled_from(["speed", "tempo", "pad"]), max_size=4), st.integers(0, 10_000))
@example(["speed", "tempo", "tempo"], 4096)
def test_times_follow_every_stretch_and_every_pad(names: list[str], row: int):
    """A click in silence is found at the time that the map says, within what each change of tempo may add."""
    clean, at = np.zeros(4 * RATE, np.float32), 2.5
    begin = round(at * RATE)
    clean[begin : begin + 160] = 0.5
    result = augmented([{"gain": {"p": 0}}, *({name: {"p": 1}} for name in names)], clean, Place(0, 0, row))
    heard = np.flatnonzero(np.abs(result.waveform) > 0.1)[0] / RATE
    most = 0.005  # of the threshold and of resampling
    for one in result.drawn:
        factor = float(one.parameters.get("factor", 1))
        shift = SEARCH_SECONDS + 2 * HOP_SECONDS * abs(factor - 1) if one.name == "tempo" else 0
        most = (most + shift) / factor
    assert heard == pytest.approx(result.times(at), abs=most)
    assert result.times(4.0) <= len(result.waveform) / RATE


@pytest.fixture(scope="module")
def parts(micro_whisper: Path) -> tuple[LabelEncoder, LogMel]:
    model, processor = load_whisper(str(micro_whisper))
    encode = LabelEncoder.of(model, processor.tokenizer, "be", "transcribe")
    return encode, LogMel(processor.feature_extractor)


def clips_of(rows: list[Row], transforms: Any, parts: tuple[LabelEncoder, LogMel], pack: bool = False) -> list[Clip]:
    encode, log_mel = parts
    settings = WindowSettings(3, PackConfig(enabled=pack), LabelsConfig(timestamps_share=1.0))
    chain = WaveformChain.of(transforms, 3, "augment.waveform") if transforms else None
    reader = WindowReader(Rows(rows), log_mel, encode, 4, transforms=Transforms(chain), settings=settings)
    places = [Place(0, number // 4, number % 4) for number in range(len(rows))]
    return [clip for clip in reader.clips(places) if isinstance(clip, Clip)]


def test_segments_and_found_times_of_labels_move_with_the_sound(parts: tuple[LabelEncoder, LogMel]):
    segments = (TextSegment("раз", 0.5, 1.0), TextSegment("два", 1.2, 1.8))
    rows = [as_row(speech(2.0), 0, segments=segments), as_row(speech(2.0), 1)]
    plain = clips_of(rows, [], parts)
    slow = clips_of(rows, [{"speed": {"factor": 0.8, "p": 1}}, {"pad": {"before": 0.3, "after": 0, "p": 1}}], parts)
    assert [(one.begin, one.end) for one in plain[0].texts] == [(25, 50), (60, 90)]
    assert [(one.begin, one.end) for one in slow[0].texts] == [(46, 78), (90, 128)], "0.3 s + time / 0.8"
    for (before,), (after,) in [(plain[1].texts, slow[1].texts)]:
        assert after.begin == pytest.approx(15 + before.begin / 0.8, abs=1)
        assert after.end == pytest.approx(15 + (before.end or 0) / 0.8, abs=2)
        assert after.text == before.text
    noisy = clips_of(rows, [{"noise": {"of": "white", "snr_db": 0, "p": 1}}], parts)
    assert [one.texts for one in noisy] == [one.texts for one in plain], "found in the clean sound"


def test_the_label_is_untouched_and_a_long_clip_is_not_lost(parts: tuple[LabelEncoder, LogMel]):
    rows = [spoken(number, audio=as_row(speech(4.9)).audio) for number in range(4)]
    for transforms in (EVERYTHING, [{"speed": {"factor": 0.5, "p": 1}}, {"pad": {"before": 3, "p": 1}}]):
        clips = clips_of(rows, transforms, parts, pack=True)
        assert [clip.id for clip in clips] == [row.id for row in rows], "none is quarantined"
        assert [[text.text for text in clip.texts] for clip in clips] == [[row.text] for row in rows]
        assert max(len(clip.waveform) for clip in clips) <= parts[1].window_samples
        assert all(clip.drawn for clip in clips)


@pytest.mark.parametrize("pack", [False, True])
def test_windows_without_speech_are_of_the_sound_before_the_transforms(parts: tuple[LabelEncoder, LogMel], pack: bool):
    encode, log_mel = parts
    rows = [as_row(speech(1.0, number) + np.float32(0.001), number) for number in range(4)]
    settings = WindowSettings(3, PackConfig(enabled=pack), LabelsConfig(no_speech_share=1.0))
    silent = list[bytes]()
    for transforms in ([], [{"noise": {"of": "white", "snr_db": 0, "p": 1}}]):
        chain = WaveformChain.of(transforms, 3, "augment.waveform")
        reader = WindowReader(Rows(rows), log_mel, encode, 4, transforms=Transforms(chain), settings=settings)
        windows = reader.windows([Place(0, 0, number) for number in range(4)])
        found = [one.features for one in windows if isinstance(one, Window) and not one.utterances]
        assert found
        silent.append(b"".join(features.numpy().tobytes() for features in found))
    assert silent[0] == silent[1]


def test_with_a_probability_of_0_windows_are_those_without_augmentation(parts: tuple[LabelEncoder, LogMel]):
    rows = [as_row(speech(1.0 + number / 4, number), number) for number in range(4)]
    never = [{name: {"p": 0}} for item in EVERYTHING for name in item]
    for pack in (False, True):
        for one, two in zip(clips_of(rows, [], parts, pack), clips_of(rows, never, parts, pack), strict=True):
            assert np.array_equal(one.waveform, two.waveform)
            assert (one.texts, one.drawn) == (two.texts, two.drawn)
    assert np.array_equal(clips_of(rows, never, parts)[0].waveform, decode(rows[0].audio, RATE, 5.0))


def test_other_recordings_are_another_rule_and_a_moved_folder_is_the_same(noise_folder: Path, tmp_path: Path):
    def rule(path: Path) -> Any:
        chain = WaveformChain.of([{"noise": {"of": ["white", str(path)]}}], 0, "augment")
        assert chain is not None
        return chain.rule

    moved = tmp_path / "moved"
    moved.mkdir()
    for file in noise_folder.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    assert rule(moved) == rule(noise_folder)
    soundfile.write(moved / "more.wav", np.zeros(RATE), RATE)
    assert rule(moved) != rule(noise_folder)


@pytest.mark.parametrize("name", ["noise", "reverb"])
def test_a_folder_without_recordings_is_refused_by_its_place_in_the_settings(name: str, tmp_path: Path):
    with pytest.raises(UsageError) as refused:
        WaveformChain.of([{"gain": None}, {name: {"of": str(tmp_path)}}], 0, "augment.waveform")
    assert f"--augment.waveform[1].{name}.of {tmp_path}" in str(refused.value)
    assert "\n" not in str(refused.value)
