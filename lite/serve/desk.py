"""What all who ask share: a model, a library, and the line before them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lite.schema import Document, LiteError
from lite.serve.line import Line

if TYPE_CHECKING:
    from lite.rag import Event, Rag

logger = logging.getLogger(__name__)

AT_ONCE = 64  # documents that are scored before a client that left is noticed


class NoLibraryError(Exception):
    """The library cannot be read now."""


@dataclass
class Desk:
    """What all requests share.

    Args:
        model: Loads while the server already answers.
        library: Where the documents are; opened for each question, so that it may be brought up to date meanwhile.
        name: Of the model, for clients.
        waiting: How many questions may wait.
    """

    model: Future[Rag]
    library: str
    name: str
    waiting: int = 20
    created: int = field(default_factory=lambda: int(time.time()))
    line: Line = field(init=False)

    def __post_init__(self) -> None:
        self.line = Line(self.waiting)

    def asked(self, question: str) -> Iterator[Event]:
        """What happens to a question.

        Raises:
            NoLibraryError: The library vanished or is damaged; the log says how.
        """
        from lite.library.store import Library

        try:
            events = self.model.result().ask_stream(question, library=Library.open(self.library))
            first = next(events)
        except (LiteError, OSError, RuntimeError, ValueError) as error:  # what LanceDB raises depends on the store
            logger.error("The library in %s cannot be read: %s", self.library, str(error)[:1000])
            raise NoLibraryError from error
        with closing(events):
            yield first
            yield from events

    def judged(self, query: str, texts: list[str]) -> Iterator[list[float]]:
        """P(relevant) of each text, some at a time."""
        documents = [Document(str(n), "text", "", text) for n, text in enumerate(texts)]
        for start in range(0, len(documents), AT_ONCE):
            yield self.model.result().relevance(query, documents[start : start + AT_ONCE]).tolist()
