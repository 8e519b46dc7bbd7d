"""The terminal: lines, and where somebody may be looking a bar with the newest figures below it."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from whisper_ft.config.training import Screen as Mode
from whisper_ft.tracking.console.stdout import Output
from whisper_ft.tracking.console.step_line import Figure, fitted, one_line
from whisper_ft.tracking.console.throughput import Eta, clock

WARNING = "warning:"  # a line that begins with it is shown in every mode


class Screen:
    """What a person sees; on every rank but the main one nothing."""

    def __init__(self, output: Output, steps: int, *, enabled: bool, mode: Mode = "auto") -> None:
        self.console = Console(file=output, quiet=not enabled, emoji=False)  # type: ignore[arg-type]  # all of a file that rich uses
        self._steps = steps
        self.is_quiet = mode == "quiet"
        is_watched = self.console.is_terminal and output.isatty() and not self.console.is_dumb_terminal
        self._may_move = enabled and is_watched and (mode == "live" or (mode == "auto" and not os.environ.get("CI")))
        if mode == "live" and enabled and not is_watched:
            self.say("warning: --log.screen live: there is no terminal; plain lines instead")
        self._progress: Progress | None = None
        self._ahead: Eta | None = None
        self._figures: list[Figure] = []
        self._step = 0

    @contextmanager
    def live(self, step: int) -> Iterator[None]:
        """A bar of the steps from `step` on, where it can move and there are steps."""
        self._step, self._ahead = step, Eta(step, self._steps)
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
        with Live(Group(progress, _Below(self)), console=self.console, refresh_per_second=5):
            if self._steps:
                self._task = progress.add_task("training", total=self._steps, completed=step, left=self.seconds_left)
            self._progress = progress
            try:
                yield
            finally:
                self._progress = None

    @property
    def is_live(self) -> bool:
        """Whether there is a bar that somebody could look at."""
        return self._progress is not None

    def seconds_left(self) -> float | None:
        """Until the last step; None before there is a pace."""
        return self._ahead.seconds(self._step) if self._ahead else None

    def say(self, text: str, always: bool = False) -> None:
        """One line; in quiet mode only a warning, or what is said `always`."""
        if always or not self.is_quiet or text.startswith(WARNING):
            self.console.print(escape(text), highlight=False, soft_wrap=True)

    def show(self, renderable: Any) -> None:
        """Something of rich's, such as a table."""
        if not self.is_quiet:
            self.console.print(renderable)

    def stepped(self, step: int) -> None:
        """Move the bar."""
        self._step = step
        if self._progress is not None:
            self._progress.update(self._task, completed=step)

    def step(self, step: int, figures: Sequence[Figure]) -> None:
        """The figures of a logged step."""
        if self._progress is not None:
            self._figures = [figure for figure in figures if figure[0] != "ETA "]  # the bar has it
        elif self.console.is_terminal and not self.is_quiet:
            for line in fitted([("step ", f"{step}/{self._steps}"), *figures], self.console.width, indent=2):
                self.console.print(line)
        else:
            self.say(one_line([("step ", f"{step}/{self._steps}"), *figures]))

    @contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[..., None]]:
        """A second bar for something that takes a while; gives the function that advances it: (done, told="")."""
        progress = self._progress
        if progress is None:
            yield lambda done, told="": None
            return
        task = progress.add_task(what, total=total)
        before = self._figures

        def advance(done: int, told: str = "") -> None:
            progress.update(task, advance=done)
            if told:
                self._figures = [*before, ("", told)]

        try:
            yield advance
        finally:
            progress.remove_task(task)
            self._figures = before

    def figures(self) -> list[Figure]:
        """Those below the bar."""
        return self._figures


class _Below:
    """The newest figures, in as many lines as the terminal is narrow."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if figures := self._screen.figures():
            yield from fitted(figures, options.max_width)


class _Elapsed(ProgressColumn):
    """Time since this start began the task."""

    def render(self, task: Task) -> Text:
        return Text(clock(task.finished_time if task.finished else task.elapsed), style="dim")


class _TimeLeft(ProgressColumn):
    """`ETA 1:23:45`, by the run's own pace where a task has one."""

    def render(self, task: Task) -> Text:
        left = task.fields["left"]() if "left" in task.fields else task.time_remaining
        return Text(f"ETA {clock(left)}", style="cyan")
