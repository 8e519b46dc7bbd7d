"""Files of a transcription: which are found, and where their transcripts go."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from whisper_ft.cli.transcribe.audio_files import find_audio, shared_out
from whisper_ft.runtime.errors import UsageError


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def found(names: Sequence[str | Path], out: Path | None = None) -> dict[str, str]:
    """Paths of the transcripts by the paths of the files, both relative to the current folder."""
    files, _ = find_audio([str(name) for name in names], out)
    return {str(file.path): str(file.output) for file in files}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_folder_is_walked_in_order_without_hidden_files_and_other_kinds():
    make(Path("x"), "b.mp3", "a.WAV", "c/d.m4a", ".e.wav", ".f/g.wav", "notes.txt", "h.wav.part")
    assert found(["x"]) == {"x/a.WAV": "x/a", "x/b.mp3": "x/b", "x/c/d.m4a": "x/c/d"}


def test_globs_that_no_shell_expanded_files_of_any_name_and_doubles():
    make(Path("x"), "b.mp3", "a.wav", "c/d.flac", "e.bin", "[1].wav")
    assert [*found(["x/*.wav", "x/b.mp3", "x/./a.wav"])] == ["x/[1].wav", "x/a.wav", "x/b.mp3"]
    assert [*found(["x/**"])] == ["x/[1].wav", "x/a.wav", "x/b.mp3", "x/c/d.flac"]
    assert found(["x/e.bin", "x/[1].wav"]) == {"x/e.bin": "x/e.bin", "x/[1].wav": "x/[1]"}


@pytest.mark.parametrize("names", [["x"], ["x/a.wav"], ["x/a.mp3"], ["x/*"]])
def test_files_of_one_stem_keep_their_extension_however_they_are_named(names: list[str]):
    """So a transcript never changes its name with the other names on the command line."""
    make(Path("x"), "a.wav", "a.mp3", "b.wav", "b.txt", "c.d.wav", "c.e.wav")
    everything = {"x/a.mp3": "x/a.mp3", "x/a.wav": "x/a.wav", "x/b.wav": "x/b"}
    everything |= {"x/c.d.wav": "x/c.d", "x/c.e.wav": "x/c.e"}
    expected = everything if names in (["x"], ["x/*"]) else {names[0]: names[0]}
    assert found(names) == expected


def test_out_keeps_the_structure_of_a_folder_and_parts_files_of_equal_names():
    make(Path(), "x/a.wav", "x/c/b.wav", "y/a.wav", "y/c/b.wav", "z/e.wav")
    out = Path("out")
    assert found(["x"], out) == {"x/a.wav": "out/a", "x/c/b.wav": "out/c/b"}
    assert found(["x/c/b.wav", "z/e.wav"], out) == {"x/c/b.wav": "out/b", "z/e.wav": "out/e"}
    assert found(["x/a.wav", "y/a.wav", "z/e.wav"], out) == {
        "x/a.wav": "out/x/a",
        "y/a.wav": "out/y/a",
        "z/e.wav": "out/e",
    }
    parted = found(["x", "y"], out)
    assert len(set(parted.values())) == 4
    assert parted["y/c/b.wav"] == "out/y/c/b"


def test_links_are_followed_within_a_folder_and_out_of_it_only_when_named():
    make(Path(), "x/a.wav", "y/b.wav")
    Path("x/in.wav").symlink_to("a.wav")
    Path("x/out.wav").symlink_to(Path("y/b.wav").absolute())
    Path("x/loop").symlink_to(".")
    Path("x/gone.wav").symlink_to("nowhere")
    files, lines = find_audio(["x"], None)
    assert [str(file.path) for file in files] == ["x/a.wav", "x/in.wav"]
    assert [line for line in lines if line.startswith("warning: x: 1 link")]
    assert found(["x/out.wav"]) == {"x/out.wav": "x/out"}


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("gone.wav", "gone.wav"),
        ("x/*.flac", "x/*.flac"),
        ("empty", "empty"),
        ("hf://a/b.wav", "hf://"),
        ("link", "link"),
        ("pipe.wav", "pipe.wav: is neither"),
    ],
)
def test_a_name_without_audio_is_refused(name: str, fact: str):
    make(Path("x"), "a.wav")
    Path("empty").mkdir()
    Path("link").symlink_to("nowhere")
    os.mkfifo("pipe.wav")
    with pytest.raises(UsageError, match=f"^{fact.replace('*', '.')}"):
        found(["x", name])


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_each_file_is_shared_out_to_one_process_and_the_audio_evenly(processes: int):
    lengths = [36_000.0, None, 10.0, 20.0, 18_000.0, 17_000.0, None]
    shares = shared_out(lengths, processes)
    assert sorted(place for share in shares for place in share) == [*range(len(lengths))]
    assert all(share == sorted(share) for share in shares)
    if processes == 2:
        loads = [sum(lengths[place] or 0 for place in share) for share in shares]
        assert abs(loads[0] - loads[1]) < 18_000
