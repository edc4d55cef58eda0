"""The prompt of each stage and the parser that reads the model's output back.

The paper's prompts are not public at the time of writing; these are ours. Everything that the documents of one
question share (instruction and question) comes first, so that its keys and values can be computed once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lite.schema import Document

MAX_QUESTION = 4000  # characters: with a longer one a prompt is no longer what the adapters were trained on
YES, NO = "Yes", "No"
STAGE1_INSTRUCTION = f"Does the document help to answer the question? Answer {YES} or {NO}."

HELPS, HELPS_NOT = "helps", "does not help"
NONE = "none"  # in <rank>, when no document holds the answer
UNKNOWN = "not in the documents"  # in <answer>, likewise
STAGE2_INSTRUCTION = (
    "Answer the question from the documents. Think about each document by its number and say whether it "
    f"{HELPS} or {HELPS_NOT}, rank those that the answer rests on, best first, and answer briefly. Write\n"
    "<think>[i] ... [j] ...</think>\n<rank>[i] > [j]</rank>\n<answer>...</answer>\n"
    f"If none helps, write <rank>{NONE}</rank> and <answer>{UNKNOWN}</answer>."
)
# The same, where the reasoning is to quote the documents
QUOTING_INSTRUCTION = (
    "Answer the question from the documents. Think about each document by its number and say whether it "
    f"{HELPS} or {HELPS_NOT}; from the text of one that {HELPS}, quote in quotation marks the few words that the "
    "answer rests on, exactly as they are written there. Rank the documents that the answer rests on, best first, and "
    "answer briefly. Write\n"
    f'<think>[i] {HELPS}: "..." [j] {HELPS_NOT}.</think>\n<rank>[i]</rank>\n<answer>...</answer>\n'
    f"If none helps, write <rank>{NONE}</rank> and <answer>{UNKNOWN}</answer>."
)
TAGS = ("think", "rank", "answer")
# `HELPS_NOT` and what models write in its place
DISMISSAL = re.compile(
    r"(?:\bdo(?:es)?(?:\s+not|n['’]t)\s+help|\b(?:irrelevant|unhelpful)"
    r"|(?:\bnot|n['’]t)\s+(?:at\s+all\s+)?(?:relevant|helpful|useful))\b",
    re.IGNORECASE,
)


def clip(text: str, max_chars: int) -> str:
    """Shorten `text` to about `max_chars` characters: its beginning and its end, cut at words, with ` ... ` between."""
    if len(text) <= max_chars:
        return text
    head = max_chars * 4 // 7
    tail = max_chars - head
    return text[:head].rsplit(" ", 1)[0] + " ... " + text[len(text) - tail :].split(" ", 1)[-1]


def plain(text: str) -> str:
    """Defuse what would mean something to us in text that we did not write.

    A chat template's control tokens (`<|im_end|>`, `<|image_pad|>`, ...), stage 2's tags and its document numbers lose
    their form: `< |im_end|>`, `< /think>`, `(3)`.
    """
    text = re.sub(rf"<(?=\||\s*(?:/\s*)?(?:{'|'.join(TAGS)})\b)", "< ", text, flags=re.IGNORECASE)
    return re.sub(r"\[\s*(\d+)\s*\]", r"(\1)", text)


def stage1_prompt(question: str, document: Document, document_chars: int = 2000) -> list[dict]:
    """The point-wise relevance prompt, as one conversational turn.

    Args:
        question: The user's question.
        document: The one document to judge. An image becomes an `{"type": "image"}` placeholder.
        document_chars: Longer texts keep their beginning and end, see `clip`.
    """
    opening = f"{STAGE1_INSTRUCTION}\nQuestion: {plain(question)}\nDocument: {plain(document.title)}\n"
    content: list[dict] = [{"type": "text", "text": opening}]
    if document.image is not None:
        content.append({"type": "image"})
    if document.text:
        content.append({"type": "text", "text": plain(clip(document.text, document_chars))})
    return [{"role": "user", "content": content}]


def parse_stage1(completion: str) -> tuple[str | None, str]:
    """Read a stage 1 completion.

    Returns:
        `(word, "")` when it is exactly one of the two words, else `(None, reason)`, where the reason is
        `empty`, `extra text` (the word and something else) or `neither word`.
    """
    text = completion.strip()
    if text in (YES, NO):
        return text, ""
    if not text:
        return None, "empty"
    return None, "extra text" if re.match(rf"({YES}|{NO})\b", text) else "neither word"


def stage2_prompt(
    question: str, documents: Sequence[Document], document_chars: int = 2000, quotes: bool = False
) -> list[dict]:
    """The list-wise prompt, as one conversational turn: instruction, question, numbered documents.

    Args:
        question: The user's question.
        documents: In the order in which they are numbered, from 1. Each image becomes an `{"type": "image"}`
            placeholder between its title and its text.
        document_chars: Of each text, see `clip`.
        quotes: Ask for quotes in the reasoning.
    """
    instruction = QUOTING_INSTRUCTION if quotes else STAGE2_INSTRUCTION
    opening = f"{instruction}\nQuestion: {plain(question)}\n"
    content: list[dict] = [{"type": "text", "text": opening}]
    for number, document in enumerate(documents, start=1):
        content.append({"type": "text", "text": f"[{number}] {plain(document.title)}\n"})
        if document.image is not None:
            content.append({"type": "image"})
        ending = plain(clip(document.text, document_chars)) + "\n" if document.text else "\n"
        content.append({"type": "text", "text": ending})
    return [{"role": "user", "content": content}]


def caption_prompt(request: str) -> list[dict]:
    """An image and what is wanted of it, as one conversational turn: for the chains of stage 2's cold start."""
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": f" {request}"}]}]


