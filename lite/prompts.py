"""The prompt of each stage and the parser that reads the model's output back.

The paper's prompts are not public at the time of writing; these are ours. Everything that the documents of one
question share (instruction and question) comes first, so that its keys and values can be computed once.
"""

from __future__ import annotations

import re

from lite.schema import Document

YES, NO = "Yes", "No"
STAGE1_INSTRUCTION = f"Does the document help to answer the question? Answer {YES} or {NO}."


def clip(text: str, max_chars: int) -> str:
    """Shorten `text` to about `max_chars` characters: its beginning and its end, cut at words, with ` ... ` between."""
    if len(text) <= max_chars:
        return text
    head = max_chars * 4 // 7
    tail = max_chars - head
    return text[:head].rsplit(" ", 1)[0] + " ... " + text[len(text) - tail :].split(" ", 1)[-1]


def plain(text: str) -> str:
    """Defuse a chat template's control tokens (`<|im_end|>`, `<|image_pad|>`, ...) in text that we did not write."""
    return text.replace("<|", "< |")


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
