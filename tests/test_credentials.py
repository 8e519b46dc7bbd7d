"""Credentials in addresses: used for requests, and never written to a file, a log or a screen."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Trainer, run
from tests.elsewhere import Elsewhere, serve
from whisper_ft.config.data import DataConfig
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import to_plain
from whisper_ft.data.types import RejectedError
from whisper_ft.runtime.errors import DataError
from whisper_ft.runtime.redaction import redacted

SECRET = "s3cret"


@pytest.fixture
def elsewhere(corpus: Path) -> Iterator[Elsewhere]:
    with serve(corpus) as where:
        yield where


def address(elsewhere: Elsewhere, path: Path) -> str:
    """Address of a file of the corpus, with a password and a signature."""
    file = next(path.glob("*.parquet"))
    host = f"127.0.0.1:{elsewhere.port}/files/{file.relative_to(elsewhere.folder)}"
    return f"http://me:{SECRET}@{host}?X-Amz-Signature={SECRET}"


def written(folder: Path) -> list[str]:
    """Files that hold the secret."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


@pytest.mark.matrix
def test_a_run_writes_no_credentials(train: Trainer, elsewhere: Elsewhere, corpus: Path, tmp_path: Path):
    data = {"data__path": address(elsewhere, corpus / "train"), "data__format": "parquet"}
    held_out = {"eval__path": address(elsewhere, corpus / "validation")}
    first = train.end("run", steps=2, **data, **held_out)
    assert first.code == 0, first.err
    second = train.end("run", steps=3, allow_change="[steps]", **data, **held_out)
    assert second.code == 0, second.err
    assert "resumed" in second.out
    lost = {**data, "data__path": data["data__path"].replace("/train-0", "/lost-0")}
    failed = train.end("failed", steps=2, **lost, **held_out)
    assert failed.code == 2
    scored = run(
        *("evaluate.py", "--model", str(train.folder / "run"), "--out", str(tmp_path / "scored")),
        *("--data.path", held_out["eval__path"], "--data.format", "parquet", "--data.language", "be"),
        *("--max_utterances", "2", "--decoding.max_new_tokens", "4"),
    )
    assert scored.code == 0, scored.err
    assert elsewhere.sent > 0
    for ended in (first, second, failed, scored):
        assert SECRET not in ended.out + ended.err
    assert not [*written(train.folder), *written(tmp_path)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:s3cret@host/a@b.wav: lost", "https://***@host/a@b.wav: lost"),
        ("s3://key:s3cret@bucket/a and http://host/b", "s3://***@bucket/a and http://host/b"),
        ("https://host/a?sv=1&sig=s3cret%3D&x=2", "https://host/a?sv=1&sig=***&x=2"),
        ("url='https://host/a?access_token=s3cret'", "url='https://host/a?access_token=***'"),
        ("hf://datasets/me/speech@main/a.parquet", "hf://datasets/me/speech@main/a.parquet"),
        ("/home/me@host/a?token=b", "/home/me@host/a?token=b"),
    ],
)
def test_only_credentials_in_addresses_are_hidden(text: str, shown: str):
    assert redacted(text) == shown
    assert str(DataError(text)) == shown
    assert RejectedError("missing_file", text).detail == shown
    assert to_plain(TrainingConfig(data=DataConfig(path=text)))["data"]["path"] == shown
