"""What the demo's page shows, as HTML: pure functions of a `Page`, rendered by the templates beside this file.

The template engine escapes every text, and prints a space for what no screen can show: control characters, marks that
turn the direction of writing, half a surrogate pair.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lite.demo.page import Page, portable
from lite.schema import Document, Trace
from lite.stages.prompts import UNKNOWN, clip
from lite.terminal import printable

EXCERPT = 170  # characters of a text that a card shows before it is unfolded,
FULL_TEXT = 4000  # and after
WORDS = 8  # of the question that a card names
LEAD = 50  # characters of an excerpt before the first word of the question
SPAN = 12.0  # log-odds: bars and the threshold's slider reach from -SPAN to SPAN
ORDER = ("retrieve", "filter", "rank", "done")
NAMES = ("Retrieve", "Filter", "Rank", "Answer")


def finalize(value: Any) -> Any:
    """What a template prints: a text without what no screen can show, or what another template made."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True, undefined=StrictUndefined,
    finalize=finalize, trim_blocks=True, lstrip_blocks=True, auto_reload=False,
)  # fmt: skip
ENVIRONMENT.filters["clip"] = clip
ENVIRONMENT.filters["short"] = lambda number: f"{number:.3g}"


def render(template: str, **context: Any) -> str:
    return ENVIRONMENT.get_template(template).render(context).strip()


# ---------------------------------------------------------------------------------------------------------------- parts


def steps(page: Page) -> str:
    """The way of a question in one look: retrieved, filtered, ranked, answered; and what is wrong, if anything."""
    at = 0 if page.step == "load" else ORDER.index(page.step) if page.step in ORDER else -1
    finished = page.step == "done"
    items = [
        {"name": name, "told": told, "state": "done" if i < at or finished else "now" if i == at else ""}
        for i, (name, told) in enumerate(zip(NAMES, _told(page, at), strict=True))
    ]
    status = "Stopped." if page.step == "stopped" else NAMES[at] if at >= 0 else ""
    if finished and page.trace:
        status = "The output is malformed." if page.trace.failure else f"Answer: {page.trace.answer}"
    return render("steps.html", items=items, status=status, message=page.message)


def _told(page: Page, at: int) -> tuple[str, str, str, str]:
    """What each step says of itself."""
    outcome, found = page.trace, len(page.asked)
    retrieved = f"{found} document{'s' * (found != 1)}" if page.documents else "what could hold the answer"
    kept = "P(relevant) of each …" if at == 1 else "stage 1 scores each, alone"
    ranked = "thinking …" if at == 2 else "stage 2 thinks, and cites"
    answered = "with its sources"
    if page.step == "load":
        retrieved = "waits for the model, which is still loading …"
    if page.kept or outcome:
        kept = f"{len(page.kept)} of {found} kept"
        if settings := changed_settings(page):
            kept += f" ({settings})"
    if outcome:
        cited = " > ".join(f"[{outcome.shown.index(i) + 1}]" for i in outcome.cited)
        ranked = (cited or "none cited") if outcome.format_ok else "malformed"
        answered = "malformed output" if outcome.failure else clip(outcome.answer, 60)
    return retrieved, kept, ranked, answered


def changed_settings(page: Page) -> str:
    """How the filter differs from the tuned one, in words; empty where it does not."""
    if page.tuned is None:
        return ""
    threshold, most = page.tuned
    told = []
    if page.threshold != threshold:
        told.append(f"threshold {page.threshold:.3g}, not the tuned {threshold:.3g}")
    if page.max_documents != most:
        told.append(f"at most {page.max_documents}, not {most}")
    return "; ".join(told)


def message(text: str, kind: Literal["bad", "note"] = "bad") -> str:
    return render("message.html", text=text, kind=kind)


def answer(page: Page) -> str:
    """The question, its answer and the sources; what changed against the first answer."""
    waiting = {"load": "The model is still loading …", "retrieve": "Retrieving …", "filter": "Scoring each document …"}
    waiting["rank"] = "Thinking …"
    return render(
        "answer.html", page=page, outcome=page.trace, unknown=UNKNOWN, waiting=waiting.get(page.step, "No answer."),
        settings=changed_settings(page), difference=difference(page), missing=not_in_trace(page),
    )  # fmt: skip


def not_in_trace(page: Page) -> str:
    """What a loaded trace does not hold, so that it cannot be shown."""
    if not page.read_only:
        return ""
    missing = ["what an earlier answer was, if it was asked again"]
    if page.threshold is None and page.scores:
        missing.insert(0, "the threshold")
    if any(document.kind != "text" and not page.pictures.get(document.id) for document in page.documents):
        missing.append("pictures of your own files")
    return f"A trace does not hold {', '.join(missing)}."


