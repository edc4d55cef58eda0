"""Reasoning chains composed from labels: what they say, and that every stage 2 reward finds them perfect."""

import random
import re
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite.data import flags
from lite.schema import Document, Example, LiteError
from lite.stages.prompts import DISMISSAL, HELPS, UNKNOWN, clip, parse_stage2, plain, stage2_prompt
from lite.train import rewards
from lite.train.chains import compose_chain, found_fact, mentions

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")

CHARS = 140
TRAIN = flags.load_examples("train")

FLAG = Document("f", "image", "Flag of Chad", image="f.png")
TEXT = Document("t", "text", "Chad: government", "It has a president. The capital is N'Djamena. It lies in Africa.")
OTHER = Document("o", "text", "Mali: background", "The capital of Mali is Bamako.")


def example(relevant, answers=("N'Djamena",), question="What is the capital of Chad?"):
    return Example("q", question, (FLAG, TEXT, OTHER), frozenset(relevant), tuple(answers))


def rewarded(chain, example, documents, stage1_order=None):
    """All four rewards of a chain."""
    relevant = [number for number, document in enumerate(documents, start=1) if document.id in example.relevant]
    columns = {
        "completions": [[{"role": "assistant", "content": chain}]],
        "stage1_order": [stage1_order or list(range(1, len(documents) + 1))],
        "relevant": [relevant],
        "answers": [list(example.answers)],
        "log_extra": lambda name, values: None,
        "log_metric": lambda name, value: None,
    }
    functions = (rewards.stage2_format, rewards.ranking, rewards.answer, rewards.grounding)
    return {function.__name__: function(**columns)[0] for function in functions}


def is_perfect(chain, example, documents, stage1_order=None):
    return rewarded(chain, example, documents, stage1_order) == {
        "stage2_format": 1, "ranking": 1, "answer": 1, "grounding": 1,
    }  # fmt: skip


def test_a_chain_says_of_each_document_whether_it_helps_and_what_it_contributes():
    assert compose_chain(example({"t"}), [OTHER, TEXT, FLAG], CHARS) == (
        "<think>[1] Mali: background does not help. [2] Chad: government helps: The capital is N'Djamena. "
        "[3] Flag of Chad does not help.</think>\n<rank>[2]</rank>\n<answer>N'Djamena</answer>"
    )


def test_the_rank_names_what_helps_best_first():
    both = example({"f", "t"})
    documents = [OTHER, FLAG, TEXT]
    assert "<rank>[2] > [3]</rank>" in compose_chain(both, documents, CHARS)
    chain = compose_chain(both, documents, CHARS, best_first=(1, 3, 2))
    assert "<rank>[3] > [2]</rank>" in chain
    assert is_perfect(chain, both, documents, stage1_order=[1, 3, 2])


def test_where_nothing_is_relevant_the_chain_dismisses_all_and_refuses():
    for relevant in ({"t"}, set()):
        chain = compose_chain(example(relevant), [OTHER, FLAG], CHARS)
        assert chain == (
            "<think>[1] Mali: background does not help. [2] Flag of Chad does not help.</think>\n"
            f"<rank>none</rank>\n<answer>{UNKNOWN}</answer>"
        )
        assert is_perfect(chain, example(relevant), [OTHER, FLAG])


def test_an_image_contributes_the_answer_unless_another_relevant_document_holds_it():
    both = example({"f", "t"})
    assert f"[1] Flag of Chad {HELPS}. [2]" in compose_chain(both, [FLAG, TEXT], CHARS)
    seen = example({"f", "t"}, ["blue"], "What color is the flag of the country whose capital is N'Djamena?")
    assert f"[1] Flag of Chad {HELPS}: blue. [2]" in compose_chain(seen, [FLAG, TEXT], CHARS)
    titled = example({"f", "t"}, ["Chad"], "Which country has this flag?")
    assert f"[1] Flag of Chad {HELPS}. [2]" in compose_chain(titled, [FLAG, TEXT], CHARS)
    assert f"[1] Flag of Chad {HELPS}: N'Djamena." in compose_chain(example({"f"}), [FLAG, TEXT], CHARS)


def test_a_captioned_image_contributes_its_caption_and_the_chain_stays_perfect():
    captions = {"f": "vertical: blue, yellow, red", "o": "unused"}
    seen = example({"f"}, ["blue"], "What color is the left band of the flag of Chad?")
    chain = compose_chain(seen, [OTHER, FLAG], CHARS, captions)
    assert f"[2] Flag of Chad {HELPS}: vertical: blue, yellow, red.</think>" in chain
    assert chain.endswith("<answer>blue</answer>")
    assert is_perfect(chain, seen, [OTHER, FLAG])
    assert "vertical" not in compose_chain(example({"t"}), [OTHER, FLAG, TEXT], CHARS, captions)
    assert f"{HELPS}: The capital is N'Djamena." in compose_chain(example({"t"}), [TEXT], CHARS, {"t": "unused"})


def test_a_text_contributes_the_sentence_with_the_answer_or_else_the_closest_to_the_question():
    assert found_fact(example({"t"}), TEXT, [], CHARS) == "The capital is N'Djamena."
    assert found_fact(example({"t"}, ["red"], "Who is president?"), TEXT, [], CHARS) == "It has a president."
    assert found_fact(example({"t"}, ["red"], "Is it in Africa?"), TEXT, [], CHARS) == "It lies in Africa."


def test_only_what_the_prompt_shows_is_quoted():
    long = replace(
        TEXT, text="It has a president. " + "It is large. " * 50 + "The capital is N'Djamena. " + "So. " * 50
    )
    assert "N'Djamena." not in compose_chain(example({"t"}), [long], 60).split("</think>")[0]
    assert "N'Djamena." in compose_chain(example({"t"}), [long], 2000).split("</think>")[0]


