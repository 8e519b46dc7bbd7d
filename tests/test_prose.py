"""The check of the project's English finds what it is there for, and reads neither code nor exceptions."""

from pathlib import Path

import pytest

from tests.prose import MAX_WORDS, ROOT, check_text, main

LONG = " ".join(["word"] * MAX_WORDS) + " more."
SHORT = " ".join(["word"] * (MAX_WORDS - 1)) + " last."


def findings(name: str, source: str) -> list[int]:
    """Numbers of the lines with a finding."""
    return [finding.line for finding in check_text(Path(name), source)]


@pytest.mark.parametrize("start", ["What", "Whether", "Where", "That", "Of", "Those", "what", "\n    What"])
def test_a_docstring_that_names_nothing_first_is_found(start: str):
    assert findings("a.py", f'x = 1\n"""{start} the thing does."""\n') == [2]
    assert findings("a.py", f'def f():\n    """{start} the thing does."""\n') == [2]


def test_a_docstring_that_names_its_thing_first_passes():
    assert not findings("a.py", '"""Whatever a word begins with: offsets, thoseness."""\n')


@pytest.mark.parametrize(
    ("name", "source", "line"),
    [
        ("a.py", f'"""Title.\n\n{LONG}\n"""\n', 3),
        ("a.py", f'def f():\n    """Title.\n\n    {LONG[:40]}\n    {LONG[41:]}\n    """\n', 4),
        ("a.py", f"x = 1  # {LONG}\n", 1),
        ("a.py", f"# {LONG[:50]}\n# {LONG[51:]}\n", 1),
        ("a.md", f"# Title\n\n{LONG[:50]}\n{LONG[51:]}\n", 3),
        ("a.md", f"- short\n- {LONG[:50]}\n  {LONG[51:]}\n", 2),
        ("a.md", f"| a | b |\n|---|---|\n| short | {LONG} |\n", 3),
        ("a.sh", f"set -e\n# {LONG}\n", 2),
        ("a.yaml", f"a: 1\nb: 2  # {LONG}\n", 2),
        ("Makefile", f"# {LONG}\n", 1),
    ],
)
def test_a_sentence_that_is_too_long_is_found_at_its_paragraph(name: str, source: str, line: int):
    assert findings(name, source) == [line]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("a.py", f'"""{SHORT}\n{SHORT}\n\n{SHORT}"""\n'),
        ("a.py", f"x = 1  # {SHORT[:-1]}\ny = 2  # {SHORT}\n"),
        ("a.py", f'x = "{LONG}"\n'),
        ("a.md", f"{SHORT} {SHORT}\n"),
        ("a.md", f"- {SHORT[:-1]}\n- {SHORT}\n"),
        ("a.md", f"| {SHORT[:-1]} | {SHORT} |\n"),
        ("a.md", f"```bash\n{LONG}\n```\n"),
        ("a.md", f"Words `{LONG}` more.\n"),
        ("a.md", f"<!-- {LONG} -->\n"),
        ("a.py", f'"""Use:\n\n    {LONG}\n"""\n'),
        ("a.py", f'"""Title.\n\nArgs:\n    a: {SHORT[5:-1]}\n    b: {SHORT[5:]}\n"""\n'),
        ("a.sh", f"echo '{LONG}'\n"),
    ],
)
def test_short_sentences_items_and_code_pass(name: str, source: str):
    assert not findings(name, source)


def test_an_abbreviation_does_not_end_a_sentence_but_a_question_and_a_bracket_do():
    half = " ".join(["word"] * 20)
    assert findings("a.md", f"{half}, e.g. {half}.\n") == [1]
    assert not findings("a.md", f"{half}? {half}. (So {half}.) {half}!\n")


def test_no_comment_switches_the_check_off():
    assert findings("a.py", f"x = 1  # noqa {LONG}\n") == [1]


def test_the_findings_are_printed_with_file_and_line_and_make_the_exit_code(capsys: pytest.CaptureFixture[str]):
    assert main([str(ROOT / "tests/test_prose.py")]) == 0
    assert "0 findings" in capsys.readouterr().err
