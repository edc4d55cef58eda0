"""What `lite ask` and `lite search` show on the terminal: documents, scores, chain, answer, sources."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from lite.console import Console
from lite.schema import Document, Trace
from lite.terminal import printable

if TYPE_CHECKING:
    from lite.rag import Evidence, Rag
    from lite.stages.support import Support


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
                shown = [document.id for document in event.documents]
                console.print(documents_table(pool, scores, event.ids, shown, rag.untrained))
                console.print()
            case "reasoning":
                console.print(_cited(event.text), end="", soft_wrap=True)
                chain += event.text
            case "ranking" if chain:
                console.print("\n")
            case "done":
                outcome = event.trace
    if outcome.reasoning and not chain:
        console.print(_cited(outcome.reasoning), soft_wrap=True)
        console.print()
    if outcome.failure:
        rest = outcome.raw[outcome.raw.find(chain) + len(chain) if chain in outcome.raw else 0 :].strip()
        console.print(Text(f"No answer: the model's output is malformed ({outcome.failure}).", "bold yellow"))
        if rest:
            console.print(
                Text(f"{'After its chain it' if chain else 'It'} said: {printable(rest)}", "dim"), soft_wrap=True
            )
        by_id = {document.id: document for document in pool}
        console.print(Text("\nThe passages that its filter put first:", "bold"))
        show_passages([by_id[i] for i in outcome.kept[:3]], question, console)
    else:
        answer = Text.assemble(("Answer: ", "bold"), (printable(outcome.answer), "bold green"))
        console.print(answer, soft_wrap=True)
    titles = {document.id: document.title for document in pool}
    for i in outcome.cited:
        number = outcome.shown.index(i) + 1
        source = Text.assemble((f"  [{number}] ", "bold cyan"), printable(titles[i]), (f"  {printable(i)}", "dim"))
        console.print(source, soft_wrap=True)
    show_quotes(outcome, console)
    if outcome.dropped:
        console.print(f"{len(outcome.dropped)} more reached the threshold, but stage 2 reads only {len(outcome.kept)}.")
    return outcome, pool


def show_quotes(outcome: Trace, console: Console) -> None:
    """What the chain quotes, with its page, and what does not stand where it is said to."""
    for quote in outcome.quotes:
        number = (f"  [{outcome.shown.index(quote['id']) + 1}] ", "bold cyan")
        page = (f"  page {quote['page']}" if quote["page"] else "", "dim")
        words = f"“{printable(quote['quote'])}”"
        found = (
            (words, "green")
            if quote["found"]
            else Text.assemble((words, "red"), ("  not in this document", "bold red"))
        )
        console.print(Text.assemble(number, found, page), soft_wrap=True)


def show_passages(documents: Sequence[Document], question: str, console: Console) -> None:
    """Documents with what they say around the question's words."""
    for number, document in enumerate(documents, start=1):
        title = Text.assemble((f"{number:>2}  ", "dim"), (printable(document.title), "bold"), f"  {document.kind}")
        console.print(title, Text(printable(document.id), "dim"), soft_wrap=True)
        if document.text:
            console.print(snippet(document.text, question, 400), soft_wrap=True)


def documents_table(pool, scores: dict[str, float], kept, shown, untrained: bool = False) -> Table:
    """The documents by falling score; the numbers are those of the chain."""
    table = Table(box=None, pad_edge=False)
    for heading in ("", "P(relevant)", "untrained" if untrained else "", "document"):
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


def show_support(support: Support, console: Console) -> None:
    """The verdict on whether the answer rests on what it cites, and its figures."""
    from lite.stages.support import RESTS, WEAK  # torch, which `lite search` does without

    style = {RESTS: "bold green", WEAK: "bold yellow"}.get(support.verdict, "bold red")
    console.print(Text.assemble("Evidence: ", (support.verdict, style)))
    for name, cited, uncited in (
        ("without what is cited", support.necessity, support.uncited_necessity),
        ("with it alone", support.sufficiency, support.uncited_sufficiency),
    ):
        if cited is not None:
            control = "" if uncited is None else f"; of as much that is not cited: ×{math.exp(-uncited):.2g}"
            console.print(
                Text(f"  {name} the answer is ×{math.exp(-cited):.2g} as likely{control}", "dim"), soft_wrap=True
            )
    if support.words is not None:
        stand = "stand" if support.words else "do not stand"
        console.print(Text(f"  its words {stand} in what is cited", "dim"))


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


def snippet(text: str, query: str, width: int = 160) -> Text:
    """The surroundings of the longest word of the query that the text has, on one line."""
    line = printable(" ".join(text.split()))
    words = [re.escape(word) for word in sorted(re.findall(r"\w{3,}", query), key=len, reverse=True)]
    match = next(filter(None, (re.search(word, line, re.IGNORECASE) for word in words)), None)
    start = max(0, (match.start() if match else 0) - width // 4)
    snippet = Text(f"    {'…' * (start > 0)}{line[start : start + width]}{'…' * (start + width < len(line))}", "dim")
    if words:
        snippet.highlight_regex(re.compile("|".join(words), re.IGNORECASE), "bold not dim")
    return snippet
