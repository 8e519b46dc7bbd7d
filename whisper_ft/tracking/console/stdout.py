"""Standard output that cannot end a run."""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TextIO


class Output:
    """What rich writes to, in place of sys.stdout; `best_effort` is around each writing, also by rich's threads.

    A reader that went away (`./launch.sh ... | head`), a terminal that was closed, an encoding that lacks a letter:
    rich would raise each of them where it happens to write, or end the process.
    """

    def __init__(self, best_effort: Callable[[], AbstractContextManager[None]]) -> None:
        self._file: TextIO = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - there is none after `>&-`; for as long as the run
        self._best_effort = best_effort

    @property
    def encoding(self) -> str:
        """That of the file."""
        return self._file.encoding

    def isatty(self) -> bool:
        """Whether a person may be looking."""
        return self._file.isatty()

    def fileno(self) -> int:
        """The file's descriptor."""
        return self._file.fileno()

    def write(self, text: str) -> int:
        """Write what can be written of it."""
        shown = text.encode(self.encoding or "utf-8", "replace").decode(self.encoding or "utf-8")
        with self._best_effort():
            try:
                self._file.write(shown)
            except BrokenPipeError:
                self._give_up()
                raise
        return len(text)

    def flush(self) -> None:
        """Hand it on."""
        with self._best_effort():
            try:
                self._file.flush()
            except BrokenPipeError:
                self._give_up()
                raise

    def _give_up(self) -> None:
        """Point the descriptor at nothing, or each later write, and the interpreter's last, would fail again."""
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._file.fileno())
        os.close(nothing)