def difference(page: Page) -> dict[str, Any] | None:
    """What the changed filter or documents did to the answer; None where there is nothing to compare."""
    from lite.metrics.answers import normalise  # here: its import would delay the page

    outcome, first = page.trace, page.first
    if outcome is None or first is None or outcome is first:
        return None
    gone = [page.titles[i] for i in first.retrieved if i not in outcome.retrieved]
    told = [f"without {', '.join(gone)}"] if gone else []
    if outcome.threshold != first.threshold:
        told.append(f"with threshold {outcome.threshold:.3g} instead of {first.threshold:.3g}")
    if page.max_documents != page.first_max_documents:
        told.append(f"with at most {page.max_documents} documents instead of {page.first_max_documents}")
    return {
        "same": normalise(outcome.answer) == normalise(first.answer),
        "settings": " and ".join(told) or "with the same documents and filter",
        "before": "malformed" if first.failure else clip(first.answer, 200),
    }


def chain(page: Page) -> str:
    """The chain as far as it was generated, its citations as buttons that lead to the card. Of a finished one, quotes
    are marked, and those that do not stand in the cited document."""
    found = re.split(r"\[([0-9]{1,9})\]", page.reasoning)
    quotes = (
        {quote["quote"]: "found" if quote["found"] else "missing" for quote in page.trace.quotes} if page.trace else {}
    )
    pieces = [
        (marked(text, quotes), digits, int(digits) if digits and 1 <= int(digits) <= len(page.shown) else 0)
        for text, digits in zip(found[::2], [*found[1::2], ""], strict=True)
    ]
    return render("chain.html", page=page, pieces=pieces)


def marked(text: str, quotes: Mapping[str, str]) -> list[tuple[str, str]]:
    """A text in pieces, each with what is said of it in `quotes`; empty for what is no quote."""
    if not quotes:
        return [(text, "")]
    pieces = re.split(f"({'|'.join(map(re.escape, sorted(quotes, key=len, reverse=True)))})", text)
    return [(piece, quotes.get(piece, "")) for piece in pieces if piece]


def ranking(page: Page) -> str:
    """The order after stage 2, and the way of every document from retrieval through stage 1 to it."""
    outcome = page.trace
    if outcome is None:
        return render("ranking.html", page=page, outcome=None)
    before = page.first.ranking if page.first and page.first is not outcome else None
    rows = []
    for place, i in enumerate(outcome.ranking, start=1):
        was = ""
        if before is not None and (i not in before or before.index(i) + 1 != place):
            was = f"was {before.index(i) + 1}" if i in before else "new"
        ways = {"retrieved": page.places[i] + 1, "stage1": outcome.kept.index(i) + 1, "place": place}
        rows.append({"id": i, "was": was, "rise": page.places[i] + 1 - place, **ways})
    gone = [(page.titles[i], n) for n, i in enumerate(before or (), start=1) if i not in outcome.ranking]
    return render("ranking.html", page=page, outcome=outcome, rows=rows, gone=gone)


# ---------------------------------------------------------------------------------------------------------------- cards


def cards(page: Page) -> str:
    """All documents: those kept in stage 1's order, then the rest in the order of retrieval."""
    by_id = {document.id: document for document in page.documents}
    groups = {"": list(by_id)}
    if page.scores:
        left = [i for i in by_id if i not in page.kept]
        cut = f"threshold {page.threshold:.3g}" if page.threshold is not None else "threshold not recorded"
        if page.tuned is not None and page.tuned[0] != page.threshold:
            cut += f" (tuned: {page.tuned[0]:.3g})"
        groups = {f"{len(page.kept)} kept by the filter · {cut}": list(page.kept)}
        groups |= {f"{len(left)} left out, in the order of retrieval": left}
    asked = question_words(page.question)
    entries = {heading: [entry(page, by_id[i], asked) for i in ids] for heading, ids in groups.items()}
    waiting = page.off != frozenset(by_id) - set(page.asked)
    return render(
        "cards.html", page=page, groups=entries, waiting=waiting and page.trace and not page.running,
        threshold=None if page.threshold is None else position(page.threshold),
    )  # fmt: skip


def entry(page: Page, document: Document, asked: frozenset[str]) -> dict[str, Any]:
    """What the template needs of one document: its score, what became of it, and where the question's words are."""
    i, score = document.id, page.scores.get(document.id)
    cited = page.trace is not None and i in page.trace.cited
    state, verdict = verdict_on(page, i, score, cited)
    found, pieces = found_in(document.title, document.text, asked)
    made = page.trace.quotes if page.trace else ()
    quotes = [quote for quote in made if quote["id"] == i and quote["found"] and quote["start"] is not None]
    spans = sorted((quote["start"], quote["end"]) for quote in quotes)
    boxes = [box for quote in quotes for box in quote["boxes"]]
    return {
        "document": document, "score": score, "cited": cited, "state": state, "verdict": verdict,
        "place": page.places[i], "number": page.shown.index(i) + 1 if i in page.shown else None,
        "picture": page.pictures.get(i, ""), "bar": None if score is None else position(score),
        "excerpt": pieces, "long": len(document.text) > EXCERPT, "text": clip(document.text, FULL_TEXT),
        "found": found, "off": i in page.off, "boxes": [[100 * side for side in box] for box in boxes],
        "quoted": in_pieces(document.text, spans[:1], LEAD), "passages": in_pieces(document.text, spans, FULL_TEXT),
        "page": quotes[0]["page"] if quotes else None,
    }  # fmt: skip


