"""Runs of `prepare` in the process of a test."""

from pathlib import Path
from typing import Any, Protocol

import pytest

from whisper_ft.cli.prepare import shards
from whisper_ft.cli.prepare.__main__ import main


class Prepare(Protocol):
    """Run of `prepare` that says one line."""

    def __call__(self, data: Path | str, out: Path, /, **settings: Any) -> tuple[int, str]:
        """Return the exit code and the line."""


def arguments(data: Path | str, out: Path, /, **settings: Any) -> list[str]:
    """The command line of these settings, with two underscores for a point."""
    given = {"data.path": data, "out": out} | {name.replace("__", "."): value for name, value in settings.items()}
    return [text for name, value in given.items() for text in (f"--{name}", str(value))]


def stopped_after_each_file(prepare: Prepare, data: Path, out: Path, patch: pytest.MonkeyPatch, **settings: Any) -> int:
    """Start `prepare` again and again, each time stopped by Ctrl-C after one more file. Returns the number of stops.

    Half a file lies there at each start, as after a kill.
    """
    write, stops = shards.ShardPass._write_file, 0

    def write_one_more(self: Any, *given: Any) -> None:
        write(self, *given)
        raise KeyboardInterrupt

    patch.setattr(shards.ShardPass, "_write_file", write_one_more)
    while (ended := prepare(data, out, **settings))[0] == 75:
        stops += 1
        assert stops < 60
        assert not list(out.glob("*.parquet"))
        (out / ".tmp-shard").write_bytes(b"half a file")
    assert ended[0] == 0, ended
    patch.undo()
    return stops


def preparer(capsys: pytest.CaptureFixture[str]) -> Prepare:
    """A function that runs `prepare`, and gives its exit code and the one line that it said."""

    def ended(data: Path | str, out: Path, /, **settings: Any) -> tuple[int, str]:
        code = main(arguments(data, out, **settings))
        said = capsys.readouterr()
        assert (said.out + said.err).count("\n") == 1
        return code, said.out + said.err

    return ended
