"""Candidate pools: hard negatives, and the balanced (question, document) pairs that stage 1 trains on."""

from __future__ import annotations

import itertools
import logging
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import bm25s
import numpy as np
from rapidfuzz import fuzz, process

from lite.schema import Document, Example, LiteError

logging.getLogger("bm25s").setLevel(logging.WARNING)  # its import sets DEBUG

CONFUSABLE = 6  # hard negatives that a question's draws choose from: about two of them share its subject
SAME_KIND = 0.5  # share of the negatives that are drawn to be of the relevant document's kind


@dataclass(frozen=True)
class Pair:
    """One question with one document, and whether the document is relevant."""

    example: Example
    document: Document
    relevant: bool


def words(text: str) -> list[str]:
    """Lower-cased words, for BM25."""
    return re.findall(r"\w+", text.lower())


class Corpus:
    """Documents, and which of them are easily confused: by BM25 over title and text, and by similar titles."""

    def __init__(self, documents: Sequence[Document]):
        if not documents:
            raise LiteError("The corpus is empty: there are no documents to draw from. Check the data set's folder.")
        self.documents = list(documents)
        self.position = {document.id: i for i, document in enumerate(self.documents)}
        if len(self.position) < len(self.documents):
            seen: set[str] = set()
            double = next(d.id for d in self.documents if d.id in seen or seen.add(d.id))
            raise LiteError(f"Two documents have the id {double!r}. Ids must be unique within a data set.")
        self._titles = [document.title for document in self.documents]
        self._bm25 = bm25s.BM25()
        tokens = [words(f"{d.title} {d.text}") for d in self.documents]
        self._bm25.index(tokens if any(tokens) else [[""] for _ in tokens], show_progress=False)

    def bm25_scores(self, question: str) -> np.ndarray:
        """BM25 of every document, `[n]`."""
        known = [word for word in words(question) if word in self._bm25.vocab_dict]
        return self._bm25.get_scores(known) if known else np.zeros(len(self.documents))

    def confusable(self, example: Example, count: int) -> list[Document]:
        """Up to `count` irrelevant documents that are easy to mistake for relevant ones, hardest first.

        In turn: BM25 neighbours of the question, other documents on the relevant ones' subject (`Niger: geography` for
        `Flag of Niger`; BM25 neighbours of the titles), and documents with similar titles (`Flag of Nigeria`).
        """
        by_question = np.argsort(-self.bm25_scores(example.question), kind="stable").tolist()
        relevant = [self.documents[self.position[i]].title for i in sorted(example.relevant)]
        by_subject = np.argsort(-self.bm25_scores(" ".join(relevant)), kind="stable").tolist()
        similarity = process.cdist(relevant, self._titles, scorer=fuzz.token_set_ratio).max(axis=0)
        by_title = np.argsort(-similarity, kind="stable").tolist()
        alternating = dict.fromkeys(i for pair in zip(by_question, by_subject, by_title, strict=True) for i in pair)
        hard = (self.documents[i] for i in alternating if self.documents[i].id not in example.relevant)
        return list(itertools.islice(hard, count))


def hard_pool(example: Example, corpus: Corpus, size: int = 30) -> Example:
    """The example with a pool of `size`: its relevant documents, half confusable ones, the rest at random."""
    rng = random.Random(f"hard pool {example.id}")
    relevant = [corpus.documents[corpus.position[i]] for i in sorted(example.relevant)]
    hard = corpus.confusable(example, max(0, size - len(relevant) + 1) // 2)
    taken = {document.id for document in relevant + hard}
    rest = [document for document in corpus.documents if document.id not in taken]
    pool = relevant + hard + rng.sample(rest, min(len(rest), max(0, size - len(relevant) - len(hard))))
    rng.shuffle(pool)
    return replace(example, documents=tuple(pool))


def training_pairs(examples: Sequence[Example], corpus: Corpus, hard_share: float, seed: int) -> list[Pair]:
    """Balanced pairs in random order: every relevant document of every question, and as many irrelevant ones.

    Args:
        examples: The training split.
        corpus: Where negatives come from; it must hold no document of another split.
        hard_share: Share of the negatives that are confusable; the rest come from the example's own pool. Half
            of either are of the relevant document's kind, or the kind alone would tell the label.
        seed: Decides the draws and the order.

    Raises:
        LiteError: A question has no relevant document, or names one that the corpus does not hold.
    """
    if not examples:
        raise LiteError("There is no question to train on. Check --data, --split and --limit.")
    rng = random.Random(seed)
    pairs = []
    for example in examples:
        if not example.relevant:
            raise LiteError(f"Question {example.id!r} has no relevant document. Label one, or remove the question.")
        missing = sorted(example.relevant - corpus.position.keys())
        if missing:
            raise LiteError(
                f"Question {example.id!r} names the relevant document {missing[0]!r}, which does not exist."
            )
        confusable = corpus.confusable(example, CONFUSABLE)
        own = [document for document in example.documents if document.id in corpus.position]
        taken = set(example.relevant)
        for document_id in sorted(example.relevant):
            positive = corpus.documents[corpus.position[document_id]]
            pairs.append(Pair(example, positive, True))
            source = confusable if rng.random() < hard_share else own
            negative = draw_negative(rng, source, corpus, positive.kind, taken)
            if negative is None:
                raise LiteError(f"Question {example.id!r}: every document is relevant; nothing is left as a negative.")
            taken.add(negative.id)
            pairs.append(Pair(example, negative, False))
    rng.shuffle(pairs)
    return pairs


def draw_negative(
    rng: random.Random, source: Sequence[Document], corpus: Corpus, kind: str, taken: set[str]
) -> Document | None:
    """A document of `source` that is not taken, half of the time of the given kind; else one of the corpus."""
    kinds = {kind} if rng.random() < SAME_KIND else {document.kind for document in source}
    free = (
        [document for document in source if document.kind in kinds and document.id not in taken]
        or [document for document in corpus.documents if document.kind in kinds and document.id not in taken]
        or [document for document in corpus.documents if document.id not in taken]
    )
    return rng.choice(free) if free else None
