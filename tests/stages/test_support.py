"""Whether an answer rests on what it cites: by hand, and on the embedded model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from lite.models.adapters import activate
from lite.rag import Rag
from lite.schema import Document, Trace
from lite.stages.answer import Listing, trace
from lite.stages.prompts import UNKNOWN
from lite.stages.support import (
    MASK,
    NOT_FOUND,
    NOTHING_CITED,
    RESTS,
    WEAK,
    answer_in,
    check_support,
    masked,
    only_spans,
    without_spans,
)

TEXT = Document("t", "text", "Chad: capital", "The capital of Chad is N'Djamena. It lies on a river.")
OTHER = Document("o", "text", "Peru: capital", "The capital of Peru is Lima.")
QUESTION = "What is the capital of Chad?"
LISTING = Listing(QUESTION, (OTHER, TEXT), (2, 1))


def outcome(answer: str, ranked: str = "[2]", quote: str = "") -> Trace:
    said = f"<think>[2] helps{quote}.</think>\n<rank>{ranked}</rank>\n<answer>{answer}</answer>"
    return trace(LISTING, said, [TEXT, OTHER])


@pytest.fixture(scope="module")
def rag() -> Rag:
    return Rag.load("tiny")


def support(rag: Rag, found: Trace, listing: Listing = LISTING):
    activate(rag.model, rag.stage2["active"])
    return check_support(rag.model, rag.processor, found, listing, 140)


def test_an_answer_copied_from_what_it_cites_rests_on_it(rag: Rag) -> None:
    found = support(rag, outcome("N'Djamena"))
    assert (found.verdict, found.words) == (RESTS, True)
    assert found.necessity > 1 > found.uncited_necessity  # without the other document it is even likelier
    assert found.uncited_sufficiency > 1 > found.sufficiency


def test_an_answer_out_of_another_document_is_not_found_in_what_it_cites(rag: Rag) -> None:
    found = support(rag, outcome("Lima"))
    assert (found.verdict, found.words) == (NOT_FOUND, False)
    assert found.necessity < found.uncited_necessity


def test_the_quotes_are_the_evidence_where_there_are_some(rag: Rag) -> None:
    whole = support(rag, outcome("N'Djamena"))
    right = support(rag, outcome("N'Djamena", quote=': "The capital of Chad is N\'Djamena"'))
    wrong = support(rag, outcome("N'Djamena", quote=': "It lies on a river"'))
    assert right.verdict == RESTS
    assert right.necessity != whole.necessity
    assert wrong.necessity < right.necessity
    assert wrong.verdict in (WEAK, RESTS)


@pytest.mark.parametrize(("answer", "ranked"), [(UNKNOWN, "none"), ("Lima", "none"), ("", "[2]")])
def test_what_cites_nothing_is_not_scored(answer: str, ranked: str) -> None:
    assert check_support(None, None, outcome(answer, ranked), LISTING, 140).verdict == NOTHING_CITED


def test_where_all_is_cited_there_is_no_control(rag: Rag) -> None:
    found = support(rag, outcome("N'Djamena", "[2] > [1]"))
    assert found.uncited_necessity is found.uncited_sufficiency is None


def test_words_of_an_answer() -> None:
    photo = Document("p", "image", "A photo", image=lambda: Image.new("RGB", (8, 8)))
    assert answer_in("n'djamena", [TEXT]) is True
    assert answer_in("Lima", [TEXT]) is False
    assert answer_in("Yes.", [TEXT]) is None
    assert answer_in("Lima", [TEXT, photo]) is None


def test_masks(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), "red").save(tmp_path / "a.png")
    page = replace(TEXT, kind="page", image=tmp_path / "a.png")
    assert (masked(page).title, masked(page).text, masked(page).load_image().size) == (MASK, MASK, (30, 20))
    assert masked(page).load_image().getpixel((0, 0)) == (128, 128, 128)
    assert (
        without_spans(TEXT, [(0, 3), (34, 36)]).text == f"{MASK} capital of Chad is N'Djamena. {MASK} lies on a river."
    )
    assert only_spans(TEXT, [(34, 36), (0, 3)]).text == f"The{MASK}It"
    assert without_spans(TEXT, []) == masked(TEXT)
    assert only_spans(TEXT, []) == TEXT
