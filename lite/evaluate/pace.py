"""How long it will take, said once, as soon as the first batches tell."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console

WARM = 20  # seconds: a first batch that takes less is mostly the start of the machinery


def tell_pace(console: Console, what: str, total: int) -> Callable[[int], None]:
    """What to call with the number of items that each batch finished. Prints one line after the first or second.

    Args:
        what: Begins the line, such as `Report`.
        total: Items in all.
    """
    before, done, told = time.monotonic(), 0, False
    seen = 0  # items that were done at `before`

    def advance(count: int) -> None:
        nonlocal before, done, told, seen
        done += count
        if told or count == 0:
            return
        now = time.monotonic()
        if not seen and now - before < WARM:
            before, seen = now, done
            return
        left = (total - done) * (now - before) / (done - seen)
        if total > done:
            told_by = f"{total:,}, by the pace of the first {done:,}"
            console.print(f"{what}: {duration(left)} for {told_by}.", highlight=False)
        told = True

    return advance


def duration(seconds: float) -> str:
    """`about 40 s`, `about 12 min`, `about 3 h 20 min`."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {minutes // 60} h {minutes % 60:02d} min"
