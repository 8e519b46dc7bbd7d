"""Files that are links and absolute names: followed only where the user allows it, and the refusal says how."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from whisper_ft.config.data import DataConfig
from whisper_ft.config.parse import load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.formats.mixture import MixedSource
from whisper_ft.data.sources import open_mixture

CLIPS = [f"{number}.wav" for number in range(3)]


def write_clips(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in CLIPS:
        soundfile.write(folder / name, np.random.default_rng(1).uniform(-0.5, 0.5, 8000), 16_000)


def reasons(source: MixedSource) -> set[str | None]:
    return {row.problem and row.problem[0] for row in source.read(0)}


def allowed_by_its_message(path: Path, **settings: Any) -> MixedSource:
    """Open data that leads out of its folder, then again with the flag of the message, as a user would."""
    refused = open_mixture(DataConfig(path=str(path), **settings))
    assert reasons(refused) == {"outside_root"}
    (note,) = refused.notes
    details = [row.problem[1] for row in refused.read(0) if row.problem]
    flags = {re.search(r"--data\.(\w+) ('[^']+'|\S+)", text) for text in (note, *details)}
    (found,) = {(match[1], match[2].strip("'")) for match in flags if match}
    config = load_config(TrainingConfig, ["--data.path", str(path), f"--data.{found[0]}", found[1]])
    return open_mixture(config.data)


def with_list(folder: Path, names: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.csv").write_text("file_name,text\n" + "".join(f"{name},так\n" for name in names))
    return folder


def test_a_linked_folder_of_clips_is_read_with_the_flag_of_the_message(tmp_path: Path):
    write_clips(tmp_path / "disk" / "speech")
    data = with_list(tmp_path / "data", [f"audio/{name}" for name in CLIPS])
    (data / "audio").symlink_to(tmp_path / "disk" / "speech")
    source = allowed_by_its_message(data)
    assert reasons(source) == {None}
    assert [row.id for row in source.read(0)] == [f"audio/{name}" for name in CLIPS]


def test_single_linked_files_are_read_with_the_flag_of_the_message(tmp_path: Path):
    data = with_list(tmp_path / "data", CLIPS)
    for number, name in enumerate(CLIPS):
        write_clips(tmp_path / "disk" / str(number))
        (data / name).symlink_to(tmp_path / "disk" / str(number) / name)
    assert reasons(allowed_by_its_message(data)) == {None}


def test_absolute_names_are_read_with_the_flag_of_the_message(tmp_path: Path):
    for speaker in ("a", "b"):
        write_clips(tmp_path / "disk" / "wav" / speaker)
    names = [str(tmp_path / "disk" / "wav" / speaker / name) for speaker in ("a", "b") for name in CLIPS]
    source = allowed_by_its_message(with_list(tmp_path / "data", names))
    assert reasons(source) == {None}
    assert source.read(0)[0].id == "a/0.wav", "audio_root is the common folder"


def test_absolute_names_in_wav_scp_are_read_with_the_flag_of_the_message(tmp_path: Path):
    write_clips(tmp_path / "disk" / "wav")
    kaldi = tmp_path / "kaldi"
    kaldi.mkdir()
    (kaldi / "wav.scp").write_text("".join(f"{name} {tmp_path}/disk/wav/{name}\n" for name in CLIPS))
    (kaldi / "text").write_text("".join(f"{name} так\n" for name in CLIPS))
    assert reasons(allowed_by_its_message(kaldi)) == {None}


@pytest.mark.parametrize("kind", ["absolute", "above"])
def test_names_inside_and_outside_are_read_together_with_the_flag_of_the_note(tmp_path: Path, kind: str):
    write_clips(tmp_path / "disk")
    write_clips(tmp_path / "data")
    outside = f"{tmp_path}/disk/1.wav" if kind == "absolute" else "../disk/1.wav"
    data = with_list(tmp_path / "data", ["0.wav", outside])
    refused = open_mixture(DataConfig(path=str(data)))
    assert reasons(refused) == {None, "outside_root"}
    folders = re.search(r"--data.allowed_folders '\[(.*?)\]'", refused.notes[0])
    assert folders is not None
    allowed = open_mixture(DataConfig(path=str(data), allowed_folders=folders[1].split(", ")))
    assert reasons(allowed) == {None}
    assert not allowed.notes


def test_a_snapshot_in_the_cache_of_the_hub_is_read_as_it_is(tmp_path: Path):
    repository = tmp_path / "hub" / "datasets--me--speech"
    snapshot = with_list(repository / "snapshots" / "0123abc", CLIPS)
    write_clips(repository / "blobs")
    for number, name in enumerate(CLIPS):
        (repository / "blobs" / name).rename(repository / "blobs" / f"f00{number}")
        (snapshot / name).symlink_to(f"../../blobs/f00{number}")
    source = open_mixture(DataConfig(path=str(snapshot)))
    assert reasons(source) == {None}
    assert not source.notes


def test_a_blob_that_is_a_link_and_a_folder_that_only_looks_like_a_cache_stay_refused(tmp_path: Path):
    write_clips(tmp_path / "secret")
    repository = tmp_path / "datasets--me--speech"
    snapshot = with_list(repository / "snapshots" / "0123abc", ["0.wav", "1.wav"])
    (repository / "blobs").mkdir()
    (repository / "blobs" / "f00").symlink_to(tmp_path / "secret" / "0.wav")
    (snapshot / "0.wav").symlink_to("../../blobs/f00")
    (snapshot / "1.wav").symlink_to(tmp_path / "secret" / "1.wav")
    assert reasons(open_mixture(DataConfig(path=str(snapshot)))) == {"outside_root"}
    settings = DataConfig(path=str(snapshot), allowed_folders=[str(tmp_path / "secre")])
    assert reasons(open_mixture(settings)) == {"outside_root"}
