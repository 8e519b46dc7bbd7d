"""The page with OpenAI's weights: real speech, spoken by the microphone of Chromium, has the text of evaluate.py.

    REAL_MODELS=DIR REAL_CORPUS=DIR .venv/bin/python -m pytest -m real tests/test_real_page.py -s

REAL_MODELS holds whisper-base and whisper-tiny.en. REAL_CORPUS is a folder of parquet files with the columns audio,
sentence and language, in English.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from rapidfuzz.distance import Levenshtein

from tests.browser import Visit, chromium, needs_browser, playwright, serve
from tests.conftest import run
from tests.openai_weights import CORPUS, MODELS, needs_speech, needs_weights
from whisper_ft.config.data import SourceConfig
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.sources import open_source
from whisper_ft.data.types import Row

pytestmark = [pytest.mark.real, needs_weights, needs_speech, *needs_browser]
__all__ = ["playwright"]  # a fixture

CLIPS = 3
MOST_CER = 0.02
RATE = 16_000
BEFORE, AFTER = (
    1.5,
    1.0,
)  # seconds of silence around a clip, because the page records a little after the microphone opens


def clips() -> list[Row]:
    file = min(Path(CORPUS or ".").rglob("*.parquet"))
    return open_source(SourceConfig(path=str(file))).read(0)[:CLIPS]


@pytest.mark.timeout(1800)
def test_speech_into_the_microphone_has_the_text_of_evaluate_py(tmp_path: Path, playwright: Any):
    model, rows = Path(MODELS or ".", "whisper-base"), clips()
    if (language := rows[0].language or "en") != "en":
        pytest.skip(f"needs English speech: of {language} whisper-base writes another text when it is moved by 0.1 s")
    folder = tmp_path / "set"
    folder.mkdir()
    lines = []
    for number, row in enumerate(rows):
        wave = np.pad(decode(row.audio, RATE, 30.0), (round(BEFORE * RATE), round(AFTER * RATE)))
        soundfile.write(folder / f"{number}.wav", wave, RATE)
        lines.append(json.dumps({"id": str(number), "file_name": f"{number}.wav", "text": row.text}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    where = ["--data.path", str(folder), "--data.language", language, "--out", str(tmp_path / "out")]
    ended = run("evaluate.py", "--model", str(model), *where)
    assert ended.code == 0, ended.err
    written = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    edits = characters = 0
    with serve(model, tmp_path / "kept") as address:
        for number, row in enumerate(written):
            text = spoken_text(playwright, address, folder / f"{number}.wav", language)
            edits += Levenshtein.distance(text, row["hyp"])
            characters += len(row["hyp"])
            print(f"\nevaluate.py: {row['hyp']}\nthe page:    {text}")
    print(f"CER of the page against evaluate.py: {edits / characters:.2%} of {characters} characters")
    assert edits / characters <= MOST_CER


def spoken_text(playwright: Any, address: str, sound: Path, language: str) -> str:
    """The text on the page for a sound that the microphone plays."""
    seconds = soundfile.info(sound).duration
    with chromium(playwright, sound) as browser:
        visit = Visit(browser, address, permissions=["microphone"])
        visit.context.set_default_timeout(600_000)
        visit.page.select_option("#language", language)
        visit.page.click("#record")
        visit.page.wait_for_selector("#recording", state="visible")
        visit.page.wait_for_timeout(1000 * seconds)
        visit.page.click("#record")
        visit.wait()
        assert not visit.complaints
        return visit.words
