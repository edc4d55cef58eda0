"""What the demo knows of one question: the state that its page is a picture of."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from PIL import ImageOps

from lite.schema import Document, LiteError, Trace

PICTURE_SIDE = 320  # pixels of the longer side that a card shows


@dataclass(frozen=True, kw_only=True)
class Page:
    """One question as far as it has come; all that is shown of it belongs together.

    Args:
        token: Tells it from other questions, so that a late click on an old card means nothing.
        question, source: As asked, and what was asked about, in words.
        note: What a reader must know of answers from this source.
        documents: All that were retrieved, switched off or not, in the order of retrieval.
        pictures: What a card shows of an image, as a data URI, by id.
        scores: P(relevant) by id.
        threshold, max_documents: Where the filter cuts (None: unknown), and how many stage 2 reads at most.
        tuned: Both as tuned; None where that is unknown.
        kept, shown: Ids that stage 2 sees, in stage 1's order and in the prompt's.
        off: Ids that are switched off for the next question.
        reasoning: The chain, as far as it was generated.
        trace: What came of it, when it is finished.
        first, first_max_documents: What came of it at first, before filter or documents were changed.
        step: What is going on.
        message: What went wrong, or why it does not go on.
        read_only: It was loaded from a file: nothing can be asked again.
    """

    token: str = ""
    question: str = ""
    source: str = ""
    note: str = ""
    documents: tuple[Document, ...] = ()
    pictures: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    threshold: float | None = 0.0
    max_documents: int = 1
    tuned: tuple[float, int] | None = None
    kept: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    off: frozenset[str] = frozenset()
    reasoning: str = ""
    trace: Trace | None = None
    first: Trace | None = None
    first_max_documents: int = 1
    step: Literal["idle", "load", "retrieve", "filter", "rank", "done", "stopped"] = "idle"
    message: str = ""
    read_only: bool = False

    @property
    def running(self) -> bool:
        return self.step in ("load", "retrieve", "filter", "rank")

    @cached_property
    def titles(self) -> dict[str, str]:
        return {document.id: document.title for document in self.documents}

    @cached_property
    def places(self) -> dict[str, int]:
        """Places in retrieval by id, from 0."""
        return {document.id: place for place, document in enumerate(self.documents)}

    @property
    def asked(self) -> tuple[str, ...]:
        """Ids that the outcome, or what is under way, was given."""
        return self.trace.retrieved if self.trace else tuple(d.id for d in self.documents if d.id not in self.off)


def picture(document: Document) -> str:
    """A small version of the document's image as a data URI; empty where it has none or it cannot be read."""
    if document.image is None:
        return ""
    try:
        image = ImageOps.contain(document.load_image(), (PICTURE_SIDE, PICTURE_SIDE))
    except LiteError:
        return ""  # the model will be asked to look at it, too, and then the reason is shown
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def portable(page: Page) -> Trace:
    """The page's trace to take home: with what was switched off, without the places of image files on this machine."""
    assert page.trace is not None
    documents = tuple({k: v for k, v in document.items() if k != "image"} for document in page.trace.documents)
    off = tuple(
        {"id": d.id, "kind": d.kind, "title": d.title, "text": d.text, "place": place, "score": page.scores.get(d.id)}
        for place, d in enumerate(page.documents)
        if d.id not in page.trace.retrieved
    )
    return dataclasses.replace(page.trace, documents=documents, switched_off=off)