@dataclass(frozen=True)
class Stage2Output:
    """What a stage 2 completion says.

    Args:
        reasoning: Inside `<think>`.
        ranking: Document numbers inside `<rank>`, best first, from 1; empty for `none`.
        answer: Inside `<answer>`.
        failure: Why the completion is malformed; empty when it is well formed, and all else is empty when it is not.
    """

    reasoning: str = ""
    ranking: tuple[int, ...] = ()
    answer: str = ""
    failure: str = ""


def parse_stage2(completion: str, n_documents: int) -> Stage2Output:
    """Read a stage 2 completion; it must match the grammar from its first to its last character.

    Args:
        completion: What the model said.
        n_documents: How many documents the prompt numbered.

    Returns:
        Well formed, or with a `failure` out of `empty`, `no <tag>`, `unclosed <tag>`, `repeated <tag>`,
        `wrong order`, `text outside the tags`, `empty think`, `empty answer`, `malformed rank`,
        `rank out of range` and `rank repeats a document`.
    """
    text = completion.strip()
    if not text:
        return Stage2Output(failure="empty")
    for tag in TAGS:
        opened, closed = text.count(f"<{tag}>"), text.count(f"</{tag}>")
        if opened > 1 or closed > 1:
            return Stage2Output(failure=f"repeated <{tag}>")
        if not opened:
            return Stage2Output(failure=f"no <{tag}>")
        if not closed:
            return Stage2Output(failure=f"unclosed <{tag}>")
    places = [text.index(mark) for tag in TAGS for mark in (f"<{tag}>", f"</{tag}>")]
    if places != sorted(places):
        return Stage2Output(failure="wrong order")
    match = re.fullmatch(r"<think>(.*)</think>\s*<rank>(.*)</rank>\s*<answer>(.*)</answer>", text, flags=re.DOTALL)
    if not match:
        return Stage2Output(failure="text outside the tags")
    reasoning, rank, answer = (part.strip() for part in match.groups())
    if not reasoning:
        return Stage2Output(failure="empty think")
    if not answer:
        return Stage2Output(failure="empty answer")
    if rank == NONE:
        return Stage2Output(reasoning, (), answer)
    if not re.fullmatch(r"\[[0-9]+\](\s*>\s*\[[0-9]+\])*", rank):
        return Stage2Output(failure="malformed rank")
    ranking = citations(rank)
    if not all(1 <= number <= n_documents for number in ranking):
        return Stage2Output(failure="rank out of range")
    if len(set(ranking)) < len(ranking):
        return Stage2Output(failure="rank repeats a document")
    return Stage2Output(reasoning, ranking, answer)


def citations(text: str) -> tuple[int, ...]:
    """The document numbers that `text` cites as `[3]`, in order, repeated as often as they are cited.

    Only nine digits are read: longer numbers are out of range either way, and `int` refuses very long ones.
    """
    return tuple(int(number[:9]) for number in re.findall(r"\[([0-9]+)\]", text))
