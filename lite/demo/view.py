"""What the demo's page shows, as HTML: pure functions of a `Page`. Every text that we did not write is escaped here."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from html import escape
from typing import Literal

from lite.demo.page import Page, portable
from lite.metrics.answers import normalise
from lite.schema import Document, Trace
from lite.stages.answer import BASE, FULL, STAGE1_BASE
from lite.stages.prompts import UNKNOWN, clip

EXCERPT = 170  # characters of a text that a card shows before it is unfolded
FULL_TEXT = 4000  # and after
SYSTEMS = {
    BASE: ("Base model", "no training: the first documents retrieved, unfiltered"),
    STAGE1_BASE: ("Stage 1 + base", "the trained filter, then the base model"),
    FULL: ("Full system", "the trained filter, then trained ranking and answering"),
}


# ---------------------------------------------------------------------------------------------------------------- parts


def steps(page: Page) -> str:
    """The way of a question in one look: retrieved, filtered, ranked, answered; and what is wrong, if anything."""
    order = ("retrieve", "filter", "rank", "done")
    at = order.index(page.step) if page.step in order else -1
    outcome = page.trace
    found = len(page.asked)
    told = {
        "retrieve": f"{found} document{'s' * (found != 1)}" if page.documents else "what could hold the answer",
        "filter": (
            f"{len(page.kept)} of {found} kept"
            if page.kept or outcome
            else ("P(relevant) of each …" if at == 1 else "stage 1 scores each, alone")
        ),
        "rank": (
            (" > ".join(f"[{outcome.shown.index(i) + 1}]" for i in outcome.cited) or "none helps")
            if outcome and outcome.format_ok
            else ("malformed" if outcome else "thinking …" if at == 2 else "stage 2 thinks, and cites")
        ),
        "done": (
            ("malformed output" if outcome.failure else clip(outcome.answer, 60))
            if outcome
            else "with its sources"
        ),
    }  # fmt: skip
    names = {"retrieve": "Retrieve", "filter": "Filter", "rank": "Rank", "done": "Answer"}
    items = []
    for i, step in enumerate(order):
        state = "done" if i < at or page.step == "done" else "now" if i == at else ""
        current = ' aria-current="step"' if state == "now" else ""
        items.append(
            f'<li class="step {state}"{current}><b aria-hidden="true">{i + 1}</b>'
            f"<div><strong>{names[step]}</strong><span>{escape(told[step])}</span></div></li>"
        )
    said = "Stopped." if page.step == "stopped" else names.get(page.step, "")
    if page.step == "done" and outcome:
        said = "The output is malformed." if outcome.failure else f"Answer: {outcome.answer}"
    return (
        f'<ol class="steps" aria-label="How an answer comes about">{"".join(items)}</ol>'
        f'<p class="unseen" role="status">{escape(said)}</p>{message(page.message) if page.message else ""}'
    )


def message(text: str, kind: Literal["bad", "note"] = "bad") -> str:
    return f'<div class="message {kind}" role="{"alert" if kind == "bad" else "note"}">{escape(text)}</div>'


def answer(page: Page) -> str:
    """The question, its answer and the sources; what changed against the first answer."""
    if not page.question:
        return (
            '<section class="answer empty"><h3>Answer</h3><p class="hint">Ask something above, or choose an example: '
            "you will see which documents were found, which of them the filter kept, how the model thought about them, "
            "and what its answer rests on.</p></section>"
        )
    outcome = page.trace
    asked = f"<q>{escape(clip(page.question, 500))}</q> <span>{escape(page.source)}</span>"
    head = f'<h3>Answer</h3><p class="asked">{asked}</p>'
    if outcome is None:
        waiting = {"retrieve": "Retrieving …", "filter": "Scoring each document …", "rank": "Thinking …"}
        return f'<section class="answer">{head}<p class="hint">{waiting.get(page.step, "No answer.")}</p></section>'
    if outcome.failure:
        body = (
            f'<div class="message bad" role="alert"><strong>malformed output: {escape(outcome.failure)}</strong>'
            "<p>The model did not keep to the form, so there is no answer to trust. What it said:</p>"
            f"<pre>{escape(outcome.raw) or '(nothing)'}</pre></div>"
        )
    elif outcome.answer == UNKNOWN:
        why = (
            "No document reaches the filter's threshold."
            if not outcome.kept
            else "The model read what the filter kept and found no answer in it."
        )
        body = f'<p class="text unknown">not in the documents</p><p class="hint">{why}</p>'
    else:
        chips = "".join(f"<li>{chip(page, i, outcome.shown, with_title=True)}</li>" for i in outcome.cited)
        body = f'<p class="text">{escape(outcome.answer)}</p>'
        body += f'<p class="rests">rests on</p><ul class="sources">{chips}</ul>' if chips else ""
    return f'<section class="answer">{head}{body}{difference(page)}</section>'


def difference(page: Page) -> str:
    """What the changed filter or documents did to the answer, in words."""
    outcome, first = page.trace, page.first
    if outcome is None or first is None or outcome is first:
        return ""
    gone = [page.titles[i] for i in first.retrieved if i not in outcome.retrieved]
    settings = f" without {', '.join(gone)}" if gone else " with the filter as it is set now"
    if normalise(outcome.answer) == normalise(first.answer):
        return f'<p class="mark same">The answer stays the same{escape(settings)}.</p>'
    before = "malformed" if first.failure else first.answer
    return (
        f'<p class="mark changed"><strong>Changed</strong>{escape(settings)}. Before: '
        f"<del>{escape(clip(before, 200))}</del></p>"
    )


def chain(page: Page) -> str:
    """The chain as far as it was said, its citations as buttons that lead to the card."""
    text = page.reasoning
    if not text:
        return f'<p class="hint">{"…" if page.running else "Nothing was said yet."}</p>'
    pieces = re.split(r"\[([0-9]{1,9})\]", text)
    html = [escape(pieces[0])]
    for number, after in zip(pieces[1::2], pieces[2::2], strict=True):
        known = 1 <= int(number) <= len(page.shown)
        html.append(chip(page, page.shown[int(number) - 1], page.shown) if known else f"[{number}]")
        html.append(escape(after))
    cursor = '<span class="cursor" aria-hidden="true"></span>' if page.step == "rank" else ""
    return f'<p class="chain">{"".join(html)}{cursor}</p>'


def chip(page: Page, document_id: str, shown: tuple[str, ...], with_title: bool = False) -> str:
    """`[3]`, as a button that shows the document's card."""
    place = [document.id for document in page.documents].index(document_id)
    number, title = shown.index(document_id) + 1, page.titles[document_id]
    label = f"Show document {number}: {title}"
    return (
        f'<button type="button" class="cite" data-card="{place}" title="{escape(title)}" aria-label="{escape(label)}">'
        f"[{number}]{f' <span>{escape(title)}</span>' if with_title else ''}</button>"
    )


