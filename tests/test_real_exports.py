"""Exports of OpenAI's own weights, checked in their engines on real speech, where a machine has both.

    REAL_MODELS=DIR REAL_CORPUS=DIR .venv/bin/python -m pytest -m real tests/test_real_exports.py -s

REAL_MODELS holds whisper-base and whisper-tiny.en. REAL_CORPUS is a folder of parquet files with the columns audio,
sentence and language; English ones are used for tiny.en, and any for base. REAL_CLIPS (12) limits the clips. The
training takes REAL_UPDATES (50) updates, and needs train.parquet and validation.parquet beside test.parquet.
"""

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import tests.conftest
from tests.conftest import Trainer
from tests.openai_weights import CORPUS, MODELS, SIZES, needs_speech, needs_weights
from whisper_ft.cli.export.__main__ import main
from whisper_ft.cli.export.targets import TARGETS

CLIPS = os.environ.get("REAL_CLIPS", "12")
UPDATES = int(os.environ.get("REAL_UPDATES", "50"))
FORMATS = [(target.name, each.name) for target in TARGETS.values() for each in target.quantizations]

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(3600),
    needs_weights,
    needs_speech,
]


def clips_for(size: str) -> Path:
    """A file of the corpus that the model knows the language of."""
    files = sorted(Path(CORPUS or ".").rglob("*.parquet"))
    files = [file for file in files if file.name == "test.parquet"] or files
    for file in files:
        language = pq.read_table(file, columns=["language"]).column(0)[0].as_py()
        if language == "en" or not size.endswith(".en"):
            return file
    return pytest.skip("needs English speech")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("target", "quantization"), FORMATS)
def test_openais_weights_write_the_same_in_every_engine(tmp_path: Path, size: str, target: str, quantization: str):
    out = tmp_path / "out"
    arguments = ["--to", target, "--quantization", quantization, "--out", str(out)]
    code = main([str(Path(MODELS or ".", size)), *arguments, "--check", str(clips_for(size)), CLIPS])
    folder = out if out.exists() else out.with_name("out.failed")
    record = json.loads((folder / "export.json").read_text())
    print(f"\n{size} {target} {quantization}", json.dumps(record["check"]["engines"]))
    assert code == 0
    # whisper.cpp up to 1.8.5 aborts on float32, which leaves that export unchecked.
    can_check = any(engine.is_installed for engine in TARGETS[target].engines)
    can_check = can_check and (target, quantization) != ("ggml", "float32")
    assert record["status"] == "passed" or (not can_check and record["status"] == "unchecked")


def test_a_model_tuned_on_real_speech_writes_the_same_in_faster_whisper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The whole way: train.py, best/, CTranslate2, faster-whisper."""
    monkeypatch.setattr(tests.conftest, "START_SECONDS", 1200)  # of a program that takes seconds with a micro model
    data = next((file.parent for file in Path(CORPUS or ".").rglob("train.parquet")), None)
    if data is None or not (data / "validation.parquet").exists():
        pytest.skip("needs train.parquet and validation.parquet")
    language = pq.read_table(data / "validation.parquet", columns=["language"]).column(0)[0].as_py()
    train = Trainer(tmp_path, data, Path(MODELS or ".", "whisper-base"), tmp_path)
    run = train(
        "run", steps=UPDATES, model__dropout=0.0, batch__size=4, batch__per_device=2, optim__lr=1e-5, log__every=10,
        data__path=data / "train.parquet", data__language=language, eval__path=data / "validation.parquet",
        eval__every=UPDATES, eval__max_utterances=4, eval__max_new_tokens=64, save__every=UPDATES,
    )  # fmt: skip
    assert main([str(run), "--to", "ct2", "--out", str(tmp_path / "out"), "--check", CLIPS]) == 0
    engines = json.loads((tmp_path / "out/export.json").read_text())["check"]["engines"]
    assert {report["status"] for report in engines} == {"passed"}
