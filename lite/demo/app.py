"""The demo: one page on which anybody sees what the two stages do, and why the answer is what it is.

Every event makes a new `Page` of the one before and shows it; the HTML is `lite.demo.view`'s. The model answers one
question at a time, whoever asks; the rest wait in a queue that the page shows.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import torch

from lite.data import flags
from lite.data.pools import Corpus
from lite.demo import view
from lite.demo.page import Page, picture
from lite.demo.runs import runs_tab
from lite.demo.uploads import FILES, Uploads, read
from lite.library.readers import SUFFIXES
from lite.rag import RETRIEVED, Rag
from lite.schema import Document, LiteError, Trace
from lite.stages.answer import BASE, FULL, STAGE1_BASE

if TYPE_CHECKING:
    from lite.library.store import Library

logger = logging.getLogger(__name__)

QUEUE = 50  # questions that may wait
TRACE_BYTES, TRACE_DOCUMENTS = 4 << 20, 200  # that a loaded trace may have
BUNDLED, LIBRARY, MINE = "Bundled flags and countries", "My library", "My files"
EXAMPLES = (
    "What is the capital of Peru?",
    "Does the flag of Nepal have a star?",
    "What is the capital of Kenya?",
    "What color is the middle band of the flag of Andorra?",
)
JAVASCRIPT = Path(__file__).with_name("demo.js")


def build(rag: Rag, adapters: str, library: Library | None, runs: Path, uploads: Uploads) -> gr.Blocks:
    """The page.

    Args:
        rag: What answers.
        adapters: Which adapters these are, in words.
        library: Of the user's own, if any.
        runs: The folder of the training runs.
        uploads: What remembers whose files are whose.
    """
    sources = [BUNDLED, *([LIBRARY] if library else []), MINE]
    with gr.Blocks(title="lite", analytics_enabled=False, delete_cache=(600, 6 * 3600), fill_width=True) as page:
        state, mine = gr.State(Page()), gr.State({})
        gr.HTML(banner(rag, adapters), elem_id="banner")
        with gr.Tab("Ask"):
            with gr.Row(elem_id="asking"):
                with gr.Column(scale=3, min_width=280):
                    question = gr.Textbox(
                        label="Question", placeholder=EXAMPLES[0], lines=1, max_lines=4,
                        autofocus=True, elem_id="question",
                    )  # fmt: skip
                    examples = gr.Dataset(
                        components=[question], samples=[[example] for example in EXAMPLES], label="Examples",
                        elem_id="examples",
                    )  # fmt: skip
                with gr.Column(scale=2, min_width=280):
                    first = LIBRARY if library and not rag.note else BUNDLED  # the embedded model knows only these
                    source = gr.Radio(sources, value=first, label="Documents", elem_id="source")
                    files = gr.File(
                        label=f"Up to {FILES} images, PDFs, texts or tables", file_count="multiple",
                        file_types=list(SUFFIXES), visible=False, height=130, elem_id="files",
                    )  # fmt: skip
                    notes = gr.HTML(elem_id="notes")
                with gr.Column(scale=0, min_width=130, elem_id="buttons"):
                    ask_button = gr.Button("Ask", variant="primary", elem_id="ask")
                    stop_button = gr.Button("Stop", elem_id="stop")
            steps = gr.HTML(view.steps(Page()), elem_id="steps")
            with gr.Row(equal_height=False, elem_id="result"):
                with gr.Column(scale=3, min_width=300, elem_id="left"):
                    gr.HTML("<h3>Documents</h3>")
                    with gr.Row(elem_id="filter"):
                        threshold = gr.Slider(
                            0, 1, value=round(rag.stage1["threshold"], 3), step=0.001, label="Threshold",
                            info=f"of P(relevant); tuned: {rag.stage1['threshold']:.3g}",
                            elem_id="threshold", buttons=[],
                        )  # fmt: skip
                        count = gr.Slider(
                            1, max(2, rag.budget), value=rag.budget, step=1, label="Documents at most",
                            info="that stage 2 reads", elem_id="count", buttons=[],
                        )  # fmt: skip
                        again_button = gr.Button("Ask again", elem_id="again", scale=0, min_width=130)
                    cards = gr.HTML(
                        view.cards(Page()), elem_id="documents",
                        js_on_load=JAVASCRIPT.read_text(encoding="utf-8"),
                    )  # fmt: skip
                with gr.Column(scale=2, min_width=300, elem_id="right"):
                    answer = gr.HTML(view.answer(Page()), elem_id="answer")
                    with gr.Accordion("Reasoning", open=True, elem_id="reasoning"):
                        chain = gr.HTML(view.chain(Page()))
                    with gr.Accordion("Ranking", open=True, elem_id="ranking"):
                        ranking = gr.HTML(view.ranking(Page()))
                    with gr.Accordion("Compare the systems", open=True, elem_id="comparing"):
                        gr.HTML('<p class="hint">The same question, with and without what was trained.</p>')
                        compare_button = gr.Button("Compare", size="sm", elem_id="compare")
                        comparison = gr.HTML(elem_id="comparison")
                    with gr.Accordion("Raw output, timings, trace", open=False, elem_id="details"):
                        details = gr.HTML(view.details(Page()))
                        load_button = gr.UploadButton(
                            "Load a trace", file_types=[".json"], size="sm", elem_id="load"
                        )  # fmt: skip
        with gr.Tab("Training runs"):
            runs_tab(page, runs)

        shown = {
            "steps": steps, "answer": answer, "chain": chain, "ranking": ranking, "cards": cards, "details": details,
        }  # fmt: skip
        outputs = [state, *shown.values(), comparison]

        def show(now: Page, before: Page | None = None, compared: Any = None) -> tuple:
            """The updates that turn what `before` showed into `now`; None: whatever it showed."""
            html = {name: getattr(view, name)(now) for name in shown}
            old = {name: getattr(view, name)(before) for name in shown} if before is not None else {}
            updates = [gr.skip() if old.get(name) == text else text for name, text in html.items()]
            return now, *updates, gr.skip() if compared is None else compared

        def following(events: Callable[[], Iterator[Page]], start: Page) -> Iterator[tuple]:
            """Shows each page in turn; whatever goes wrong becomes a message on the last one."""
            now = start
            yield show(now, None, "")
            try:
                for after in events():
                    yield show(after, now)
                    now = after
            except Exception as error:
                yield show(replace(now, step="stopped", message=explain(error)), now)

        def ask(text: str, chosen: str, own: dict[str, list[Document]], cut: float, most: int) -> Iterator[tuple]:
            cut, most = settings(rag, cut, most)
            start = Page(secrets.token_hex(8), text.strip(), step="retrieve", threshold=cut, max_documents=most)

            def events() -> Iterator[Page]:
                documents, where = look_up(text, chosen, library, own)
                now = replace(start, source=where)
                yield from answering(rag, now, documents)

            yield from following(events, start)

        def ask_again(now: Page, cut: float, most: int) -> Iterator[tuple]:
            """From the scores that are there: with another filter, or without the documents that are switched off."""
            if refusal := cannot_go_on(now):
                raise gr.Error(refusal, title="Not yet", print_exception=False)
            cut, most = settings(rag, cut, most)
            left = [document for document in now.documents if document.id not in now.off]
            start = replace(
                now, step="filter", threshold=cut, max_documents=most, kept=(), shown=(), reasoning="", trace=None,
                message="",
            )  # fmt: skip
            yield from following(lambda: answering(rag, start, left, now.scores), start)

        def filter_again(now: Page, cut: float, most: int) -> Iterator[tuple]:
            if not cannot_go_on(now):
                yield from ask_again(now, cut, most)

        def compare(now: Page) -> Iterator[Any]:
            if refusal := cannot_go_on(now):
                raise gr.Error(refusal, title="Not yet", print_exception=False)
            given = [document for document in now.documents if document.id in now.asked]
            outcomes: dict[str, Trace | None] = {BASE: None, STAGE1_BASE: None, FULL: now.trace}
            try:
                for system in [name for name, outcome in outcomes.items() if outcome is None]:
                    yield view.comparison(now, outcomes)
                    for event in rag.ask_stream(
                        now.question, given, scores=now.scores, threshold=now.threshold,
                        max_documents=now.max_documents, system=system,
                    ):  # fmt: skip
                        yield gr.skip()  # where it can be stopped
                        outcomes[system] = event.trace
                yield view.comparison(now, outcomes)
            except Exception as error:
                yield view.message(explain(error))

        def switch(now: Page, event: gr.EventData) -> tuple:
            fits = event.token == now.token and event.place in range(len(now.documents))
            if now.running or now.read_only or not fits:
                return gr.skip(), gr.skip()
            after = replace(now, off=now.off ^ {now.documents[event.place].id})
            return after, view.cards(after)

        def stop(now: Page) -> tuple:
            return show(replace(now, step="stopped", message="Stopped.") if now.running else now, None, "")

        def clear() -> tuple:
            return show(Page(), None, "")

        def load(path: str) -> tuple:
            try:
                return show(loaded(Path(path)), None, "")
            except LiteError as error:
                return show(Page(step="stopped", message=str(error)), None, "")
            finally:
                Path(path).unlink(missing_ok=True)

        def read_files(paths: list[str] | None, known: dict, request: gr.Request) -> Iterator[tuple]:
            uploads.hold(request.session_hash or "", [Path(path) for path in paths or ()])
            yield gr.skip(), view.message("Reading …", "note")
            found, problems = read(paths, known)
            count = sum(len(documents) for documents in found.values())
            summary = view.message(f"Documents: {count}, from {len(found)} files.", "note") if found else ""
            yield found, summary + "".join(view.message(problem) for problem in problems)

        one_at_a_time = {
            "concurrency_limit": 1, "concurrency_id": "model", "show_progress": "full", "show_progress_on": [steps],
        }  # fmt: skip
        quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        asked = gr.on(
            [ask_button.click, question.submit], ask, [question, source, mine, threshold, count], outputs,
            api_name="ask", api_visibility="undocumented", **one_at_a_time,
        )  # fmt: skip
        example = examples.click(lambda chosen: (chosen[0], BUNDLED), examples, [question, source], **quick)
        asked_example = example.then(
            ask, [question, source, mine, threshold, count], outputs, api_visibility="private", **one_at_a_time
        )
        again = again_button.click(
            ask_again, [state, threshold, count], outputs, api_visibility="private", **one_at_a_time
        )
        filtered = gr.on(
            [threshold.release, count.release], filter_again, [state, threshold, count], outputs,
            trigger_mode="always_last", api_visibility="private", **one_at_a_time,
        )  # fmt: skip
        compared = compare_button.click(
            compare, state, comparison, api_visibility="private",
            **one_at_a_time | {"show_progress_on": [comparison]},
        )  # fmt: skip
        running = [asked, asked_example, again, filtered, compared]
        stop_button.click(stop, state, outputs, cancels=running, **quick)
        cards.switch(switch, state, [state, cards], **quick)

        reading = files.change(
            read_files, [files, mine], [mine, notes], trigger_mode="always_last", show_progress="hidden",
            concurrency_limit=2, api_name="read", api_visibility="undocumented",
        )  # fmt: skip
        source.change(lambda chosen: gr.update(visible=chosen == MINE), source, files, **quick)
        for changed in (source.input, reading.then):
            changed(clear, None, outputs, cancels=running, **quick)
        load_button.upload(load, load_button, outputs, cancels=running, **quick)
        page.unload(uploads.forget)
    page.queue(max_size=QUEUE, api_open=False)
    return page


def answering(
    rag: Rag, now: Page, documents: list[Document], scores: Mapping[str, float] | None = None
) -> Iterator[Page]:
    """The pages of one question, as the model goes on; with `scores`, stage 1 is not asked again."""
    for event in rag.ask_stream(
        now.question, documents, scores=scores, threshold=now.threshold, max_documents=now.max_documents
    ):
        match event.name:
            case "retrieved" if not now.documents:
                pictures = {document.id: picture(document) for document in event.documents}
                now = replace(now, documents=event.documents, pictures=pictures, step="filter")
            case "scored":
                now = replace(now, scores=dict(now.scores) | event.scores)
                continue
            case "kept":
                now = replace(now, kept=event.ids, shown=tuple(d.id for d in event.documents), step="rank")
            case "reasoning":
                now = replace(now, reasoning=now.reasoning + event.text)
            case "done":
                first = now.first or event.trace
                now = replace(
                    now, trace=event.trace, first=first, reasoning=event.trace.reasoning or now.reasoning, step="done"
                )
            case _:
                continue
        yield now


def look_up(
    question: str, chosen: str, library: Library | None, own: Mapping[str, list[Document]]
) -> tuple[list[Document], str]:
    """The documents that a question is asked about, and what they are in words."""
    if chosen == LIBRARY and library is not None:
        found = [hit.document for hit in library.search(question, RETRIEVED)]
        return found, f"from your library of {len(library):,} documents"
    if chosen != MINE:
        return bundled().nearest(question, RETRIEVED), f"from {len(bundled().documents):,} bundled documents"
    documents = [document for found in own.values() for document in found]
    if not documents:
        raise LiteError("There are no files of yours to answer from. Add some, or choose other documents.")
    if len(documents) > RETRIEVED:
        near = Corpus(documents).nearest(question, RETRIEVED)
        documents = [*near, *(document for document in documents if document not in near)][:RETRIEVED]
    return documents, f"from your {len(own)} file{'s' * (len(own) != 1)}"


@cache
def bundled() -> Corpus:
    return Corpus(flags.load_candidates("test"))


def cannot_go_on(now: Page) -> str:
    """Why nothing can be tried with what is shown; empty where it can."""
    if now.read_only:
        return "This is a loaded trace. Ask its question anew to try things."
    return "" if now.scores and not now.running else "Ask a question first."


def settings(rag: Rag, threshold: float, count: int) -> tuple[float, int]:
    """What the sliders mean: untouched ones are the tuned filter to the last digit."""
    tuned = rag.stage1["threshold"]
    return tuned if threshold == round(tuned, 3) else threshold, min(int(count), rag.budget)


def loaded(path: Path) -> Page:
    """A trace from a file, to look at. The images of bundled documents are there; of others it holds none.

    Raises:
        LiteError: It is no trace.
    """
    if path.stat().st_size > TRACE_BYTES:
        raise LiteError(f"{path.name} has more than {TRACE_BYTES >> 20} MB. It is no trace of one question.")
    try:
        outcome = Trace.from_json(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise LiteError(f"{path.name} is no text. Give a trace.json that was downloaded here.") from error
    if len(outcome.documents) > TRACE_DOCUMENTS:
        raise LiteError(f"{path.name} lists {len(outcome.documents):,} documents; {TRACE_DOCUMENTS} can be shown.")
    known = flags.load_corpus()
    documents = tuple(
        Document(
            d["id"], d["kind"], d["title"], d["text"],
            known[d["id"]].image if d["id"] in known and known[d["id"]].title == d["title"] else None,
        )
        for d in outcome.documents
    )  # fmt: skip
    documents = tuple(sorted(documents, key=lambda document: outcome.retrieved.index(document.id)))
    return Page(
        secrets.token_hex(8), outcome.question, "a loaded trace: to look at, not to ask again", documents,
        {document.id: picture(document) for document in documents}, outcome.scores, passed(outcome),
        max(1, len(outcome.kept)), outcome.kept, outcome.shown, reasoning=outcome.reasoning, trace=outcome,
        first=outcome, step="done", read_only=True,
    )  # fmt: skip


def passed(outcome: Trace) -> float:
    """The lowest score that reached the threshold, which a trace does not tell."""
    return min((outcome.scores[i] for i in (*outcome.kept, *outcome.dropped) if i in outcome.scores), default=1.0)


def explain(error: Exception) -> str:
    """What the page says of an error; what it cannot explain is in the log."""
    if isinstance(error, LiteError):
        return str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return "The GPU has too little free memory for this. Take fewer documents, or stop what else runs on it."
    logger.error("The demo met an error.", exc_info=error)
    return f"Something went wrong here ({type(error).__name__}). The terminal that runs the demo tells more."


def banner(rag: Rag, adapters: str) -> str:
    """One line: which model, which adapters, and what it cannot do."""
    name = "the embedded tiny model" if rag.stage2["base"] == "tiny" else rag.stage2["base"]
    note = f"<strong>{escape(rag.note)}</strong> It is there for trying everything, and often errs." if rag.note else ""
    line = f"Model: {escape(name)}. Adapters: {escape(adapters)}. {note}"
    return f"<header class='banner'><h1>lite</h1><p>{line}</p></header>"
