"""Display of a transcription: on a terminal a bar by audio time, elsewhere a line now and then."""

import sys
import time
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from whisper_ft.reports.safe_console import SafeConsole
from whisper_ft.runtime.printable import printable, say
from whisper_ft.tracking.console.eta import clock

LINE_SECONDS = 60.0
"""Time between two lines about the progress where no bar is shown."""


class Display:
    """Progress of this process, in seconds of audio. Use it in a `with` statement.

    Parameters
        total: seconds of audio of all files, as far as their headers state them
        has_bar: True for the process that shows a bar; the others print only lines about files
    """

    def __init__(self, total: float, *, has_bar: bool) -> None:
        console = SafeConsole(stderr=True, emoji=False)
        self._has_bar = has_bar and console.is_terminal and not console.is_dumb_terminal
        self._is_main, self._total, self._done, self._stack = has_bar, total, 0.0, ExitStack()
        self._begin = self._last_line = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=6)),
            _AudioTime(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=console,
            expand=True,
            disable=not self._has_bar,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task("transcribing", total=total or None)

    def __enter__(self) -> Self:
        self._stack.enter_context(self._progress)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def say(self, line: str) -> None:
        """Print a line, above the bar if both are on the terminal. A closed output ends no transcription."""
        with suppress(OSError):
            if self._has_bar and sys.stdout.isatty():
                self._progress.console.print(escape(printable(line)), highlight=False, soft_wrap=True)
            else:
                say(line)

    def known(self, seconds: float) -> None:
        """Move the bar over audio that an earlier start transcribed."""
        self._total -= seconds
        self._progress.update(self._task, total=self._total or None)

    def advance(self, seconds: float, name: str) -> None:
        """Move the bar by transcribed audio of a file."""
        self._done += seconds
        if self._has_bar:
            self._progress.update(self._task, completed=self._done, description=name)
        elif self._is_main and time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            done = f"{clock(self._done)} of {clock(self._total)}" if self._total else clock(self._done)
            self.say(f"{done} of audio transcribed, {self.speed:.1f} times faster than real time; {name}")

    @property
    def speed(self) -> float:
        """Seconds of audio that were transcribed in a second."""
        return self._done / max(time.monotonic() - self._begin, 1e-3)


class _AudioTime(ProgressColumn):
    """Column of the bar, such as `1:23:45/10:00:00`, in time of the audio."""

    def render(self, task: Task) -> Text:
        return Text(f"{clock(task.completed)}/{clock(task.total) if task.total else '?'}")
