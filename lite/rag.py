"""A question in, a trace out: retrieve, filter by stage 1, rank and answer by stage 2.

`Rag.load("laptop").ask("What is the capital of Chad?", library="library")` returns a `Trace`; `ask_stream` yields what
the command line and the demo show meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from peft import PeftModel
from transformers import PreTrainedModel, ProcessorMixin

from lite.config.model import ModelConfig
from lite.library import RETRIEVED
from lite.metrics.answers import normalise
from lite.models.adapters import activate, active, load_stack
from lite.models.hub import is_model
from lite.models.loading import load_model
from lite.models.untrained import load_untrained
from lite.runs import STAGE1, TINY_NOTE, UNTRAINED_NOTE, default_model, find_adapters, is_trained, read_card, tuned_card
from lite.schema import Document, LiteError, Trace
from lite.stages.answer import (
    BASE,
    FULL,
    NOTHING_FOUND,
    STAGE1_BASE,
    Listing,
    arrange,
    say,
    say_streaming,
    select,
    shown_in,
    trace,
    without,
)
from lite.stages.filter import score
from lite.stages.lenient import chain_so_far
from lite.stages.prompts import MAX_QUESTION, NONE, UNKNOWN
from lite.stages.support import Support, check_support

if TYPE_CHECKING:
    from lite.library.store import Library

NOTHING_RETRIEVED = f"<think>No document was retrieved.</think>\n<rank>{NONE}</rank>\n<answer>{UNKNOWN}</answer>"


@dataclass(frozen=True)
class Event:
    """A step of one answer, in this order; `reasoning` comes many times, `scored` not from the base, the others once.

    | name | fields |
    |---|---|
    | retrieved | `documents`, in the order of retrieval |
    | scored | `scores`: P(relevant) by id |
    | kept | `ids` that stage 2 sees, in stage 1's order; `documents` in the prompt's: the chain's `[1]` is the first |
    | reasoning | `text`: the next piece of the chain; empty while the model writes the rest of its output |
    | ranking | `ids`, best first: those that the answer rests on, then the rest of those kept |
    | answer | `text` |
    | done | `trace` |
    """

    name: Literal["retrieved", "scored", "kept", "reasoning", "ranking", "answer", "done"]
    documents: tuple[Document, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)
    ids: tuple[str, ...] = ()
    text: str = ""
    trace: Trace | None = None


@dataclass(frozen=True)
class Evidence:
    """What becomes of the answer when one document is taken away.

    Args:
        id: The document.
        cited: Whether the answer says that it rests on it.
        answer: The answer without it; the raw text where the output was malformed.
        format_ok: Whether it was not.
        changed: Whether that is another answer, apart from case, articles and punctuation.
    """

    id: str
    cited: bool
    answer: str
    format_ok: bool
    changed: bool


class Rag:
    """A model with both stages' adapters, or without any. Safe to use from several threads: questions are answered one
    at a time."""

    def __init__(
        self,
        model: PeftModel | PreTrainedModel,
        processor: ProcessorMixin,
        stage1: dict,
        stage2: dict,
        batch_size: int = 16,
    ):
        """`Rag.load` is the way to one.

        Args:
            model: With the adapters `stage1` and `stage2`, see `load_stack`; or untrained.
            processor: Of the same model; pads on the left.
            stage1, stage2: The adapters' cards; of an untrained model what they would say, see `load_untrained`.
            batch_size: Documents that stage 1 scores at once.
        """
        self.model = model
        self.processor = processor
        self.stage1 = stage1
        self.stage2 = stage2
        self.batch_size = batch_size
        self._lock = threading.Lock()  # which adapters act is a state of the model

    @classmethod
    def load(cls, name: str | Path | None = None, batch_size: int = 16) -> Rag:
        """Load a trained pair of adapters and their model, or any vision-language model as it is.

        Args:
            name: A profile (`tiny`, `qwen3-vl-4b`: its run in `runs/`, for `tiny` else the shipped adapters) or a run
                folder. What has no adapters is untrained: a hub id (`Qwen/Qwen3-VL-2B-Instruct`, downloaded at the
                first use), the folder of a model, or `laptop`, a small one for machines without a GPU. By default the
                largest trained profile that fits the GPU, as for `lite ask`.
            batch_size: Documents that stage 1 scores at once.

        Raises:
            LiteError: There is no such run or model, the adapters do not fit together, or memory is too small.
        """
        name = name or default_model()
        if not is_trained(name) and is_model(name):
            return cls(*load_untrained(str(name)), batch_size)
        folders = find_adapters(name)
        stage1, stage2 = tuned_card(folders[0]), read_card(folders[1])
        base, processor = load_model(ModelConfig(model_name_or_path=stage2["base"], max_pixels=stage2["max_pixels"]))
        return cls(load_stack(base, *folders), processor, stage1, stage2, batch_size)

    @property
    def untrained(self) -> bool:
        """Whether the model is as it was published, without adapters."""
        return not self.stage2["active"]

    @property
    def note(self) -> str:
        """What a reader of the answers must know of the model; empty for a full-size one that was trained."""
        if self.untrained:
            return UNTRAINED_NOTE.format(model=self.stage2["base"], budget=self.budget)
        return TINY_NOTE if self.stage2["base"] == "tiny" else ""

    @property
    def quotes(self) -> bool:
        """Whether the reasoning is asked to quote the documents: as the adapters were trained."""
        return self.stage2.get("quotes", False)

    @property
    def budget(self) -> int:
        """Documents that stage 2 reads, at most."""
        return min(self.stage1["max_kept"], self.stage2["max_documents"])

    def ask(
        self,
        question: str,
        documents: Sequence[Document] | None = None,
        library: Library | str | Path | None = None,
    ) -> Trace:
        """Answer a question from documents.

        Documents over stage 2's budget are dropped, lowest score first, and listed in `Trace.dropped`. Where no
        document reaches stage 1's threshold, or none is found, the answer is `not in the documents`. An untrained model
        has no threshold: the best documents by search and filter together are kept, as many as stage 2 reads.

        Args:
            question: As a person would ask it.
            documents: All of these are scored; or
            library: the best 20 of this one: a `Library`, or where it is stored.

        Raises:
            LiteError: The question is empty or too long, a document comes twice or its image cannot be read, or the
                library does not open.
        """
        *_, done = self.ask_stream(question, documents, library)
        assert done.trace is not None
        return done.trace

    def ask_stream(
        self,
        question: str,
        documents: Sequence[Document] | None = None,
        library: Library | str | Path | None = None,
        *,
        scores: Mapping[str, float] | None = None,
        threshold: float | None = None,
        max_documents: int | None = None,
        system: str = FULL,
    ) -> Iterator[Event]:
        """As `ask`, step by step. Closing the iterator stops the model after the current token.

        Args:
            scores: P(relevant) by id, of an earlier event `scored` on this question: stage 1 is not asked again, and
                `Trace.seconds` has no `stage 1`.
            threshold: Of P(relevant), in place of the tuned one; it is obeyed by an untrained model, too.
            max_documents: Fewer documents in the prompt than `budget`.
            system: `FULL`, or what it is compared with: `STAGE1_BASE`, where the base model ranks and answers from what
                stage 1 keeps, and `BASE`, where it does so from the first documents that were retrieved.

        Raises:
            LiteError: As for `ask`.
            ValueError: No such system; `scores` lacks a document; `max_documents` is not from 1 to `budget`.
        """
        if system not in (FULL, STAGE1_BASE, BASE):
            raise ValueError(f"There is no system {system!r}.")
        max_documents = self.budget if max_documents is None else max_documents
        if not 1 <= max_documents <= self.budget:
            raise ValueError(f"max_documents is from 1 to {self.budget} with these adapters, not {max_documents}.")
        question = question.strip()
        if not question:
            raise LiteError("The question is empty.")
        if len(question) > MAX_QUESTION:
            raise LiteError(f"The question has {len(question):,} characters; at most {MAX_QUESTION:,} are read.")
        seconds = {}
        start = time.perf_counter()
        pool = _pool(question, documents, library)
        seconds["retrieve"] = time.perf_counter() - start
        yield Event("retrieved", documents=tuple(pool))

        if system == BASE:
            relevance, kept, dropped = None, list(range(len(pool)))[:max_documents], []
        else:
            if scores is None:
                start = time.perf_counter()
                relevance = self.relevance(question, pool)
                seconds["stage 1"] = time.perf_counter() - start
            elif missing := [document.id for document in pool if document.id not in scores]:
                raise ValueError(f"scores lacks the document {missing[0]!r}.")
            else:
                relevance = np.array([scores[document.id] for document in pool])
            yield Event("scored", scores={d.id: float(s) for d, s in zip(pool, relevance, strict=True)})
            threshold = self.stage1["threshold"] if threshold is None else threshold
            search = None if threshold is not None else _search_order(question, pool, library is not None)
            kept, dropped = select(relevance, threshold, len(pool), max_documents, search)
        listing = arrange(question, [pool[i] for i in kept], quotes=self.quotes)
        yield Event("kept", ids=tuple(pool[i].id for i in kept), documents=listing.documents)

        start = time.perf_counter()
        said = ""
        shown = 0
        for piece in self._say(listing, pool, self.stage2["active"] if system == FULL else []):
            said += piece
            reasoning = chain_so_far(said)
            yield Event("reasoning", text=reasoning[shown:])
            shown = max(shown, len(reasoning))
        seconds["stage 2"] = time.perf_counter() - start

        result = trace(listing, said, pool, relevance, [pool[i] for i in dropped], seconds, lenient=True)
        threshold = None if system == BASE else threshold
        fused = system != BASE and threshold is None
        result = replace(result, untrained=self.untrained, threshold=threshold, fused=fused)
        yield Event("ranking", ids=result.ranking)
        yield Event("answer", text=result.answer)
        yield Event("done", trace=result)

    def relevance(self, question: str, documents: Sequence[Document]) -> np.ndarray:
        """Stage 1 alone: P(relevant) of each document, `[n]`."""
        if not documents:
            return np.empty(0)
        pairs = [(question, document) for document in documents]
        with self._active([STAGE1]):
            return score(self.model, self.processor, pairs, self.stage1["document_chars"], self.batch_size)

    def explain(self, outcome: Trace, documents: Sequence[Document]) -> tuple[Evidence, ...]:
        """Which document does this answer rest on? Stage 2 is asked again without each one in turn.

        All else stays as it was: the other documents, and their order.

        Args:
            outcome: Of `ask`.
            documents: At least those that were kept; the event `retrieved` has them.

        Returns:
            One per document that was kept, in stage 1's order.
        """
        whole = shown_in(outcome, {document.id: document for document in documents}, self.quotes)
        listings = [without(whole, {i}) for i in outcome.kept]
        asked = [listing for listing in listings if listing.documents]
        with self._active(self.stage2["active"]):
            texts = iter(say(self.model, self.processor, asked, *self._limits(), batch_size=self.batch_size))
        without_each = [
            trace(listing, next(texts) if listing.documents else NOTHING_FOUND, listing.documents, lenient=True)
            for listing in listings
        ]
        before = normalise(outcome.answer)
        return tuple(
            Evidence(i, i in outcome.cited, other.answer, other.format_ok, normalise(other.answer) != before)
            for i, other in zip(outcome.kept, without_each, strict=True)
        )

    def support(self, outcome: Trace, documents: Sequence[Document]) -> Support:
        """Does this answer rest on what it cites? The answer is scored again with evidence masked, without generating.

        Args:
            outcome: Of `ask`.
            documents: At least those that were kept; the event `retrieved` has them.
        """
        listing = shown_in(outcome, {document.id: document for document in documents}, self.quotes)
        with self._active(self.stage2["active"]):
            return check_support(self.model, self.processor, outcome, listing, self.stage2["document_chars"])

    def _say(self, listing: Listing, pool: Sequence[Document], adapters: Sequence[str]) -> Iterator[str]:
        if not listing.documents:
            yield NOTHING_FOUND if pool else NOTHING_RETRIEVED
            return
        with self._lock:
            if not self.untrained:
                activate(self.model, adapters)
            yield from say_streaming(self.model, self.processor, listing, *self._limits())

    @contextmanager
    def _active(self, adapters: Sequence[str]) -> Iterator[None]:
        with self._lock:
            if self.untrained:
                yield
                return
            with active(self.model, adapters):
                yield

    def _limits(self) -> tuple[int, int]:
        return self.stage2["document_chars"], self.stage2["max_completion_length"]


def _search_order(question: str, pool: Sequence[Document], found: bool) -> Sequence[int]:
    """The place of each document, from 0, in the order of the library's search if it `found` them, else of BM25."""
    if found or not pool:
        return range(len(pool))
    from lite.data.pools import Corpus  # BM25, for untrained models only

    scores = Corpus(pool).bm25_scores(question)
    return (scores[None] >= scores[:, None]).sum(1) - 1  # those without a word of the question share the last place


def _pool(question: str, documents: Sequence[Document] | None, library: Library | str | Path | None) -> list[Document]:
    if (documents is None) == (library is None):
        raise LiteError("Give either documents or a library to answer from.")
    if documents is None:
        from lite.library.store import Library  # LanceDB, not needed when documents are given

        opened = library if isinstance(library, Library) else Library.open(str(library))
        return [hit.document for hit in opened.search(question, RETRIEVED)]
    ids = [document.id for document in documents]
    twice = next((i for n, i in enumerate(ids) if i in ids[:n]), None) if len(set(ids)) < len(ids) else None
    if twice is not None:
        raise LiteError(f"Two documents have the id {twice!r}. Give each its own.")
    return list(documents)
