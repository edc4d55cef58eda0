"""`lite demo` and `python app.py`: which model, which documents, which address."""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lite.console import Console
from lite.library.places import default_library
from lite.runs import (
    LAPTOP,
    MODELS,
    SHIPPED,
    TINY_NOTE,
    UNTRAINED,
    find_adapters,
    is_trained,
    read_card,
    trained_profile,
    tuned_card,
)
from lite.startup import slim_imports
from lite.terminal import ArgumentParser, PrintableStream
from lite.web import LOCAL, cannot_listen, listen, own_names, url

if TYPE_CHECKING:
    import gradio as gr

    from lite.demo.asking import Desk

logger = logging.getLogger(__name__)

RUNS = Path("runs")
PORT = 7860
COLOURS = {
    "color_accent": "#1f6690", "slider_color": "#1f6690", "slider_color_dark": "#7fc1e8",
    "button_primary_background_fill": "#1f6690", "button_primary_background_fill_hover": "#17506f",
    "button_primary_text_color": "#ffffff", "button_primary_background_fill_dark": "#7fc1e8",
    "button_primary_background_fill_hover_dark": "#a3d5f2", "button_primary_text_color_dark": "#11161d",
    "checkbox_background_color_selected": "#1f6690", "block_info_text_color": "#566273",
    "body_text_color_subdued": "#566273", "body_text_color_subdued_dark": "#a3afbd",
    "block_label_text_color": "#566273", "block_label_text_color_dark": "#a3afbd",
    "block_info_text_color_dark": "#a3afbd",
}  # fmt: skip
FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
MONO = ["ui-monospace", "Menlo", "Consolas", "monospace"]


@dataclass(frozen=True)
class Place:
    """Where the page is served.

    Args:
        host, port: The address that it listens on.
        auth: User and password that visitors are asked for.
        allowed_hosts: Further names by which it may be reached, such as a proxy's.
        root_path: What a proxy puts before every path.
    """

    host: str = "127.0.0.1"
    port: int = PORT
    auth: tuple[str, str] | None = None
    allowed_hosts: tuple[str, ...] = ()
    root_path: str = ""

    @property
    def url(self) -> str:
        return url(self.host, self.port)


def demo(arguments: list[str]) -> int:
    """`lite demo`."""
    options, place = parse(arguments)
    if place.host not in LOCAL and not place.auth:
        logger.warning(
            "Whoever reaches %s on this network can use the demo and this machine's GPU. Add --auth user:password.",
            place.host,
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that uploads are removed then, too
    library = options.library or (default_library() if Path(default_library()).is_dir() else None)
    console = Console(file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="lite-demo-") as folder:
        with console.status("Opening the page …"):
            named = options.model or options.profile
            if options.adapters is not None:
                from lite.models.hub import fetch_adapters

                named = str(fetch_adapters(options.adapters))
            page, loading = open_page(Path(folder), named or trained_profile(), library, place, named=named is not None)
        try:
            print(f"lite: {place.url}  (Ctrl-C stops)", flush=True)
            with redirect_stderr(PrintableStream(sys.stderr)):  # Gradio prints what visitors sent in tracebacks
                with console.status("Loading the model; the page is open …"):
                    for part in loading:
                        part.result()
                page.block_thread()
        finally:
            page.close(verbose=False)
    return 0


def parse(arguments: list[str]) -> tuple[argparse.Namespace, Place]:
    parser = ArgumentParser(
        prog="lite demo", description="The demo in the browser: what was found, filtered, ranked and answered, and why."
    )
    model = parser.add_mutually_exclusive_group()
    model.add_argument(
        "--model",
        help=f"A vision-language model as it is, untrained: its hub id, its folder, or `{LAPTOP}` ({MODELS[LAPTOP]}).",
    )
    model.add_argument(
        "--profile",
        help="A profile that was trained (runs/PROFILE), a run folder, or `tiny`: the embedded model that knows only "
        "flags. [what fits the GPU, if it was trained; else tiny, for the bundled documents alone]",
    )
    model.add_argument(
        "--adapters",
        metavar="ID",
        help="Adapters that `lite push` shared: their hub id (downloaded once), or a folder.",
    )
    parser.add_argument(
        "--library", metavar="DIR", help=f"Documents of yours, see `lite index`. [{default_library()}, if it exists]"
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"[{PORT}]")
    parser.add_argument(
        "--host", default="127.0.0.1", help="0.0.0.0 lets other machines in; think of --auth. [127.0.0.1]"
    )
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="Ask visitors for these.")
    parser.add_argument(
        "--allowed_host", metavar="NAME", action="append", default=[],
        help="A further name by which the page may be reached, such as that of a proxy before it; can be repeated.",
    )  # fmt: skip
    parser.add_argument("--root_path", metavar="PATH", default="", help="What a proxy puts before every path: /lite")
    options = parser.parse_args(arguments)
    if not 0 < options.port < 2**16:
        parser.error("--port is a number from 1 to 65535")
    user, _, password = (options.auth or "").partition(":")
    if options.auth is not None and not (user and password):
        parser.error("--auth takes USER:PASSWORD")
    for name in options.allowed_host:
        if not re.fullmatch(r"[A-Za-z0-9.-]+", name):
            parser.error(f"--allowed_host takes a name without scheme and port, such as demo.example.org, not {name}")
    account = (user, password) if options.auth else None
    return options, Place(options.host, options.port, account, tuple(options.allowed_host), options.root_path)


