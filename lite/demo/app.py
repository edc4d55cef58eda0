"""The demo: one page on which anybody sees what the two stages do, and what the answer cites.

Every event makes a new `Page` of the one before and shows it; the HTML is `lite.demo.view`'s. The model answers one
question at a time, whoever asks; the rest wait in a queue that the page shows.

What ends or clears a question is an event of its own that the browser handles at once. Gradio's `cancels` beside a
function would act only when the function has answered, and then on whatever was asked meanwhile.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from lite.demo import asking, view
from lite.demo.asking import BUNDLED, MINE, Desk
from lite.demo.page import Page
from lite.demo.panels import answer_panel, documents_panel, question_panel, tuned_label
from lite.demo.runs import runs_tab
from lite.demo.uploads import Uploads, read
from lite.schema import LiteError

QUEUE = 50  # questions that may wait
CLEARED = "cleared "  # before the token of a question whose page was cleared in the browser
PARTS = ("steps", "answer", "chain", "ranking", "cards", "details")
QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
AT_ONCE: dict[str, Any] = {"queue": False, "api_visibility": "private"}  # in the browser alone


def build(desk: Desk, runs: Path, uploads: Uploads) -> gr.Blocks:
    """The page.

    Args:
        desk: The model and the library behind it.
        runs: The folder of the training runs.
        uploads: What remembers whose files are whose.
    """
    with gr.Blocks(title="lite", analytics_enabled=False, delete_cache=(600, 6 * 3600), fill_width=True) as page:
        banner = gr.HTML(introduction(desk, "The model is loading …"), elem_id="banner")
        with gr.Tab("Ask"):
            ui = question_panel(desk)
            with gr.Row(equal_height=False, elem_id="result"):
                vars(ui).update(vars(documents_panel(desk)) | vars(answer_panel(desk)))
        with gr.Tab("Training runs"):
            runs_tab(page, runs)
        # `seen` is the question whose page the visitor looks at: what is clicked means that one, however late it comes.
        ui.state, ui.seen, ui.mine = gr.State(Page()), gr.Textbox("", visible=False), gr.State({})
        ui.shown = [ui.seen, *(getattr(ui, name) for name in PARTS), ui.comparison]
        connect_questions(ui, desk)
        connect_filter(ui, desk)
        connect_comparison(ui, desk)
        connect_endings(ui)  # before what else the same clicks do: see there
        connect_files(ui, uploads)
        connect_trace(ui)

        async def welcome() -> str:
            return await introduction_when_loaded(desk)

        page.load(welcome, None, banner, **QUICK)
        page.unload(uploads.forget)
    page.queue(max_size=QUEUE, api_open=False)
    return page


def introduction(desk: Desk, state: str = "", problem: str = "") -> str:
    return view.banner(desk.base, desk.adapters, desk.note, state, problem)


async def introduction_when_loaded(desk: Desk) -> str:
    try:
        await asyncio.shield(asyncio.wrap_future(desk.model))
    except Exception as error:
        return introduction(desk, problem=asking.explain(error))
    return introduction(desk)


# ------------------------------------------------------------------------------------------------------------- showing


def draw(pages: Iterator[Page]) -> Iterator[tuple]:
    """The updates of state, `shown` and nothing else that turn each page into the next. Whatever goes wrong becomes a
    message on the last one."""
    last: Page | None = None
    html: dict[str, str] = {}
    with closing(guarded(pages)) as shown:
        for page in shown:
            grown = last is not None and replace(page, reasoning="") == replace(last, reasoning="")
            new = {name: getattr(view, name)(page) for name in (("chain",) if grown else PARTS)}
            updates = [gr.skip() if new.get(name, html.get(name)) == html.get(name) else new[name] for name in PARTS]
            yield page, page.token, *updates, "" if last is None else gr.skip()
            last, html = page, html | new


def drawn(page: Page) -> tuple:
    """The same for one page. Gradio takes only the first value of a generator that is not queued, and never ends it."""
    return page, page.token, *(getattr(view, name)(page) for name in PARTS), ""


def guarded(pages: Iterator[Page]) -> Iterator[Page]:
    page = Page()
    try:
        with closing(pages):
            for page in pages:
                yield page
    except Exception as error:
        yield replace(page, step="stopped", message=asking.explain(error))


def current(now: Page, seen: str | None) -> Page:
    """The page that the visitor sees; an empty one where another question has replaced it meanwhile."""
    return now if now.token == (seen or "") else Page()


def checked(now: Page, seen: str) -> Page:
    """The page that the visitor sees, if something can be tried with it."""
    now = current(now, seen)
    if refusal := asking.cannot_go_on(now):
        raise gr.Error(refusal, title="Not yet", print_exception=False)
    return now


def blank() -> str:
    """JavaScript that shows the page of no question, from the token of what was seen before."""
    html = json.dumps([*(getattr(view, name)(Page()) for name in PARTS), ""])
    return f"(seen) => [(seen ?? '').startsWith({CLEARED!r}) ? seen : {CLEARED!r} + (seen ?? ''), ...{html}]"


def one_at_a_time(*show_progress_on: gr.HTML) -> dict[str, Any]:
    return {
        "concurrency_limit": 1, "concurrency_id": "model", "show_progress": "full",
        "show_progress_on": list(show_progress_on),
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- connecting


def connect_questions(ui: SimpleNamespace, desk: Desk) -> None:
    """Ask, and the examples."""

    def ask(*inputs) -> Iterator[tuple]:
        yield from draw(asking.ask(desk, *inputs))

    inputs, outputs = [ui.question, ui.source, ui.mine, ui.threshold, ui.count], [ui.state, *ui.shown]
    model = one_at_a_time(ui.steps)
    moves = [ui.ask.click, ui.question.submit, ui.examples.click, ui.again.click]
    gr.on(moves, None, js="() => window.liteShow?.('steps')", **AT_ONCE)
    asked = gr.on(
        [ui.ask.click, ui.question.submit], ask, inputs, outputs, api_name="ask", api_visibility="undocumented",
        **model,
    )  # fmt: skip
    example = ui.examples.click(lambda chosen: (chosen[0], BUNDLED), ui.examples, [ui.question, ui.source], **QUICK)
    asked_example = example.then(ask, inputs, outputs, api_visibility="private", **model)
    ui.asking = [asked, asked_example]


def connect_filter(ui: SimpleNamespace, desk: Desk) -> None:
    """Threshold, count and switches: the same question again, from the same scores."""

    def again(now: Page, seen: str, cut: float | None, most: float | None) -> Iterator[tuple]:
        yield from draw(asking.ask_again(desk, checked(now, seen), cut, most))

    def again_if_moved(now: Page, seen: str, cut: float | None, most: float | None) -> Iterator[tuple]:
        now = current(now, seen)
        same = asking.settings(desk, cut, most) == (now.threshold, now.max_documents)
        if asking.cannot_go_on(now) or same:
            yield (gr.skip(),) * (1 + len(ui.shown))
            return
        yield from draw(asking.ask_again(desk, now, cut, most))

    def tell(cut: float | None, most: float | None) -> dict:
        differs = asking.settings(desk, cut, most) != (desk.threshold, desk.budget)
        variant = "primary" if differs else "secondary"
        return gr.update(value=tuned_label(desk, differs), interactive=differs, variant=variant)

    def switch(now: Page, seen: str, event: gr.EventData) -> tuple:
        now = current(now, seen)
        fits = event.token == now.token and event.place in range(len(now.documents))
        if now.running or now.read_only or not fits:
            return gr.skip(), gr.skip()
        after = replace(now, off=now.off ^ {now.documents[event.place].id})
        return after, view.cards(after)

    inputs, outputs = [ui.state, ui.seen, ui.threshold, ui.count], [ui.state, *ui.shown]
    model = one_at_a_time(ui.steps)
    asked = ui.again.click(again, inputs, outputs, api_visibility="private", **model)
    tuned = asking.rounded(desk.threshold), view.log_odds(desk.threshold), desk.budget
    reset = ui.tuned.click(lambda: tuned, None, [ui.threshold, ui.dial, ui.count], **QUICK)
    moves = [ui.dial.release, ui.threshold.submit, ui.threshold.blur, ui.count.release]
    moved = gr.on(moves, again_if_moved, inputs, outputs, trigger_mode="always_last", api_visibility="private", **model)
    moved_back = reset.then(again_if_moved, inputs, outputs, api_visibility="private", **model)
    ui.trying = [asked, moved, moved_back]
    gr.on([ui.threshold.change, ui.count.change], tell, [ui.threshold, ui.count], ui.tuned, **QUICK)
    ui.dial.input(None, ui.dial, ui.threshold, js=f"(x) => window.liteProbability(x, {view.SPAN})", **AT_ONCE)
    ui.threshold.input(None, ui.threshold, ui.dial, js=f"(p) => window.liteLogOdds(p, {view.SPAN})", **AT_ONCE)
    ui.cards.switch(switch, [ui.state, ui.seen], [ui.state, ui.cards], **QUICK)


def connect_comparison(ui: SimpleNamespace, desk: Desk) -> None:
    """The same question with and without what was trained."""

    def compare(now: Page, seen: str) -> Iterator[Any]:
        now = checked(now, seen)
        try:
            for outcomes in asking.compare(desk, now):
                yield view.comparison(now, outcomes) if outcomes else gr.skip()
        except Exception as error:
            yield view.message(asking.explain(error))

    compared = ui.compare.click(
        compare, [ui.state, ui.seen], ui.comparison, api_visibility="private", **one_at_a_time(ui.comparison)
    )
    ui.trying.append(compared)


def connect_endings(ui: SimpleNamespace) -> None:
    """Stop, and what else ends the question under way or clears the page.

    The browser goes through what a click does in the order in which it was connected, and waits for the server's answer
    each time. What cancels comes first, or it would hit what was asked meanwhile.
    """

    def stop(now: Page, seen: str) -> tuple:
        if not current(now, seen).running:
            return (gr.skip(),) * (1 + len(ui.shown))
        return drawn(replace(now, step="stopped", message="Stopped."))

    endings = [ui.stop.click, ui.load.upload, ui.source.input, ui.files.change]
    gr.on(endings, None, cancels=[*ui.asking, *ui.trying], **AT_ONCE)
    gr.on([ui.source.input, ui.files.change], None, ui.seen, ui.shown, js=blank(), **AT_ONCE)
    ui.stop.click(stop, [ui.state, ui.seen], [ui.state, *ui.shown], **QUICK)


def connect_files(ui: SimpleNamespace, uploads: Uploads) -> None:
    """Files of the visitor's own: held at once, then read in turn."""

    def claim(files: list[dict] | None, request: gr.Request) -> None:
        uploads.hold(request.session_hash or "", paths_of(files))

    def read_files(files: list[dict] | None, known: dict, request: gr.Request) -> Iterator[tuple]:
        paths = paths_of(files)
        uploads.add(request.session_hash or "", paths)
        yield gr.skip(), view.message("Reading …", "note")
        found, problems = read([str(path) for path in paths], known)
        count = sum(len(documents) for documents in found.values())
        summary = view.message(f"Documents: {count}, from {len(found)} files.", "note") if found else ""
        yield found, summary + "".join(view.message(problem) for problem in problems)

    # Without preprocessing, which would refuse all files where one is of another kind.
    claimed = ui.files.change(claim, ui.files, None, preprocess=False, trigger_mode="always_last", **QUICK)
    claimed.then(
        read_files, [ui.files, ui.mine], [ui.mine, ui.notes], preprocess=False, show_progress="hidden",
        concurrency_limit=2, api_name="read", api_visibility="undocumented",
    )  # fmt: skip
    ui.source.change(lambda chosen: gr.update(visible=chosen == MINE), ui.source, ui.files, **QUICK)


def paths_of(files: list[dict] | None) -> list[Path]:
    return [Path(file["path"]) for file in files or ()]


def connect_trace(ui: SimpleNamespace) -> None:
    """A trace from a file, to look at."""

    def load(path: str, now: Page, seen: str) -> tuple:
        try:
            page = asking.loaded(Path(path))
        except LiteError as error:
            page = Page(step="stopped", message=str(error))
        finally:
            Path(path).unlink(missing_ok=True)
        if now.token != (seen or "").removeprefix(CLEARED):  # something was asked meanwhile
            return (gr.skip(),) * (1 + len(ui.shown))
        return drawn(page)

    loaded = ui.load.upload(load, [ui.load, ui.state, ui.seen], [ui.state, *ui.shown], **QUICK)
    loaded.then(None, js="() => window.liteShow?.('answer')", **AT_ONCE)
