"""What reaches the demo's page: only requests of that page, only what it needs, and no more than there is room for."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Set
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

from lite.demo.uploads import FILES, LIMITS, UNCLAIMED_SECONDS, Uploads
from lite.schema import LiteError
from lite.web import is_address, is_own_origin, name_of

# Nothing of the page comes from elsewhere, and nothing that a document could smuggle in may go there.
HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data:; "
    "worker-src 'self' blob:; object-src 'none'; frame-ancestors 'none'; form-action 'self'; base-uri 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
# Gradio has many more routes: proxies, editors, schemas, links that are kept on the disk.
API = "user|login_check|token|app_id|info|upload|upload_progress|cancel|reset|startup-events|theme.css"
ROUTES = re.compile(
    rf"/(?:|config|login|logout|theme\.css|favicon\.ico|robots\.txt|manifest\.json|(?:assets|static|svelte)/.+"
    rf"|gradio_api/(?:(?:{API})|queue/(?:join|data)|heartbeat/[^/]+|(?:run|api|call)/.+|file=(?!\s*[a-z]+:).+))/?",
    re.IGNORECASE,
)
REQUEST = FILES * LIMITS.megabytes * 10**6 + 10**6  # bytes of one upload: all that a visitor may hold, and its framing
NO_ROOM = "The server has no room for more uploads now. Try again later, or remove files."
FREE_GUESSES, LONGEST_WAIT, WAITING = 3, 10.0, 10  # wrong passwords, seconds before the next is looked at, who may wait


class Guard:
    """ASGI middleware around Gradio's app.

    Args:
        app: What is behind it.
        hosts: Names by which the page may be asked for. Another name that somebody points here would make their page
            one of this server's (DNS rebinding).
        proxies: Further such names, of proxies, which may pass on another name than the browser's.
        addresses: Whether the page may be asked for by any address that is written as a number, too.
        root_path: What a proxy puts before every path.
        uploads: How much room is left for uploads.
    """

    def __init__(self, app, hosts: Set[str], proxies: Set[str], addresses: bool, root_path: str, uploads: Uploads):
        self.app, self.hosts, self.proxies, self.addresses = app, hosts | proxies, proxies, addresses
        self.root_path, self.uploads = root_path.rstrip("/"), uploads
        self.failures, self.waiting, self.turn = 0, 0, asyncio.Lock()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        async def sending(message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._answer(scope, receive, sending)

    async def _answer(self, scope, receive, send) -> None:
        path = scope["path"].removeprefix(self.root_path) or "/"
        refusal = (421, "") if scope["type"] != "http" else self._refusal(Headers(scope=scope), path)
        if refusal:
            await PlainTextResponse(refusal[1], refusal[0])(scope, receive, send)
        elif path.rstrip("/") == "/gradio_api/upload":
            await self._upload(scope, receive, send)
        elif path.rstrip("/") == "/login":
            await self._login(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _refusal(self, headers: Headers, path: str) -> tuple[int, str] | None:
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not self._known(hosts[0]):
            return 403, "This page is not served under this name. The option --allowed_host NAME permits another."
        if len(origins) > 1 or any(not self._own(origin, hosts[0]) for origin in origins):
            return 403, "This was sent by another site's page. Behind a proxy, start with --allowed_host NAME."
        return None if ROUTES.fullmatch(path) else (404, "Not found.")

    def _known(self, host: str) -> bool:
        """Whether a Host header names this page, whatever the port."""
        name = name_of(host)
        return name in self.hosts or (self.addresses and is_address(name))

    def _own(self, origin: str, host: str) -> bool:
        """Whether an Origin header is that of this page: the same host and port, or a name that was allowed."""
        allowed = re.fullmatch(r"https?://(.+)", origin)
        return is_own_origin(origin, host) or (allowed is not None and name_of(allowed[1]) in self.proxies)

    async def _login(self, scope, receive, send) -> None:
        """One at a time; after some wrong passwords each is looked at later than the one before."""
        if self.waiting >= WAITING:
            await PlainTextResponse("Too many are trying to log in. Wait a minute.", 429)(scope, receive, send)
            return
        self.waiting += 1
        try:
            async with self.turn:
                if self.failures >= FREE_GUESSES:
                    await asyncio.sleep(min(2.0 ** (self.failures - FREE_GUESSES), LONGEST_WAIT))

                async def sending(message) -> None:
                    if message["type"] == "http.response.start":
                        self.failures = self.failures + 1 if message["status"] >= 400 else 0
                    await send(message)

                await self.app(scope, receive, sending)
        finally:
            self.waiting -= 1

    async def _upload(self, scope, receive, send) -> None:
        """As much as one visitor may hold, and as there is room for."""
        room = await asyncio.to_thread(self.uploads.measure)
        announced = Headers(scope=scope).get("content-length", "")
        size = int(announced) if announced.isdecimal() else 0
        if size > REQUEST:
            text = f"At most {FILES} files of {LIMITS.megabytes} MB are taken."
            await PlainTextResponse(text, 413)(scope, receive, send)
            return
        if size > room:
            await PlainTextResponse(NO_ROOM, 507)(scope, receive, send)
            return
        arrived, started, reply = 0, False, b""

        async def receiving() -> dict:
            nonlocal arrived
            message = await receive()
            arrived += len(message.get("body", b""))
            if arrived > REQUEST or not self.uploads.take(len(message.get("body", b""))):
                raise LiteError(NO_ROOM)
            return message

        async def sending(message) -> None:
            nonlocal started, reply
            started = True
            reply += message.get("body", b"")
            await send(message)

        try:
            await self.app(scope, receiving, sending)
        except LiteError as error:
            if not started:
                await PlainTextResponse(str(error), 507)(scope, receive, send)
        finally:
            await asyncio.to_thread(self.uploads.landed, paths_in(reply))
            asyncio.get_running_loop().call_later(UNCLAIMED_SECONDS + 1, self.uploads.measure)


def paths_in(reply: bytes) -> list[Path]:
    """The files that Gradio's answer to an upload lists."""
    try:
        return [Path(path) for path in json.loads(reply)]
    except (ValueError, TypeError):
        return []


async def fetch_nothing(host: str) -> str:
    """In place of the check that Gradio makes before it fetches a file from an address that a visitor names."""
    from gradio.exceptions import Error

    raise Error(f"Nothing is fetched from {host[:100]}. Upload the file instead.", print_exception=False)
