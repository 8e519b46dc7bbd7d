"""Console of the package rich that prints no character which a terminal would obey, whatever is in a table or bar."""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table

from whisper_ft.runtime.printable import printable

PIPE_COLUMNS = 160  # width of a table that is not printed to a terminal


class SafeConsole(Console):
    """Console whose texts are cleaned by `runtime.printable` after their layout. Its own styles and bars stay."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render an object, and clean the text of each segment."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text, keep_lines=True), segment.style)


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table as wide as the terminal. A pipe has no width, and a table cut at 80 columns is useless."""
    table = Table(*head)
    for row in rows:
        table.add_row(*map(escape, row))
    SafeConsole(width=None if sys.stdout.isatty() else PIPE_COLUMNS).print(table)
