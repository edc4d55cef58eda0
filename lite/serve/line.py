"""One model, many who ask: they wait in one line, and who leaves makes room."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
from anyio import to_thread

END = object()


class FullError(Exception):
    """Nobody else may wait now. `seconds`: after which there may be room."""

    def __init__(self, seconds: int):
        self.seconds = seconds


class StoppedError(Exception):
    """The server is being stopped."""


class Line:
    """Work that is done one after the other, in the order of arrival.

    Args:
        waiting: How many may wait while one is served.
    """

    def __init__(self, waiting: int):
        self.waiting = waiting
        self.inside = 0
        self.pace = 1.0  # seconds that the last one took
        self.stopped = False  # set once, by a signal: nothing goes on after its current item
        self._turn = asyncio.Lock()

    async def items(self, work: Callable[[], Iterator[Any]]) -> AsyncIterator[Any]:
        """What `work` yields, which runs in a thread when its turn comes. Closed or cancelled, it stops at its next
        item, and the next in line is served only then.

        Raises:
            FullError: Too many are waiting.
            StoppedError: The line was stopped.
        """
        if self.inside > self.waiting:
            raise FullError(max(1, round(self.pace)))
        self.inside += 1
        try:
            async with self._turn:
                started, steps = time.monotonic(), Steps(work)
                try:
                    while not self.stopped and (item := await to_thread.run_sync(steps.step)) is not END:
                        yield item
                    if self.stopped:
                        raise StoppedError
                    self.pace = time.monotonic() - started
                finally:
                    with anyio.CancelScope(shield=True):
                        await to_thread.run_sync(steps.close)
        finally:
            self.inside -= 1


class Steps:
    """A generator that may be closed by another thread than the one that runs it."""

    def __init__(self, work: Callable[[], Iterator[Any]]):
        self._work, self._iterator = work, None
        self._lock = threading.Lock()
        self._closed = False

    def step(self) -> Any:
        """The next item, or END."""
        with self._lock:
            if self._closed:
                return END
            if self._iterator is None:
                self._iterator = self._work()
            return next(self._iterator, END)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._iterator is not None:
                self._iterator.close()
