"""What an answer rests on, for programs (`citations`) and for people (`message`)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lite.library.words import query_terms, terms
from lite.schema import Document, Trace
from lite.stages.quotes import boxes_of

QUOTE = 300  # characters, at most
READ = 1000  # characters of a sentence that are compared
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
        (P(relevant), or None), `quote`, `quoted_by_model` (whether the reasoning quotes it, and it stands there; else
        it is the sentence of the document that shares most words with answer and question; empty for a bare image),
        `start` and `end` of the quote in the document's text, and `boxes`, where it stands on the page or image:
        `[left, top, right, bottom]` as fractions of it, a box per line.
    """
    return [_source(outcome, documents[i]) for i in outcome.cited]


def _source(outcome: Trace, document: Document) -> dict:
    own = (q for q in outcome.quotes if q["id"] == document.id and q["found"] and q["start"] is not None)
    quote = next(own, None)
    if quote is not None:
        start, end, boxes = quote["start"], quote["end"], quote["boxes"]
    else:
        start, end = best_sentence(document.text, "" if outcome.failure else outcome.answer, outcome.question)
        boxes = boxes_of(document, start, end)
    return {
        "number": outcome.shown.index(document.id) + 1, "document": document.id, "kind": document.kind,
        "title": document.title, "page": document.page or None, "score": outcome.scores.get(document.id),
        "quote": document.text[start:end], "quoted_by_model": quote is not None, "start": start, "end": end,
        "boxes": [[round(side, 4) for side in box] for box in boxes],
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