def ranking(page: Page) -> str:
    """The order after stage 2, and the way of every document from retrieval through stage 1 to it."""
    outcome = page.trace
    if outcome is None:
        return '<p class="hint">After the reasoning: which documents the answer rests on, best first.</p>'
    if not outcome.ranking:
        return '<p class="hint">No document was kept, so there is nothing to rank.</p>'
    first = page.first if page.first is not outcome else None
    found = {document.id: place for place, document in enumerate(page.documents, start=1)}
    rows = []
    for place, i in enumerate(outcome.ranking, start=1):
        retrieved, stage1 = found[i], outcome.kept.index(i) + 1
        rise = retrieved - place
        moved = (
            f'<em class="up">▲ {rise}</em>'
            if rise > 0
            else f'<em class="down">▼ {-rise}</em>'
            if rise
            else "<em>=</em>"
        )
        changed = ""
        if first is not None and (i not in first.ranking or first.ranking.index(i) + 1 != place):
            before = f"was {first.ranking.index(i) + 1}" if i in first.ranking else "new"
            changed = f' <span class="mark changed">{before}</span>'
        rows.append(
            f'<li class="{"cited" if i in outcome.cited else "rest"}"><span class="place">{place}</span>'
            f'<span class="what">{chip(page, i, outcome.shown, with_title=True)}{changed}</span>'
            f'<span class="way" role="img" aria-label="place {retrieved} in retrieval, {stage1} after stage 1, '
            f'{place} after stage 2">{retrieved} → {stage1} → <b>{place}</b> {moved}</span></li>'
        )
    gone = [i for i in first.ranking if i not in outcome.ranking] if first is not None else []
    rows += [
        f'<li class="gone"><span class="place">–</span><span class="what"><del>{escape(page.titles[i])}</del> '
        f'<span class="mark changed">was {first.ranking.index(i) + 1}</span></span><span class="way"></span></li>'
        for i in gone
    ]
    legend = (
        "The model named none as its source: stage 1's order."
        if not outcome.cited
        else "Marked: what the answer rests on. The rest keeps stage 1's order."
    )
    return (
        f'<ol class="ranking"><li class="head" aria-hidden="true"><span></span><span></span>'
        f"<span>retrieved → stage 1 → stage 2</span></li>{''.join(rows)}</ol><p class='hint'>{legend}</p>"
    )


