"""Exact match and token F1 against SQuAD's definition and hand-worked numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lite.metrics.answers import exact_match, normalise, token_f1
from lite.stages.prompts import plain

words = st.lists(st.sampled_from(["red", "white", "blue", "green"]), max_size=5)
texts = st.text(max_size=20) | words.map(" ".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("N'Djamena", "ndjamena"),
        ("N’Djamena", "ndjamena"),
        ("the U.S.", "us"),
        ("1,000,000 at 3.5", "1000000 at 3.5"),
        ("1, 200", "1 200"),
        ("  The  flag\nof a\tcountry. ", "flag of country"),
        ("São Tomé", "sao tome"),
        ("Sa\u0303o", "sao"),
        ("ﬁve ½", "five 1 2"),
        ("Anthem, theatre", "anthem theatre"),
        ("İstanbul ÅLAND", "istanbul aland"),
        ("北京", "北京"),
        ("red-white", "red white"),
        ("The", ""),
        ("...", ""),
        ("", ""),
    ],
)
def test_normal_form(text, expected):
    assert normalise(text) == expected


@given(texts)
def test_the_normal_form_is_final_and_single_spaced(text):
    normal = normalise(text)
    assert normalise(normal) == normal
    assert normal == " ".join(normal.split())
    assert normal == normal.lower()


@given(texts)
def test_case_spacing_and_what_the_prompts_defuse_do_not_matter(text):
    assert normalise(f"\n the {text}. ") == normalise(text)
    assert normalise(plain(text)) == normalise(text)
    assert normalise(text.upper()) == normalise(text.upper().lower())


@pytest.mark.parametrize(
    ("answer", "accepted", "exact", "f1"),
    [
        ("Tirana", ["Tirana"], 1, 1),
        ("A.", ["a"], 1, 1),
        ("the", ["A"], 0, 0),
        ("?!", ["A"], 0, 0),
        ("the", ["..."], 0, 0),
        ("the tirana!", ["Tirana"], 1, 1),
        ("Tirana, Albania", ["Tirana"], 0, 2 / 3),
        ("Mount Kosciuszko", ["Kosciuszko", "Mt Kosciuszko"], 0, 2 / 3),
        ("white red", ["red white"], 0, 1),
        ("yes yes", ["yes"], 0, 2 / 3),
        ("yes no", ["yes"], 0, 2 / 3),
        ("no", ["yes"], 0, 0),
        ("yes", ["no", "yes"], 1, 1),
        ("Tiranas", ["Tirana"], 0, 0),
        ("", ["yes"], 0, 0),
        ("the", ["yes"], 0, 0),
        ("yes", [], 0, 0),
        ("red red blue", ["red blue blue"], 0, 2 / 3),
    ],
)
def test_answers_by_hand(answer, accepted, exact, f1):
    assert exact_match(answer, accepted) == exact
    assert token_f1(answer, accepted) == pytest.approx(f1)


@given(words.filter(bool), words.filter(bool))
def test_f1_is_the_harmonic_mean_of_precision_and_recall(answer, other):
    left = list(other)
    for word in answer:
        if word in left:
            left.remove(word)
    shared = len(other) - len(left)
    precision, recall = shared / len(answer), shared / len(other)
    expected = 2 * precision * recall / (precision + recall) if shared else 0
    assert token_f1(" ".join(answer), [" ".join(other)]) == pytest.approx(expected)


@given(texts, st.lists(texts, max_size=3), texts)
def test_bounds_and_that_the_best_accepted_answer_counts(answer, accepted, more):
    exact, f1 = exact_match(answer, accepted), token_f1(answer, accepted)
    assert type(exact) is type(f1) is float
    assert 0 <= exact <= f1 <= 1
    assert token_f1(answer, [*accepted, more]) == max(f1, token_f1(answer, [more]))
    assert exact_match(answer, [*accepted, more]) == max(exact, exact_match(answer, [more]))
    assert exact_match(answer, [*accepted, answer]) == token_f1(answer, [*accepted, answer]) == 1


@given(texts, texts)
def test_neither_metric_cares_which_of_two_is_the_accepted_one(answer, other):
    assert exact_match(answer, [other]) == exact_match(other, [answer])
    assert token_f1(answer, [other]) == token_f1(other, [answer])
