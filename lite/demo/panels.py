"""The parts of the page, without what they do: `lite.demo.app` connects them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import gradio as gr

from lite.demo import view
from lite.demo.asking import BUNDLED, LIBRARY, MINE, Desk, rounded
from lite.demo.page import Page
from lite.demo.uploads import FILES, SUFFIXES

# Each is answered rightly by the shipped adapters, and its chain says nothing that is not so: tests/demo/test_examples.
EXAMPLES = (
    "What is the capital of Papua New Guinea?",
    "What color is the middle band of the flag of Côte d'Ivoire?",
    "What is the highest point in Uzbekistan?",
    "Does the flag of Slovakia show a cross?",
)
JAVASCRIPT = Path(__file__).with_name("demo.js")


def question_panel(desk: Desk) -> SimpleNamespace:
    """The question, what it is asked about, and the way of its answer in four steps."""
    sources = [BUNDLED, *([LIBRARY] if desk.library else []), MINE]
    first = LIBRARY if desk.library and not desk.note else BUNDLED  # the embedded model knows only these
    with gr.Row(elem_id="asking"):
        with gr.Column(scale=3, min_width=280):
            question = gr.Textbox(
                label="Question", placeholder=EXAMPLES[0], lines=1, max_lines=4, autofocus=True, elem_id="question"
            )
            examples = gr.Dataset(
                components=[question], samples=[[example] for example in EXAMPLES], label="Examples", elem_id="examples"
            )
        with gr.Column(scale=2, min_width=280):
            source = gr.Radio(sources, value=first, label="Documents", elem_id="source")
            files = gr.File(
                label=f"Up to {FILES} files: images, PDFs, texts, tables", file_count="multiple",
                file_types=list(SUFFIXES), visible=False, height=130, elem_id="files",
            )  # fmt: skip
            notes = gr.HTML(elem_id="notes")
        with gr.Column(scale=0, min_width=130, elem_id="buttons"):
            ask = gr.Button("Ask", variant="primary", elem_id="ask")
            stop = gr.Button("Stop", elem_id="stop")
    steps = gr.HTML(view.steps(Page()), elem_id="steps")
    return SimpleNamespace(
        question=question, examples=examples, source=source, files=files, notes=notes, ask=ask, stop=stop, steps=steps
    )


def documents_panel(desk: Desk) -> SimpleNamespace:
    """The filter's controls and the documents."""
    with gr.Column(scale=3, min_width=300, elem_id="left"):
        gr.HTML("<h3>Documents</h3>")
        with gr.Row(elem_id="filter"):
            with gr.Column(scale=2, min_width=220):
                dial = gr.Slider(
                    -view.SPAN, view.SPAN, value=view.log_odds(desk.threshold), step=0.1, label="Threshold",
                    info="of P(relevant), on a scale of log-odds; left keeps more", elem_id="dial", buttons=[],
                )  # fmt: skip
            threshold = gr.Number(
                rounded(desk.threshold), label="P(relevant)", info="at least", minimum=0, maximum=1, step=0.01,
                min_width=110, elem_id="threshold", buttons=[],
            )  # fmt: skip
            count = gr.Slider(
                1, max(2, desk.budget), value=desk.budget, step=1, label="Documents at most",
                info="that stage 2 reads", elem_id="count", buttons=[], min_width=160,
            )  # fmt: skip
        with gr.Row(elem_id="filtering"):
            tuned = gr.Button(tuned_label(desk, False), interactive=False, elem_id="tuned", size="sm")
            again = gr.Button("Ask again", elem_id="again", size="sm")
        cards = gr.HTML(
            view.cards(Page()), elem_id="documents", js_on_load=JAVASCRIPT.read_text(encoding="utf-8"),
        )  # fmt: skip
    return SimpleNamespace(dial=dial, threshold=threshold, count=count, tuned=tuned, again=again, cards=cards)


def tuned_label(desk: Desk, differs: bool) -> str:
    if desk.untrained:
        return f"Back to the best {desk.budget}" if differs else f"Untrained: the best {desk.budget}"
    tuned = f"{desk.threshold:.3g}, at most {desk.budget}"
    return f"Back to the tuned filter ({tuned})" if differs else f"As tuned ({tuned})"


def answer_panel(desk: Desk) -> SimpleNamespace:
    """The answer and all that explains it."""
    with gr.Column(scale=2, min_width=300, elem_id="right"):
        answer = gr.HTML(view.answer(Page()), elem_id="answer")
        with gr.Accordion("Reasoning", open=True, elem_id="reasoning"):
            chain = gr.HTML(view.chain(Page()))
        with gr.Accordion("Ranking", open=True, elem_id="ranking"):
            ranking = gr.HTML(view.ranking(Page()))
        with gr.Accordion("Compare the systems", open=True, elem_id="comparing", visible=not desk.untrained):
            gr.HTML('<p class="hint">The same question, with and without what was trained.</p>')
            compare = gr.Button("Compare", size="sm", elem_id="compare")
            comparison = gr.HTML(elem_id="comparison")
        with gr.Accordion("Raw output, timings, trace", open=False, elem_id="details"):
            details = gr.HTML(view.details(Page()))
            load = gr.UploadButton("Load a trace", file_types=[".json"], size="sm", elem_id="load")
    return SimpleNamespace(
        answer=answer, chain=chain, ranking=ranking, compare=compare, comparison=comparison, details=details, load=load
    )
