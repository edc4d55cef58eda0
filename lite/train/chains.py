"""Reasoning chains composed from labels by rule: what the optional cold start before stage 2's GRPO learns to write.

A chain says of each document, in the order of the prompt, whether it helps and which fact of it answers:

    <think>[1] Flag of Peru does not help. [2] Chad: capital and government helps: The capital of Chad is N'Djamena.</think>
    <rank>[2]</rank>
    <answer>N'Djamena</answer>

Where the prompt asks for quotes, facts out of texts stand in quotation marks.
"""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from lite.schema import Document, Example, LiteError
from lite.stages.prompts import DISMISSAL, HELPS, HELPS_NOT, NONE, UNKNOWN, clip, plain

FACT_CHARS = 200  # of a quoted sentence
QUOTATION_MARKS = re.compile('["“”„«»「」]')  # within a quotation
NO_CAPTIONS: Mapping[str, str] = {}


def compose_chain(
    example: Example,
    documents: Sequence[Document],
    document_chars: int,
    captions: Mapping[str, str] = NO_CAPTIONS,
    best_first: Sequence[int] = (),
    quotes: bool = False,
) -> str:
    """The completion that the labels of `example` call for.

    Args:
        example: Its `relevant` and first `answers` are used; `documents` need not be its pool.
        documents: As the prompt numbers them. Where none is relevant, the answer is `not in the documents`.
        document_chars: As in the prompt: a chain quotes nothing that the prompt does not show.
        captions: What is seen on images, by document id. Of a relevant image the chain says this before it answers.
        best_first: The numbers of the documents in the order in which `<rank>` names those that help: labels do not
            tell which of them matters most. By default as the prompt numbers them.
        quotes: As in the prompt: whether what a text contributes stands in quotation marks.

    Raises:
        LiteError: A document is relevant, but the first answer is missing or blank.
    """
    helpful = [number for number, document in enumerate(documents, start=1) if document.id in example.relevant]
    if helpful and not "".join(example.answers[:1]).strip():
        raise LiteError(f"Question {example.id!r} has no answer to compose a chain from. Label one, or leave it out.")
    answer = plain("; ".join(right_answers(example))) if helpful else UNKNOWN
    thoughts = []
    for number, document in enumerate(documents, start=1):
        title = quote(document.title)
        if not re.search(r"\w", title):
            title = document.kind
        if number not in helpful:
            thoughts.append(f"[{number}] {title} {HELPS_NOT}.")
            continue
        others = [documents[i - 1] for i in helpful if i != number]
        fact = found_fact(example, document, others, document_chars, captions)
        fact = in_marks(fact) if quotes and document.text and fact else quote(fact)
        thoughts.append(f"[{number}] {title} {HELPS}: {fact}" if fact else f"[{number}] {title} {HELPS}.")
    ranked = sorted(helpful, key=best_first.index) if best_first else helpful
    rank = " > ".join(f"[{number}]" for number in ranked) or NONE
    return f"<think>{' '.join(thoughts)}</think>\n<rank>{rank}</rank>\n<answer>{answer}</answer>"


def right_answers(example: Example) -> tuple[str, ...]:
    """What belongs into `<answer>`: the first accepted answer, or all parts of a MultimodalQA list."""
    return example.answers if example.metric == "multimodalqa" else example.answers[:1]


def found_fact(
    example: Example,
    document: Document,
    others: Sequence[Document],
    document_chars: int,
    captions: Mapping[str, str] = NO_CAPTIONS,
) -> str:
    """What a relevant document contributes, as a sentence; empty where the labels do not tell.

    Of a text: the sentence (of a table: the row) that holds most of the answers, else the one that shares most words
    with the question. Of an image: its caption; without one the answer itself, unless it stands in another relevant
    document.
    """
    answers = right_answers(example)
    if document.text:
        sentences = re.split(r"(?<=[.!?])\s+|\n", clip(document.text, document_chars))
        asked = set(re.findall(r"\w+", example.question.lower()))
        found = max(
            sentences,
            key=lambda sentence: (
                sum(mentions(sentence, answer) for answer in answers),
                len(asked & set(re.findall(r"\w+", sentence.lower()))),
            ),
        )
        return around(found, answers)
    if document.id in captions:
        return f"{captions[document.id]}."
    if any(mentions(f"{other.title}\n{other.text}", answer) for other in others for answer in answers):
        return ""
    return f"{'; '.join(answers)}."


def around(sentence: str, answers: Sequence[str]) -> str:
    """At most `FACT_CHARS` characters of a sentence, in one piece, cut at words: from its beginning, unless an answer
    stands behind that."""
    if len(sentence) <= FACT_CHARS:
        return sentence
    ends = [match.end() for answer in answers if (match := re.search(re.escape(answer), sentence, re.IGNORECASE))]
    start = max(0, min(ends, default=0) - FACT_CHARS)
    piece = sentence[start : start + FACT_CHARS]
    if start:
        piece = piece.split(" ", 1)[-1]
    return piece if start + FACT_CHARS >= len(sentence) else piece.rsplit(" ", 1)[0]


def in_marks(text: str) -> str:
    """As a quotation of what the prompt shows."""
    return '"' + QUOTATION_MARKS.sub("'", plain(text)) + '"'


def quote(text: str) -> str:
    """As the prompt shows it, but for words that would dismiss the document, which only the chain itself may say, and
    quotation marks."""
    return DISMISSAL.sub("...", QUOTATION_MARKS.sub("'", plain(text)))


def mentions(text: str, phrase: str) -> bool:
    """Whether `phrase` stands in `text` as whole words, whatever the case."""
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, flags=re.IGNORECASE) is not None