# ---------------------------------------------------------------------------------------------------------------- cards


def cards(page: Page) -> str:
    """All documents, best first, cut in two by the filter's threshold."""
    if not page.documents:
        return '<p class="hint">The documents that are found appear here, each with its P(relevant) from stage 1.</p>'
    places = {document.id: place for place, document in enumerate(page.documents)}
    order = sorted(page.documents, key=lambda d: (-page.scores.get(d.id, 0.0), places[d.id]))
    if not page.scores:
        groups = {"": order}
    else:
        kept = [d for d in order if d.id in page.kept]
        left = [d for d in order if d not in kept]
        cut = f"threshold {page.threshold:.3g}"
        groups = {f"{len(kept)} kept by the filter · {cut}": kept, f"{len(left)} left out": left}
    html = []
    for heading, group in groups.items():
        if heading:
            html.append(f'<h4 class="divide"><span>{heading}</span></h4>')
        html += [card(page, document, places[document.id]) for document in group]
    waiting = page.off != frozenset(places) - set(page.asked)
    note = (
        message("Switches have changed: press “Ask again” to see the answer from what is left.", "note")
        if waiting and page.trace and not page.running
        else ""
    )
    return f'{note}<div class="cards" data-token="{page.token}">{"".join(html)}</div>'


def card(page: Page, document: Document, place: int) -> str:
    """One document: what it shows, its score, what became of it, and its switch."""
    i, score = document.id, page.scores.get(document.id)
    number = f"[{page.shown.index(i) + 1}]" if i in page.shown else ""
    cited = page.trace is not None and i in page.trace.cited
    if i in page.off:
        state, verdict = "off", "switched off"
    elif score is None:
        state, verdict = "", "not scored yet" if page.running or page.trace is None else "not scored"
    elif i in page.kept:
        state, verdict = "kept", "the answer rests on it" if cited else "kept"
    elif score < page.threshold:
        state, verdict = "left", "below threshold"
    else:
        state, verdict = "left", "over the budget of documents"
    if image := page.pictures.get(i):
        body = f'<img class="picture" src="{image}" alt="{escape(document.title)}" loading="lazy">'
    elif document.kind == "image":
        body = '<p class="excerpt none">picture not available</p>'
    else:
        body = ""
    if document.text and not image and state != "left":
        table = " table" if document.kind == "table" else ""
        body += f'<p class="excerpt{table}">{escape(clip(document.text, EXCERPT))}</p>'
    if document.text and (len(document.text) > EXCERPT or "excerpt" not in body):
        text = clip(document.text, FULL_TEXT)
        body += f'<details><summary>Read its text</summary><pre tabindex="0">{escape(text)}</pre></details>'
    switch = (
        ""
        if page.read_only
        else f'<button type="button" role="switch" class="switch" data-switch="{place}" '
        f'aria-checked="{"false" if i in page.off else "true"}" '
        f'aria-label="Use {escape(document.title)}"{" disabled" if page.running else ""}><span></span></button>'
    )
    return (
        f'<article class="card {state}{" cited" if cited else ""}" id="card-{place}" tabindex="-1" '
        f'aria-label="{escape(f"{number} {document.title}: {verdict}".strip())}">'
        f'<header><span class="kind">{escape(document.kind)}</span><span title="place in retrieval">#{place + 1}</span>'
        f"{switch}</header><h5>{f'<b>{number}</b> ' if number else ''}{escape(document.title)}</h5>"
        f'<div class="body">{body}</div>{bar(score, page.threshold)}<footer>{verdict}</footer></article>'
    )


