"""Standard output for a run, made so that a failed write does not end the run."""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TextIO


class Stdout:
    """File that rich writes to in place of sys.stdout. `best_effort` handles the OSErrors of each write.

    Three things would otherwise raise an error inside rich or its threads, or end the process:

    - a reader leaves (`./launch.sh ... | head`);
    - a terminal is closed;
    - the encoding lacks a character.
    """

    def __init__(self, best_effort: Callable[[], AbstractContextManager[None]]) -> None:
        self._file: TextIO = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - after `>&-` there is no stdout; open as long as the run
        self._best_effort = best_effort

    @property
    def encoding(self) -> str:
        """Encoding of the file."""
        return self._file.encoding

    def isatty(self) -> bool:
        """Return True if the file is a terminal."""
        return self._file.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the file."""
        return self._file.fileno()

    def write(self, text: str) -> int:
        """Write a text; characters that the encoding lacks become question marks."""
        encodable = text.encode(self.encoding or "utf-8", "replace").decode(self.encoding or "utf-8")
        with self._best_effort():
            try:
                self._file.write(encodable)
            except BrokenPipeError:
                self._redirect_to_null()
                raise
        return len(text)

    def flush(self) -> None:
        """Flush the file."""
        with self._best_effort():
            try:
                self._file.flush()
            except BrokenPipeError:
                self._redirect_to_null()
                raise

    def _redirect_to_null(self) -> None:
        """Redirect the descriptor to /dev/null, because every later write and the final flush would fail as well."""
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._file.fileno())
        os.close(nothing)
