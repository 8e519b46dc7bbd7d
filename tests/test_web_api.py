"""OpenAI's API: the official package `openai` gets from our server what it would get from OpenAI's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving import Serving, serving

openai = pytest.importorskip("openai", reason="the package openai is not installed")


@pytest.fixture(scope="module")
def served(trained: Path) -> Iterator[Serving]:
    """A server of a run."""
    with serving(trained) as serving_:
        yield serving_


@pytest.fixture(scope="module")
def client(served: Serving) -> Any:
    """The official client."""
    return openai.OpenAI(base_url=f"{served.address}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def expected(transcribed: Path) -> str:
    """The text of the short clip, by transcribe."""
    return (transcribed / "a.flac.txt").read_text(encoding="utf-8").strip()


@pytest.mark.long
@pytest.mark.parametrize("model", ["whisper-1", "latest", "best", "step-00000040"])
def test_json_has_the_text(client: Any, sounds: Path, expected: str, model: str):
    answer = client.audio.transcriptions.create(model=model, file=sounds / "a.flac", language="be", temperature=0)
    assert answer.text == expected
    assert answer.usage.type == "duration"


@pytest.mark.long
def test_text_and_subtitles_are_plain(client: Any, sounds: Path, expected: str):
    def ask(form: str) -> str:
        return str(client.audio.transcriptions.create(model="whisper-1", file=sounds / "a.flac", response_format=form))

    assert ask("text") == expected + "\n"
    assert ask("srt").startswith("1\n00:00:00,")
    assert ask("vtt").startswith("WEBVTT\n\n00:00:00.")
    for form in ("srt", "vtt"):
        lines = [line for line in ask(form).splitlines() if line and "-->" not in line and line not in ("WEBVTT",)]
        assert expected.split()[0] in " ".join(lines)


@pytest.mark.long
def test_verbose_json_has_segments_and_words(client: Any, sounds: Path, transcribed: Path):
    answer = client.audio.transcriptions.create(
        model="whisper-1",
        file=sounds / "long.wav",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        prompt="слова",
    )
    assert answer.language == "belarusian"
    assert answer.duration > 20
    assert answer.text == " ".join(segment.text for segment in answer.segments)
    assert [segment.id for segment in answer.segments] == list(range(len(answer.segments)))
    assert all(segment.start < segment.end and segment.avg_logprob <= 0 for segment in answer.segments)
    assert " ".join(word.word for word in answer.words).split() == answer.text.split()
    subtitles = client.audio.transcriptions.create(
        model="whisper-1", file=sounds / "long.wav", response_format="srt", prompt="слова"
    )
    assert subtitles.count(" --> ") == len(answer.segments), "segments are the phrases of the subtitles"
    assert all(len(segment.text) <= 84 for segment in answer.segments)
    plain = client.audio.transcriptions.create(
        model="whisper-1", file=sounds / "a.flac", response_format="verbose_json"
    )
    assert (plain.words, bool(plain.segments)) == (None, True)


def test_a_stream_brings_the_text_as_it_comes(client: Any, sounds: Path, transcribed: Path):
    expected = (transcribed / "long.txt").read_text(encoding="utf-8").strip()
    events = list(client.audio.transcriptions.create(model="whisper-1", file=sounds / "long.wav", stream=True))
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert len(deltas) > 2
    assert "".join(deltas) == expected == events[-1].text
    assert events[-1].type == "transcript.text.done"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_translations_take_the_task_of_translation(client: Any, sounds: Path):
    answer = client.audio.translations.create(model="whisper-1", file=sounds / "a.flac", response_format="verbose_json")
    assert (answer.duration > 0, answer.language) == (True, "english")
    assert client.audio.translations.create(model="whisper-1", file=sounds / "a.flac").text == answer.text


def test_models_are_listed(client: Any):
    models = {model.id: model for model in client.models.list()}
    assert {"latest", "best", "final", "start"} < set(models)
    assert models["best"].created > 1_700_000_000
    assert client.models.retrieve("final").id == "final"
    assert client.models.retrieve("whisper-1").owned_by == "whisper-ft"


@pytest.mark.parametrize(
    ("fields", "error", "code"),
    [
        ({"model": "whisper-9"}, "NotFoundError", "no_model"),
        ({"response_format": "mp3"}, "BadRequestError", "bad_value"),
        ({"temperature": 3}, "BadRequestError", "bad_value"),
        ({"temperature": 0.5}, "BadRequestError", "bad_value"),
        ({"language": "klingon"}, "BadRequestError", "bad_value"),
        ({"timestamp_granularities": ["letter"]}, "BadRequestError", "bad_value"),
        ({"timestamp_granularities": ["word"], "response_format": "srt"}, "BadRequestError", "bad_value"),
        ({"stream": True, "response_format": "verbose_json"}, "BadRequestError", "bad_value"),
        ({"stream": True, "response_format": "srt"}, "BadRequestError", "bad_value"),
        ({"stream": True, "timestamp_granularities": ["segment"]}, "BadRequestError", "bad_value"),
        ({"extra_body": {"stream": "sometimes"}}, "BadRequestError", "bad_value"),
        ({"prompt": "слова " * 400}, "BadRequestError", "bad_value"),
        ({"file": ("notes.wav", b"a text")}, "BadRequestError", "not_audio"),
    ],
)
def test_errors_have_the_shape_of_openai(client: Any, sounds: Path, fields: dict[str, Any], error: str, code: str):
    values = {"model": "whisper-1", "file": sounds / "a.flac", **fields}
    with pytest.raises(getattr(openai, error)) as caught:
        client.audio.transcriptions.create(**values)
    assert (caught.value.code, caught.value.type) == (code, "invalid_request_error")
    assert caught.value.body["message"]


def test_the_token_is_the_api_key(trained: Path, sounds: Path, expected: str):
    with serving(trained, token="secret-1") as served:

        def client(key: str) -> Any:
            return openai.OpenAI(base_url=f"{served.address}/v1", api_key=key, max_retries=0)

        with pytest.raises(openai.AuthenticationError):
            client("secret-2").models.list()
        answer = client("secret-1").audio.transcriptions.create(model="whisper-1", file=sounds / "a.flac")
        assert answer.text == expected


def test_a_full_queue_is_a_rate_limit(trained: Path, sounds: Path):
    with serving(trained, queue=1) as served, served.server.queue.place():
        client = openai.OpenAI(base_url=f"{served.address}/v1", api_key="none", max_retries=0)
        with pytest.raises(openai.RateLimitError) as caught:
            client.audio.transcriptions.create(model="whisper-1", file=sounds / "a.flac")
        assert int(caught.value.response.headers["retry-after"]) > 0
