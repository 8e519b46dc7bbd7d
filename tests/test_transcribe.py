"""transcribe: the texts of evaluate.py for any file, in bounded memory, continued after a kill, shared by processes."""

import json
import os
import re
import signal
import subprocess
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
import soundfile

from tests.conftest import ROOT, START_SECONDS, Trainer, environment, parent, pids_of, run, run_script, start
from tests.starts import Ended
from whisper_ft.cli.transcribe.audio_files import AudioFile
from whisper_ft.cli.transcribe.recording_work import RecordingWork
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.decoding.finished_window import FinishedWindow
from whisper_ft.models.whisper import load_whisper
from whisper_ft.runtime.errors import LockedError
from whisper_ft.training.next_commands import next_commands

PROGRAM = "whisper_ft/__main__.py"
SECONDS = re.compile(r"(\d+):(\d\d) of audio")


def transcribe(model: Path, *arguments: object, processes: int = 1) -> Ended:
    return run(PROGRAM, "transcribe", str(model), *map(str, arguments), processes=processes)


STEMS = ("a.flac", "a.mp3", "deep/b", "deep/stereo", "long", "phone")


def texts(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder).with_suffix("")): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*.txt"))
    }


def value(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def test_the_texts_are_those_of_evaluate(trained: Path, sounds: Path, transcribed: Path, tmp_path: Path):
    files = [path for path in sorted(sounds.rglob("*")) if path.is_file()]
    lines = [json.dumps({"audio": str(path), "text": "так"}) for path in files]
    (tmp_path / "list.jsonl").write_text("\n".join(lines) + "\n")
    where = ["--data.path", str(tmp_path / "list.jsonl"), "--data.audio_root", str(sounds), "--data.language", "be"]
    ended = run("evaluate.py", "--model", str(trained), *where, "--out", str(tmp_path / "out"))
    assert ended.code == 0, ended.out + ended.err
    assert f"python -m whisper_ft transcribe {trained} FILE" in ended.out, "the next command"
    rows = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    assert max(row["windows"] for row in rows) > 4, "one is long"
    assert any(row["hyp"] for row in rows), "a model that writes nothing would show nothing"
    expected = {STEMS[number]: row["hyp"] + "\n" for number, row in enumerate(rows)}
    assert texts(transcribed) == expected


@pytest.mark.long
def test_every_format_tells_the_same(transcribed: Path):
    assert {str(path.relative_to(transcribed)) for path in transcribed.rglob("*") if path.is_file()} == {
        f"{stem}.{form}" for stem in STEMS for form in ("txt", "srt", "vtt", "tsv", "json")
    }, "and no log is left"
    for stem, text in texts(transcribed).items():
        whole = value(transcribed / f"{stem}.json")
        assert whole["text"] == text.strip() == " ".join(segment["text"] for segment in whole["segments"])
        assert (whole["language"], whole["model"].endswith("best")) == ("be", True)
        for segment in whole["segments"]:
            assert 0 <= segment["start"] < segment["end"] <= whole["duration"]
            assert segment["avg_logprob"] <= 0 < segment["compression_ratio"]
        for form in ("srt", "vtt"):
            shown = (transcribed / f"{stem}.{form}").read_text(encoding="utf-8").splitlines()
            words = [
                word for line in shown if line and "-->" not in line and not line.isdigit() for word in line.split()
            ]
            assert [word for word in words if word != "WEBVTT"] == text.split()


def test_segments_of_a_long_recording_lie_side_by_side_without_overlap(transcribed: Path):
    whole = value(transcribed / "long.json")
    times = [(segment["start"], segment["end"]) for segment in whole["segments"]]
    assert len(times) > 4
    assert all(end <= start + 1e-6 for (_, end), (start, _) in pairwise(times))


@pytest.mark.long
def test_words_and_phrases_have_times_within_the_recording(trained: Path, sounds: Path, tmp_path: Path):
    options = ["--words", "--timestamps", "--language", "auto", "--to", "json,srt"]
    ended = transcribe(trained, sounds / "long.wav", "--out", tmp_path, *options)
    assert ended.code == 0, ended.out + ended.err
    whole = value(tmp_path / "long.json")
    words = [word for segment in whole["segments"] for word in segment["words"]]
    assert words
    for segment in whole["segments"]:
        assert "".join(word["word"] for word in segment["words"]).strip() == segment["text"]
    assert all(0 <= word["start"] <= word["end"] <= whole["duration"] for word in words)
    assert all(before["start"] <= after["start"] for before, after in pairwise(words))
    shown = (tmp_path / "long.srt").read_text(encoding="utf-8").split("\n\n")[:-1]
    lines = [line for block in shown for line in block.split("\n")[2:]]
    assert "".join("".join(lines).split()) == "".join(whole["text"].split()), "a loop may be longer than a line"


def test_transcripts_that_exist_are_kept_unless_they_are_to_be_replaced(trained: Path, sounds: Path, tmp_path: Path):
    """The model is not even loaded where nothing is missing."""
    arguments = (sounds / "phone.wav", sounds / "deep", "--out", tmp_path)
    (tmp_path / "phone.txt").write_text("mine")
    ended = transcribe(trained, *arguments)
    assert (ended.code, (tmp_path / "phone.txt").read_text()) == (0, "mine")
    assert sorted(texts(tmp_path)) == ["b", "phone", "stereo"]
    assert transcribe(tmp_path / "phone.txt", *arguments).code == 2, "no model"
    again = transcribe(trained, *arguments)
    assert (again.code, "--overwrite" in again.err) == (0, True)
    assert transcribe(trained, sounds / "phone.wav", "--out", tmp_path, "--overwrite").code == 0
    assert (tmp_path / "phone.txt").read_text() != "mine"


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 2])
def test_unreadable_files_are_named_and_the_others_written(trained: Path, sounds: Path, tmp_path: Path, processes: int):
    whole = (sounds / "long.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "noise.mp3").write_bytes(b"no audio")
    (tmp_path / "good.wav").write_bytes((sounds / "phone.wav").read_bytes())
    ended = transcribe(trained, tmp_path, "--to", "json", processes=processes)
    assert ended.code == 4, ended.out + ended.err
    warned = sorted(line for line in (ended.out + ended.err).splitlines() if line.startswith("warning: "))
    assert [str(tmp_path / name) in line for name, line in zip(("cut.wav", "noise.mp3"), warned, strict=True)] == 2 * [
        True
    ]
    assert [line for line in ended.err.splitlines() if line.startswith("error: ") and "2 files" in line]
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["cut.json", "good.json"]
    assert "truncated" in value(tmp_path / "cut.json")["problem"]
    assert "problem" not in value(tmp_path / "good.json")


@pytest.mark.long
def test_two_processes_write_each_transcript_once_and_the_same(
    trained: Path, sounds: Path, transcribed: Path, tmp_path: Path
):
    ended = transcribe(trained, sounds, "--out", tmp_path, processes=2)
    assert ended.code == 0, ended.out + ended.err
    assert texts(tmp_path) == texts(transcribed)
    done = [line for line in ended.out.splitlines() if str(sounds) in line]
    assert len(done) == len(STEMS)


@pytest.mark.long
def test_a_killed_transcription_goes_on_from_its_finished_windows(
    trained: Path, sounds: Path, transcribed: Path, tmp_path: Path
):
    log, seconds = tmp_path / ".long.windows", value(transcribed / "long.json")["duration"]
    arguments = ["transcribe", str(trained), str(sounds / "long.wav"), "--out", str(tmp_path), "--batch_size", "1"]
    started, deadline = start(PROGRAM, arguments), time.monotonic() + START_SECONDS
    while not (log.exists() and log.read_bytes().count(b'"number"') >= 2):
        assert started.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    for pid in pids_of(started):
        os.kill(pid, signal.SIGKILL)
    started.wait(START_SECONDS)
    assert [path.name for path in tmp_path.iterdir()] == [".long.windows"], "no half of a transcript"
    ended = run(PROGRAM, *arguments)
    assert ended.code == 0, ended.out + ended.err
    assert texts(tmp_path) == {"long": texts(transcribed)["long"]}
    assert not log.exists()
    minutes, rest = map(int, SECONDS.findall(ended.err)[-1])
    assert 60 * minutes + rest < seconds - 2, "the finished windows were not transcribed again"


@pytest.fixture(scope="module")
def log_mel(micro_whisper: Path) -> LogMel:
    return LogMel(load_whisper(str(micro_whisper))[1].feature_extractor)


def finished(number: int, text: str = "") -> FinishedWindow:
    return FinishedWindow(number, 3.0, text, None, ())


def test_only_windows_that_are_missing_are_read_and_a_changed_file_begins_anew(
    log_mel: LogMel, sounds: Path, tmp_path: Path
):
    path = tmp_path / "long.wav"
    path.write_bytes((sounds / "long.wav").read_bytes())
    file, job = AudioFile(path, tmp_path / "long"), {"model": "a"}

    def numbers(job: dict[str, Any]) -> list[int]:
        work = RecordingWork(0, file, file.outputs(["txt"]), job)
        read = [window.number for window in work.windows(log_mel)]
        for number in read[1:3]:
            work.add(finished(number))
        work.release(keep=True)
        return read

    everything = numbers(job)
    assert numbers(job) == [0, *everything[3:]]
    assert numbers({"model": "b"}) == everything
    (tmp_path / ".tmp-long.txt-0a1b2c3d").touch()
    (tmp_path / ".tmp-longer.txt-0a1b2c3d").touch()
    assert numbers({"model": "b"}) == [0, *everything[3:]]
    assert [file.name for file in tmp_path.glob(".tmp-*")] == [".tmp-longer.txt-0a1b2c3d"], "that of another file"
    path.touch()
    assert numbers({"model": "b"}) == everything
    with (tmp_path / ".long.windows").open("a") as log:
        log.write('{"number": 0, "seconds": 3.0, "te')
    assert 0 in numbers({"model": "b"}), "a line that a kill cut short counts for nothing"


@pytest.mark.long
def test_a_recording_that_another_process_transcribes_is_left_to_it(trained: Path, sounds: Path, tmp_path: Path):
    file = AudioFile(sounds / "phone.wav", tmp_path / "phone")
    work = RecordingWork(0, file, file.outputs(["txt"]), {})
    with pytest.raises(LockedError):
        RecordingWork(0, file, file.outputs(["txt"]), {})
    ended = transcribe(trained, sounds / "phone.wav", sounds / "deep", "--out", tmp_path)
    assert (ended.code, sorted(texts(tmp_path))) == (0, ["b", "stereo"])
    work.release(keep=False)
    assert transcribe(trained, sounds / "phone.wav", "--out", tmp_path).code == 0
    assert sorted(texts(tmp_path)) == ["b", "phone", "stereo"]


@pytest.mark.long
def test_a_full_disk_ends_with_its_own_code_and_the_same_command_goes_on(
    trained: Path, sounds: Path, transcribed: Path, tmp_path: Path
):
    """A limit on the size of files stands for the disk."""
    arguments = ["transcribe", str(trained), str(sounds / "long.wav"), "--out", str(tmp_path), "--batch_size", "1"]
    source = (
        "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (2500, 2500))\n"
        "from whisper_ft.__main__ import main\nmain(sys.argv[1:])\n"
    )
    ended = run_script(source, *arguments)
    assert ended.code == 6, ended.out + ended.err
    assert (ended.err.count("error: "), "Traceback" in ended.err) == (1, False)
    assert not (tmp_path / "long.txt").exists()
    assert run(PROGRAM, *arguments).code == 0
    assert texts(tmp_path) == {"long": texts(transcribed)["long"]}


@pytest.mark.long
def test_a_closed_output_ends_no_transcription(trained: Path, sounds: Path, tmp_path: Path):
    read, write = os.pipe()
    os.close(read)
    arguments = ["transcribe", str(trained), str(sounds / "deep"), "--out", str(tmp_path)]
    with open(write, "w") as out, open(os.devnull, "w") as err:
        code = parent().start(PROGRAM, arguments, ROOT, out, err).wait(START_SECONDS)
    assert (code, sorted(texts(tmp_path))) == (0, ["b", "stereo"])


@pytest.mark.long
def test_a_transcription_without_memory_names_its_own_options(trained: Path, sounds: Path, tmp_path: Path):
    source = (
        "import torch\nfrom transformers.models.whisper.modeling_whisper import WhisperEncoder\n"
        "WhisperEncoder.forward = lambda *_, **__: torch.empty(1 << 50)\n"
        "from whisper_ft.__main__ import main\nmain(sys.argv[1:])\n"
    )
    ended = run_script(source, "transcribe", str(trained), str(sounds / "phone.wav"), "--out", str(tmp_path))
    assert (ended.code, ended.err.count("error: ")) == (9, 1), ended.err
    assert "--batch_size 2 (is 4)" in ended.err
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["--to", "doc"], ["--to", "'doc'", "srt"]),
        (["--language", "xx"], ["'xx'"]),
        (["--num_beams", "0"], ["--num_beams", "0"]),
        (["--no_speech_threshold", "2"], ["--no_speech_threshold", "2"]),
        (["--prompt", 300 * "доўгі "], ["--prompt"]),
        (["gone.wav"], ["gone.wav"]),
        (["--words", "--to", "txt,tsv"], ["--words", "srt", "json"]),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(
    trained: Path, sounds: Path, tmp_path: Path, arguments: list[str], facts: list[str]
):
    ended = transcribe(trained, sounds / "phone.wav", "--out", tmp_path, *arguments)
    assert ended.code == 2, ended.out + ended.err
    error = ended.err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert all(fact in error for fact in facts)
    assert "--data." not in error
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_run_without_a_model_is_refused_with_the_way_out(tmp_path: Path, sounds: Path):
    (tmp_path / "config.yaml").touch()
    (tmp_path / "status.json").touch()
    ended = transcribe(tmp_path, sounds / "phone.wav")
    assert ended.code == 2
    assert all(fact in ended.err for fact in (str(tmp_path), "best/", "final/", "checkpoint export"))


