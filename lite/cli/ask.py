"""`lite index`, `lite search` and `lite ask`: your own documents from the terminal."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from lite.cli.options import add_library, count, opened
from lite.library.parts import DEFAULT_LIMITS, Limits
from lite.library.places import default_library, remember
from lite.schema import Document, LiteError, Trace
from lite.stages.prompts import UNKNOWN
from lite.terminal import ArgumentParser, Console, printable, printable_json

if TYPE_CHECKING:
    from lite.library.store import Library
    from lite.rag import Evidence, Rag

NOTHING, MALFORMED = 3, 4  # exit statuses
OCR = {"auto": None, "on": True, "off": False}


def index(arguments: list[str]) -> int:
    """`lite index FOLDER`."""
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
    from lite.library.readers import SUFFIXES
    from lite.library.walk import kinds_sentence

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
    if report.upgraded:
        print("lite: this library was made by an earlier version; it was brought up to date.", file=sys.stderr)
    for problem in report.problems:
        print(f"lite: left out: {printable(problem)}", file=sys.stderr)
    if report.kinds:
        kinds = printable(kinds_sentence(report.kinds))
        print(f"lite: not read, as kinds that lite does not know: {kinds}", file=sys.stderr)
    if not report.added + report.changed + report.moved + report.unchanged:
        print(
            f"lite: {printable(str(options.folder))} holds no file that can be read: {' '.join(SUFFIXES)}",
            file=sys.stderr,
        )
    moved = f"{report.moved} moved, " if report.moved else ""
    print(
        f"{printable(library.address)}: {report.documents} documents. Files: {report.added} added, "
        f"{report.changed} changed, {moved}{report.removed} removed, {report.unchanged} unchanged, "
        f"{len(report.problems)} left out."
    )
    return 0


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
            console.print(_snippet(document.text, options.query), soft_wrap=True)
    return 0


def ask(arguments: list[str]) -> int:
    """`lite ask "question"`."""
    parser = ArgumentParser(
        prog="lite ask",
        description="Answer a question from a library or from files, and show why. Exit status: 0 answered, 1 a "
        "problem to mend, 2 wrong usage, 3 the documents do not hold the answer, 4 the model's output was malformed.",
    )
    parser.add_argument("question", metavar="QUESTION")
    add_library(parser)
    parser.add_argument("--documents", nargs="+", metavar="FILE", help="Ask about these files instead of a library.")
    parser.add_argument(
        "--data", metavar="SPEC",
        help="Ask over the documents of a data set instead: flags, webqa:DIR, multimodalqa:DIR or jsonl:FILE.",
    )  # fmt: skip
    parser.add_argument("--split", default="test", help="With --data: of which questions. [test]")
    parser.add_argument("--limit", type=count, help="With --data: of the first N questions.")
    parser.add_argument(
        "--profile",
        help="A profile that was trained (runs/PROFILE), a run folder, or `tiny`: the embedded model that knows only "
        "flags. [the one that fits the GPU, where it was trained, else tiny]",
    )  # fmt: skip
    parser.add_argument(
        "--ocr", choices=list(OCR), default="auto", help="With --documents, as for `lite index`. [auto]"
    )
    parser.add_argument(
        "--explain", action="store_true", help="Take each document away in turn and see whether the answer changes."
    )
    parser.add_argument(
        "--json", action="store_true", help="The trace as one line of JSON; with --explain a second line with the test."
    )
    options = parser.parse_args(arguments)
    if sum(source is not None for source in (options.documents, options.library, options.data)) > 1:
        parser.error("give one of --library, --documents and --data")

    documents = None
    if options.documents:
        from lite.library.workers import read_documents

        documents = read_documents(options.documents, OCR[options.ocr])
    elif options.data:
        documents = nearest(options.question, options.data, options.split, options.limit)
    else:
        library = opened(options.library)  # before the model: a wrong address shows at once
    progress = Console(stderr=True)
    with progress.status("Loading the model …"):
        from transformers.utils import logging as transformers_logging

        from lite.rag import Rag
        from lite.runs import trained_profile

        transformers_logging.disable_progress_bar()

        rag = Rag.load(options.profile or trained_profile())
    if rag.note:
        print(f"lite: {rag.note} `lite search` finds passages without a model.", file=sys.stderr)
    view = Console(quiet=options.json, highlight=False)
    outcome, pool = show(rag, options.question, view, documents, None if documents is not None else library)
    evidence: tuple[Evidence, ...] = ()
    if options.explain:
        with progress.status("Asking again without each document …"):
            evidence = rag.explain(outcome, pool)
        if evidence:
            view.print(evidence_table(outcome, evidence))
    if options.json:
        print(printable_json(outcome.to_json()))
        if options.explain:
            found = {"evidence": [asdict(found) for found in evidence]}
            print(printable_json(json.dumps(found, ensure_ascii=False)))
    if outcome.failure:
        print(f"lite: the model's output is malformed ({outcome.failure}).", file=sys.stderr)
        return MALFORMED
    return NOTHING if outcome.answer == UNKNOWN else 0


def nearest(question: str, data: str, split: str, limit: int | None) -> list[Document]:
    """The documents of a data set that BM25 ranks first, as many as a library's search gives."""
    from lite.data.pools import Corpus
    from lite.data.sources import load_candidates, load_examples

    corpus = Corpus(load_candidates(data, split, load_examples(data, split, limit)))  # tells of a wrong path at once
    from lite.rag import RETRIEVED  # takes long: it imports the models' libraries

    return corpus.nearest(question, RETRIEVED)