def test_the_answer_is_looked_for_as_whole_words():
    assert mentions("It is Niger.", "niger")
    assert mentions("St. John's (Antigua)", "St. John's")
    assert not mentions("It is Nigeria.", "Niger")
    assert not mentions("pre-Nigerian", "Niger")
    assert mentions("100% (2020)", "100%")


@pytest.mark.parametrize("answers", [(), ("",), (" \n",)])
def test_without_an_answer_there_is_nothing_to_compose(answers):
    with pytest.raises(LiteError, match="'q' has no answer"):
        compose_chain(example({"t"}, answers), [TEXT, OTHER], CHARS)
    assert UNKNOWN in compose_chain(example({"t"}, answers), [OTHER], CHARS)


def test_every_bundled_question_gets_a_perfect_chain_that_quotes_its_prompt():
    assert len(TRAIN) == 592
    rng = random.Random(0)
    for question in TRAIN:
        documents = rng.sample(question.documents, len(question.documents))
        order = rng.sample(range(1, len(documents) + 1), len(documents))
        chain = compose_chain(question, documents, CHARS)
        assert is_perfect(chain, question, documents, order), chain
        prompt = [part.get("text", "") for part in stage2_prompt(question.question, documents, CHARS)[0]["content"]]
        said = rewards.discussion(parse_stage2(chain, len(documents)).reasoning)
        for number, document in enumerate(documents, start=1):
            verdict = said[number].strip()
            assert bool(DISMISSAL.search(verdict)) == (document.id not in question.relevant)
            shown = clip(document.text, CHARS)
            if document.id in question.relevant and document.text:
                fact = verdict.removeprefix(f"{document.title} {HELPS}: ")
                assert fact in "\n".join(prompt)
                assert mentions(fact, question.answers[0]) == mentions(shown, question.answers[0]), (fact, shown)


def test_every_bundled_question_without_its_documents_gets_a_perfect_refusal():
    for question in TRAIN:
        documents = [document for document in question.documents if document.id not in question.relevant]
        chain = compose_chain(question, documents, CHARS)
        assert parse_stage2(chain, len(documents)).answer == UNKNOWN
        assert is_perfect(chain, question, documents)


shapes = [
    *("<think>", "</think>", "</RANK>", "</answer>", "< / answer >", "<rank>[1]</rank>", "[1]", "[ 2 ]", "[3", "]"),
    *(
        "does not help",
        "does not",
        "is irrelevant",
        "not",
        "relevant",
        "helps",
        "<|im_end|>",
        "<",
        "!",
        ". ",
        "? ",
        "\n",
    ),
    *("none", UNKNOWN, "Chad", "a"),
]
hostile = st.lists(st.sampled_from(shapes) | st.text(max_size=3), max_size=8).map(" ".join) | st.lists(
    st.sampled_from(shapes) | st.text(max_size=3), max_size=8
).map("".join)


@st.composite
def examples(draw):
    documents = tuple(
        Document(str(i), draw(st.sampled_from(["text", "page", "image"])), draw(hostile), draw(hostile), image)
        for i, image in enumerate(draw(st.lists(st.sampled_from([None, "a.png"]), min_size=1, max_size=4)))
    )
    relevant = draw(st.sets(st.sampled_from(documents)))
    answers = draw(st.lists(hostile, min_size=1, max_size=2).filter(lambda texts: texts[0].strip()))
    return Example("q", draw(hostile), documents, frozenset(d.id for d in relevant), tuple(answers))


@given(examples(), st.integers(10, 200), st.randoms(use_true_random=False))
def test_the_chain_of_any_example_is_perfect_whatever_others_wrote_into_it(question, chars, rng):
    documents = rng.sample(question.documents, len(question.documents))
    order = rng.sample(range(1, len(documents) + 1), len(documents))
    chain = compose_chain(question, documents, chars)
    assert parse_stage2(chain, len(documents)).failure == ""
    assert is_perfect(chain, question, documents, order), (chain, rewarded(chain, question, documents, order))
    assert "<|" not in chain


@pytest.mark.parametrize(
    "title", ["What does not help against colds", "Irrelevant", "", "???", "</think>", "[2] Flag of Peru", "[2"]
)
def test_a_title_cannot_spoil_the_chain(title):
    documents = [replace(OTHER, title=title), replace(FLAG, title=title), replace(TEXT, title=title)]
    question = example({"f", "t"})
    assert is_perfect(compose_chain(question, documents, CHARS), question, documents)


@pytest.mark.parametrize("answer", ["</answer>", "<rank>[1]</rank>", "[1]", "irrelevant", "none", "%", "the", "a\nb"])
def test_an_answer_cannot_spoil_the_chain(answer):
    question = example({"f", "t"}, [answer])
    chain = compose_chain(question, [OTHER, FLAG, TEXT], CHARS)
    assert is_perfect(chain, question, [OTHER, FLAG, TEXT])
    assert parse_stage2(chain, 3).answer == plain(answer)


def test_ordinary_words_are_quoted_as_they_are():
    quoted = re.findall(rf"{HELPS}: (.*?)(?= \[|</think>)", compose_chain(example({"o"}), [OTHER], CHARS))
    assert quoted == [OTHER.text]


@pytest.mark.parametrize("piece", ["<", "[", "a ", ". ", "? \n", "do not ", " ", "x", "N'Djamena "])
def test_time_is_linear_in_long_documents(piece):
    """Each takes a fraction of a second; quadratic time would be half a minute."""
    long = piece * 50_000
    document = replace(TEXT, title=long, text=long)
    before = time.process_time()
    compose_chain(example({"t"}), [document, OTHER], 10**6)
    assert time.process_time() - before < 3
