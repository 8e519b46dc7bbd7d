"""Console of the package rich that prints no character which a terminal would obey, whatever is in a table or bar."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from whisper_ft.runtime.printable import printable


class SafeConsole(Console):
    """Console whose texts are cleaned by `runtime.printable` after their layout. Its own styles and bars stay."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render an object, and clean the text of each segment."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text, keep_lines=True), segment.style)
