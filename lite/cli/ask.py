"""`lite ask`: a question over your own documents, from the terminal."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from lite.cli.options import NOTHING, OCR, add_library, add_model, count, named_model, opened
from lite.cli.view import evidence_table, show, show_passages, show_support
from lite.console import Console
from lite.library import RETRIEVED
from lite.runs import LAPTOP, MODELS, NO_MODEL, find_adapters, is_trained, trained_profile
from lite.schema import Document, LiteError, Trace, described
from lite.stages.prompts import UNKNOWN
from lite.startup import slim_imports
from lite.terminal import ArgumentParser, printable, printable_json

if TYPE_CHECKING:
    from lite.library.store import Library
    from lite.rag import Evidence, Rag

MALFORMED, PASSAGES = 4, 5  # exit statuses
BEST = 5  # passages that are shown where no model answers


def ask(arguments: list[str]) -> int:
    """`lite ask "question"`."""
    parser = ArgumentParser(
        prog="lite ask",
        description="Answer a question from a library or from files, and show why. Exit status: 0 answered, 1 a "
        "problem that you can fix, 2 wrong usage, 3 the documents do not hold the answer, 4 the model's output was "
        "malformed, 5 no model was asked: the best passages are shown.",
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
    add_model(parser)
    parser.add_argument(
        "--ocr", choices=list(OCR), default="auto", help="With --documents, as for `lite index`. [auto]"
    )
    parser.add_argument(
        "--explain", action="store_true",
        help="Check whether the answer rests on what it cites, and whether it changes without each document.",
    )  # fmt: skip
    parser.add_argument(
        "--json", action="store_true", help="The trace as one line of JSON; with --explain a second line with the test."
    )
    options = parser.parse_args(arguments)
    if sum(source is not None for source in (options.documents, options.library, options.data)) > 1:
        parser.error("give one of --library, --documents and --data")

    documents, library = None, None
    if options.documents:
        from lite.library.workers import read_documents

        documents = read_documents(options.documents, OCR[options.ocr])
    elif options.data:
        documents = nearest(options.question, options.data, options.split, options.limit)
    else:
        library = opened(options.library)  # before the model: a wrong address shows at once
    asked_for = named_model(options)
    name = asked_for or trained_profile()
    if name == "tiny" and not asked_for and options.data != "flags":
        return passages(options.question, documents, library, options.json)
    return answer(options, name, documents, library)


def answer(options: argparse.Namespace, name: str, documents: list[Document] | None, library: Library | None) -> int:
    """Ask a model and show what it says. Returns the exit status."""
    progress = Console(stderr=True)
    rag = load(name, progress)
    if documents is not None and rag.untrained and len(documents) > RETRIEVED:
        documents = best(options.question, documents, RETRIEVED)
        print(f"lite: the {RETRIEVED} parts of these files that fit best by their words are judged.", file=sys.stderr)
    if rag.note:
        print(f"lite: {rag.note}", file=sys.stderr)
    view = Console(quiet=options.json, highlight=False)
    outcome, pool = show(rag, options.question, view, documents, library)
    evidence: tuple[Evidence, ...] = ()
    if options.explain:
        with progress.status("Asking again without each document …"):
            evidence = rag.explain(outcome, pool)
            support = rag.support(outcome, pool)
        show_support(support, view)
        if evidence:
            view.print(evidence_table(outcome, evidence))
    if options.json:
        print(printable_json(outcome.to_json()))
        if options.explain:
            found = {"evidence": [asdict(found) for found in evidence], "support": asdict(support)}
            print(printable_json(json.dumps(found, ensure_ascii=False)))
    if outcome.failure:
        print(f"lite: the model's output is malformed ({outcome.failure}).", file=sys.stderr)
        return MALFORMED
    if outcome.note:
        print(f"lite: {printable(outcome.note)}", file=sys.stderr)
    return NOTHING if outcome.answer == UNKNOWN else 0


def load(name: str, progress: Console) -> Rag:
    """What answers; a model that is missing is downloaded first."""
    from lite.models.hub import download, find_model, is_model

    if is_trained(name) or not is_model(name):
        find_adapters(name)  # says what is wrong before the imports below, which take long
    else:
        found = find_model(name)
        with progress.status("Looking at the model …"), slim_imports():
            from lite.models.fits import fit

            fit(found.folder, found.name)
        download(found)  # shows its own progress
    with progress.status("Loading the model …"), slim_imports():
        from transformers.utils import logging as transformers_logging

        from lite.rag import Rag

        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
        return Rag.load(name)


def passages(question: str, documents: list[Document] | None, library: Library | None, as_json: bool) -> int:
    """The best passages where no model answers. Returns the exit status."""
    if not question.strip():
        raise LiteError("The question is empty.")
    if library is not None:
        found = [hit.document for hit in library.search(question, RETRIEVED)]
    else:
        found = best(question, documents or [], RETRIEVED)
    if as_json:
        outcome = Trace(
            question=question.strip(), documents=described(found), retrieved=tuple(document.id for document in found),
            scores={}, kept=(), dropped=(), shown=(), reasoning="", cited=(), ranking=(), answer="", raw="",
            note=NO_MODEL,
        )  # fmt: skip
        print(printable_json(outcome.to_json()))
    console = Console(quiet=as_json, highlight=False)
    show_passages(found[:BEST], question, console)
    if not found:
        print("lite: nothing fits.", file=sys.stderr)
        return NOTHING
    print(
        f"lite: {NO_MODEL} `--model {LAPTOP}` is {MODELS[LAPTOP]}, small enough for a laptop; it is downloaded once.",
        file=sys.stderr,
    )
    return PASSAGES


def best(question: str, documents: list[Document], limit: int) -> list[Document]:
    """The documents that fit a question best by their words."""
    from lite.data.pools import Corpus

    return Corpus(documents).nearest(question, limit) if documents else []


def nearest(question: str, data: str, split: str, limit: int | None) -> list[Document]:
    """The documents of a data set that BM25 ranks first, as many as a library's search gives."""
    from lite.data.pools import Corpus
    from lite.data.sources import load_candidates, load_examples

    return Corpus(load_candidates(data, split, load_examples(data, split, limit))).nearest(question, RETRIEVED)
