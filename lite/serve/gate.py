"""Who may ask: those who know the key; without a key, programs of this machine, but no web page of another site."""

from __future__ import annotations

import hmac
from collections.abc import Set

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from lite.serve.forms import error
from lite.web import is_own_origin, name_of

BODY = 2 << 20  # bytes of a request
OPEN = ("/healthz",)  # paths that need no key


class Gate:
    """ASGI middleware.

    Args:
        app: What is behind it.
        key: That each request must bring; None where none is needed.
        hosts: Without a key, the names by which the server may be asked for. Another name that somebody points here
            would make their page one of this server's (DNS rebinding). With a key, any name: such a page lacks it.
    """

    def __init__(self, app, key: str | None, hosts: Set[str]):
        self.app, self.hosts = app, hosts
        self.key = None if key is None else key.encode()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers) if scope["type"] == "http" else (403, error("Only HTTP is served."))
        if refusal:
            status, text = refusal
            extra = {"www-authenticate": "Bearer"} if status == 401 else None
            await JSONResponse(text, status, extra)(scope, receive, send)
            return
        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > BODY:
            await JSONResponse(too_large(), 413, {"connection": "close"})(scope, receive, send)
            return
        arrived = 0

        async def receiving() -> dict:
            nonlocal arrived
            piece = await receive()
            arrived += len(piece.get("body", b""))
            if arrived > BODY:
                raise HTTPException(413)
            return piece

        await self.app(scope, receiving, send)

    def _refusal(self, scope, headers: Headers) -> tuple[int, dict] | None:
        if self.key is not None:
            return None if scope["path"] in OPEN or self._knows_key(scope) else (401, wrong_key())
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or name_of(hosts[0]) not in self.hosts:
            return 403, error("This server is not asked for by this name. Start it with --api_key to permit any name.")
        if any(not is_own_origin(origin, hosts[0]) for origin in origins):
            return 403, error("This was sent by a web page of another site.")
        return None

    def _knows_key(self, scope) -> bool:
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        kind, _, key = sent[0].partition(b" ") if len(sent) == 1 else (b"", b"", b"")
        return hmac.compare_digest(key.strip(), self.key) and kind.lower() == b"bearer"


def wrong_key() -> dict:
    return error("The API key is missing or wrong. Send: Authorization: Bearer KEY", code="invalid_api_key")


def too_large() -> dict:
    return error(f"The request is too large; at most {BODY >> 20} MB are read.", code="request_too_large")
