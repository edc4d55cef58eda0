"""The questions that the page offers: the shipped adapters answer them rightly, and no step on the way is wrong."""

from __future__ import annotations

import re

import pytest

from lite.data import flags
from lite.demo.asking import bundled
from lite.demo.panels import EXAMPLES
from lite.metrics.answers import normalise
from lite.rag import RETRIEVED, Rag
from lite.runs import SHIPPED

# How these flags look, by a look at them: bands (or `plain`) and their colours, then what is on them.
LOOKS = {
    "img:ci": "vertical: orange, white, green",
    "img:sk": "horizontal: white, blue, red; cross",
    "img:at": "horizontal: red, white, red",
    "img:fr": "vertical: blue, white, red",
}
CLAIM = re.compile(r"\[(\d+)\] (.+?) (?:(helps): (.+?)|(does not help))\.(?= \[|$)")


@pytest.fixture(scope="module")
def rag() -> Rag:
    return Rag.load(SHIPPED)


@pytest.mark.parametrize("question", EXAMPLES)
def test_an_example_s_answer_and_chain_hold(rag: Rag, question: str) -> None:
    example = next(e for e in flags.load_examples("test") if e.question == question)
    outcome = rag.ask(question, bundled().nearest(question, RETRIEVED))
    assert outcome.format_ok
    assert normalise(outcome.answer) in map(normalise, example.answers)
    assert set(outcome.cited) == example.relevant

    claims = CLAIM.findall(outcome.reasoning)
    assert [int(number) for number, *_ in claims] == list(range(1, len(outcome.shown) + 1))
    assert "".join(match[0] for match in CLAIM.finditer(outcome.reasoning)) == outcome.reasoning.replace(". [", ".[")
    corpus = flags.load_corpus()
    for i, (_, title, helps, fact, _) in zip(outcome.shown, claims, strict=True):
        assert title == corpus[i].title
        assert (helps == "helps") == (i in example.relevant)
        if fact:
            assert fact == LOOKS[i] if corpus[i].kind == "image" else f"{fact}." in corpus[i].text


def test_the_examples_show_texts_and_pictures() -> None:
    kinds = {e.category for e in flags.load_examples("test") if e.question in EXAMPLES}
    assert {"text", "image"} <= kinds