def start(folder: Path, profile: str = "tiny", library: str | None = None, place: Place = Place(), runs: Path = RUNS):
    """As `open_page`, and wait for the model. Raises LiteError where it cannot be loaded, too."""
    page, loading = open_page(folder, profile, library, place, runs)
    try:
        for part in loading:
            part.result()
    except BaseException:
        page.close(verbose=False)
        raise
    return page


def open_page(
    folder: Path, profile: str, library: str | None, place: Place, runs: Path = RUNS, named: bool = True
) -> tuple[gr.Blocks, list[Future]]:
    """Open the page, in a thread of its own; `close()` ends it. The model loads behind it.

    Args:
        folder: Where uploads are kept while their session lasts.
        profile, library: As on the command line; the profile may be a model, too.
        place: Where it is served.
        runs: The folder of the training runs.
        named: Whether the user named what answers. Else the embedded model answers from the bundled documents alone.

    Returns:
        The page, and what is still loading: each raises LiteError where it cannot be loaded.

    Raises:
        LiteError: There are no such adapters, or the address is taken.
    """
    listen(place.host, place.port).close()  # what the user can have mistaken first: the imports below take long
    desk = make_desk(profile, library, named)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    import gradio as gr
    import safehttpx
    from starlette.middleware import Middleware

    from lite.demo.app import build
    from lite.demo.guard import REQUEST, Guard, fetch_nothing
    from lite.demo.uploads import Uploads

    safehttpx.async_validate_url = fetch_nothing
    uploads = Uploads(folder)
    page = build(desk, runs, uploads)
    theme = gr.themes.Base(primary_hue="sky", neutral_hue="slate", radius_size="md", font=FONT, font_mono=MONO)
    guard = Middleware(
        Guard, hosts=own_names(place.host), proxies={name.lower() for name in place.allowed_hosts},
        addresses=place.host not in LOCAL, root_path=place.root_path, uploads=uploads,
    )  # fmt: skip
    try:
        page.launch(
            server_name=place.host, server_port=place.port, auth=place.auth, root_path=place.root_path or None,
            share=False, quiet=True, prevent_thread_lock=True, show_error=False, strict_cors=True, allowed_paths=[],
            max_file_size=REQUEST, ssr_mode=False, pwa=False, enable_monitoring=False,
            run_history=False, mcp_server=False, footer_links=["settings"], theme=theme.set(**COLOURS),
            css_paths=[Path(__file__).with_name("demo.css")],
            app_kwargs={"middleware": [guard], "docs_url": None, "redoc_url": None, "openapi_url": None},
        )  # fmt: skip
    except OSError as error:  # taken meanwhile
        raise cannot_listen(place.host, place.port, error) from error
    # Now: imports in two threads at once would take turns, and the page come as late as the model.
    threading.Thread(target=load, args=(desk, profile, library), daemon=True).start()
    return page, [part for part in (desk.library, desk.model) if part]


def make_desk(profile: str, library: str | None, named: bool = True) -> Desk:
    """What the page must know at once; the model and the library load behind it.

    Raises:
        LiteError: There are no such adapters, or there is no such model.
    """
    from lite.demo.asking import Desk
    from lite.models.hub import find_model, is_model

    shared = {"model": Future(), "library": Future() if library else None}
    if not is_trained(profile) and is_model(profile):
        budget = UNTRAINED["max_documents"]
        return Desk(
            **shared, base=find_model(profile).name, threshold=0.0, budget=budget, note="", untrained=True,
            adapters=f"none, it is untrained: search and filter together keep the best {budget}",
        )  # fmt: skip
    folders = find_adapters(profile)
    stage1, stage2 = tuned_card(folders[0]), read_card(folders[1])
    tiny = stage2["base"] == "tiny"
    return Desk(
        **shared, base="the embedded tiny model" if tiny else stage2["base"],
        adapters="shipped with lite" if folders[1].is_relative_to(SHIPPED) else f"your run “{Path(profile).name}”",
        note=TINY_NOTE if tiny else "", threshold=stage1["threshold"],
        budget=min(stage1["max_kept"], stage2["max_documents"]), bundled_only=tiny and not named,
    )  # fmt: skip


def load(desk: Desk, profile: str, library: str | None) -> None:
    """Load what the page answers with, or keep why it cannot be loaded."""
    with settling(desk.library):
        if desk.library:
            from lite.library.store import Library

            desk.library.set_result(Library.open(library))
    with settling(desk.model), slim_imports():
        from transformers.utils import logging as transformers_logging

        from lite.rag import Rag

        transformers_logging.disable_progress_bar()
        desk.model.set_result(Rag.load(profile))


@contextmanager
def settling(future: Future | None) -> Iterator[None]:
    """Inside, an error becomes what the future raises."""
    try:
        yield
    except BaseException as error:
        if future is None:
            raise
        future.set_exception(error)
