"""The page's HTML: all text is escaped, whatever it is, and every step of a question can be shown."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lite.demo import view
from lite.demo.page import Page, portable
from lite.schema import Document, Trace
from lite.stages.answer import BASE, FULL, Listing, trace

PARTS = (view.steps, view.answer, view.chain, view.ranking, view.cards, view.details)
SAID = "<think>[2] helps: B. [1] does not help. [9] is no document.</think>\n<rank>[2]</rank>\n<answer>B</answer>"
HOSTILE = st.text(st.characters()) | st.sampled_from(
    ["<script>x</script>", "<img src=x onerror=x>", "' onclick='x", '" onclick="x', "</p>", "&lt;", "[1] [2]"]
)


class Elements(HTMLParser):
    """Names, attributes and text of an HTML fragment; nothing but `VOID` may be left open."""

    VOID = ("img",)

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.names.append(name)
        self.attributes += attributes
        if name not in self.VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.text += data


def page_of(said: str = SAID, text: str = "A text.", title: str = "Title", question: str = "Q?") -> Page:
    """A finished page over four documents, of which stage 1 kept two."""
    documents = tuple(Document(f"d{i}", "text", f"{title} {i}", f"{text} {i}") for i in range(4))
    scores = {"d0": 0.1, "d1": 0.9, "d2": 0.4, "d3": 0.8}
    listing = Listing(question, (documents[3], documents[1]), (2, 1))
    outcome = trace(listing, said, documents, list(scores.values()), [documents[2]], {"stage 1": 1.0, "stage 2": 2.0})
    return Page(
        token="t", question=question, source="from here", documents=documents, scores=scores, threshold=0.3,
        max_documents=2, first_max_documents=2, kept=("d1", "d3"), shown=("d3", "d1"), reasoning=outcome.reasoning,
        trace=outcome, first=outcome, step="done",
    )  # fmt: skip


def text_of(html: str) -> str:
    return Elements(html).text


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a shared machine can be very slow
@given(said=HOSTILE, text=HOSTILE, title=HOSTILE, question=HOSTILE, message=HOSTILE)
def test_no_text_becomes_an_element_or_an_attribute(said, text, title, question, message) -> None:
    plain = page_of("x").trace
    for completion in (said, f"<think>{said}</think>\n<rank>[1]</rank>\n<answer>{said}.</answer>"):
        page = replace(page_of(completion, text, title, question), message=message, source=message)
        changed = replace(page, first=replace(page.trace, answer="other", retrieved=(*page.trace.retrieved[1:],)))
        for shown in (page, changed, replace(page, off=frozenset({"d1"}))):
            outcomes = {BASE: None, FULL: shown.trace}
            for html in (*(part(shown) for part in PARTS), view.comparison(shown, outcomes)):
                found = Elements(html)
                assert not {"script", "iframe", "style", "object"} & set(found.names)
                assert not [name for name, _ in found.attributes if name.startswith("on")]
                assert found.names.count("img") == 0
    assert plain.failure


def test_the_text_is_there_as_it_was() -> None:
    page = page_of(text="<b>bold</b> & more", title="<i>T</i>", question="Is 1 < 2?")
    assert "<b>bold</b> & more 1" in text_of(view.cards(page))
    assert "<i>T</i> 1" in text_of(view.ranking(page))
    assert "Is 1 < 2?" in text_of(view.answer(page))


def card_of(page: Page, place: int) -> str:
    """The HTML of one document's card."""
    return re.search(rf'<article [^>]*id="card-{place}".*?</article>', view.cards(page), re.DOTALL)[0]


def test_every_document_says_what_became_of_it() -> None:
    page = page_of()
    told = [text_of(card_of(page, place)) for place in range(4)]
    assert "below threshold" in told[0]
    assert "cited by the answer" in told[1]
    assert "over the budget" in told[2]
    assert told[3].strip().endswith("kept")
    assert "[2]" in told[1]
    assert "switched off" in text_of(card_of(replace(page, off=frozenset({"d0"})), 0))


