"""Screen of a run: plain lines, or on a terminal a progress bar with the newest figures below it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from whisper_ft.config.training import ScreenMode
from whisper_ft.reports.safe_console import SafeConsole
from whisper_ft.runtime.printable import printable
from whisper_ft.tracking.console.eta import Eta, clock
from whisper_ft.tracking.console.plain_progress import PlainProgress
from whisper_ft.tracking.console.stdout import Stdout
from whisper_ft.tracking.console.step_line import Figure, fitted, one_line

WARNING = "warning:"  # a line that begins with it is printed in every mode


class Advance(Protocol):
    """Function that moves a progress bar forward by `done`, and may show a text below the bar."""

    def __call__(self, done: int, text: str = "") -> None:
        """Move the bar forward by `done` units; "" leaves the text as it is."""


class Screen:
    """Console output of a run. On every rank except the main one, nothing is printed."""

    def __init__(self, output: Stdout, steps: int, *, enabled: bool, mode: ScreenMode = "auto") -> None:
        self.console = SafeConsole(file=output, quiet=not enabled, emoji=False)  # type: ignore[arg-type]  # has all methods that rich calls
        self._steps = steps
        self.is_quiet = mode == "quiet"
        is_watched = self.console.is_terminal and output.isatty() and not self.console.is_dumb_terminal
        self._may_move = enabled and is_watched and (mode == "live" or (mode == "auto" and not os.environ.get("CI")))
        if mode == "live" and enabled and not is_watched:
            self.say("warning: --log.screen live: there is no terminal; printing plain lines instead")
        self._progress: Progress | None = None
        self._eta: Eta | None = None
        self._figures: list[Figure] = []
        self._step = 0

    @contextmanager
    def live(self, step: int) -> Iterator[None]:
        """Show a progress bar that begins at `step`, until the block ends, if the terminal can move a bar.

        In any case, the estimate of the time left begins here.
        """
        self._step, self._eta = step, Eta(step, self._steps)
        if not self._may_move:
            yield
            return
        self._figures = []
        progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=6)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            _Elapsed(table_column=Column(no_wrap=True)),
            _TimeLeft(table_column=Column(no_wrap=True)),
            console=self.console,
            expand=True,
        )
        with Live(Group(progress, _FiguresBelow(self)), console=self.console, refresh_per_second=5):
            if self._steps:
                self._task = progress.add_task("training", total=self._steps, completed=step, left=self.seconds_left)
            self._progress = progress
            try:
                yield
            finally:
                self._progress = None

    @property
    def is_live(self) -> bool:
        """True while a progress bar is on a terminal."""
        return self._progress is not None

    def seconds_left(self) -> float | None:
        """Return the seconds until the last step; None without `live` or before its first step is done."""
        return self._eta.seconds(self._step) if self._eta else None

    def say(self, text: str, always: bool = False) -> None:
        """Print one line. In quiet mode it is printed only if it is a warning or `always` is set."""
        if always or not self.is_quiet or text.startswith(WARNING):
            self.console.print(escape(printable(text)), highlight=False, soft_wrap=True)

    def show(self, renderable: RenderableType) -> None:
        """Print an object of rich, such as a table; nothing in quiet mode."""
        if not self.is_quiet:
            self.console.print(renderable)

    def move_bar(self, step: int) -> None:
        """Move the progress bar to a step, and note the step for `seconds_left`."""
        self._step = step
        if self._progress is not None:
            self._progress.update(self._task, completed=step)

    def step(self, step: int, figures: Sequence[Figure]) -> None:
        """Show the figures of a logged step: below the bar, or as lines; nothing in quiet mode."""
        if self._progress is not None:
            self._figures = [figure for figure in figures if figure[0] != "ETA "]  # the bar shows it
        elif self.console.is_terminal and not self.is_quiet:
            for line in fitted([("step ", f"{step}/{self._steps}"), *figures], self.console.width, indent=2):
                self.console.print(line)
        else:
            self.say(one_line([("step ", f"{step}/{self._steps}"), *figures]))

    @contextmanager
    def progress_bar(self, label: str, total: int) -> Iterator[Advance]:
        """Show a second bar for a task that takes a while; the block receives the function that advances the bar.

        Without a first bar, lines of text are printed from time to time, unless the mode is quiet.
        """
        progress = self._progress
        if progress is None:
            yield PlainProgress(self.say, label, total)
            return
        task = progress.add_task(label, total=total)
        before = self._figures

        def advance(done: int, text: str = "") -> None:
            progress.update(task, advance=done)
            if text:
                self._figures = [*before, ("", text)]

        try:
            yield advance
        finally:
            progress.remove_task(task)
            self._figures = before

    def figures(self) -> list[Figure]:
        """Return the figures below the bar."""
        return self._figures


class _FiguresBelow:
    """Block below the bar with the newest figures, in as many lines as the width of the terminal needs."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if figures := self._screen.figures():
            yield from fitted(figures, options.max_width)


class _Elapsed(ProgressColumn):
    """Column of the bar: time since this start of the run began the task."""

    def render(self, task: Task) -> Text:
        return Text(clock(task.finished_time if task.finished else task.elapsed), style="dim")


class _TimeLeft(ProgressColumn):
    """Column of the bar, such as `ETA 1:23:45`. A task's own estimate is used if it has one."""

    def render(self, task: Task) -> Text:
        left = task.fields["left"]() if "left" in task.fields else task.time_remaining
        return Text(f"ETA {clock(left)}", style="cyan")
