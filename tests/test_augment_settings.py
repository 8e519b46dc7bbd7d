"""Settings of waveform augmentation: lists, presets and short forms, and refusals that name the place of an error."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.conftest import Trainer
from whisper_ft.config import yaml12
from whisper_ft.config.augment import AugmentConfig
from whisper_ft.config.parse import config_from_plain, load_config
from whisper_ft.config.resume_policy import as_resumed, refuse_changes
from whisper_ft.config.scoring import EvaluationConfig
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.transform_values import Codec
from whisper_ft.config.tree import to_plain
from whisper_ft.config.waveform import PRESETS, TRANSFORMS, CodecConfig, described, transforms_in, words_for
from whisper_ft.runtime.errors import UsageError
from whisper_ft.training.preflight import refuse_impossible_evaluation

LIST = [
    {"gain": {"db": [-6, 6], "p": 0.3}},
    {"noise": {"of": "white", "snr_db": 10}},
    {"preset": "phone"},
    {"band": None},
]


def test_a_list_reads_alike_from_a_file_the_command_line_and_a_checkpoint(tmp_path: Path):
    file = tmp_path / "a.yaml"
    file.write_text(yaml12.dump({"augment": {"waveform": LIST}}))
    from_file = load_config(TrainingConfig, ["--config", str(file)])
    from_line = load_config(TrainingConfig, ["--augment.waveform", json.dumps(LIST)])
    assert from_file.augment == from_line.augment == AugmentConfig(waveform=LIST)
    plain = json.loads(json.dumps(to_plain(from_line)))
    assert config_from_plain(TrainingConfig, plain) == from_line
    assert load_config(TrainingConfig, ["--config", str(file), "--augment.waveform", "[]"]).augment == AugmentConfig()


def test_a_value_that_is_no_mapping_is_the_first_parameter():
    short = [
        {"gain": 3},
        {"speed": [0.8, 1.2]},
        {"noise": "babble"},
        {"codec": ["gsm", "mp3@8-64", "opus"]},
        {"pad": None},
    ]
    long = [
        {"gain": {"db": [3, 3]}},
        {"speed": {"factor": [0.8, 1.2]}},
        {"noise": {"of": ["babble"]}},
        {"codec": {"of": ["gsm", "mp3@8-64", "opus@8-32"]}},
        {"pad": {}},
    ]
    assert described(transforms_in(short, "a")) == described(transforms_in(long, "a"))
    codec = transforms_in(short, "a")[3].config
    assert isinstance(codec, CodecConfig)
    assert codec.of[:2] == (Codec("gsm", None), Codec("mp3", (8.0, 64.0)))


def test_a_preset_is_its_list_alone_and_within_a_list():
    for name, of_preset in PRESETS.items():
        whole = described(transforms_in(name, "a"))
        assert whole == described(transforms_in(of_preset, "a"))
        assert described(transforms_in([{"gain": 1}, {"preset": name}], "a"))[1:] == whole
    assert set(PRESETS) == {"light", "phone", "room"}


def test_a_setting_in_words_names_transforms_and_no_path():
    assert words_for("phone") == "phone: noise, band, codec, gain"
    assert (
        words_for([{"noise": {"of": ["white", "/secret/place"]}}, {"preset": "light"}]) == "noise, speed, gain, noise"
    )


def test_every_transform_has_defaults():
    assert [one.name for one in transforms_in([{name: None} for name in TRANSFORMS], "a")] == list(TRANSFORMS)


@pytest.mark.parametrize(
    ("value", "facts"),
    [
        ("fone", ["--augment.waveform fone", "light, phone or room"]),
        ("5", ["--augment.waveform 5", "phone"]),
        ("[gain]", ["--augment.waveform[0]", "got gain"]),
        ("[{gain: 1, band: }]", ["--augment.waveform[0]", "one key"]),
        ("[{preset: fone}]", ["--augment.waveform[0].preset fone", "phone"]),
        ("[{gain: }, {gian: 1}]", ["--augment.waveform[1]", "'gian'", "'gain'"]),
        ("[{gain: {decibel: 1}}]", ["--augment.waveform[0].gain", "'decibel'", "db or p"]),
        ("[{gain: }, {gain: }, {noise: {snr_db: [20, 5]}}]", ["--augment.waveform[2].noise.snr_db", "[20, 5]"]),
        ("[{noise: {snr_db: [5, 1e9]}}]", ["--augment.waveform[0].noise.snr_db", "from -20 to 80"]),
        ("[{noise: {snr_db: 0x10}}]", ["--augment.waveform[0].noise.snr_db", "got 0x10"]),
        ("[{speed: {factor: 0}}]", ["--augment.waveform[0].speed.factor", "from 0.5 to 2"]),
        ("[{speed: {factor: [0.9, 1, 1.1]}}]", ["--augment.waveform[0].speed.factor", "two rising numbers"]),
        ("[{gain: {p: 1.5}}]", ["--augment.waveform[0].gain.p", "from 0 to 1", "1.5"]),
        ("[{gain: {p: true}}]", ["--augment.waveform[0].gain.p", "True"]),
        ("[{codec: mp4}]", ["--augment.waveform[0].codec.of mp4", "opus", "mp3@8-64"]),
        ("[{codec: gsm@13}]", ["--augment.waveform[0].codec.of gsm@13", "fixed"]),
        ("[{codec: mp3@4-64}]", ["--augment.waveform[0].codec.of mp3@4-64", "from 8 to 128"]),
        ("[{codec: mp3@}]", ["--augment.waveform[0].codec.of mp3@", "from 8 to 128"]),
        ("[{codec: []}]", ["--augment.waveform[0].codec.of", "[]"]),
        ("[{band: 300}]", ["--augment.waveform[0].band.hz", "two rising frequencies"]),
        ("[{reverb: {of: ./rooms, rt60: 1}}]", ["--augment.waveform[0].reverb.rt60", "no effect"]),
        ("[{noise: 3}]", ["--augment.waveform[0].noise.of", "got 3"]),
    ],
)
def test_a_list_that_cannot_work_is_refused_at_its_place(value: str, facts: list[str]):
    with pytest.raises(UsageError) as refused:
        load_config(TrainingConfig, ["--augment.waveform", value])
    assert all(fact in str(refused.value) for fact in facts), str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        (
            {"augment__waveform": "[{gain: }, {noise: [white, ./none]}]"},
            ["--augment.waveform[1].noise.of ./none", "babble"],
        ),
        ({"augment__waveform": "[{reverb: musan/rirs}]"}, ["--augment.waveform[0].reverb.of musan/rirs", "room"]),
        ({"eval__sets": "[{path: PATH, augment: [{noise: ./none}]}]"}, ["--eval.sets[0].augment[0].noise.of ./none"]),
    ],
)
def test_missing_recordings_are_refused_before_anything_is_loaded(
    train: Trainer, corpus: Path, settings: dict[str, Any], facts: list[str]
):
    message = str(
        train.refusal("run", **{key: value.replace("PATH", str(corpus / "test")) for key, value in settings.items()})
    )
    assert all(fact in message for fact in facts), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["--augment", "[{noise: ./none}]"], ["--augment[0].noise.of ./none"]),
        (["--augment", "fone"], ["--augment fone", "phone"]),
        (
            ["--data.path", "", "--sets", "[{path: PATH}, {name: b, path: PATH, augment: [{gain: {p: 2}}]}]"],
            ["--sets[1].augment[0].gain.p"],
        ),
        (["--data.path", "", "--sets", "[{path: PATH}]", "--augment", "phone"], ["--augment phone", "sets"]),
    ],
)
def test_evaluate_refuses_an_augmentation_that_cannot_work(
    micro_whisper: Path, corpus: Path, arguments: list[str], facts: list[str]
):
    given = ["--model", str(micro_whisper), "--data.path", str(corpus / "test")]
    with pytest.raises(UsageError) as refused:
        config = load_config(
            EvaluationConfig, [*given, *(one.replace("PATH", str(corpus / "test")) for one in arguments)]
        )
        refuse_impossible_evaluation(config)
    assert all(fact in str(refused.value) for fact in facts), str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_resumed_run_may_change_its_augmentation_when_allowed_and_an_old_run_has_none():
    saved = to_plain(TrainingConfig(augment=AugmentConfig(waveform=LIST)))
    with pytest.raises(UsageError, match=r"--allow_change '\[augment\.waveform\]'"):
        refuse_changes(saved, TrainingConfig())
    (change,) = refuse_changes(saved, TrainingConfig(allow_change=["augment.waveform"]))
    assert (change.name, change.saved, change.now) == ("augment.waveform", LIST, [])
    old = to_plain(TrainingConfig())
    del old["augment"]["waveform"]
    assert refuse_changes(old, as_resumed(TrainingConfig(), (), old)) == []
    with pytest.raises(UsageError, match=r"augment\.waveform was \[\] and is 'phone'"):
        refuse_changes(old, TrainingConfig(augment=AugmentConfig(waveform="phone")))


@pytest.mark.long
def test_noise_is_part_of_the_data_of_a_run(train: Trainer, tmp_path: Path):
    noise, short = tmp_path / "noise", {"steps": 2, "eval__every": 0, "save__every": 0}
    noise.mkdir()
    soundfile.write(noise / "a.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 16_000), 16_000)
    setting = json.dumps([{"noise": {"of": str(noise), "p": 1}}])
    train("run", **short, augment__waveform=setting)
    soundfile.write(noise / "a.wav", np.zeros(20_000), 16_000)
    ended = train.end("run", **short | {"steps": 3}, augment__waveform=setting, allow_change="[steps]")
    assert ended.code == 2
    assert all(fact in ended.err for fact in ("data differs", "augmentation was 1 recording"))
    assert len(ended.err.strip().splitlines()) == 1
    other = train.end(
        "run", **short | {"steps": 3}, augment__waveform="light", allow_change="[steps, augment.waveform]"
    )
    assert other.code == 0, other.err
    assert any("light: speed, gain, noise" in line for line in other.out.splitlines()), "told at the start"