def bar(score: float | None, threshold: float) -> str:
    """P(relevant) as a bar, with the threshold as a tick on it."""
    if score is None:
        return ""
    return (
        f'<div class="score"><div class="bar" role="meter" aria-label="P(relevant)" aria-valuemin="0" '
        f'aria-valuemax="1" aria-valuenow="{score:.3g}"><span style="width:{100 * score:.1f}%"></span>'
        f'<i style="left:{100 * min(threshold, 1.0):.1f}%" title="threshold {threshold:.3g}"></i></div>'
        f"<output>{score:.2g}</output></div>"
    )


# -------------------------------------------------------------------------------------------------- comparison, details


def comparison(page: Page, outcomes: Mapping[str, Trace | None]) -> str:
    """The systems side by side; None: it is being asked."""
    columns = []
    for system, outcome in outcomes.items():
        name, what = SYSTEMS[system]
        if outcome is None:
            body = '<p class="hint">being asked …</p>'
        else:
            body = (
                f'<p class="text malformed">malformed output: {escape(outcome.failure)}</p>'
                f"<pre>{escape(clip(outcome.raw, 600)) or '(nothing)'}</pre>"
                if outcome.failure
                else f'<p class="text">{escape(outcome.answer)}</p>'
            )
            chips = "".join(chip(page, i, outcome.shown, with_title=True) for i in outcome.cited)
            read = "".join(f"<li>{escape(page.titles[i])}</li>" for i in outcome.shown)
            body += f'<p class="rests">rests on</p><div class="sources">{chips}</div>' if chips else ""
            body += f"<details><summary>It read {len(outcome.shown)}</summary><ol>{read}</ol></details>"
            if outcome.format_ok:
                body += f"<details><summary>Its reasoning</summary><p>{escape(outcome.reasoning)}</p></details>"
        columns.append(f'<section class="system"><h4>{name}</h4><p class="hint">{what}</p>{body}</section>')
    return f'<div class="systems">{"".join(columns)}</div>' if columns else ""


def details(page: Page) -> str:
    """What the model said to the letter, the time of each step, and the trace to take home."""
    outcome = page.trace
    if outcome is None:
        return '<p class="hint">After an answer: the raw output, the time of each step, and the trace as JSON.</p>'
    times = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td>{seconds:.2f} s</td></tr>"
        for name, seconds in outcome.seconds.items()
    )
    if "stage 1" not in outcome.seconds and outcome.scores:
        times += "<tr><th scope='row'>stage 1</th><td>not asked again</td></tr>"
    data = base64.b64encode(portable(outcome).to_json().encode()).decode()
    return (
        f"<pre tabindex='0' aria-label='raw output'>{escape(outcome.raw)}</pre><table class='figures'>{times}</table>"
        f'<p><a class="download" download="trace.json" href="data:application/json;base64,{data}">'
        "Download this trace (JSON)</a></p>"
    )