def test_what_is_left_out_stands_in_the_order_of_retrieval_with_the_words_found() -> None:
    page = page_of(question="What is the capital of Chad?")
    texts = ("Nothing.", "Kept.", "x " * 200 + "the capital, N'Djamena, lies on a river", "Kept, too.")
    documents = tuple(replace(d, text=text) for d, text in zip(page.documents, texts, strict=True))
    page = replace(page, documents=documents, scores=page.scores | {"d0": 0.001, "d2": 0.2})
    html = view.cards(page)
    assert re.findall(r'id="card-(\d)"', html) == ["1", "3", "0", "2"]  # kept: by score; the rest: as retrieved
    found = Elements(card_of(page, 2))
    assert "found: capital" in found.text
    assert "… " in found.text  # the excerpt is the part that holds the word, not the beginning
    assert "mark" in found.names
    assert "N'Djamena" in found.text.split("Read its text")[0]
    assert "found:" not in text_of(card_of(page, 0))


def bars(page: Page) -> list[tuple[float, float]]:
    """Width of each bar and place of its tick, in percent, in the order of retrieval."""
    html = "".join(card_of(page, place) for place in range(len(page.documents)))
    widths, ticks = (re.findall(rf"{name}:([0-9.]+)%", html) for name in ("width", "left"))
    return [(float(width), float(tick)) for width, tick in zip(widths, ticks, strict=True)]


def test_bars_tell_small_scores_apart_from_a_small_threshold() -> None:
    scores = {"d0": 0.0003, "d1": 0.97, "d2": 0.0031, "d3": 0.11}
    page = replace(page_of(), scores=scores, threshold=0.0008)
    assert 'aria-valuenow="0.0031"' in card_of(page, 2)
    assert "<output>0.0031</output>" in card_of(page, 2)
    assert 'title="threshold 0.0008"' in card_of(page, 2)
    (low, tick), (high, _), (small, _), (middle, _) = bars(page)
    assert low + 3 < tick < small - 3 < middle < high - 10
    extremes = bars(replace(page, scores={"d0": 0.0, "d1": 1.0, "d2": 1e-300, "d3": 0.5}, threshold=1.0))
    assert extremes == [(0.0, 100.0), (100.0, 100.0), (0.0, 100.0), (50.0, 100.0)]


def test_a_filter_that_is_not_the_tuned_one_is_told_wherever_its_outcome_is_shown() -> None:
    page = replace(page_of(), tuned=(0.3, 2))
    for part in (view.steps, view.answer, view.cards):
        assert "tuned" not in text_of(part(page))
        assert "0.3" in text_of(part(replace(page, tuned=(0.0008, 2)))), part
        assert "0.0008" in text_of(part(replace(page, tuned=(0.0008, 2)))), part
    assert "at most 2, not 5" in text_of(view.answer(replace(page, tuned=(0.3, 5))))


def test_a_trace_says_what_it_does_not_hold() -> None:
    page = replace(page_of(), read_only=True, threshold=None)
    assert "does not hold the threshold" in text_of(view.answer(page))
    assert "threshold not recorded" in text_of(view.cards(page))
    assert "over the budget" in text_of(card_of(page, 2))
    assert "below threshold" in text_of(card_of(page, 0))
    assert "the threshold" not in text_of(view.answer(replace(page, threshold=0.3)))


def test_what_no_screen_can_show_is_a_space() -> None:
    page = page_of(text="a\x1b[31mb\x00c\u202ed\ud800e", title="t\x07", question="q\x9b?")
    for part in PARTS[:5]:
        html = part(page)
        html.encode()
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", html)


def test_citations_lead_to_cards_and_others_are_text() -> None:
    found = Elements(view.chain(page_of()))
    assert [value for name, value in found.attributes if name == "data-card"] == ["1", "3"]
    assert found.text.strip() == "[2] helps: B. [1] does not help. [9] is no document."


def test_the_ranking_tells_each_document_s_way() -> None:
    labels = [
        value
        for name, value in Elements(view.ranking(page_of())).attributes
        if name == "aria-label" and "place" in value
    ]
    assert labels == [
        "place 2 in retrieval, 1 after stage 1, 1 after stage 2",
        "place 4 in retrieval, 2 after stage 1, 2 after stage 2",
    ]


