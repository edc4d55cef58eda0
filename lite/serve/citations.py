"""What an answer rests on, for programs (`citations`) and for people (`message`)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lite.library.parts import unpacked_boxes
from lite.library.words import query_terms, terms
from lite.schema import Document, Trace

QUOTE = 300  # characters, at most
READ = 1000  # characters of a sentence that are compared: of one word, the terms take quadratic time
SENTENCE = re.compile(r"\S[^\n]*?(?:[.!?…]+(?=\s)(?!\s+[a-z])|[。！？]+|(?=\n)|$)")
PASSAGES = 3  # that are shown where the model's output cannot be read
# What a program that shows Markdown or HTML would load or follow: a document may bring it, to send elsewhere what else
# is on the page. A space takes its meaning away.
ACTIVE = re.compile(r"(?<=!)(?=\[)|(?<=\])(?=[(:\[])|(?<=<)(?=[A-Za-z/!?])")
UNFINISHED = "!]<"  # a piece that ends so may become active with the next one


def citations(outcome: Trace, documents: Mapping[str, Document]) -> list[dict]:
    """The documents that the answer rests on, best first; none where the output is malformed.

    Args:
        outcome: The trace.
        documents: By id; at least those that were kept.

    Returns:
        `number` (as the reasoning cites it), `document` (its id), `kind`, `title`, `page` (from 1, or None), `score`
        (P(relevant), or None), `quote` (the sentence of the document that shares most words with answer and question;
        empty for a bare image), `start` and `end` of the quote in the document's text, and `boxes`, where the quote
        stands on the page or image: `[left, top, right, bottom]` as fractions of it, a box per line.
    """
    return [_source(outcome, documents[i]) for i in outcome.cited]


def _source(outcome: Trace, document: Document) -> dict:
    answer = "" if outcome.failure else outcome.answer
    start, end = best_sentence(document.text, answer, outcome.question)
    return {
        "number": outcome.shown.index(document.id) + 1, "document": document.id, "kind": document.kind,
        "title": document.title, "page": document.page or None, "score": outcome.scores.get(document.id),
        "quote": document.text[start:end], "start": start, "end": end, "boxes": lines(document.boxes, start, end),
    }  # fmt: skip


def message(outcome: Trace, documents: Mapping[str, Document]) -> str:
    """The answer with its sources, as Markdown without links, pictures or HTML."""
    if outcome.failure:
        heading = f"No answer: the model's output is malformed ({outcome.failure}). Its filter put first:"
        sources = [_source(outcome, documents[i]) for i in outcome.kept[:PASSAGES]]
    else:
        sources = citations(outcome, documents)
        heading = " ".join([outcome.answer, *(f"[{source['number']}]" for source in sources)])
        heading += "\n\nSources:" if sources else ""
    return inactive("\n".join([heading, *(f"- {_described(source)}" for source in sources)]))


def _described(source: dict) -> str:
    page = f", page {source['page']}" if source["page"] else ""
    quote = f": “{' '.join(source['quote'].split())}”" if source["quote"] else ""
    return f"[{source['number']}] {' '.join(source['title'].split())}{page}{quote}"


def inactive(text: str) -> str:
    """Text in which no Markdown link or picture and no HTML is left."""
    return ACTIVE.sub(" ", text)


def inactive_so_far(text: str) -> str:
    """As `inactive`, of a text that goes on: only ever grows at its end."""
    return inactive(text[:-1] if text and text[-1] in UNFINISHED else text)


def best_sentence(text: str, answer: str, question: str) -> tuple[int, int]:
    """Start and end of the sentence, or line, that shares most words with the answer, then with the question."""
    in_answer, in_question = set(terms(answer[:READ])), set(query_terms(question[:READ]))
    best, most = (0, 0), (-1, -1)
    for sentence in SENTENCE.finditer(text):
        words = set(terms(sentence[0][:READ]))
        shared = len(words & in_answer), len(words & in_question)
        if shared > most:
            best, most = sentence.span(), shared
    start, end = best
    if end - start > QUOTE:
        end = start + len(text[start : start + QUOTE].rsplit(maxsplit=1)[0])
    return start, end


def lines(boxes: bytes, start: int, end: int) -> list[list[float]]:
    """Where `text[start:end]` stands: the boxes of its words, joined where they follow each other on one line."""
    found: list[list[float]] = []
    for first, last, left, top, right, bottom in unpacked_boxes(boxes):
        if last <= start or first >= end:
            continue
        before = found[-1] if found else None
        if before and min(bottom, before[3]) - max(top, before[1]) > min(bottom - top, before[3] - before[1]) / 2:
            joined = [min(left, before[0]), min(top, before[1]), max(right, before[2]), max(bottom, before[3])]
            found[-1] = joined
        else:
            found.append([left, top, right, bottom])
    return [[round(value, 4) for value in box] for box in found]
