"""From what a visitor does to the pages that it leads to. Nothing here knows how a page looks, or of Gradio."""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lite.data import flags
from lite.demo.page import Page, picture
from lite.library import RETRIEVED
from lite.runs import NO_MODEL
from lite.schema import Document, LiteError, Trace
from lite.terminal import printable

if TYPE_CHECKING:
    from lite.data.pools import Corpus
    from lite.library.store import Library
    from lite.rag import Rag

logger = logging.getLogger(__name__)

TRACE_BYTES, TRACE_DOCUMENTS = 4 << 20, 200  # that a loaded trace may have
BUNDLED, LIBRARY, MINE = "Bundled flags and countries", "My library", "My files"


@dataclass(frozen=True)
class Desk:
    """What all visitors of one server share.

    Args:
        model, library: Both load while the page is already shown; no library: None.
        base, adapters: Which model and adapters these are, in words.
        note: What a reader of its answers must know; empty for a full-size model.
        threshold, budget: The tuned filter: P(relevant) that a document needs, and how many stage 2 reads at most.
        untrained: Whether the model has no adapters: it keeps the best `budget` documents, whatever their scores.
        bundled_only: Whether no model was named: of other documents than the bundled ones the best passages are shown.
    """

    model: Future[Rag]
    library: Future[Library] | None
    base: str
    adapters: str
    note: str
    threshold: float
    budget: int
    untrained: bool = False
    bundled_only: bool = False


def ask(desk: Desk, text: str, chosen: str, own: dict, cut: float | None, most: float | None) -> Iterator[Page]:
    """The pages of a new question."""
    cut, most = settings(desk, cut, most)
    text = printable(text).strip()
    now = Page(
        token=secrets.token_hex(8), question=text, step="retrieve" if desk.model.done() else "load", threshold=cut,
        max_documents=most, first_max_documents=most, tuned=(desk.threshold, desk.budget),
        note=desk.note if chosen != BUNDLED else "",
    )  # fmt: skip
    yield now
    if desk.bundled_only and chosen != BUNDLED:
        documents, where = look_up(text, chosen, desk.library, own)
        if chosen == MINE:
            from lite.data.pools import Corpus

            documents = Corpus(documents).nearest(text, RETRIEVED)
        shown = {document.id: picture(document) for document in documents}
        found = replace(now, source=where, note="", documents=tuple(documents), pictures=shown, step="stopped")
        yield replace(found, message=f"{NO_MODEL} These passages fit best." if documents else "Nothing fits.")
        return
    while not desk.model.done():
        time.sleep(0.1)
        yield now  # where it can be stopped
    documents, where = look_up(text, chosen, desk.library, own)
    yield from answering(desk, replace(now, source=where, step="retrieve"), documents)


def ask_again(desk: Desk, now: Page, cut: float | None, most: float | None) -> Iterator[Page]:
    """From the scores known already: with another filter, or without the documents that are switched off."""
    cut, most = settings(desk, cut, most)
    left = [document for document in now.documents if document.id not in now.off]
    start = replace(
        now, step="filter", threshold=cut, max_documents=most, kept=(), shown=(), reasoning="", trace=None, message=""
    )
    yield start
    yield from answering(desk, start, left, now.scores)


def answering(
    desk: Desk, now: Page, documents: list[Document], scores: Mapping[str, float] | None = None
) -> Iterator[Page]:
    """The pages of one question, as the model goes on; with `scores`, stage 1 is not asked again."""
    events = desk.model.result().ask_stream(
        now.question, documents, scores=scores, threshold=now.threshold, max_documents=now.max_documents
    )
    with closing(events):
        for event in events:
            match event.name:
                case "retrieved" if not now.documents:
                    pictures = {document.id: picture(document) for document in event.documents}
                    now = replace(now, documents=event.documents, pictures=pictures, step="filter")
                case "scored":
                    now = replace(now, scores=dict(now.scores) | event.scores)
                    continue
                case "kept":
                    now = replace(now, kept=event.ids, shown=tuple(d.id for d in event.documents), step="rank")
                case "reasoning":
                    now = replace(now, reasoning=now.reasoning + event.text)
                case "done":
                    chain = event.trace.reasoning or now.reasoning
                    now = replace(now, trace=event.trace, first=now.first or event.trace, reasoning=chain, step="done")
                case _:
                    continue
            yield now


def compare(desk: Desk, now: Page) -> Iterator[dict[str, Trace | None]]:
    """What each system makes of the same question, as far as they have come; None: it is being asked."""
    from lite.stages.answer import BASE, FULL, STAGE1_BASE

    given = [document for document in now.documents if document.id in now.asked]
    outcomes: dict[str, Trace | None] = {BASE: None, STAGE1_BASE: None, FULL: now.trace}
    for system in [name for name, outcome in outcomes.items() if outcome is None]:
        yield dict(outcomes)
        events = desk.model.result().ask_stream(
            now.question, given, scores=now.scores, threshold=now.threshold, max_documents=now.max_documents,
            system=system,
        )  # fmt: skip
        with closing(events):
            for event in events:
                outcomes[system] = event.trace
                yield {}  # where it can be stopped
    yield dict(outcomes)


