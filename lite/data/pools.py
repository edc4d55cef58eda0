"""Candidate pools: hard negatives, and the balanced (question, document) pairs that stage 1 trains on."""

from __future__ import annotations

import bisect
import itertools
import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import bm25s
import numpy as np
from rapidfuzz import fuzz, process

from lite.library.words import words
from lite.schema import Document, Example, LiteError

logging.getLogger("bm25s").setLevel(logging.WARNING)  # its import sets DEBUG

CONFUSABLE = 6  # hard negatives that a question's draws choose from: about two of them share its subject
SAMPLE = 32  # documents that a random negative is chosen from, so that both kinds are among them
SAME_KIND = 0.5  # share of the negatives that are drawn to be of the relevant document's kind


@dataclass(frozen=True)
class Pair:
    """One question with one document, and whether the document is relevant."""

    example: Example
    document: Document
    relevant: bool


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
        self._of_kinds: dict[frozenset[str], list[int]] = {}

    @cached_property
    def _bm25(self) -> bm25s.BM25:
        """Built when first asked for: a benchmark has a million documents, and mined negatives need no index."""
        index = bm25s.BM25()
        tokens = [words(f"{d.title} {d.text}") for d in self.documents]
        index.index(tokens if any(tokens) else [[""] for _ in tokens], show_progress=False)
        return index

    def of_kinds(self, kinds: Iterable[str]) -> list[int]:
        """Positions of the documents of these kinds, ascending."""
        key = frozenset(kinds)
        if key not in self._of_kinds:
            self._of_kinds[key] = [i for i, document in enumerate(self.documents) if document.kind in key]
        return self._of_kinds[key]

    def bm25_scores(self, question: str) -> np.ndarray:
        """BM25 of every document, `[n]`."""
        known = [word for word in words(question) if word in self._bm25.vocab_dict]
        return self._bm25.get_scores(known) if known else np.zeros(len(self.documents))

    def nearest(self, question: str, limit: int) -> list[Document]:
        """The documents that BM25 ranks first; those without a word of the question are none of them."""
        scores = self.bm25_scores(question)
        return [self.documents[i] for i in np.argsort(-scores, kind="stable")[:limit] if scores[i] > 0]

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


def training_pairs(
    examples: Sequence[Example], corpus: Corpus, hard_share: float, seed: int, mined: bool = False
) -> list[Pair]:
    """Balanced pairs in random order: every relevant document of every question, and as many irrelevant ones.

    Which negatives are hard and which are easy depends on where the questions' pools come from. Pools drawn at random:
    the hard ones are `Corpus.confusable`, the easy ones come from the pool. Mined pools: the hard ones come from the
    pool, as long as it has any, and then are `Corpus.confusable`; the easy ones come from the whole corpus.

    Args:
        examples: The training split.
        corpus: Where negatives come from; it must hold no document of another split.
        hard_share: Share of the negatives that are hard. Half of either are of the relevant document's kind, or the
            kind alone would tell the label.
        seed: Decides the draws and the order.
        mined: Whether the pools hold negatives that were mined for their question.

    Raises:
        LiteError: A question has no relevant document, or names one that the corpus does not hold.
    """
    if not examples:
        raise LiteError("There is no question to train on. Check --data, --split and --limit.")
    rng = random.Random(seed)
    pairs = []
    for example in examples:
        positives = relevant_documents(example, corpus)
        own = [document for document in example.documents if document.id in corpus.position]
        if mined:
            negatives = [document for document in own if document.id not in example.relevant]
            hard, easy = negatives or corpus.confusable(example, CONFUSABLE), None
        else:
            hard, easy = corpus.confusable(example, CONFUSABLE), own
        taken = set(example.relevant)
        for positive in positives:
            pairs.append(Pair(example, positive, True))
            source = hard if rng.random() < hard_share else easy
            if source is None:
                source = rng.choices(corpus.documents, k=SAMPLE)
            negative = draw_negative(rng, source, corpus, positive.kind, taken)
            if negative is None:
                raise LiteError(f"Question {example.id!r}: every document is relevant; nothing is left as a negative.")
            taken.add(negative.id)
            pairs.append(Pair(example, negative, False))
    rng.shuffle(pairs)
    return pairs


def relevant_documents(example: Example, corpus: Corpus) -> list[Document]:
    """The example's relevant documents, by id. Raises LiteError where there is none or one is not in the corpus."""
    if not example.relevant:
        raise LiteError(f"Question {example.id!r} has no relevant document. Label one, or remove the question.")
    missing = sorted(i for i in example.relevant if i not in corpus.position)
    if missing:
        raise LiteError(f"Question {example.id!r} names the relevant document {missing[0]!r}, which does not exist.")
    return [corpus.documents[corpus.position[i]] for i in sorted(example.relevant)]


def draw_negative(
    rng: random.Random, source: Sequence[Document], corpus: Corpus, kind: str, taken: set[str]
) -> Document | None:
    """A document of `source` that is not taken, half of the time of the given kind; else one of the corpus."""
    kinds = {kind} if rng.random() < SAME_KIND else {document.kind for document in source}
    free = [document for document in source if document.kind in kinds and document.id not in taken]
    if free:
        return rng.choice(free)
    for positions in (corpus.of_kinds(kinds), range(len(corpus.documents))):
        skipped = sorted(p for p in map(corpus.position.get, taken) if p is not None and _holds(positions, p))
        if len(positions) > len(skipped):
            index = rng.choice(range(len(positions) - len(skipped)))
            for position in skipped:  # count past those that are taken, without a copy of the million others
                index += positions[index] >= position
            return corpus.documents[positions[index]]
    return None


def _holds(ascending: Sequence[int], value: int) -> bool:
    place = bisect.bisect_left(ascending, value)
    return place < len(ascending) and ascending[place] == value
