"""Control characters in other people's names: no terminal, log or JSON gets them, and JSON gives them back."""

import ast
import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from tests.conftest import ROOT, run
from whisper_ft.data.types import Rejected
from whisper_ft.reports.safe_console import SafeConsole
from whisper_ft.runtime.errors import DataError
from whisper_ft.runtime.jsonl import append_rows, rows_with
from whisper_ft.runtime.printable import OBEYED, json_text, printable, say
from whisper_ft.tracking.tracker import Tracker

HOSTILE = "a\x1b]0;owned\x07\x1b[2J\u202egpj.\u2066x\u200b\x9b1m\nerror: b\r\x00\ud83d"
WITHOUT_HALVES = HOSTILE.replace("\ud83d", "")  # in a file of UTF-8 that somebody else wrote
OBEYED_IN = re.compile(f"(?!\n)[{OBEYED}]")


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_any_text_is_printed_on_one_line_and_comes_back_from_json(text: str):
    shown = printable(text)
    assert not re.search(f"[{OBEYED}]", shown)
    assert printable(shown) == shown
    assert shown.encode().decode() == shown
    assert json.loads(json_text({text: [text]})) == json.loads(json.dumps({text: [text]}))
    assert not OBEYED_IN.search(json_text(text, indent=2))


@pytest.mark.parametrize("text", ["Раз’яднаць", "می‌خواهم", "👩‍🚀", "e\u0301", "1\u00a0%", "日本語", "שלום", "a\\b"])
def test_texts_of_any_language_stay_as_they_are(text: str):
    assert printable(text) == text
    assert json_text(text) == json.dumps(text, ensure_ascii=False)


def test_lines_are_printed_one_by_one_and_an_error_is_one_line(capsys: pytest.CaptureFixture[str]):
    say(HOSTILE, "second")
    assert capsys.readouterr().out.splitlines() == [printable(HOSTILE), "second"]
    assert str(DataError(f"{HOSTILE}: cannot be read")) == f"{printable(HOSTILE)}: cannot be read"


def test_a_table_is_cleaned_and_keeps_its_own_lines_and_styles():
    output = io.StringIO()
    console = SafeConsole(file=output, force_terminal=True, width=200, color_system="standard")
    table = Table(HOSTILE)
    table.add_row(f"[red]{HOSTILE}")
    console.print(table)
    text = re.sub("\x1b\\[[0-9;]*m", "", output.getvalue())
    assert text != output.getvalue(), "rich's own colours"
    assert not OBEYED_IN.search(text)
    assert len(text.splitlines()) > 3


def test_a_hostile_id_reaches_neither_the_screen_nor_the_quarantine_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    tracker = Tracker(tmp_path, 10, enabled=True)
    tracker.quarantine([Rejected(HOSTILE, "bad_audio", HOSTILE)])
    tracker.say(f"{HOSTILE} is in {tmp_path}")
    out = capsys.readouterr().out
    assert not OBEYED_IN.search(out)
    assert len(out.splitlines()) == 2
    written = (tmp_path / "quarantine.jsonl").read_text(encoding="utf-8")
    assert not OBEYED_IN.search(written)
    assert rows_with(tmp_path / "quarantine.jsonl", "id")[0]["id"] == HOSTILE


@pytest.mark.long
def test_scores_of_foreign_predictions_with_hostile_ids_and_columns_are_clean(tmp_path: Path):
    rows = [
        {"id": f"{number}{HOSTILE}", "ref": "так", "hyp": WITHOUT_HALVES, "speaker": HOSTILE, HOSTILE: HOSTILE}
        for number in range(3)
    ]
    path, out = tmp_path / "predictions.jsonl", tmp_path / "out"
    arguments = ["--predictions", str(path), "--out", str(out), "--columns", "[speaker]"]
    append_rows(path, rows)
    ended = run("evaluate.py", *arguments)
    assert ended.code == 0, ended.err
    for text in (ended.out, ended.err, *(written.read_text() for written in out.glob("*.json*"))):
        assert not OBEYED_IN.search(text)
    path.write_text(json.dumps({"id": "a", HOSTILE: 1}))
    ended = run("evaluate.py", *arguments)
    assert ended.code != 0
    assert not OBEYED_IN.search(ended.err)
    assert len(ended.err.strip().splitlines()) == 1


@pytest.mark.long
def test_nothing_is_printed_past_the_one_place_that_cleans_it():
    programs = [ROOT / "train.py", ROOT / "evaluate.py", *(ROOT / "whisper_ft").rglob("*.py")]
    found = {
        f"{path.name}: {name}"
        for path in programs
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        for name in [node.func.id]
        if name in ("print", "Console")
    }
    assert found == {"printable.py: print", "resume_page.py: print"}
