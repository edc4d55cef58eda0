"""The routes: `/v1/models`, `/v1/chat/completions`, `/v1/rerank`, `/healthz`."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Set
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from lite.schema import Document, LiteError
from lite.serve import forms
from lite.serve.citations import inactive_so_far
from lite.serve.desk import Desk, NoLibraryError
from lite.serve.forms import BadRequestError
from lite.serve.gate import Gate, too_large
from lite.serve.line import FullError, StoppedError

if TYPE_CHECKING:
    from lite.rag import Event

logger = logging.getLogger(__name__)

LOADING = 5  # seconds until it is worth asking again
EXPECTED = (NoLibraryError, StoppedError, LiteError)
ROUTES = "/v1/models, /v1/chat/completions, /v1/rerank and /healthz"


def build(desk: Desk, key: str | None, hosts: Set[str]) -> FastAPI:
    """The application."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Gate, key=key, hosts=hosts)
    for kind, handler in {
        RequestValidationError: _malformed, BadRequestError: _wrong, HTTPException: _refused, FullError: _full,
        **dict.fromkeys((*EXPECTED, Exception), _failed),
    }.items():  # fmt: skip
        app.add_exception_handler(kind, handler)

    @app.get("/healthz")
    async def health() -> JSONResponse:
        if desk.model.done():
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "loading"}, 503, {"Retry-After": f"{LOADING}"})

    @app.get("/v1/models")
    async def models() -> dict:
        return {"object": "list", "data": [forms.model_card(desk.name, desk.created)]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict:
        if name != desk.name:
            raise HTTPException(404, f"There is no model {name[:100]!r}. This server has {desk.name!r}.")
        return forms.model_card(desk.name, desk.created)

    @app.post("/v1/chat/completions")
    async def chat(body: forms.Chat, request: Request) -> Any:
        question = body.question()
        if body.n not in (None, 1):
            raise BadRequestError("n must be 1: an answer is generated without sampling, so all would be the same.")
        check_loaded(desk)
        events = desk.line.items(lambda: desk.asked(question))
        if body.stream:
            first = await attended(request, lambda: anext(events))
            return Stream(pieces(desk.name, first, events))
        async with aclosing(events):
            return await attended(request, lambda: answered(desk.name, events))

    @app.post("/v1/rerank")
    @app.post("/v2/rerank")
    async def rerank(body: forms.Rerank, request: Request) -> dict:
        query, texts = forms.checked(body.query), body.texts()
        check_loaded(desk)
        parts = desk.line.items(lambda: desk.judged(query, texts))
        async with aclosing(parts):
            scores = await attended(request, lambda: joined(parts))
        return forms.reranked(desk.name, body, texts, scores)

    return app


def check_loaded(desk: Desk) -> None:
    """Raises HTTPException while the model loads."""
    if not desk.model.done():
        raise HTTPException(503, "The model is still loading. Try again soon.", {"Retry-After": f"{LOADING}"})


async def attended(request: Request, work: Callable[[], Awaitable[Any]]) -> Any:
    """What `work` gives; it is cancelled when the client goes away."""
    found, failure = None, None
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(watch)
        try:
            found = await work()
        except Exception as error:  # raised below: the group would wrap it
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if found is None:
        raise HTTPException(499, "The client went away.")
    return found


async def answered(name: str, events: AsyncIterator[Event]) -> dict:
    """The whole reply."""
    documents: dict[str, Document] = {}
    async for event in events:
        documents |= {document.id: document for document in event.documents}
        if event.trace is not None:
            return forms.completion(name, event.trace, documents)
    raise RuntimeError("the model ended without an answer")


async def joined(parts: AsyncIterator[list[float]]) -> list[float]:
    return [score async for part in parts for score in part]


class Stream(StreamingResponse):
    """Server-sent events; whatever ends the reply, the model is free then."""

    media_type = "text/event-stream"

    def __init__(self, pieces: AsyncIterator[str]):
        super().__init__(pieces, headers={"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope, receive, send) -> None:
        async with aclosing(self.body_iterator):
            await super().__call__(scope, receive, send)


async def pieces(name: str, first: Event, events: AsyncIterator[Event]) -> AsyncIterator[str]:
    """The reply as server-sent events: the reasoning while it is generated, then the answer with its citations."""
    head = forms.envelope("chat.completion.chunk", name)
    documents = {document.id: document for document in first.documents}
    chain, sent = "", ""
    async with aclosing(events):
        yield _sent(forms.chunk(head, {"role": "assistant", "content": ""}))
        try:
            async for event in events:
                chain += event.text if event.name == "reasoning" else ""
                ready = inactive_so_far(chain)
                if len(ready) > len(sent):
                    yield _sent(forms.chunk(head, {"reasoning_content": ready[len(sent) :]}))
                    sent = ready
                if event.trace is not None:
                    yield _sent(forms.chunk(head, forms.content(event.trace, documents)))
                    yield _sent(forms.chunk(head, {}, "stop") | {"lite": forms.summary(event.trace)})
        except Exception as error:
            if not isinstance(error, EXPECTED):
                logger.error("A question met an error.", exc_info=error)
            yield _sent(forms.error(*explained(error)[1:]))
        yield "data: [DONE]\n\n"


def _sent(piece: dict) -> str:
    return f"data: {json.dumps(piece, ensure_ascii=False)}\n\n"


# --------------------------------------------------------------------------------------------------------------- errors


async def _malformed(_: Request, failure: RequestValidationError) -> JSONResponse:
    first = failure.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:])
    place = place or "its body, which is JSON with content-type: application/json"
    return JSONResponse(forms.error(f"The request is malformed in {place}: {first['msg'][:300]}."), 400)


async def _refused(_: Request, failure: HTTPException) -> JSONResponse:
    if failure.status_code == 413:
        return JSONResponse(too_large(), 413)
    unknown = failure.status_code in (404, 405) and failure.detail in ("Not Found", "Method Not Allowed")
    text = f"{failure.detail}. This server answers at {ROUTES}." if unknown else failure.detail
    kind = "invalid_request_error" if failure.status_code < 500 else "server_error"
    return JSONResponse(forms.error(text, kind), failure.status_code, failure.headers)


async def _wrong(_: Request, failure: BadRequestError) -> JSONResponse:
    return JSONResponse(forms.error(str(failure)), 400)


async def _full(_: Request, failure: FullError) -> JSONResponse:
    text = forms.error("Too many questions are waiting. Try again later.", "rate_limit_error", "queue_full")
    return JSONResponse(text, 429, {"Retry-After": str(failure.seconds)})


async def _failed(_: Request, failure: Exception) -> JSONResponse:
    status, *text = explained(failure)  # uvicorn logs what is not expected
    return JSONResponse(forms.error(*text), status)


def explained(failure: Exception) -> tuple[int, str, str]:
    """Status, sentence and kind of an error that comes while a question is answered."""
    if isinstance(failure, StoppedError):
        return 503, "The server is being stopped.", "server_error"
    if isinstance(failure, NoLibraryError):
        return 503, "The library cannot be read now. The terminal that runs the server tells why.", "server_error"
    if isinstance(failure, LiteError):
        return 500, str(failure), "server_error"
    import torch

    if isinstance(failure, torch.OutOfMemoryError):
        return 503, "The GPU has too little free memory for this question.", "server_error"
    name = type(failure).__name__
    return 500, f"Something went wrong here ({name}). The terminal that runs the server tells more.", "server_error"
