"""`lite index` and `lite search`: a library of your own documents, from the terminal."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from lite.cli.options import NOTHING, OCR, add_library, count, opened
from lite.cli.view import snippet
from lite.console import Console
from lite.library.parts import DEFAULT_LIMITS, Limits
from lite.library.places import default_library, remember
from lite.schema import LiteError
from lite.terminal import ArgumentParser, printable, printable_json

if TYPE_CHECKING:
    from lite.library.store import Library
    from lite.library.update import IndexReport


def index(arguments: list[str]) -> int:
    """`lite index FOLDER`."""
    parser = index_arguments()
    options = parser.parse_args(arguments)

    from lite.library.store import Library

    if options.list:
        return list_folders(opened(options.library))
    if options.folder is None:
        parser.error("give a FOLDER")
    if options.forget:
        library = opened(options.library)
        forgotten = library.forget(options.folder)
        print(f"{printable(library.address)}: {len(library)} documents. Files: {forgotten} forgotten.")
        return 0
    limits = Limits(options.max_megabytes, options.max_megapixels, options.max_pages, options.max_seconds)
    console = Console(stderr=True)
    if not options.folder.exists():
        raise LiteError(f"{options.folder} does not exist.")
    if not options.folder.is_dir():
        raise LiteError(f"{options.folder} is a file. Give its folder, or: lite ask … --documents {options.folder}")
    library = Library.open(options.library or default_library(), create=True, embedding=options.embedding)
    remember(library.address)
    read = {}
    if options.engine == "ray":
        from lite.library.on_ray import read_on_ray

        root = options.folder.resolve()
        read["read"] = partial(read_on_ray, root=root, embedding=library.embedding, workers=options.workers)
    counts = [MofNCompleteColumn(), TextColumn("{task.fields[documents]} documents"), TimeRemainingColumn()]
    bar = Progress(
        TextColumn("files"), BarColumn(bar_width=30), *counts,
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=None, documents=0)
        report = library.index(
            options.folder, OCR[options.ocr], limits,
            lambda done, total, documents: bar.update(task, completed=done, total=total, documents=documents),
            **read,
        )  # fmt: skip
    print_report(report, options.folder, library.address)
    return 0


def index_arguments() -> ArgumentParser:
    """The options of `lite index`."""
    parser = ArgumentParser(
        prog="lite index",
        description="Read a folder into a library, or bring it up to date: PDF, images, text, Markdown, HTML, "
        "Word, CSV, TSV, XLSX. A second run reads only what changed. Stop it when you like; the same command goes on.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", nargs="?")
    add_library(parser)
    parser.add_argument(
        "--embedding", metavar="MODEL",
        help="A sentence-transformers model (hub id or folder) to search by meaning as well as by words; one that sees "
        "images finds images. Settled with the first run. [none]",
    )  # fmt: skip
    parser.add_argument(
        "--ocr", choices=list(OCR), default="auto",
        help="Read the text in images and scans. auto: where the extra `ocr` is installed. [auto]",
    )  # fmt: skip
    parser.add_argument(
        "--engine", choices=("plain", "ray"), default="plain",
        help="ray: read and embed on the workers of a Ray cluster, which all see the folder (the extra ray). [plain]",
    )  # fmt: skip
    parser.add_argument("--workers", type=count, help="With ray: how many. [one per GPU when embedding, else per core]")
    parser.add_argument(
        "--forget", action="store_true",
        help="Remove what the library holds of FOLDER, or of a folder of this name, and read nothing.",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="Show which folders the library holds, and read nothing.")
    for name, unit in {"megabytes": "file", "megapixels": "image", "pages": "PDF", "seconds": "file"}.items():
        default = asdict(DEFAULT_LIMITS)[name]
        parser.add_argument(f"--max_{name}", type=count, default=default, help=f"Limit per {unit}. [{default}]")
    return parser


def print_report(report: IndexReport, folder: Path, address: str) -> None:
    """Print what was read and what was left out."""
    from lite.library.readers import SUFFIXES
    from lite.library.walk import kinds_sentence

    if report.upgraded:
        print("lite: this library was made by an earlier version; it was brought up to date.", file=sys.stderr)
    for problem in report.problems:
        print(f"lite: {'note' if problem in report.notes else 'left out'}: {printable(problem)}", file=sys.stderr)
    if report.kinds:
        kinds = printable(kinds_sentence(report.kinds))
        print(f"lite: not read, as kinds that lite does not know: {kinds}", file=sys.stderr)
    if not report.added + report.changed + report.moved + report.unchanged:
        print(
            f"lite: {printable(str(folder))} holds no file that can be read: {' '.join(SUFFIXES)}",
            file=sys.stderr,
        )
    moved = f"{report.moved} moved, " if report.moved else ""
    print(
        f"{printable(address)}: {report.documents} documents. Files: {report.added} added, "
        f"{report.changed} changed, {moved}{report.removed} removed, {report.unchanged} unchanged, "
        f"{len(report.problems) - len(report.notes)} left out."
    )


def list_folders(library: Library) -> int:
    """What a library holds, a folder per line."""
    for folder in library.folders():
        gone = "" if Path(folder.path).is_dir() else "  (this folder no longer exists)"
        print(f"{printable(folder.path)}: {folder.files} files, {folder.documents} documents{gone}")
    if not len(library):
        print(f"lite: {printable(library.address)} is empty.", file=sys.stderr)
    return 0


def search(arguments: list[str]) -> int:
    """`lite search "words"`."""
    parser = ArgumentParser(
        prog="lite search", description="What the library holds, best first. Exit status 3: nothing fits."
    )
    parser.add_argument("query", metavar="WORDS")
    add_library(parser)
    parser.add_argument("--limit", type=count, default=10, help="How many. [10]")
    parser.add_argument("--json", action="store_true", help="One hit per line, as JSON.")
    options = parser.parse_args(arguments)

    hits = opened(options.library).search(options.query, options.limit)
    if not hits:
        print("lite: nothing fits.", file=sys.stderr)
        return NOTHING
    console = Console(highlight=False)
    for number, hit in enumerate(hits, start=1):
        document = hit.document
        if options.json:
            row = {
                "id": document.id,
                "kind": document.kind,
                "title": document.title,
                "score": hit.score,
                "text": document.text,
            }
            print(printable_json(json.dumps(row, ensure_ascii=False)))
            continue
        line = Text.assemble(
            (f"{number:>2}  {hit.score:7.3f}  ", "dim"), (printable(document.id), "bold"), f"  {document.kind}"
        )
        console.print(line, soft_wrap=True)
        if document.text:
            console.print(snippet(document.text, options.query), soft_wrap=True)
    return 0
