"""What is rewarded: every known way to game a reward scores below an honest completion."""

import math
import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite.stages.prompts import HELPS, HELPS_NOT, NO, NONE, UNKNOWN, YES, parse_stage2
from lite.train import rewards

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")


def rewarded(function, texts, /, **columns):
    """As TRL calls it; the second value holds the logged columns."""
    extra = {}
    values = function(
        prompts=[[{"role": "user", "content": "?"}]] * len(texts),
        completions=[[{"role": "assistant", "content": text}] for text in texts],
        completion_ids=[[0]] * len(texts),
        pair=list(range(len(texts))),
        trainer_state=None,
        log_extra=extra.__setitem__,
        log_metric=lambda name, value: None,
        **columns,
    )
    return values, extra


# ------------------------------------------------------------------------------------------------------------ stage 1

words = st.text(max_size=12) | st.lists(
    st.sampled_from([YES, NO, "Yes", "No", " ", "\n", ".", "<", ">", "yes", "Nothing"]), max_size=4
).map("".join)


def test_label_reward_is_for_the_right_word_and_logs_why_others_failed():
    texts, right = ["Yes", "No", "Yes", " No ", "Yes!", "", "perhaps"], ["Yes", "Yes", "No", "No", "Yes", "No", "No"]
    values, extra = rewarded(rewards.label, texts, label=right)
    assert values == [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    assert extra == {
        "expected": right,
        "format_failure": ["", "", "", "", "extra text", "empty", "neither word"],
    }


def test_format_reward_is_for_either_word():
    texts = ["Yes", "No", "Yes!", "", "perhaps"]
    assert rewarded(rewards.format, texts, label=["No"] * 5)[0] == [1.0, 1.0, 0.0, 0.0, 0.0]


CHATTY = ["Yes, the document", "No. It", "Yes", "No", "", "perhaps", "Nothing", "Yes or No", " Yes!"]


def test_with_credit_a_chatty_completion_earns_part_by_its_first_word():
    right = [YES] * len(CHATTY)
    label = rewards.with_credit(rewards.label, 0.4)
    form = rewards.with_credit(rewards.format, 0.4)
    assert rewarded(label, CHATTY, label=right)[0] == [0.4, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.4, 0.4]
    assert rewarded(form, CHATTY, label=right)[0] == [0.4, 0.4, 1.0, 1.0, 0.0, 0.0, 0.0, 0.4, 0.4]
    assert (label.__name__, form.__name__) == ("label", "format")  # by which TRL logs them


@given(words, st.sampled_from([YES, NO]), st.floats(0, 0.99))
def test_no_completion_earns_more_by_credit_than_the_word_that_it_begins_with(text, right, credit):
    def earned(said):
        return [
            rewarded(rewards.with_credit(reward, credit), [said], label=[right])[0][0]
            for reward in (rewards.label, rewards.format)
        ]

    begun = rewards.first_word(text)
    assert all(a <= b for a, b in zip(earned(text), earned(begun or ""), strict=True))
    if begun and text.strip() != begun:
        assert sum(earned(text)) < sum(earned(begun)), "to stop after the word must pay"


@pytest.mark.parametrize("credit", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("strategy", ["Yes", "No", "Yes or No", "No, or Yes", "Yes, the document", "Yes No Yes No"])
def test_saying_the_same_to_everything_earns_less_than_a_filter_that_is_right_three_times_of_four(strategy, credit):
    right = [YES, NO] * 20
    honest = [
        other if i % 4 == 0 else word for i, (word, other) in enumerate(zip(right, [*right[1:], YES], strict=True))
    ]

    def total(texts):
        label = rewarded(rewards.with_credit(rewards.label, credit), texts, label=right)[0]
        return sum(label) + 0.5 * sum(rewarded(rewards.with_credit(rewards.format, credit), texts, label=right)[0])

    assert total([strategy] * 40) < total(honest)


@given(st.lists(st.tuples(words, st.sampled_from([YES, NO])), min_size=1, max_size=5))
def test_rewards_are_one_number_per_completion_and_label_implies_format(rows):
    texts, right = zip(*rows, strict=True)
    label, extra = rewarded(rewards.label, list(texts), label=list(right))
    format_, _ = rewarded(rewards.format, list(texts), label=list(right))
    assert len(label) == len(format_) == len(extra["format_failure"]) == len(rows)
    assert all(a <= b for a, b in zip(label, format_, strict=True))
    assert [not reason for reason in extra["format_failure"]] == [bool(value) for value in format_]


# ------------------------------------------------------------------------------------------------------------ stage 2

WEIGHTS = {"format": 0.5, "ranking": 1.0, "answer": 1.0, "grounding": 0.5}
BEST = sum(WEIGHTS.values())
STAGE2 = {
    "format": rewards.stage2_format,
    "ranking": rewards.ranking,
    "answer": rewards.answer,
    "grounding": rewards.grounding,
}
# Two of five documents are relevant, and stage 1 has ranked another one first.
CASE = {"stage1_order": [3, 4, 1, 2, 5], "relevant": [2, 4], "answers": ["yes"]}
NOTHING = CASE | {"relevant": []}
TITLES = ["Flag of Chad", "Flag of Peru", "Peru: geography", "Peru: government", "Flag of Mali"]
DOCUMENT = (
    "Yes, the flag of Peru shows a coat of arms in the center; the vicuna stands for animals, the tree for plants."
)


def scores(text, case=CASE):
    """Every reward of one completion, and their weighted sum."""
    columns = {name: [value] for name, value in case.items()}
    found = {name: rewarded(function, [text], **columns)[0][0] for name, function in STAGE2.items()}
    return found | {"sum": sum(WEIGHTS[name] * value for name, value in found.items())}


def said(ranked, answer="yes", helpful=None, think=None):
    """A completion that ranks some documents, with a chain that calls those helpful, or others."""
    helpful = ranked if helpful is None else helpful
    chain = " ".join(
        f"[{i}] {title} {HELPS if i in helpful else HELPS_NOT}." for i, title in enumerate(TITLES, start=1)
    )
    rank = " > ".join(f"[{i}]" for i in ranked) or NONE
    return f"<think>{chain if think is None else think}</think>\n<rank>{rank}</rank>\n<answer>{answer}</answer>"


HONEST = said([2, 4])
REFUSAL = said([], UNKNOWN)


def test_an_honest_completion_gets_everything():
    assert scores(HONEST) == {"format": 1, "ranking": 1, "answer": 1, "grounding": 1, "sum": BEST}
    assert scores(REFUSAL, NOTHING) == {"format": 1, "ranking": 1, "answer": 1, "grounding": 1, "sum": BEST}


GAMES = {  # name: (completion, the reward that must see through it)
    "list every document": (said([1, 2, 3, 4, 5]), "ranking"),
    "list every document, the right ones first": (said([2, 4, 1, 3, 5]), "ranking"),
    "list one document too many": (said([2, 4, 3]), "ranking"),
    "list only the surest document": (said([2]), "ranking"),
    "list the wrong one first": (said([3, 2, 4]), "ranking"),
    "repeat the best document": (said([2, 2, 4]), "format"),
    "cite without reasoning": (said([2, 4], think="[2] [4]"), "grounding"),
    "cite all without reasoning": (said([2, 4], think="[1][2][3][4][5]"), "grounding"),
    "cite with a word": (said([2, 4], think="[2] good [4] good"), "grounding"),
    "one verdict for both": (said([2, 4], think="[2] [4] help, and so does what [1] helps."), "grounding"),
    "one verdict for all": (said([2, 4], think="[1, 2, 3, 4, 5] help."), "grounding"),
    "call all helpful, rank two": (said([2, 4], helpful=[1, 2, 3, 4, 5]), "grounding"),
    "rank, but say it is not in the documents": (said([2, 4], answer=UNKNOWN), "grounding"),
    "dismiss all, but answer": (said([]), "grounding"),
    "reason about one, cite both": (said([2, 4], think="[4] [2] Flag of Peru helps."), "grounding"),
    "reason without citing": (said([2, 4], think="The flag of Peru helps and so does its government."), "grounding"),
    "reason about others": (said([2, 4], think="[1] Flag of Chad helps. [3] Peru helps."), "grounding"),
    "empty think": (said([2, 4], think=""), "format"),
    "blank think": (said([2, 4], think=" \n\t"), "format"),
    "think of nothing": (said([2, 4], think="..."), "grounding"),
    "copy the document into the answer": (said([2, 4], answer=DOCUMENT), "answer"),
    "answer yes and no": (said([2, 4], answer="yes no"), "answer"),
    "answer yes or no": (said([2, 4], answer="yes or no"), "answer"),
    "repeat the answer": (said([2, 4], answer="yes yes yes"), "answer"),
    "two answers": (HONEST + "<answer>no</answer>", "format"),
    "two rankings": (HONEST.replace("<answer>", "<rank>[3]</rank>\n<answer>"), "format"),
    "two chains": ("<think>[1] Flag of Chad helps.</think>" + HONEST, "format"),
    "a closing tag twice": (HONEST.replace("</answer>", "</answer></answer>"), "format"),
    "text after the answer": (HONEST + " no", "format"),
    "call one irrelevant and rank it": (said([2, 4], helpful=[2]), "grounding"),
    "call all irrelevant and rank them": (said([2, 4], helpful=[]), "grounding"),
    "call it both": (said([2, 4], think="[2] it helps. [4] it helps. [2] it does not help."), "grounding"),
    "cite a number out of range": (said([2, 4], think="[2] it helps. [4] it helps. [6] it helps."), "grounding"),
    "cite zero": (said([2, 4], think="[0] it helps. [2] it helps. [4] it helps."), "grounding"),
    "cite a huge number": (said([2, 4], think="[2] it helps. [4] it helps. [12345] it helps."), "grounding"),
    "cite endless digits": (said([2, 4], think=f"[2] it helps. [4] it helps. [{'9' * 5000}]"), "grounding"),
    "rank a number out of range": (said([2, 4, 6]), "format"),
    "rank a huge number": (said([2, 4, 12345]), "format"),
    "rank none, but answer": (said([]), "ranking"),
    "rank, but refuse to answer": (said([2, 4], answer=UNKNOWN), "answer"),
    "refuse": (REFUSAL, "ranking"),
    "refuse in silence": (said([], UNKNOWN, think="..."), "grounding"),
    "say nothing": ("", "format"),
    "answer without the grammar": ("yes", "format"),
}


@pytest.mark.parametrize("name", GAMES)
def test_gaming_scores_below_an_honest_completion(name):
    text, reward = GAMES[name]
    found = scores(text)
    assert found[reward] < 1
    assert found["sum"] < BEST


@pytest.mark.parametrize("name", [name for name, (_, reward) in GAMES.items() if reward == "format"])
def test_what_breaks_the_grammar_gets_nothing(name):
    assert scores(GAMES[name][0])["sum"] == 0


@pytest.mark.parametrize(
    "phrase",
    [
        "does not help",
        "doesn't help",
        "Does Not Help",
        "does\nnot help",
        "is irrelevant",
        "is not relevant",
        "isn't relevant",
        "isn’t helpful at all",
        "is not at all useful",
    ],
)
def test_ranking_what_was_dismissed_is_seen_in_other_words_too(phrase):
    think = f"[2] Flag of Peru helps. [4] Peru: government {phrase}."
    assert scores(said([2, 4], think=think))["grounding"] == 0.5
    assert scores(said([2], think=think))["grounding"] == 1


def test_each_ranked_document_must_be_discussed():
    chains = ["[2] Flag helps. [4] Text helps.", "[2] Flag helps. [4]", "[2] Flag helps.", "[4]"]
    assert [scores(said([2, 4], think=chain))["grounding"] for chain in chains] == [1, 0.5, 0.5, 0]


def test_the_verdict_that_the_prompt_asks_for_is_discussion_enough():
    assert scores(said([2, 4], think="[2] helps. [4] helps."))["grounding"] == 1
    dismissed = " ".join(f"[{i}] irrelevant." for i in range(1, 6))
    assert scores(said([], UNKNOWN, think=dismissed), NOTHING)["grounding"] == 1


def test_a_document_may_be_discussed_in_several_places():
    assert scores(said([2, 4], think="[2] first, then [4] helps too, and [2] again"))["grounding"] == 1


def test_none_is_grounded_by_dismissing_every_document():
    chains = [
        f"[1] It {HELPS_NOT}." * (n > 0) + "".join(f"[{i}] It {HELPS_NOT}." for i in range(2, n + 1)) for n in (5, 2)
    ]
    assert [scores(said([], UNKNOWN, think=chain), NOTHING)["grounding"] for chain in chains] == [1, 0.4]
    assert scores(said([], UNKNOWN, think="None of them help."), NOTHING)["grounding"] == 0


@pytest.mark.parametrize(
    "text", [said([2], "yes"), said([2], UNKNOWN), said([], "yes"), said([1, 2, 3, 4, 5], UNKNOWN)]
)
def test_where_nothing_is_relevant_only_none_and_the_refusal_are_right(text):
    found = scores(text, NOTHING)
    assert found["sum"] < BEST
    assert found["ranking"] == float(parse_stage2(text, 5).ranking == ())
    assert (found["answer"] == 1) == (UNKNOWN in text)


# A strategy is judged over many questions; `honest(p)` says what it believes and is right with probability p.


def mean_score(strategy, cases, reward="sum", draws=200):
    rng = random.Random(0)
    values = [scores(strategy(case, rng), case)[reward] for case in cases for _ in range(draws // len(cases))]
    return sum(values) / len(values)


def honest(right):
    def strategy(case, rng):
        known = rng.random() < right
        if not case["relevant"]:
            return REFUSAL if known else said([1], "yes")
        other = {"yes": "no", "no": "yes"}[case["answers"][0]]
        return said(case["relevant"] if known else [1, 3], case["answers"][0] if known else other)

    return strategy


BALANCED = [CASE, CASE | {"answers": ["no"]}]
ONE_IN_FIVE_UNANSWERABLE = [*BALANCED, *BALANCED, NOTHING]


def ranks_right(answer):
    return lambda case, rng: said(case["relevant"], answer)


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_always_the_same_answer_to_yes_or_no_pays_half(answer):
    assert mean_score(ranks_right(answer), BALANCED, "answer") == 0.5
    assert mean_score(ranks_right(answer), BALANCED) < mean_score(honest(0.9), BALANCED)


@pytest.mark.parametrize("answer", ["yes no", "no yes", "yes or no", "no, yes"])
def test_answering_both_yes_and_no_pays_less_than_a_guess(answer):
    assert mean_score(ranks_right(answer), BALANCED, "answer") < 0.5


@pytest.mark.parametrize("n", range(2, 9))
def test_naming_every_choice_pays_less_than_a_guess(n):
    choices = ["Chad", "Peru", "Mali", "Cuba", "Fiji", "Iran", "Oman", "Togo"][:n]
    everything = scores(said([2, 4], " ".join(choices)), CASE | {"answers": ["Chad"]})["answer"]
    guess = sum(scores(said([2, 4], one), CASE | {"answers": ["Chad"]})["answer"] for one in choices) / n
    assert everything < guess


@pytest.mark.parametrize(
    "text", [said([], UNKNOWN), said([], UNKNOWN, think="Nothing here is of use."), said([2], UNKNOWN), said([])]
)
@pytest.mark.parametrize("cases", [BALANCED, ONE_IN_FIVE_UNANSWERABLE], ids=["answerable", "mixed"])
def test_refusing_always_pays_less_than_being_right_half_of_the_time(text, cases):
    assert mean_score(lambda *_: text, cases) < mean_score(honest(0.5), cases)


def test_on_an_answerable_question_refusing_pays_no_more_than_being_wrong():
    wrong = said([1, 3], "no")
    assert scores(REFUSAL)["sum"] <= scores(wrong)["sum"]
    assert scores(said([2], "no"))["sum"] > scores(REFUSAL)["sum"]


def test_listing_every_document_pays_less_than_one_right_of_two():
    assert mean_score(lambda case, rng: said([1, 2, 3, 4, 5], case["answers"][0]), BALANCED) < mean_score(
        lambda case, rng: said([2, 3], case["answers"][0]), BALANCED
    )


# Properties

pieces = [f"<{slash}{tag}>" for tag in ("think", "rank", "answer") for slash in ("", "/")]
fragments = st.lists(
    st.sampled_from([*pieces, "[1]", "[2]", "[3]", "[99999]", " > ", NONE, UNKNOWN, HELPS, HELPS_NOT, " yes "])
    | st.text(max_size=3),
    max_size=8,
).map("".join)
completions = fragments | st.tuples(fragments, fragments, fragments).map(
    lambda t: f"<think>{t[0]}</think><rank>{t[1]}</rank><answer>{t[2]}</answer>"
)


@st.composite
def rows(draw):
    """(completion, its columns): half of the completions are well formed."""
    n = draw(st.integers(1, 6))
    numbers = st.lists(st.integers(1, n), unique=True, max_size=n)
    ranked, relevant, discussed = draw(numbers), draw(numbers), draw(st.lists(st.integers(1, n + 1), max_size=6))
    think = " ".join(f"[{i}] {draw(st.sampled_from(['it helps.', 'it does not help.', 'x', '']))}" for i in discussed)
    rank = " > ".join(f"[{i}]" for i in ranked) or NONE
    answer = draw(st.sampled_from(["yes", "no", "red, white", "the white red", UNKNOWN]))
    text = f"<think>So: {think}</think><rank>{rank}</rank><answer>{answer}</answer>"
    columns = {
        "stage1_order": draw(st.permutations(range(1, n + 1))),
        "relevant": relevant,
        "answers": draw(st.lists(st.sampled_from(["yes", "no", "white", "red white"]), min_size=1, max_size=2)),
    }
    return draw(st.just(text) | completions), columns


@given(st.lists(rows(), min_size=1, max_size=4))
def test_stage2_rewards_are_numbers_from_0_to_1_and_need_the_format(batch):
    texts = [text for text, _ in batch]
    columns = {name: [row[name] for _, row in batch] for name in ("stage1_order", "relevant", "answers")}
    found = {name: rewarded(function, texts, **columns) for name, function in STAGE2.items()}
    for values, _ in found.values():
        assert len(values) == len(batch)
        assert all(type(value) is float and 0 <= value <= 1 for value in values)
        assert all(value <= form for value, form in zip(values, found["format"][0], strict=True) if form == 0)
    for i, row in enumerate(batch):
        assert {name: values[i] for name, (values, _) in found.items()}.items() <= scores(*row).items()
    failures = found["format"][1]["format_failure"]
    assert [not failure for failure in failures] == [bool(value) for value in found["format"][0]]
    assert found["answer"][1]["accepted"] == [" | ".join(row["answers"]) for _, row in batch]


@given(rows(), st.randoms(use_true_random=False))
def test_the_numbers_that_documents_happen_to_have_do_not_matter(row, rng):
    text, case = row
    n = len(case["stage1_order"])
    new = [0, *rng.sample(range(1, n + 1), n), *range(n + 1, 100_000)]
    renumbered = "".join(
        f"[{new[int(part)]}]" if i % 2 else part for i, part in enumerate(re.split(r"\[([0-9]+)\]", text))
    )
    moved = case | {name: [new[number] for number in case[name]] for name in ("stage1_order", "relevant")}
    assert scores(renumbered, moved) == pytest.approx(scores(text, case))


@given(st.sets(st.integers(1, 6)), st.sets(st.integers(1, 6), min_size=1))
def test_set_f1_is_the_harmonic_mean_of_precision_and_recall(chosen, relevant):
    precision = len(chosen & relevant) / max(1, len(chosen))
    recall = len(chosen & relevant) / len(relevant)
    expected = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert rewards.set_f1(list(chosen), list(relevant)) == pytest.approx(expected)


@given(st.permutations(range(1, 7)), st.lists(st.integers(1, 6), unique=True))
def test_the_final_order_puts_the_ranked_first_and_keeps_stage_1s_order_behind(order, ranked):
    final = rewards.final_order(ranked, order)
    assert sorted(final) == list(range(1, 7))
    assert final[: len(ranked)] == ranked
    assert final[len(ranked) :] == sorted(final[len(ranked) :], key=order.index)


def test_ranking_by_hand():
    second = 1 / math.log2(3)
    columns = {"stage1_order": [3, 1, 2], "relevant": [1]}
    found = [scores(said(ranked), CASE | columns)["ranking"] for ranked in ([1], [1, 2], [2, 1], [2], [])]
    assert found == pytest.approx([1, 2 / 3, 2 / 3 * second, 0, 0])
    # Of two relevant documents one is named: stage 1 has the other one behind an irrelevant one.
    columns = {"stage1_order": [3, 1, 2], "relevant": [1, 2]}
    assert scores(said([2]), CASE | columns)["ranking"] == pytest.approx((1 + 0.5) / (1 + second) * 2 / 3)


def test_answer_by_hand():
    case = CASE | {"answers": ["red, white", "blue"]}
    answers = ["Red white.", "the white, red", "red", "blue", "blue red white", "green", UNKNOWN]
    found = [scores(said([2, 4], answer), case)["answer"] for answer in answers]
    # (exact match + F1) / 2; "blue red white" has F1 .8 with "red, white"
    assert found == pytest.approx([1, 0.5, 1 / 3, 1, 0.4, 0, 0])


def test_discussion_is_what_follows_a_number_if_it_is_words_enough():
    found = rewards.discussion("So [1] it helps, [2] no. [3] and [1] more")
    assert {number: text.split() for number, text in found.items()} == {1: ["it", "helps,", "more"]}
    assert rewards.discussion("no number") == {}


@pytest.mark.parametrize("piece", ["[1] a b ", "[2]", "[", "does ", "not ", "do not", "]", "9", " "])
def test_a_long_chain_is_judged_in_linear_time(piece):
    """Each takes a fraction of a second; quadratic time would be half a minute."""
    text = said([2], think=f"[2] {piece * 50_000}", answer=piece * 50_000 + "x")
    before = time.process_time()
    scores(text)
    assert time.process_time() - before < 3


@pytest.mark.parametrize(
    "both", ["[2, 4] help", "[2] and [4] help", "[2], [4] help.", "【2】 and 【4】 help", "[2,4] help"]
)
def test_documents_that_are_cited_together_are_discussed_together(both):
    assert scores(said([2, 4], think=f"{both}"))["grounding"] == 1
    assert scores(said([2, 4], think=f"{both.replace('help', 'do not help')}"))["grounding"] == 0


# ------------------------------------------------------------------------------------------------------------- quotes

TEXTS = [
    "Chad lies in Africa. The capital of Chad is N'Djamena. Its flag is blue, yellow and red.",
    "The capital of Peru is Lima. Peru lies in South America.",
    "Peru and Chad have flags.",
    "",
    "The mountains are high. " * 20 + "The seat of the government of Peru is Lima, on the coast.",
]
QUOTING = CASE | {
    "relevant": [2, 4], "answers": ["Lima"], "question": "What is the capital of Peru?", "texts": TEXTS,
    "titles": TITLES,
}  # fmt: skip


def quoting(quote, ranked=(2, 4), answer="Lima", more=""):
    """A completion that quotes document 2."""
    helpful = "".join(f" [{n}] Flag helps." for n in ranked if n not in (2,))
    think = f'[1] {TITLES[0]} does not help. [2] {TITLES[1]} helps: "{quote}"{more}{helpful}'
    return said(list(ranked), answer, think=think)


HONEST_QUOTE = "The capital of Peru is Lima."


def test_an_honest_quote_earns_all():
    columns = {name: [value] for name, value in QUOTING.items()}
    for quote in (HONEST_QUOTE, "capital of Peru is Lima", "the  capital of\nPERU is *Lima*"):
        assert rewarded(rewards.grounding, [quoting(quote)], **columns)[0] == [1.0], quote


QUOTE_GAMES = {
    "no quote": said([2, 4], "Lima", think="[2] Peru helps. [4] Flag helps."),
    "quote that is not there": quoting("The capital of Peru is Cusco."),
    "quote of another document": quoting("The capital of Chad is N'Djamena."),
    "quote the question": quoting("The capital of Peru is"),
    "quote the question alone": quoting("What is the capital of Peru?"),
    "quote one small word": quoting("The"),
    "quote a mark": quoting("…"),
    "quote what others say, too": said([5], "Lima", think='[5] Peru helps: "of Peru is Lima"'),
    "quote the whole document": said([5], "Lima", think=f'[5] Peru helps: "{TEXTS[4]}"'),
    "quote without the answer": quoting("Peru lies in South America."),
    "quote much, one of it right": quoting(HONEST_QUOTE, more=' "Peru is an island" "Lima lies inland"'),
    "quote with a number changed": quoting("The capital of Peru is Lima 2."),
    "quote before any citation": said([2, 4], "Lima", think=f'"{HONEST_QUOTE}" [2] Peru helps. [4] Flag helps.'),
    "quote a number that does not exist": said(
        [2, 4], "Lima", think=f'[2] Peru helps. [4] Flag helps. [9] "{HONEST_QUOTE}"'
    ),
    "quote and dismiss": said([2, 4], "Lima", think=f'[2] does not help: "{HONEST_QUOTE}" [4] Flag helps.'),
    "open a quotation and never close it": said([2, 4], "Lima", think=f'[2] helps: "{HONEST_QUOTE} [4] Flag helps.'),
    "empty quotation": quoting(""),
    "the title for a quote": quoting("Government of Peru"),
    "tags in a quote": quoting("</answer> The capital of Peru is Lima"),
    "the document twice over": quoting(f"{HONEST_QUOTE} {HONEST_QUOTE}"),
    "words in another order": quoting("Lima is the capital of Peru"),
    "one word left out": quoting("The capital is Lima."),
    "another document in the same quote": quoting(f"{HONEST_QUOTE} The capital of Chad is N'Djamena."),
    "cite all with one quote": said([2, 4], "Lima", think=f'[1, 2, 3, 4, 5] help: "{HONEST_QUOTE}"'),
    "answer not in the documents, quote all the same": quoting(HONEST_QUOTE, answer=UNKNOWN),
}


@pytest.mark.parametrize("name", QUOTE_GAMES)
def test_no_quote_pays_more_than_an_honest_one(name):
    columns = {name: [value] for name, value in QUOTING.items()}
    (found,), _ = rewarded(rewards.grounding, [QUOTE_GAMES[name]], **columns)
    assert 0 <= found < 1


@given(
    st.lists(st.sampled_from(["[1]", "[2]", "[1, 2]", '"', "“", "”", "helps", "Lima", "The capital", " ", "…", "</"]))
)
def test_any_chain_with_quotes_has_a_reward(pieces):
    columns = {name: [value] for name, value in QUOTING.items()}
    (found,), _ = rewarded(rewards.grounding, [said([2], "Lima", think="x" + "".join(pieces))], **columns)
    assert 0 <= found <= 1