# ----------------------------------------------------------------------------------------------------------------- view


def show(rag: Rag, question: str, console: Console, documents=None, library=None) -> tuple[Trace, tuple[Document, ...]]:
    """Ask, and show each step as it comes. Returns the trace and all documents that were looked at."""
    pool: tuple[Document, ...] = ()
    scores: dict[str, float] = {}
    chain = ""
    for event in rag.ask_stream(question, documents, library):
        match event.name:
            case "retrieved":
                pool = event.documents
            case "scored":
                scores = event.scores
            case "kept" if pool:
                console.print(documents_table(pool, scores, event.ids, [document.id for document in event.documents]))
                console.print()
            case "reasoning":
                console.print(_cited(event.text), end="", soft_wrap=True)
                chain += event.text
            case "ranking" if chain:
                console.print("\n")
            case "done":
                outcome = event.trace
    if outcome.failure:
        rest = outcome.raw[outcome.raw.find(chain) + len(chain) :].strip()
        console.print(Text(f"No answer: the model's output is malformed ({outcome.failure}).", "bold yellow"))
        if rest:
            console.print(
                Text(f"{'After its chain it' if chain else 'It'} said: {printable(rest)}", "dim"), soft_wrap=True
            )
    else:
        answer = Text.assemble(("Answer: ", "bold"), (printable(outcome.answer), "bold green"))
        console.print(answer, soft_wrap=True)
    titles = {document.id: document.title for document in pool}
    for i in outcome.cited:
        number = outcome.shown.index(i) + 1
        source = Text.assemble((f"  [{number}] ", "bold cyan"), printable(titles[i]), (f"  {printable(i)}", "dim"))
        console.print(source, soft_wrap=True)
    if outcome.dropped:
        console.print(f"{len(outcome.dropped)} more reached the threshold, but stage 2 reads only {len(outcome.kept)}.")
    return outcome, pool


def documents_table(pool, scores: dict[str, float], kept, shown) -> Table:
    """The documents by falling score; the numbers are those of the chain."""
    table = Table(box=None, pad_edge=False)
    for heading in ("", "P(relevant)", "", "document"):
        table.add_column(heading, no_wrap=heading != "document")
    for document in sorted(pool, key=lambda document: -scores[document.id]):
        value = scores[document.id]
        number = f"[{shown.index(document.id) + 1}]" if document.id in kept else ""
        style = "" if number else "dim"
        table.add_row(
            Text(number, "bold cyan"), Text("█" * round(10 * value) + "░" * (10 - round(10 * value)), style or "green"),
            Text(f"{value:.2g}", style), Text(printable(document.title), style),
        )  # fmt: skip
    return table


def evidence_table(outcome: Trace, evidence: tuple[Evidence, ...]) -> Table:
    """What the answer becomes without each document."""
    titles = {document["id"]: document["title"] for document in outcome.documents}
    table = Table(title="Without this document", title_justify="left", box=None, pad_edge=False)
    for heading in ("", "document", "the answer is", ""):
        table.add_column(heading)
    for found in evidence:
        verdict = Text("changes", "bold yellow") if found.changed else Text("stays", "dim")
        number = f"[{outcome.shown.index(found.id) + 1}]"
        table.add_row(
            Text(number, "bold cyan" if found.cited else "dim"), Text(printable(titles[found.id])),
            Text(printable(found.answer) if found.format_ok else "(malformed output)"), verdict,
        )  # fmt: skip
    return table


def _cited(piece: str) -> Text:
    text = Text(printable(piece))
    text.highlight_regex(r"\[\d+\]", "bold cyan")
    return text


def _snippet(text: str, query: str, width: int = 160) -> Text:
    """The surroundings of the first word of the query, on one line."""
    line = printable(" ".join(text.split()))
    words = [re.escape(word) for word in re.findall(r"\w{3,}", query)]
    match = re.search("|".join(words), line, re.IGNORECASE) if words else None
    start = max(0, (match.start() if match else 0) - width // 4)
    snippet = Text(f"    {'…' * (start > 0)}{line[start : start + width]}{'…' * (start + width < len(line))}", "dim")
    if words:
        snippet.highlight_regex(re.compile("|".join(words), re.IGNORECASE), "bold not dim")
    return snippet
