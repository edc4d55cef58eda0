"""What is read although it is off stage 2's form, for people who ask, and what is not."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite.stages.lenient import chain_so_far, read_stage2
from lite.stages.prompts import UNKNOWN, Stage2Output, parse_stage2

FORM = "<think>[1] helps, [2] does not help.</think>\n<rank>[1]</rank>\n<answer>Lima</answer>"
READ = Stage2Output("[1] helps, [2] does not help.", (1,), "Lima")
pieces = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<Rank>", "</rank>", "< answer >", "</answer>", "[1]", "[1, 2]", "【3】", "[9]", "None",
         "```", "```xml\n", "\n", " ", "Lima", "<", "</", ">", "[", "not in the documents"]
    )
    | st.text(max_size=5)
).map("".join)  # fmt: skip


def test_what_keeps_to_the_form_is_read_as_the_strict_parser_reads_it():
    assert read_stage2(FORM, 3) == (parse_stage2(FORM, 3), "")


@pytest.mark.parametrize(
    "said",
    [
        f"```xml\n{FORM}\n```",
        f"```\n{FORM}",
        FORM.replace("think", "Think"),
        FORM.replace("<think>", "< think >").replace("</answer>", "</ANSWER>"),
        FORM.replace("think>", "thinking>"),
        FORM.replace("[1]", "【1】").replace("[2]", "【2】"),
        FORM.replace("[1]", "[ 1 ]"),
        FORM.replace("<rank>[1]", "<rank>1"),
        FORM.replace("<rank>[1]", "<rank>Document 1"),
        FORM.replace("<rank>[1]", "<rank>[1] > [1]"),
        FORM.replace("</answer>", ""),
        FORM.replace("</answer>", "\n```"),
        FORM.replace("</answer>", "</ans"),
        FORM.replace("</rank>", ""),
        FORM.replace("</think>", ""),
        FORM.replace("<think>", ""),
        FORM.replace("<answer>", "").replace("</answer>", ""),
        f"Sure! Here is the answer:\n{FORM}",
        f"{FORM}\nI hope this helps.",
        f"{FORM}\n{FORM}",
        "<answer>Lima</answer><rank>[1]</rank><think>[1] helps, [2] does not help.</think>",
    ],
)
def test_a_little_off_the_form_is_read_with_a_note(said):
    assert parse_stage2(said, 3).failure
    output, note = read_stage2(said, 3)
    assert output == READ
    assert note


@pytest.mark.parametrize(
    ("rank", "ranking"),
    [
        ("[1], [2]", (1, 2)), ("[2, 1]", (2, 1)), ("[2] [1]", (2, 1)), ("[2]\n[1]", (2, 1)), ("2 > 1", (2, 1)),
        ("[2] and [1]", (2, 1)), ("【2】>【1】", (2, 1)), ("[2 > 1]", (2, 1)), ("[3] > [7]", (3,)),
        ("None", ()), ("None.", ()), ("no document", ()), ("[i] > [j]", ()), ("", ()), ("of the 3, Peru", ()),
    ],
)  # fmt: skip
def test_whatever_form_a_ranking_has(rank, ranking):
    output, note = read_stage2(FORM.replace("<rank>[1]", f"<rank>{rank}"), 3)
    assert (output.failure, output.ranking, output.answer) == ("", ranking, "Lima")
    assert note


@pytest.mark.parametrize("said", ["Not in the documents.", "**not in the documents**", "NOT IN THE DOCUMENTS"])
def test_the_honest_outcome_is_known_in_any_letters(said):
    assert read_stage2(f"<rank>None</rank><answer>{said}</answer>", 3)[0].answer == UNKNOWN


@pytest.mark.parametrize(
    ("said", "failure"),
    [
        ("", "empty"),
        ("Lima is the capital of Peru [1].", "no <think>"),
        ("<think>[1] helps and", "unclosed <think>"),
        ("<think>[1] helps.</think>\n<rank>[1]</rank>\n<answer>", "unclosed <answer>"),
        (FORM.replace("Lima", ""), "empty answer"),
        (FORM.replace("</answer>", "").replace("Lima", "..."), "unclosed <answer>"),
        (FORM.replace("<rank>[1]", "<rank>[7]"), "rank out of range"),
        (FORM.replace("<rank>[1]", "<rank>[7, 8]"), "rank out of range"),
    ],
)
def test_what_cannot_be_read_says_why(said, failure):
    assert read_stage2(said, 3) == (Stage2Output(failure=failure), "")


def test_code_in_an_answer_and_several_numbers_that_are_no_documents_stay():
    said = "Here:\n<think>In [1990, 1991] it grew.</think><rank>[1]</rank><answer>```py\nx = 1\n``` is it</answer>"
    output, _ = read_stage2(said, 3)
    assert output.reasoning == "In [1990, 1991] it grew."
    assert output.answer.startswith("```py") or output.answer.startswith("x = 1")


@settings(deadline=None)
@given(pieces, st.integers(0, 4))
def test_whatever_is_written_is_read_or_refused_and_cites_what_was_shown(said, count):
    output, note = read_stage2(said, count)
    assert bool(output.failure) != bool(output.answer)
    assert len(set(output.ranking)) == len(output.ranking)
    assert set(output.ranking) <= set(range(1, count + 1))
    strict = parse_stage2(said, count)
    assert (output, note) == (strict, "") if not strict.failure else bool(note) != bool(output.failure)


@settings(deadline=None)
@given(pieces)
def test_the_chain_only_grows(said):
    chains = [chain_so_far(said[:length]) for length in range(len(said) + 1)]
    assert all(after.startswith(before) for before, after in pairwise(chains))


@pytest.mark.parametrize(
    ("said", "chain"),
    [
        (FORM, READ.reasoning),
        (f"Sure:\n```xml\n{FORM}", READ.reasoning),
        (FORM.replace("think", "Think"), READ.reasoning),
        (FORM.replace("</think>", ""), READ.reasoning),
        ("Too short to say.", ""),
        ("Without any tag a model says a lot of things, and all of it is shown.", None),
    ],
)
def test_the_chain_is_shown_while_it_is_written(said, chain):
    assert chain_so_far(said) == (said if chain is None else chain)


@pytest.mark.parametrize("piece", ["<", "[", " ", "\n", "【1", "[1,", "<think>", "```\n", "< / ", "1"])
def test_time_is_linear_in_long_hostile_text(piece):
    said = piece * (200_000 // len(piece))
    start = time.process_time()
    read_stage2(f"<rank>{said}</rank><answer>x</answer>", 3)
    chain_so_far(said)
    assert time.process_time() - start < 5