def in_pieces(text: str, spans: Sequence[tuple[int, int]], around: int) -> list[tuple[str, bool]]:
    """The stretches of a text and what stands around them, each piece with whether it is one; empty without any."""
    if not spans:
        return []
    begin, finish = max(0, spans[0][0] - around), min(len(text), spans[-1][1] + around)
    pieces, at = [("… " if begin else "", False)], begin
    for start, end in spans:
        pieces += [(text[at:start], False), (text[max(at, start) : end], True)]
        at = max(at, end)
    return [
        piece for piece in (*pieces, (text[at:finish], False), (" …" if finish < len(text) else "", False)) if piece[0]
    ]


def verdict_on(page: Page, i: str, score: float | None, cited: bool) -> tuple[str, str]:
    """What became of a document, as the card's class and in words."""
    if i in page.off:
        return "off", "switched off"
    if score is None:
        return "", "not scored yet" if page.running or page.trace is None else "not scored"
    if i in page.kept:
        return "kept", "cited by the answer" if cited else "kept"
    passed = i in page.trace.dropped if page.threshold is None and page.trace else score >= (page.threshold or 0.0)
    return "left", "over the budget of documents" if passed else "below threshold"


def question_words(question: str) -> frozenset[str]:
    """The words of a question that can tell documents apart."""
    from bm25s.stopwords import STOPWORDS_EN_PLUS  # here: its import would delay the page

    return frozenset(words(question)).difference(STOPWORDS_EN_PLUS)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


@lru_cache(maxsize=256)  # cards are rendered anew with every piece of the chain
def found_in(title: str, text: str, asked: frozenset[str]) -> tuple[list[str], list[tuple[str, bool]]]:
    """The question's words in a document, and its excerpt in pieces, each with whether it is such a word."""
    found = [word for word in dict.fromkeys(words(f"{title} {text}")) if word in asked]
    pieces = re.split(r"(\w+)", excerpt(text, asked))
    return found[:WORDS], [(piece, piece.lower() in asked) for piece in pieces if piece]


def excerpt(text: str, asked: frozenset[str]) -> str:
    """The beginning of a text, or its part around the first of the question's words."""
    found = next((match for match in re.finditer(r"\w+", text) if match[0].lower() in asked), None)
    start = found.start() - LEAD if found and found.end() > EXCERPT else 0
    if start > 0:
        start = text.find(" ", start, found.start()) + 1 or found.start()
    end = start + EXCERPT
    if end < len(text):
        end = text.rfind(" ", start + EXCERPT // 2, end) if " " in text[start + EXCERPT // 2 : end] else end
    return ("… " if start > 0 else "") + text[start:end] + (" …" if end < len(text) else "")


def position(probability: float) -> float:
    """Where a probability stands on a scale of log-odds, in percent of its length."""
    if not 0 < probability < 1:
        return 0.0 if probability <= 0 else 100.0
    return min(max(50 + 50 * log_odds(probability) / SPAN, 0.0), 100.0)


def log_odds(probability: float) -> float:
    if not 0 < probability < 1:
        return -SPAN if probability <= 0 else SPAN
    return math.log(probability) - math.log1p(-probability)


# -------------------------------------------------------------------------------------------------- comparison, details


def comparison(page: Page, outcomes: Mapping[str, Trace | None]) -> str:
    """The systems side by side; None: it is being asked."""
    from lite.stages.answer import BASE, FULL, STAGE1_BASE  # here: its import would delay the page

    systems = {
        BASE: ("Base model", "no training: the first documents retrieved, unfiltered"),
        STAGE1_BASE: ("Stage 1 + base", "the trained filter, then the base model"),
        FULL: ("Full system", "the trained filter, then trained ranking and answering"),
    }
    columns = [(*systems[system], outcome) for system, outcome in outcomes.items()]
    return render("comparison.html", page=page, columns=columns)


def details(page: Page) -> str:
    """What the model generated to the letter, the time of each step, and the trace to take home."""
    data = base64.b64encode(portable(page).to_json().encode()).decode() if page.trace else ""
    return render("details.html", outcome=page.trace, data=data)


def banner(model: str, adapters: str, note: str, state: str = "", problem: str = "") -> str:
    """One line: which model, which adapters, what it cannot do, and whether it is still loading."""
    return render("banner.html", model=model, adapters=adapters, note=note, state=state, problem=problem)


# ----------------------------------------------------------------------------------------------------------------- runs


def table(title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    return render("table.html", title=title, columns=columns, rows=rows)


def samples(step: int, prompt: str, completions: Sequence[Mapping[str, Any]]) -> str:
    return render("samples.html", step=step, prompt=prompt, completions=completions)
