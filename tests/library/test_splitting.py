"""Texts in parts: nothing lost, nothing over the limit, whatever the text is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite.library.splitting import PART_CHARS, Block, split_blocks, split_lines, split_text

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
TEXTS = st.lists(st.tuples(WORDS, st.sampled_from([" ", "\n", "\n\n", ". ", "", "  \n \n"])), max_size=300).map(
    lambda pieces: "".join(word + gap for word, gap in pieces)
)


def letters(text: str) -> str:
    return "".join(text.split())


@given(TEXTS, st.integers(20, 200))
@settings(deadline=None, max_examples=60)
def test_no_letter_is_lost_and_no_part_is_over_the_limit(text: str, limit: int) -> None:
    parts = split_text(text, limit)
    assert letters("".join(parts)) == letters(text)
    assert all(0 < len(part) <= limit for part in parts)


@given(st.lists(st.text("abcdefghij", min_size=1, max_size=PART_CHARS), max_size=12), st.sampled_from(" \n"))
@settings(deadline=None, max_examples=40)
def test_every_word_is_whole_in_some_part(words: list[str], gap: str) -> None:
    found = {word for part in split_text(gap.join(words)) for word in part.split()}
    assert set(words) <= found


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"2024-05-01T10:00:{n:02} sensor={n} value={7 * n}" for n in range(400)),
        " ".join(f"so then we went to station {n} and it was fine um" for n in range(400)),
        "โปรดเปลี่ยนไส้กรองน้ำทุกหกเดือน" * 200,
        "第三台水泵的额定压力是三巴" * 300,
        "ab" * 5000,
    ],
    ids=["log", "transcript", "thai", "chinese", "hash"],
)
def test_texts_without_ends_of_sentences(text: str) -> None:
    parts = split_text(text)
    assert all(PART_CHARS // 2 < len(part) <= PART_CHARS for part in parts[:-1])
    assert letters("".join(parts)) == letters(text)


def test_logs_are_cut_between_lines_and_accents_stay_with_letters() -> None:
    lines = [f"2024-05-01T10:00:{n:02} sensor={n} value={7 * n}" for n in range(400)]
    assert [line for part in split_text("\n".join(lines)) for line in part.split("\n")] == lines
    for part in split_text("e\u0301" * 2000):
        assert part.startswith("e")


@given(st.lists(st.text(st.characters(codec="ascii", exclude_characters="\r\n"), max_size=60), max_size=100))
@settings(deadline=None, max_examples=40)
def test_source_code_keeps_lines_and_indentation(lines: list[str]) -> None:
    lines = [line.rstrip() for line in lines]
    parts = list(split_lines("\n".join(lines), limit=200))
    assert "\n".join(text for _, _, text in parts) == "\n".join(lines)
    for first, last, text in parts:
        assert text.split("\n") == lines[first - 1 : last] or not lines


def test_headings_without_text_become_text_of_the_section_around_them() -> None:
    blocks = [
        Block("Project Falcon", 1), Block("Kickoff on 3 May", 2), Block("Prototype due 17 June", 2), Block("Budget", 2),
        Block("See the sheet."), Block("Last word", 2),
    ]  # fmt: skip
    assert list(split_blocks(blocks)) == [
        ("Project Falcon", "Kickoff on 3 May\nPrototype due 17 June", False),
        ("Project Falcon > Budget", "See the sheet.", False),
        ("Project Falcon", "Last word", False),
    ]
    assert list(split_blocks([Block("Alone", 1)])) == [("", "Alone", False)]


BLOCKS = st.one_of(
    st.builds(Block, WORDS, st.integers(1, 4)), st.builds(Block, TEXTS), st.builds(Block, WORDS, is_table=st.just(True))
)


@given(st.lists(BLOCKS, max_size=30))
@settings(deadline=None, max_examples=60)
def test_every_block_is_in_some_part_or_title(blocks: list[Block]) -> None:
    parts = list(split_blocks(blocks))
    seen = letters(" ".join(f"{title} {text}" for title, text, _ in parts))
    for block in blocks:
        if block.level:
            assert letters(block.text) in seen
        else:
            assert set(letters(block.text)) <= set(seen)
