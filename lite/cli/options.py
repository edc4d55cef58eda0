"""Options that several commands share."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from lite.library.places import default_library, last_used, remember
from lite.runs import LAPTOP, MODELS
from lite.schema import LiteError

if TYPE_CHECKING:
    from lite.library.store import Library

NOTHING = 3  # exit status where nothing was found
OCR = {"auto": None, "on": True, "off": False}


def add_library(parser: argparse.ArgumentParser) -> None:
    """Which library."""
    parser.add_argument(
        "--library", metavar="DIR",
        help=f"Where the library is: a folder, or s3://… and its like. [{default_library()}]",
    )  # fmt: skip


def add_model(parser: argparse.ArgumentParser) -> None:
    """What answers."""
    named = parser.add_mutually_exclusive_group()
    named.add_argument(
        "--model",
        help=f"A vision-language model as it is: its hub id, such as Qwen/Qwen3-VL-2B-Instruct (downloaded at the "
        f"first use), its folder, or `{LAPTOP}`: {MODELS[LAPTOP]}, for machines without a GPU. It is untrained: "
        "search and filter together keep a fixed number of documents.",
    )
    named.add_argument(
        "--profile",
        help="A profile that was trained (runs/PROFILE), a run folder, or `tiny`: the embedded model that knows only "
        "flags. [the one that fits the GPU, where it was trained]",
    )
    add_adapters(named)


def add_adapters(group: argparse._MutuallyExclusiveGroup) -> None:
    """Adapters that somebody shared."""
    group.add_argument(
        "--adapters",
        metavar="ID",
        help="Adapters that `lite push` shared, by their hub id (downloaded once), or a folder.",
    )


def named_model(options: argparse.Namespace) -> str | None:
    """What the options name, as `Rag.load` takes it; adapters of the hub are downloaded.

    Raises:
        LiteError: They cannot be fetched.
    """
    if options.adapters is None:
        return options.model or options.profile
    from lite.models.hub import fetch_adapters

    return str(fetch_adapters(options.adapters))


def count(text: str) -> int:
    """argparse shows the name: `invalid count value`."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def opened(address: str | None) -> Library:
    """The library that is named, or the one of the working directory."""
    from lite.library.store import Library

    if address is None and not Path(default_library()).is_dir():
        last = last_used()
        raise LiteError(
            f"Which documents? There is no ./{default_library()} in {Path.cwd()}. "
            + (f"The library that was used last: --library {shlex.quote(last)}. Or give " if last else "Give ")
            + "--library DIR (made by `lite index FOLDER`), or `lite ask … --documents FILE`."
        )
    library = Library.open(address or default_library())
    remember(library.address)
    return library
