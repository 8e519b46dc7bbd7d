"""The web server: the texts of `transcribe` for any upload, with words, options, files and signs of invention."""

import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.serving import Serving, events_in, paused, serving
from tests.test_containers import written
from whisper_ft.decoding.transcript_options import TranscriptOptions, decoding_of

FILES = {"a.flac": "a.flac", "a.mp3": "a.mp3", "deep/b.m4a": "deep/b", "phone.wav": "phone", "long.wav": "long"}


@pytest.fixture(scope="module")
def served(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server of a run."""
    run = Path(shutil.copytree(trained, tmp_path_factory.mktemp("served") / "demo"))
    with serving(run, max_mb=50) as serving_:
        yield serving_


@pytest.mark.parametrize("name", FILES)
def test_the_text_is_that_of_transcribe(served: Serving, sounds: Path, transcribed: Path, name: str):
    events = served.events(sounds / name, words="false")
    assert [kind for kind, _ in events if kind not in ("window", "loading")] == ["queued", "started", "done"]
    expected = json.loads((transcribed / f"{FILES[name]}.json").read_text())
    windows, done = [data for kind, data in events if kind == "window"], events[-1][1]
    assert done["text"] == expected["text"] == " ".join(filter(None, (window["text"] for window in windows)))
    assert (done["language"], done["problem"]) == ("be", None)
    assert [window["number"] for window in windows] == list(range(len(windows)))
    assert sum(window["seconds"] for window in windows) == pytest.approx(expected["duration"], abs=0.01)
    texts = [segment["text"] for window in windows for segment in window["segments"]]
    assert texts == [segment["text"] for segment in expected["segments"]]


@pytest.mark.parametrize("kind", ["webm", "mp4"])
def test_a_recording_of_a_browser_and_a_video_are_transcribed(served: Serving, tmp_path: Path, sounds: Path, kind: str):
    samples, rate = soundfile.read(sounds / "a.flac", dtype="float32")
    (tmp_path / f"a.{kind}").write_bytes(
        written(kind, samples.repeat(3)[:, None], 3 * rate, pictures=20 * (kind == "mp4"))
    )
    done = served.transcribe(tmp_path / f"a.{kind}")
    assert done["text"]
    assert done["seconds"] == pytest.approx(len(samples) / rate, abs=0.2)


@pytest.mark.long
def test_files_of_a_transcript_are_those_of_the_command(served: Serving, sounds: Path, transcribed: Path):
    done = served.transcribe(sounds / "long.wav", words="false")
    for form in ("txt", "srt", "vtt", "tsv"):
        answer = served.get(f"/api/transcripts/{done['id']}.{form}")
        assert answer.text == (transcribed / f"long.{form}").read_text(encoding="utf-8")
        assert f"long.{form}" in answer.headers["content-disposition"]
    expected = json.loads((transcribed / "long.json").read_text(encoding="utf-8"))
    assert served.get(f"/api/transcripts/{done['id']}.json").json()["segments"] == expected["segments"]


def test_words_have_times_and_probabilities(served: Serving, sounds: Path):
    windows = [data for kind, data in served.events(sounds / "long.wav") if kind == "window"]
    words = [word for window in windows for segment in window["segments"] for word in segment["words"]]
    assert words
    assert all(0 <= word["probability"] <= 1 and word["start"] <= word["end"] for word in words)
    assert all(before["start"] <= after["start"] for before, after in pairwise(words))


def test_a_recording_that_ends_early_gives_its_beginning(served: Serving, sounds: Path):
    whole = (sounds / "long.wav").read_bytes()
    events = events_in(served.upload("/api/transcribe", "cut.wav", whole[: len(whole) // 2]).text)
    done = events[-1][1]
    assert done["text"]
    assert "truncated" in done["problem"]


@pytest.mark.parametrize("peak", [0.0, 1e-4])
def test_silence_is_told_and_gets_no_text(served: Serving, tmp_path: Path, peak: float):
    noise = np.random.default_rng(0).uniform(-peak, peak, 16_000 * 12).astype(np.float32)
    soundfile.write(tmp_path / "silence.flac", noise, 16_000, subtype="PCM_24")
    done = served.transcribe(tmp_path / "silence.flac")
    assert (done["text"], done["is_speech"]) == ("", False)
    assert {sign["code"] for sign in done["signs"]} == {"silence"}
    assert sum(sign["end"] - sign["begin"] for sign in done["signs"]) == pytest.approx(12, abs=0.1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_beams", "0"),
        ("num_beams", "11"),
        ("num_beams", "many"),
        ("task", "sing"),
        ("language", "klingon"),
        ("words", "perhaps"),
        ("no_speech_threshold", "1.5"),
    ],
)
def test_impossible_options_are_named(served: Serving, sounds: Path, name: str, value: str):
    answer = served.upload("/api/transcribe", "a.flac", sounds / "a.flac", **{name: value})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "bad_value")
    assert value in error["message"]


def test_options_that_the_model_refuses_end_the_stream(served: Serving, sounds: Path):
    events = served.events(sounds / "a.flac", prompt="слова " * 400)
    assert events[-1][0] == "error"
    assert events[-1][1]["code"] == "bad_value"
    assert served.upload("/api/transcribe", "a.flac", sounds / "a.flac", model="worst").status_code == 404


def test_options_reach_the_decoder(served: Serving, sounds: Path):
    given = {
        "language": "ru", "task": "translate", "prompt": "слова", "num_beams": "2", "timestamps": "true",
        "words": "false", "temperature_fallback": "true", "no_speech_threshold": "0.5",
    }  # fmt: skip
    file = {"file": ("a.flac", (sounds / "a.flac").read_bytes())}
    with (
        paused(served.server),
        served.client() as client,
        client.stream("POST", "/api/transcribe", files=file, data=given) as answer,
    ):
        lines = answer.iter_lines()
        assert next(lines) == "event: queued"
        options = served.server.jobs[json.loads(next(lines).removeprefix("data: "))["id"]].request.options
    assert options == TranscriptOptions(
        "ru", "translate", timestamps=True, words=False, prompt="слова", num_beams=2, temperature_fallback=True,
        no_speech_threshold=0.5, batch_size=options.batch_size,
    )  # fmt: skip
    with served.server.models.use(served.server.models.find("latest")) as held:
        decoding = decoding_of(held.model, options)
    settings = decoding.settings
    assert (decoding.language, settings.prompt, settings.num_beams, settings.timestamps) == ("ru", "слова", 2, True)
    assert (settings.temperature_fallback, settings.no_speech_threshold) == (True, 0.5)
    served.wait_for_end()


def test_words_and_the_detected_language_are_in_the_events(served: Serving, sounds: Path):
    plain = served.events(sounds / "a.flac")
    timed = served.events(
        sounds / "a.flac", timestamps="true", num_beams="2", language="auto", temperature_fallback="true"
    )
    assert all(window["segments"][0]["words"] for kind, window in plain if kind == "window" and window["text"])
    assert [data["language"] for kind, data in timed if kind == "window"] != [None]


def test_signs_of_invented_text():
    from whisper_ft.data.types import NO_FEATURES, Row
    from whisper_ft.decoding.confidence import TranscriptConfidence
    from whisper_ft.decoding.long_form import AudioWindow
    from whisper_ft.decoding.window_transcript import WindowTranscript
    from whisper_ft.web.invention_signs import signs_of

    window = AudioWindow(0, Row("a", b"", ""), NO_FEATURES, 60.0, begin_seconds=20.0, window_seconds=10.0)

    def codes(text: str, logprob: float = -0.2, no_speech: float = 0.1, hit_limit: bool = False) -> list[str]:
        confidence = TranscriptConfidence(logprob, no_speech, 1.0, 0.0)
        found = signs_of(window, WindowTranscript(text, [1, 2], hit_limit, None, [], confidence))
        assert all((sign.begin, sign.end) == (20.0, 30.0) for sign in found)
        return [sign.code for sign in found]

    assert codes("a plain sentence") == []
    assert codes("да да да да") == ["loop"]
    assert codes("你好吗你好吗你好吗你好吗" * 3) == ["loop"]
    assert codes("thank you", logprob=-1.5, no_speech=0.9) == ["no_speech"]
    assert codes("thank you", logprob=-1.5) == ["unlikely"]
    assert codes("one two three", hit_limit=True) == ["token_limit"]
