"""`lite serve` and `lite mcp`: a library and a model for other programs."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from lite.cli.ask import load
from lite.cli.options import add_library, add_model, count, named_model, opened
from lite.console import Console
from lite.runs import LAPTOP, STAGE2, trained_profile
from lite.schema import LiteError
from lite.terminal import ArgumentParser
from lite.web import LOCAL

KEY = "LITE_API_KEY"


def serve(arguments: list[str]) -> int:
    """`lite serve`."""
    from lite.serve.server import PORT, Place, serve

    parser = ArgumentParser(
        prog="lite serve",
        description="Answer questions over a library as OpenAI's API does, with citations, and rerank documents as "
        "Jina's and Cohere's do.",
    )
    add_library(parser)
    add_model(parser)
    parser.add_argument("--port", type=int, default=PORT, help=f"0: any that is free. [{PORT}]")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in; needs a key. [127.0.0.1]")
    parser.add_argument(
        "--api_key", metavar="KEY",
        help=f"Answer only those who send this key. Other users of this machine can see it among the processes; the "
        f"environment variable {KEY} hides it. [{KEY}, if it is set]",
    )  # fmt: skip
    parser.add_argument("--max_waiting", type=count, default=20, help="Questions that may wait; others get 429. [20]")
    options = parser.parse_args(arguments)
    if not 0 <= options.port < 2**16:
        parser.error("--port is a number from 0 to 65535")
    key = options.api_key if options.api_key is not None else os.environ.get(KEY)
    if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key != ""):
        parser.error(f"--api_key and {KEY} take letters, digits and signs of ASCII, without spaces around them")
    if options.host not in LOCAL and key is None:
        raise LiteError(
            f"On {options.host} other machines could ask, and read the library through the answers. Set the "
            f"environment variable {KEY} (or give --api_key), or listen on 127.0.0.1."
        )
    library = opened(options.library)  # before the model: a wrong address shows at once
    name = named(named_model(options))
    place = Place(options.host, options.port, key, options.max_waiting)
    return serve(
        place, lambda: load(name, Console(stderr=True)), library.address, options.adapters or public_name(name)
    )


def mcp(arguments: list[str]) -> int:
    """`lite mcp`."""
    parser = ArgumentParser(
        prog="lite mcp",
        description="Offer a library to programs that speak the Model Context Protocol (Claude Desktop, editors), over "
        "standard input and output: the tool `search`, and `ask` where a model is named or trained. They start this "
        "command themselves.",
    )
    add_library(parser)
    add_model(parser)
    options = parser.parse_args(arguments)
    if find_spec("mcp") is None:
        raise LiteError("lite mcp needs the extra `mcp`: pip install 'mmrag-lite[mcp]'")
    library = opened(options.library).address
    asked_for = named_model(options)
    name = asked_for or trained_profile()
    silent = name == "tiny" and not asked_for  # the embedded model answers only where it is asked for
    if silent:
        print("lite: only search is offered: no model was named or trained.", file=sys.stderr)

    from lite.serve.mcp import build

    build(library, None if silent else lambda: load(name, Console(stderr=True))).run()
    return 0


def named(name: str | None) -> str:
    """What answers: what is named, else what was trained.

    Raises:
        LiteError: Neither; the embedded model knows only flags, so it answers only where it is asked for.
    """
    if name:
        return name
    trained = trained_profile()
    if trained == "tiny":
        raise LiteError(
            f"Which model answers? Name one: --model {LAPTOP} (small, for any machine; downloaded once), --model ID of "
            "the hub, --profile RUN, or --profile tiny, which knows only flags."
        )
    return trained


def public_name(name: str) -> str:
    """What clients see of a model: its id, or the name of its folder, without where that is."""
    if not Path(name).exists():
        return name
    *_, run = [part for part in Path(name).resolve().parts if part not in (STAGE2, "adapter")]
    return run
