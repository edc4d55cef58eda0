"""Stage 1's prompt, the parser of its completions, and the rewards that use it."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from lite import rewards
from lite.models import TINY
from lite.prompts import NO, YES, clip, parse_stage1, plain, stage1_prompt
from lite.schema import Document

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")

CONTROL = ("<|image_pad|>", "<|im_end|>", "<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>")
hostile = st.lists(st.sampled_from([*CONTROL, "<|", "<", "|", "|>", " ", "a", "\n", "é"]) | st.text(max_size=5)).map(
    "".join
)
completions = st.text(max_size=12) | st.lists(
    st.sampled_from([YES, NO, "Yes", "No", " ", "\n", ".", "<", ">", "yes", "Nothing"]), max_size=4
).map("".join)


def text_of(prompt):
    return "".join(part.get("text", "") for part in prompt[0]["content"])


@pytest.mark.parametrize(("text", "image"), [("", None), ("A text.", None), ("", "a.png"), ("A text.", "a.png")])
def test_one_placeholder_for_an_image_and_none_without(text, image):
    (turn,) = stage1_prompt("Which?", Document("a", "text", "A title", text, image))
    kinds = [part["type"] for part in turn["content"]]
    assert turn["role"] == "user"
    assert kinds == ["text"] + ["image"] * (image is not None) + ["text"] * bool(text)
    assert "Question: Which?" in text_of([turn])
    assert "A title" in text_of([turn])
    assert text_of([turn]).endswith(text)
    assert all(part["text"] for part in turn["content"] if part["type"] == "text")


def test_what_the_documents_of_a_question_share_comes_first():
    documents = [
        Document("a", "text", "Zebra", "Stripes."),
        Document("b", "image", "Aardvark", image="b.png"),
        Document("c", "table", "Mole", "| a |", image="c.png"),
    ]
    openings = [stage1_prompt("What is it?", document)[0]["content"][0]["text"] for document in documents]
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*openings, strict=False))
    shared = "".join(letters[0] for letters in alike)
    assert "What is it?" in shared
    for opening, document in zip(openings, documents, strict=True):
        assert opening.removeprefix(shared) == f"{document.title}\n"


@given(hostile, hostile, hostile)
def test_no_control_token_survives_in_what_we_did_not_write(question, title, text):
    prompt = stage1_prompt(question, Document("a", "text", title, text, "a.png"), document_chars=20)
    parts = [part["text"] for part in prompt[0]["content"] if part["type"] == "text"]
    assert not any("<|" in part for part in parts)
    assert "<|" not in plain(text)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(TINY)


def test_control_tokens_in_a_document_are_not_tokenised_as_such(tokenizer):
    hostile = "".join(CONTROL)
    text = text_of(stage1_prompt(hostile, Document("a", "text", hostile, hostile)))
    special = set(tokenizer.convert_tokens_to_ids(list(CONTROL)))
    assert special & set(tokenizer(hostile)["input_ids"])
    assert not special & set(tokenizer(text)["input_ids"])


@given(st.text(max_size=30).map(lambda text: text.replace("<|", "")))
def test_harmless_text_is_left_alone(text):
    assert plain(text) == text


@given(st.text(alphabet="ab cd\n", max_size=200), st.integers(1, 80))
def test_clip_is_at_most_five_longer_than_the_limit_and_leaves_short_text_alone(text, limit):
    clipped = clip(text, limit)
    if len(text) <= limit:
        assert clipped == text
    else:
        assert len(clipped) <= limit + 5
        head, dots, tail = clipped.partition(" ... ")
        assert dots
        assert text.startswith(head)
        assert text.endswith(tail)


@given(st.text(alphabet="ab ", max_size=60))
def test_clip_leaves_text_of_just_the_limit_alone(text):
    assert clip(text, len(text)) == text


@given(st.lists(st.text(alphabet="abc", min_size=1, max_size=9), min_size=2, max_size=60), st.integers(24, 80))
def test_clip_keeps_whole_words_at_both_ends(words, limit):
    clipped = clip(" ".join(words), limit)
    kept = clipped.split()
    assert (kept[0], kept[-1]) == (words[0], words[-1])
    if "..." in kept:
        gap = kept.index("...")
        assert kept[:gap] == words[:gap]
        assert kept[gap + 1 :] == words[-(len(kept) - gap - 1) :]
        assert len(clipped) > limit - 2 * 10  # at most a word is lost at each cut


def test_clip_to_nothing_keeps_nothing():
    assert len(clip("a b c d e f g", 0)) <= 5


def test_prompt_clips_the_text_of_the_document_only():
    document = Document("a", "text", "t" * 50, "first " + "x " * 500 + "last")
    prompt = stage1_prompt("q" * 50, document, document_chars=40)
    opening, body = (part["text"] for part in prompt[0]["content"])
    assert "q" * 50 in opening
    assert "t" * 50 in opening
    assert len(body) <= 45
    assert body.startswith("first")
    assert body.endswith("last")


@pytest.mark.parametrize("word", [YES, NO])
def test_exactly_the_word_is_read(word):
    assert parse_stage1(word) == (word, "")
    assert parse_stage1(f" {word}\n") == (word, "")


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("Yes.", "extra text"),
        ("No, it does not", "extra text"),
        ("Yes No", "extra text"),
        ("yes", "neither word"),
        ("NO", "neither word"),
        ("Maybe", "neither word"),
        ("I say Yes", "neither word"),
    ],
)
def test_anything_else_is_refused_with_its_reason(completion, reason):
    assert parse_stage1(completion) == (None, reason)


@pytest.mark.parametrize("completion", ["Nothing", "Not sure", "Yesterday", "None"])
def test_a_longer_word_is_not_one_of_the_two(completion):
    assert parse_stage1(completion) == (None, "neither word")


@given(completions)
def test_parser_reads_any_text(completion):
    word, reason = parse_stage1(completion)
    assert (word, reason) in {(YES, ""), (NO, ""), (None, "empty"), (None, "extra text"), (None, "neither word")}
    assert (word is not None) == (completion.strip() in (YES, NO))
    assert (reason == "empty") == (not completion.strip())


def rewarded(function, texts, right):
    """As TRL calls it; the second value holds the logged columns."""
    extra = {}
    values = function(
        prompts=[[{"role": "user", "content": "?"}]] * len(texts),
        completions=[[{"role": "assistant", "content": text}] for text in texts],
        completion_ids=[[0]] * len(texts),
        label=right,
        pair=list(range(len(texts))),
        trainer_state=None,
        log_extra=extra.__setitem__,
        log_metric=lambda name, value: None,
    )
    return values, extra


def test_label_reward_is_for_the_right_word_and_logs_why_others_failed():
    texts, right = ["Yes", "No", "Yes", " No ", "Yes!", "", "perhaps"], ["Yes", "Yes", "No", "No", "Yes", "No", "No"]
    values, extra = rewarded(rewards.label, texts, right)
    assert values == [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    assert extra == {
        "expected": right,
        "format_failure": ["", "", "", "", "extra text", "empty", "neither word"],
    }


def test_format_reward_is_for_either_word():
    texts = ["Yes", "No", "Yes!", "", "perhaps"]
    assert rewarded(rewards.format, texts, ["No"] * 5)[0] == [1.0, 1.0, 0.0, 0.0, 0.0]


@given(st.lists(st.tuples(completions, st.sampled_from([YES, NO])), min_size=1, max_size=5))
def test_rewards_are_one_number_per_completion_and_label_implies_format(rows):
    texts, right = zip(*rows, strict=True)
    label, extra = rewarded(rewards.label, list(texts), list(right))
    format_, _ = rewarded(rewards.format, list(texts), list(right))
    assert len(label) == len(format_) == len(extra["format_failure"]) == len(rows)
    assert all(a <= b for a, b in zip(label, format_, strict=True))
    assert [not reason for reason in extra["format_failure"]] == [bool(value) for value in format_]
