"""Runs of `prepare` in the process of a test."""

from pathlib import Path
from typing import Any, Protocol

import pytest

from whisper_ft.cli.prepare.__main__ import main


class Prepare(Protocol):
    """Run of `prepare` that says one line."""

    def __call__(self, data: Path | str, out: Path, /, **settings: Any) -> tuple[int, str]:
        """Return the exit code and the line."""


def arguments(data: Path | str, out: Path, /, **settings: Any) -> list[str]:
    """The command line of these settings, with two underscores for a point."""
    given = {"data.path": data, "out": out} | {name.replace("__", "."): value for name, value in settings.items()}
    return [text for name, value in given.items() for text in (f"--{name}", str(value))]


def preparer(capsys: pytest.CaptureFixture[str]) -> Prepare:
    """A function that runs `prepare`, and gives its exit code and the one line that it said."""

    def ended(data: Path | str, out: Path, /, **settings: Any) -> tuple[int, str]:
        code = main(arguments(data, out, **settings))
        said = capsys.readouterr()
        assert (said.out + said.err).count("\n") == 1
        return code, said.out + said.err

    return ended