def look_up(
    question: str, chosen: str, library: Future[Library] | None, own: Mapping[str, list[Document]]
) -> tuple[list[Document], str]:
    """The documents that a question is asked about, and what they are in words."""
    from lite.data.pools import Corpus

    if chosen == LIBRARY and library is not None:
        found = [hit.document for hit in library.result().search(question, RETRIEVED)]
        return found, f"from your library of {len(library.result()):,} documents"
    if chosen != MINE:
        return bundled().nearest(question, RETRIEVED), f"from {len(bundled().documents):,} bundled documents"
    documents = [document for found in own.values() for document in found]
    if not documents:
        raise LiteError("No files of yours have been read. Add some, or choose other documents.")
    if len(documents) > RETRIEVED:
        near = Corpus(documents).nearest(question, RETRIEVED)
        documents = [*near, *(document for document in documents if document not in near)][:RETRIEVED]
    return documents, f"from your {len(own)} file{'s' * (len(own) != 1)}"


@cache
def bundled() -> Corpus:
    from lite.data.pools import Corpus  # here, as whatever takes long: the page need not wait for it

    return Corpus(flags.load_candidates("test"))


def cannot_go_on(now: Page) -> str:
    """Why nothing can be tried with what is shown; empty where it can."""
    if now.read_only:
        return "This is a loaded trace. Ask its question anew to try things."
    return "" if now.scores and not now.running else "Ask a question first."


def settings(desk: Desk, threshold: float | None, count: float | None) -> tuple[float, int]:
    """What the controls mean: untouched or empty ones are the tuned filter to the last digit."""
    if threshold is None or math.isnan(threshold) or threshold == rounded(desk.threshold):
        threshold = desk.threshold
    if count is None or math.isnan(count):
        count = desk.budget
    return min(max(float(threshold), 0.0), 1.0), int(min(max(count, 1), desk.budget))


def rounded(threshold: float) -> float:
    """As the page shows it."""
    return float(f"{threshold:.3g}")


def loaded(path: Path) -> Page:
    """A trace from a file, to look at. The images of bundled documents are shown; of others it holds none.

    Raises:
        LiteError: It is no trace.
    """
    try:
        if path.stat().st_size > TRACE_BYTES:
            raise LiteError(f"{path.name} has more than {TRACE_BYTES >> 20} MB. It is no trace of one question.")
        outcome = Trace.from_json(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise LiteError(f"{path.name} is no text. Give a trace.json that was downloaded here.") from error
    except OSError as error:
        raise LiteError(f"{path.name} cannot be read ({error.strerror}). Upload it again.") from error
    count = len(outcome.documents) + len(outcome.switched_off)
    if count > TRACE_DOCUMENTS:
        raise LiteError(f"{path.name} lists {count:,} documents; {TRACE_DOCUMENTS} can be shown in a trace.")
    if any(score > 1 for score in outcome.scores.values()):
        raise LiteError(f"{path.name} has keyword scores (BM25), not probabilities. Give a trace with a filter.")
    given = {d["id"]: d for d in outcome.documents}
    order = [given[i] for i in outcome.retrieved]
    for document in sorted(outcome.switched_off, key=lambda d: d["place"]):
        order.insert(document["place"], document)
    documents = tuple(as_bundled(d) for d in order)
    scores = outcome.scores | {d["id"]: d["score"] for d in outcome.switched_off if d["score"] is not None}
    return Page(
        token=secrets.token_hex(8), question=outcome.question, source="a loaded trace: to look at, not to ask again",
        documents=documents, pictures={document.id: picture(document) for document in documents}, scores=scores,
        threshold=outcome.threshold, kept=outcome.kept, shown=outcome.shown,
        off=frozenset(d["id"] for d in outcome.switched_off), reasoning=outcome.reasoning, trace=outcome,
        first=outcome, step="done", read_only=True,
    )  # fmt: skip


def as_bundled(row: Mapping[str, str]) -> Document:
    """The document of a trace; with its image where it is one of those that come with lite."""
    known = flags.load_corpus().get(row["id"])
    image = known.image if known is not None and known.title == row["title"] else None
    return Document(row["id"], row["kind"], row["title"], row["text"], image)


def explain(error: Exception) -> str:
    """What the page says of an error; what it cannot explain is in the log."""
    if isinstance(error, LiteError):
        return str(error)
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return "The GPU has too little free memory for this. Take fewer documents, or stop what else runs on it."
    logger.error("The demo met an error.", exc_info=error)
    return f"Something went wrong here ({type(error).__name__}). The terminal that runs the demo tells more."