def test_what_changed_is_marked_and_what_did_not_is_said() -> None:
    page = page_of()
    assert not {"mark changed", "mark same"} & {value for _, value in Elements(view.answer(page)).attributes}
    left = replace(page.trace, retrieved=("d0", "d2", "d3"), answer="b.", cited=("d3",), ranking=("d3",), kept=("d3",))
    same = replace(page, trace=left)
    assert "stays the same without Title 1" in text_of(view.answer(same))
    other = replace(page, trace=replace(left, answer="C"))
    assert "Changed without Title 1. Before: B" in text_of(view.answer(other))
    moved = replace(other, trace=replace(other.trace, threshold=0.5), first=replace(page.trace, threshold=0.3))
    assert "without Title 1 and with threshold 0.5 instead of 0.3" in text_of(view.answer(moved))
    fewer = replace(page, trace=replace(page.trace, answer="C"), max_documents=1)
    assert "Changed with at most 1 documents instead of 2" in text_of(view.answer(fewer))
    assert "was 2" in text_of(view.ranking(other))
    assert "Title 1 was 1" in text_of(view.ranking(other))


def test_malformed_and_unknown_are_shown_as_what_they_are() -> None:
    malformed = view.answer(page_of("<think>no end"))
    assert "malformed output: unclosed <think>" in " ".join(text_of(malformed).split()) or "no <rank>" in text_of(
        malformed
    )
    assert "<think>no end" in text_of(malformed)
    unknown = view.answer(page_of("<think>[1]</think><rank>none</rank><answer>not in the documents</answer>"))
    assert "not in the documents" in text_of(unknown)
    assert "message bad" not in unknown


def test_the_trace_to_take_home_names_no_file() -> None:
    page = page_of()
    documents = tuple(document | {"image": "/home/me/a.png"} for document in page.trace.documents)
    assert "/home/me" not in portable(replace(page, trace=replace(page.trace, documents=documents))).to_json()
    assert Trace.from_json(portable(page).to_json()) == page.trace


def test_every_step_on_the_way_can_be_shown() -> None:
    done = page_of()
    for step in ("idle", "retrieve", "filter", "rank", "stopped"):
        page = replace(done, step=step, trace=None, first=None, reasoning="[1] and [")
        for part in PARTS:
            Elements(part(page))
        for part in PARTS:
            Elements(part(replace(page, documents=(), scores={}, kept=(), shown=(), reasoning="")))


def quoting_page(*quotes: dict) -> Page:
    page = page_of(text="Before it stands a sentence. The tower is 30 m high. And more.")
    said = '[2] helps: "tower is 30 m high" and "the tower fell".'
    return replace(page, reasoning=said, trace=replace(page.trace, reasoning=said, quotes=quotes))


QUOTE = {"id": "d1", "quote": "tower is 30 m high", "found": True, "start": 33, "end": 51, "page": 4, "boxes": []}
MISSING = QUOTE | {"quote": "the tower fell", "found": False, "start": None, "end": None, "page": None}


def test_quotes_are_marked_in_the_chain_and_where_they_stand() -> None:
    page = quoting_page(QUOTE, MISSING)
    chain = view.chain(page)
    assert '<mark class="quote found">tower is 30 m high</mark>' in chain
    assert '<mark class="quote missing" title="not in the cited document">the tower fell</mark>' in chain
    card = card_of(page, 1)
    assert card.count('<mark class="quote found">tower is 30 m high</mark>') == 1 + ("<details>" in card)
    assert "page 4" in text_of(card)
    assert "quote" not in card_of(page, 3)
    assert "<mark" not in view.chain(quoting_page())


def test_boxes_of_a_quote_stand_on_the_picture() -> None:
    page = quoting_page(QUOTE | {"boxes": [[0.1, 0.25, 0.5, 0.3]]})
    card = card_of(replace(page, pictures={"d1": "data:image/webp;base64,AAAA"}), 1)
    assert 'style="left:10.00%;top:25.00%;width:40.00%;height:5.00%"' in card
    assert "<figure" not in card_of(page, 1)


@settings(deadline=None)
@given(start=st.integers(0, 60), length=st.integers(0, 60), quote=HOSTILE.filter(bool))
def test_no_quote_of_a_strange_trace_breaks_the_page(start: int, length: int, quote: str) -> None:
    page = quoting_page(QUOTE | {"quote": quote, "start": start, "end": start + length}, MISSING | {"found": True})
    for html in (view.chain(page), view.cards(page)):
        assert not {"script", "iframe", "style", "object"} & set(Elements(html).names)
