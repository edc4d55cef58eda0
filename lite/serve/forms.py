"""Requests as OpenAI's, Jina's and Cohere's clients send them, and replies as they read them.

What a client sends beyond these fields (temperature, tools, a session of its own) is ignored.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from lite.schema import Document, Trace
from lite.serve.citations import citations, inactive, message
from lite.stages.prompts import MAX_QUESTION
from lite.terminal import printable

RERANKED = 1000  # documents of one request


class BadRequestError(Exception):
    """A request that cannot be answered; the message says why."""


class Part(BaseModel):
    """A piece of a message: text, or what is not read here."""

    type: str = "text"
    text: str = ""


class Message(BaseModel):
    role: str
    content: str | list[Part] | None = None


class Chat(BaseModel):
    """`POST /v1/chat/completions`."""

    messages: list[Message]
    stream: bool | None = False
    n: int | None = 1

    def question(self) -> str:
        """The last turn of the user; earlier turns and system messages play no part.

        Raises:
            BadRequestError: There is none, it is empty or too long, or it holds more than text.
        """
        last = next((turn for turn in reversed(self.messages) if turn.role == "user"), None)
        if last is None:
            raise BadRequestError("There is no message with the role user. Its text is the question.")
        parts = [Part(text=last.content)] if isinstance(last.content, str) else last.content or []
        odd = next((part.type for part in parts if part.type not in ("text", "input_text")), None)
        if odd is not None:
            raise BadRequestError(
                f"The question has a part of the type {odd!r:.40}; only text is read. Index files instead."
            )
        return checked("\n".join(part.text for part in parts))


class Rerank(BaseModel):
    """`POST /v1/rerank` and `/v2/rerank`."""

    query: str
    documents: list[str | dict[str, Any]] = Field(max_length=RERANKED)
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool | None = False

    def texts(self) -> list[str]:
        """Raises BadRequestError where a document is no text."""
        texts = [document if isinstance(document, str) else document.get("text") for document in self.documents]
        for n, text in enumerate(texts):
            if not isinstance(text, str):
                raise BadRequestError(f"documents[{n}] has no text. Give a string or an object with the field text.")
        return [printable(text) for text in texts]


def checked(question: str) -> str:
    """Raises BadRequestError where a question is empty or too long."""
    question = printable(question).strip()
    if not question:
        raise BadRequestError("The question is empty.")
    if len(question) > MAX_QUESTION:
        raise BadRequestError(f"The question has {len(question):,} characters; at most {MAX_QUESTION:,} are read.")
    return question


def model_card(name: str, created: int) -> dict:
    return {"id": name, "object": "model", "created": created, "owned_by": "lite"}


def completion(name: str, outcome: Trace, documents: Mapping[str, Document]) -> dict:
    """The reply to a question, in one piece."""
    said = {"role": "assistant", "reasoning_content": inactive(outcome.reasoning), **content(outcome, documents)}
    choice = {"index": 0, "message": said, "finish_reason": "stop", "logprobs": None}
    return envelope("chat.completion", name) | {"choices": [choice], "usage": None, "lite": summary(outcome)}


def content(outcome: Trace, documents: Mapping[str, Document]) -> dict:
    """The answer for people and what it rests on for programs."""
    return {"content": message(outcome, documents), "citations": citations(outcome, documents)}


def envelope(kind: str, name: str) -> dict:
    return {"id": f"chatcmpl-{secrets.token_hex(12)}", "object": kind, "created": int(time.time()), "model": name}


def chunk(head: dict, delta: dict, finish: str | None = None) -> dict:
    """A piece of a streamed reply; `head` is the same for all pieces of it."""
    return head | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]}


def summary(outcome: Trace) -> dict:
    """What a program may want to know of an answer besides its text."""
    return {
        "question": outcome.question, "answer": "" if outcome.failure else outcome.answer, "failure": outcome.failure,
        "note": outcome.note, "untrained": outcome.untrained, "threshold": outcome.threshold,
        "scores": outcome.scores, "seconds": outcome.seconds,
    }  # fmt: skip


def reranked(name: str, request: Rerank, texts: list[str], scores: list[float]) -> dict:
    """The reply of a reranker: Jina's and Cohere's in one."""
    order = sorted(range(len(scores)), key=lambda n: -scores[n])[: request.top_n]
    results = [
        {"index": n, "relevance_score": scores[n]}
        | ({"document": {"text": texts[n]}} if request.return_documents else {})
        for n in order
    ]
    return {"id": secrets.token_hex(12), "model": name, "object": "list", "results": results}


def error(message: str, kind: str = "invalid_request_error", code: str | None = None) -> dict:
    """An error in OpenAI's form."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
