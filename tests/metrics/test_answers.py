"""Exact match and token F1 against SQuAD's definition and hand-worked numbers."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lite.data import flags
from lite.metrics.answers import exact_match, normalise, token_f1
from lite.stages.prompts import UNKNOWN, plain

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


@pytest.mark.parametrize(
    ("answer", "other"),
    [
        ("-5", "5"), ("−5", "5"), ("-5 °C", "5 °C"), ("it fell by -0.5", "it fell by 0.5"), ("x = -5", "x = 5"),
        ("C++", "C"), ("C#", "C"), ("C++", "C#"), ("A+", "A"), ("F#", "F"), ("A-", "A"), ("AB-", "AB+"),
        ("x > 3", "x < 3"), ("x>3", "x<3"), ("x ≥ 3", "x ≤ 3"), ("x ≥ 3", "x > 3"), ("a > b", "b > a"),
        ("x ≠ 3", "x = 3"), ("> 3", "3"), ("±3", "3"), ("3.5 bar", "35 bar"), ("-3bar", "3bar"),
    ],
)  # fmt: skip
def test_signs_tell_answers_apart(answer, other):
    assert exact_match(answer, [other]) == exact_match(other, [answer]) == 0
    assert exact_match(answer, [answer]) == 1


@pytest.mark.parametrize(
    ("answer", "other"),
    [
        ("3 bar", "3bar"), ("35Nm", "35 Nm"), ("120m²", "120 m2"), ("-3bar", "−3 bar"), ("12V.", "12 V"),
        ("x>3", "x > 3"), ("x>=3", "x ≥ 3"), ("x != 3", "x≠3"), ("2–3 bar", "2-3 bar"), ("–5", "-5"),
        ("red-white", "red–white"), ("the C++", "c++."), ("(-5)", "-5"), ("A → B", "A -> B"), ("+5", "5"),
        ("- 5", "5"), ("no. 5", "no 5"), ("pre-1990", "pre 1990"), ("3.5bar", "3.5 bar"),
    ],
)  # fmt: skip
def test_ways_to_write_one_answer_are_equal(answer, other):
    assert exact_match(answer, [other]) == 1


def test_ordinals_and_codes_stay_whole():
    assert normalise("1st 22nd 3rd 4th") == "1st 22nd 3rd 4th"
    assert normalise("9f86d081 mp3 H2O the 1990s") == "9f86d081 mp3 h2o 1990s"


def before_signs(text):
    """The normal form that the adapters shipped with lite were trained with."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).lower()
    bare = re.sub(r"['’`]|(?<=\d),(?=\d{3}\b)|(?<!\d)\.|\.(?!\d)", "", bare)
    return " ".join(word for word in re.sub(r"[^\w\s.]", " ", bare).split() if word not in ("a", "an", "the"))


def test_answers_of_the_bundled_corpus_are_what_they_were():
    examples = [example for split in flags.SPLITS for example in flags.load_examples(split)]
    answers = [answer for example in examples for answer in example.answers]
    texts = [document.text for document in flags.load_corpus().values()]
    assert len(answers) > 1000
    for text in [*answers, UNKNOWN]:
        assert normalise(text) == before_signs(text)
    assert [normalise(text) for text in texts] == [before_signs(text) for text in texts]
