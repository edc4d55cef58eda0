"""`search` and `ask` as tools of the Model Context Protocol, over standard input and output.

The SDK keeps standard output for the protocol: what libraries print goes to standard error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

from anyio import to_thread
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from lite import __version__
from lite.library import RETRIEVED
from lite.library.store import Library
from lite.schema import LiteError
from lite.serve.citations import citations
from lite.serve.desk import Desk, NoLibraryError
from lite.serve.forms import BadRequestError, checked
from lite.serve.line import FullError
from lite.stages.prompts import clip

if TYPE_CHECKING:
    from lite.rag import Rag

SHOWN = 2000  # characters of a document that a search gives


def build(library: str, load: Callable[[], Rag] | None) -> MCPServer:
    """The server; `run()` serves until standard input ends.

    Args:
        library: Where the documents are.
        load: Loads the model, when the first question comes; None: there is no tool `ask`.
    """
    server = MCPServer(
        "lite", version=__version__, log_level="WARNING",
        instructions="Documents of the user: search finds passages"
        + (", ask answers a question from them and cites its sources." if load else "."),
    )  # fmt: skip

    @server.tool()
    async def search(
        query: Annotated[str, Field(description="Words or a question, in any language.")],
        limit: Annotated[int, Field(ge=1, le=RETRIEVED, description="How many.")] = 5,
    ) -> list[dict[str, Any]]:
        """Passages of the user's documents that fit best, best first: id, title, kind, page, score and text."""
        try:
            hits = await to_thread.run_sync(lambda: Library.open(library).search(checked(query), limit))
        except (LiteError, BadRequestError, OSError, RuntimeError, ValueError) as error:
            raise ToolError(str(error)[:500]) from error
        return [
            {"id": hit.document.id, "title": hit.document.title, "kind": hit.document.kind,
             "page": hit.document.page or None, "score": hit.score, "text": clip(hit.document.text, SHOWN)}
            for hit in hits
        ]  # fmt: skip

    if load is None:
        return server
    desk, first = Desk(Future(), library, "lite"), threading.Lock()

    def loaded() -> None:
        with first:
            if not desk.model.done():
                desk.model.set_result(load())

    @server.tool()
    async def ask(
        question: Annotated[str, Field(description="As a person would ask it.")],
    ) -> dict[str, Any]:
        """Answer a question from the user's documents. Gives the answer, the reasoning, and citations: document, title,
        page, quote. The answer is `not in the documents` where they do not hold it."""
        try:
            text = checked(question)
            await to_thread.run_sync(loaded)
            async with aclosing(desk.line.items(lambda: desk.asked(text))) as events:
                return await answer(events)
        except NoLibraryError as error:
            raise ToolError(f"The library cannot be read: {error.__cause__}") from error
        except FullError as error:
            raise ToolError("Too many questions are waiting.") from error
        except (LiteError, BadRequestError) as error:
            raise ToolError(str(error)) from error

    return server


async def answer(events: Any) -> dict[str, Any]:
    """What comes of a question, for a program."""
    documents = {}
    async for event in events:
        documents |= {document.id: document for document in event.documents}
        if event.trace is not None and event.trace.failure:
            raise ToolError(f"The model's output is malformed ({event.trace.failure}). Use search.")
        if event.trace is not None:
            found = citations(event.trace, documents)
            return {"answer": event.trace.answer, "reasoning": event.trace.reasoning, "citations": found}
    raise RuntimeError("the model ended without an answer")
