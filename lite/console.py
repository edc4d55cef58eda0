"""rich's console for text of strangers."""

from __future__ import annotations

from collections.abc import Iterable

import rich.console
from rich.segment import Segment
from rich.text import Text

from lite.terminal import printable


class Console(rich.console.Console):
    """rich's; whatever is printed by it, nothing but rich itself drives the terminal, and brackets stay brackets."""

    def __init__(self, **options):
        super().__init__(**{"markup": False, "emoji": False, **options})

    def render_str(self, text: str, **options) -> Text:
        return super().render_str(printable(text), **options)  # before its width is counted

    def render(self, *arguments, **options) -> Iterable[Segment]:
        for segment in super().render(*arguments, **options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