@pytest.mark.long
def test_the_end_of_a_run_prints_the_best_rate_and_the_next_commands(train: Trainer):
    ended = train.end("run", steps=2, eval__every=2)
    best = json.loads((train.folder / "run/best.json").read_text())
    assert f"best {best['metric']}: {best['value']:.4f}, at step 2" in ended.out.splitlines()
    assert f"python -m whisper_ft transcribe {train.folder / 'run'} FILE" in ended.out
    assert "--to ct2" not in ended.out  # faster-whisper cannot load the vocabulary of the micro model


def test_the_next_commands_of_a_model_with_openai_s_vocabulary_include_its_export(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"vocab_size": 51865}')
    assert f"take it to faster-whisper: python -m whisper_ft export {tmp_path} --to ct2 --out DIR" in next_commands(
        str(tmp_path)
    )


@pytest.mark.matrix
def test_two_hours_of_sound_are_transcribed_within_the_memory_of_minutes(trained: Path, sounds: Path, tmp_path: Path):
    """Weights and libraries take most of it; ten hours are shown for the reader in test_recording.py."""

    def peak(minutes: int) -> float:
        clip, rate = soundfile.read(sounds / "long.wav", dtype="int16")
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", rate, 1) as file:
            for _ in range(round(60 * minutes / (len(clip) / rate))):
                file.write(clip)
        started = start(PROGRAM, ["transcribe", str(trained), str(path), "--max_new_tokens", "4"])
        most = 0.0
        while started.poll() is None:
            for pid in pids_of(started):
                try:
                    most = max(most, psutil.Process(pid).memory_info().rss)
                except psutil.NoSuchProcess:
                    continue
            time.sleep(0.05)
        assert (started.poll(), (tmp_path / f"{minutes}.txt").exists()) == (0, True)
        return most / 1e6

    assert peak(120) < peak(6) + 100, "MB; the samples of two hours have 460"


@pytest.mark.matrix
def test_launch_sh_shares_the_files_between_processes_and_refuses_once(
    trained: Path, sounds: Path, transcribed: Path, tmp_path: Path
):
    def launched(*arguments: object) -> subprocess.CompletedProcess[str]:
        argv = [str(ROOT / "launch.sh"), "transcribe", str(trained), *map(str, arguments)]
        env = environment(2) | {"NPROC": "2"}
        return subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)

    done = launched(sounds, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert texts(tmp_path / "out") == texts(transcribed)
    refused = launched(sounds, "--too", "srt")
    assert (refused.returncode, refused.stderr.count("error: ")) == (2, 1)
    assert "--to" in refused.stderr
