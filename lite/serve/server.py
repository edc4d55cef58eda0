"""From an address and a model to a server that runs until Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lite.web import listen, own_names, url

if TYPE_CHECKING:
    from lite.rag import Rag

PORT = 8000
PATIENCE = 2  # seconds that a stop waits for replies under way
OPTIONS = {
    "log_config": None, "access_log": False, "server_header": False, "proxy_headers": False, "ws": "none",
    "timeout_graceful_shutdown": PATIENCE, "limit_concurrency": 200,
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where it is served.

    Args:
        host, port: The address that it listens on.
        key: What clients must know; None: nothing, which is for this machine alone.
        waiting: How many questions may wait.
    """

    host: str
    port: int
    key: str | None
    waiting: int


def serve(place: Place, load: Callable[[], Rag], library: str, name: str) -> int:
    """Serve until Ctrl-C or SIGTERM. The model loads while the server already answers 503. Returns the exit status.

    Raises:
        LiteError: The address is taken, or the model cannot be loaded.
    """
    with listen(place.host, place.port) as socket:
        port = socket.getsockname()[1]
        import uvicorn  # late: a taken port shows at once

        from lite.serve.api import build
        from lite.serve.desk import Desk

        model: Future[Rag] = Future()
        desk = Desk(model, library, name, place.waiting)
        app = build(desk, place.key, own_names(place.host))
        server = uvicorn.Server(uvicorn.Config(app, **OPTIONS))

        def stop(number: int, frame: object) -> None:
            desk.line.stopped = True  # else replies under way would be cut without a word
            uvicorn.Server.handle_exit(server, number, frame)

        server.handle_exit = stop

        def loading() -> None:
            try:
                rag = load()
                model.set_result(rag)
            except BaseException as error:
                model.set_exception(error)
                server.should_exit = True
            else:
                print(f"lite: ready. {rag.note}".strip(), file=sys.stderr, flush=True)

        threading.Thread(target=loading, daemon=True).start()
        print(f"lite: {url(place.host, port)}/v1  (Ctrl-C stops)", flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            server.run(sockets=[socket])
        except (KeyboardInterrupt, SystemExit):  # uvicorn has ended, and passes the signal on
            _leave()
        if model.done() and (failure := model.exception()):
            raise failure
        return 0


def _leave() -> None:
    """End now. A model that is loading or judging documents cannot be interrupted; it would be waited for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
