"""Quotes: found where they stand, whatever differs in how they are set, and not where their meaning differs."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lite.library.parts import packed_boxes
from lite.schema import Document
from lite.stages.quotes import Place, boxes_of, locate, passages, quotes_of, tokens

POLICY = Document(
    "p", "text", "Policy",
    "Damage by frost is not covered by this policy, nor is rust. The daily dose is 25 mg for adults.\n"
    "The renew-\ned pump of the state-of-the-\nart plant costs 1,200.50 € (about −3 % less) since 1931².\n"
    "The employer pays the employee. The rnaximum speed is 15 km/h. See [the **final** report](https://x.org/a?b=1).",
)  # fmt: skip


def found(quote: str, text: str = POLICY.text) -> bool:
    place = locate(quote, Document("d", "text", "T", text))
    assert place.found is (place.start is not None) is (place.end is not None)
    return place.found


@pytest.mark.parametrize(
    "quote",
    [
        "Damage by frost is not covered", "“damage by FROST is not  covered”", "covered by this policy; nor is rust",
        "The renewed pump", "the renew-ed pump", "state-of-the-art plant", "state\u2011of\u2011the\u2011art plant",
        "costs 1,200.50 €", "about -3 % less", "since 1931", "since 1931²", "The maximum speed", "15 km/h",
        "See the final report", "25\u00a0mg for adults", "the daily dose is 25mg",
        "Damage by frost … The daily dose is 25 mg",
        "Damage by frost [...] for adults",
    ],
)  # fmt: skip
def test_what_differs_in_setting_alone_is_found(quote):
    assert found(quote)


@pytest.mark.parametrize(
    "quote",
    [
        "Damage by frost is covered", "Damage by frost is … covered by this policy", "25 g for adults",
        "250 mg for adults", "2.5 mg for adults", "costs 1,200.5 €", "costs 1,200.50 $", "about 3 % less", 
        "about -3 less",
        "The employee pays the employer", "The employer pays the employer", "The maximum speed is 16 km/h",
        "adults for mg 25", "frost by damage", "since 1913", "the", "The", "", "…", "\u200b", "?!", "is … is",
        "for adults … Damage by frost", "x.org/a", "DamagebyFrost", "Dam age by frost",
    ],
)  # fmt: skip
def test_what_differs_in_meaning_or_says_nothing_is_not_found(quote):
    assert not found(quote)


@pytest.mark.parametrize(
    ("quote", "text"),
    [
        ("décembre à Orléans", "le 5 de\u0301cembre a\u0300 Orle\u0301ans"),
        ("Straße nach Köln", "Die STRASSE nach KÖLN"),
        ("租金为每小时四十五元", "会议室在二楼，租金为每小时四\n十五元。"),
        ("รถไฟออกเวลา", "รถไฟออกเวลา 17:25"),
        ("٢٥ مليغرام", "الجرعة ٢٥ مليغرام"),
        ("서울역에서 출발", "기차는 서울역에서 출발한다"),
        ("½ cup of ﬂour", "1⁄2 cup of flour"),
        ("ｆｕｌｌ width", "full width"),
        ("m² of ﬂoor", "120 m² of floor"),
        ("& paid at once", "<b>&</b> paid\n> at once"),
    ],
)
def test_all_scripts(quote, text):
    assert found(quote, text)


@pytest.mark.parametrize(
    ("quote", "text"),
    [
        ("租金为每小时五十四元", "租金为每小时四十五元"),
        ("٢٦ مليغرام", "الجرعة ٢٥ مليغرام"),
        ("non è coperto", "è coperto"),
        ("Anna Berger", "Anna Bergen"),
        ("x ≠ 5 here", "x = 5 here"),
        ("no table here", "notable here"),
        ("Breakfast ✗", "Breakfast ✓"),
        ("prescribed drugs", "proscribed drugs"),
        ("COVID21 cases", "COVID19 cases"),
    ],
)
def test_no_script_loses_its_meaning(quote, text):
    assert not found(quote, text)


WORDS = st.sampled_from("the pump pays 15 2.5 mg % not € über 四 five-fold o'clock München 1931 − < & * | _ #".split())
TEXTS = st.lists(st.tuples(WORDS, st.sampled_from([" ", "  ", "\n", ", ", " – ", ". "])), min_size=1, max_size=40)


@given(TEXTS, st.data())
def test_every_stretch_of_a_text_is_found_where_it_stands(words, data):
    text = "".join(word + gap for word, gap in words)
    all_tokens = tokens(text)
    assume(all_tokens)
    first = data.draw(st.integers(0, len(all_tokens) - 1))
    last = data.draw(st.integers(first, len(all_tokens) - 1))
    start, end = all_tokens[first].start, all_tokens[last].end
    place = locate(text[start:end], Document("d", "text", "", text))
    said = [token.form for token in tokens(text[start:end])]
    if place.found:
        assert [token.form for token in tokens(text[place.start : place.end])] == said
    else:
        assert (
            len("".join(said)) < 5 or max(map(len, said)) < 4 or said != [t.form for t in all_tokens[first : last + 1]]
        )


@given(st.text(max_size=80), st.text(max_size=200))
def test_any_quote_and_any_text_have_a_place_in_the_text(quote, text):
    place = locate(quote, Document("d", "text", "", text))
    if place.found:
        assert 0 <= place.start < place.end <= len(text)


@pytest.mark.parametrize(
    "piece", ["[1] ", '"', "“", "[1, ", "a-\n", "<b", "](", "… ", "not ", "- ", "'", "é\u0301", "[^"]
)
def test_it_takes_linear_time(piece):
    text = piece * (20_000 // len(piece))
    before = time.process_time()
    locate(text[:300], Document("d", "text", "", text))
    passages(text)
    assert time.process_time() - before < 5


def test_passages_and_their_quotes():
    chain = 'So "x" [1] says “one two” and "three". [2, 3] help: «four five». 【4】 「六七」 [5] "not closed [6] end'
    said = [(p.numbers, p.quotes) for p in passages(chain)]
    assert said == [((1,), ("one two", "three")), ((2, 3), ("four five",)), ((4,), ("六七",)), ((5,), ()), ((6,), ())]
    assert passages(chain)[0].text == ' says "…" and "…". '
    assert [p.numbers for p in passages("[1], [2] and [3] help; [4] [5] not")] == [(1, 2, 3), (4,), (5,)]


def test_quotes_of_a_chain_name_the_document_that_holds_them():
    other = Document("o", "text", "The title of this", "Something else entirely.", page=7)
    chain = (
        '[1, 2] "something else" [1] "damage by frost" "no such words" [2] "The title of this" [9] "damage by frost" '
        '"also of nine"'
    )
    entries = quotes_of(chain, [POLICY, other])
    assert [(e["id"], e["quote"], e["found"], e["page"]) for e in entries] == [
        ("o", "something else", True, 7), ("p", "damage by frost", True, None), ("p", "no such words", False, None),
    ]  # fmt: skip
    assert POLICY.text[entries[1]["start"] : entries[1]["end"]] == "Damage by frost"
    assert set(entries[0]) == {"id", "quote", "found", "start", "end", "page", "boxes"}


def test_boxes_are_joined_by_line_and_cut_to_the_words():
    text = "alpha beta\ngamma delta"
    places = [(m.start(), m.end()) for m in re.finditer(r"\w+", text)]
    rows = [
        (*places[0], 0.1, 0.1, 0.2, 0.12), (*places[1], 0.21, 0.1, 0.29, 0.12), (*places[2], 0.1, 0.13, 0.2, 0.15),
        (*places[3], 0.21, 0.13, 0.31, 0.15),
    ]  # fmt: skip
    document = Document("d", "page", "", text, page=2, boxes=packed_boxes(rows))
    place = locate("beta gamma", document)
    assert place.page == 2
    assert [[round(side, 3) for side in box] for box in place.boxes] == [
        [0.21, 0.1, 0.29, 0.12],
        [0.1, 0.13, 0.2, 0.15],
    ]
    (box,) = boxes_of(document, 0, 10)
    assert [round(side, 3) for side in box] == [0.1, 0.1, 0.29, 0.12]
    (half,) = boxes_of(document, 11, 13)  # two letters of five
    assert [round(side, 3) for side in half] == [0.1, 0.13, 0.14, 0.15]


def test_a_quote_over_a_page_break_has_the_page_where_it_begins():
    page = Document("1", "text", "", "First line.\nThe archive is kept in a\n– 12 –", page=1)
    following = Document("2", "text", "", "Society of Friends\nvault below the hall. More.", page=2)
    place = locate("archive is kept in a vault below the hall", page, following)
    assert (place.found, place.page, page.text[place.start : place.end]) == (True, 1, "archive is kept in a")
    assert locate("archive is kept in a vault above the hall", page, following) == Place()
    assert locate("archive is kept in a vault below the hall", page) == Place()
