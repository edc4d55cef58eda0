"""`lite demo` and `python app.py`: which model, which documents, which address."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lite.library.places import default_library
from lite.schema import LiteError
from lite.terminal import ArgumentParser, Console

if TYPE_CHECKING:
    import gradio as gr

logger = logging.getLogger(__name__)

PORT = 7860
LOCAL = ("127.0.0.1", "localhost", "::1")
# Nothing of the page comes from elsewhere, and nothing that a document could smuggle in may go there.
HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data:; "
    "worker-src 'self' blob:; object-src 'none'; frame-ancestors 'none'; form-action 'self'; base-uri 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def demo(arguments: list[str]) -> int:
    """`lite demo`."""
    parser = ArgumentParser(
        prog="lite demo", description="The demo in the browser: what was found, filtered, ranked and answered, and why."
    )
    parser.add_argument(
        "--profile",
        help="A profile that was trained (runs/PROFILE), a run folder, or `tiny`: the embedded model that knows only "
        "flags. [what fits the GPU, if it was trained; else tiny]",
    )
    parser.add_argument(
        "--library", metavar="DIR", help=f"Documents of yours, see `lite index`. [{default_library()}, if it exists]"
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"[{PORT}]")
    parser.add_argument(
        "--host", default="127.0.0.1", help="0.0.0.0 lets other machines in; think of --auth. [127.0.0.1]"
    )
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="Ask visitors for these.")
    options = parser.parse_args(arguments)
    if not 0 < options.port < 2**16:
        parser.error("--port is a number from 1 to 65535")
    user, _, password = (options.auth or "").partition(":")
    if options.auth is not None and not (user and password):
        parser.error("--auth wants USER:PASSWORD")
    if options.host not in LOCAL and not options.auth:
        logger.warning(
            "Whoever reaches %s on this network can use the demo and this machine's GPU. Add --auth user:password.",
            options.host,
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that uploads are removed then, too
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="lite-demo-") as folder:
        with console.status("Loading the model …"):
            from lite.runs import trained_profile  # takes long: it imports torch

            library = options.library or (default_library() if Path(default_library()).is_dir() else None)
            account = (user, password) if options.auth else None
            page = start(
                Path(folder), options.profile or trained_profile(), library, options.host, options.port, account
            )
        print(f"lite: http://{options.host}:{options.port}  (Ctrl-C stops)", flush=True)
        try:
            page.block_thread()
        finally:
            page.close(verbose=False)
    return 0


def start(
    folder: Path,
    profile: str = "tiny",
    library: str | None = None,
    host: str = "127.0.0.1",
    port: int = PORT,
    auth: tuple[str, str] | None = None,
    runs: Path = Path("runs"),
) -> gr.Blocks:
    """Load the model and open the page, in a thread of its own; `close()` ends it.

    Args:
        folder: Where uploads are kept while their session lasts.
        profile, library, host, port, auth: As on the command line.
        runs: The folder of the training runs.

    Raises:
        LiteError: There are no such adapters, there is no such library, or the address is taken.
    """
    # What the user can have mistaken first: the imports below take long.
    with _address(host, port):
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    opened = None
    if library:
        from lite.library.store import Library

        opened = Library.open(library)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    import gradio as gr
    from starlette.middleware import Middleware
    from transformers.utils import logging as transformers_logging

    from lite.demo.app import build
    from lite.demo.uploads import LIMITS, Uploads
    from lite.rag import Rag

    transformers_logging.disable_progress_bar()
    page = build(Rag.load(profile), adapters_in_words(profile), opened, runs, Uploads())
    theme = gr.themes.Base(
        primary_hue="sky", neutral_hue="slate", radius_size="md",
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
    ).set(
        color_accent="#1f6690", slider_color="#1f6690", slider_color_dark="#7fc1e8",
        button_primary_background_fill="#1f6690", button_primary_background_fill_hover="#17506f",
        button_primary_text_color="#ffffff", button_primary_background_fill_dark="#7fc1e8",
        button_primary_background_fill_hover_dark="#a3d5f2", button_primary_text_color_dark="#11161d",
        checkbox_background_color_selected="#1f6690", block_info_text_color="#566273",
        body_text_color_subdued="#566273", body_text_color_subdued_dark="#a3afbd",
        block_label_text_color="#566273", block_label_text_color_dark="#a3afbd",
        block_info_text_color_dark="#a3afbd",
    )  # fmt: skip
    with _address(host, port):
        page.launch(
            server_name=host, server_port=port, auth=auth, share=False, quiet=True, prevent_thread_lock=True,
            show_error=False, strict_cors=True, allowed_paths=[], max_file_size=LIMITS.megabytes * 10**6,
            ssr_mode=False, pwa=False, enable_monitoring=False, run_history=False, mcp_server=False,
            footer_links=["settings"], theme=theme, css_paths=[Path(__file__).with_name("demo.css")],
            app_kwargs={"middleware": [Middleware(WithHeaders)], "docs_url": None, "redoc_url": None},
        )  # fmt: skip
    return page


@contextmanager
def _address(host: str, port: int) -> Iterator[None]:
    """Inside, what goes wrong with the address becomes a LiteError."""
    try:
        yield
    except OSError as error:  # Gradio's has no strerror, and advice that is not for our command line
        reason = error.strerror or "another program has taken it"
        raise LiteError(
            f"{host}:{port} cannot be had ({reason}). Give another --port, or a --host of this machine."
        ) from error


def adapters_in_words(profile: str) -> str:
    """Where the adapters come from, without a path of this machine."""
    from lite.runs import SHIPPED, find_adapters

    folder = find_adapters(profile)[1]
    return "shipped with lite" if folder.is_relative_to(SHIPPED) else f"your run “{Path(profile).name}”"


class WithHeaders:
    """ASGI middleware that adds `HEADERS` to every response."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        async def sending(message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"], *((name.encode(), value.encode()) for name, value in HEADERS.items()),
                ]  # fmt: skip
            await send(message)

        await self.app(scope, receive, sending)
