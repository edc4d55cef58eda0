"""What the demo knows of one question: the state that its page is a picture of."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from PIL import ImageOps

from lite.schema import Document, LiteError, Trace

PICTURE_SIDE = 320  # pixels of the longer side that a card shows


@dataclass(frozen=True)
class Page:
    """One question as far as it has come; all that is shown of it belongs together.

    Args:
        token: Tells it from other questions, so that a late click on an old card means nothing.
        question, source: As asked, and what was asked about, in words.
        documents: All that were retrieved, switched off or not, in the order of retrieval.
        pictures: What a card shows of an image, as a data URI, by id.
        scores: P(relevant) by id.
        threshold, max_documents: Where the filter cuts, and how many stage 2 reads at most.
        kept, shown: Ids that stage 2 sees, in stage 1's order and in the prompt's.
        off: Ids that are switched off for the next question.
        reasoning: The chain, as far as it was said.
        trace: What came of it, when it is finished.
        first: What came of it at first, before filter or documents were changed.
        step: What is going on.
        message: What went wrong, or why it does not go on.
        read_only: It was loaded from a file: there is nothing to ask again.
    """

    token: str = ""
    question: str = ""
    source: str = ""
    documents: tuple[Document, ...] = ()
    pictures: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    threshold: float = 0.0
    max_documents: int = 1
    kept: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    off: frozenset[str] = frozenset()
    reasoning: str = ""
    trace: Trace | None = None
    first: Trace | None = None
    step: Literal["idle", "retrieve", "filter", "rank", "done", "stopped"] = "idle"
    message: str = ""
    read_only: bool = False

    @property
    def running(self) -> bool:
        return self.step in ("retrieve", "filter", "rank")

    @property
    def titles(self) -> dict[str, str]:
        return {document.id: document.title for document in self.documents}

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


def portable(outcome: Trace) -> Trace:
    """The trace without the places of image files on this machine."""
    documents = tuple({k: v for k, v in document.items() if k != "image"} for document in outcome.documents)
    return dataclasses.replace(outcome, documents=documents)
