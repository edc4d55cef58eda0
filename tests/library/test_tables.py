"""Tables in parts: every cell somewhere, each part with its header, several tables on one sheet."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite.library.parts import Unreadable
from lite.library.splitting import PART_CHARS
from lite.library.tables import WIDEST_ROW, split_table, split_tables

CELLS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=20),
    st.integers(0, 10**6).map(str),
    st.builds(lambda word, count: f"{word} " * count, st.text("abcdef", min_size=1, max_size=9), st.integers(50, 400)),
)
ROWS = st.lists(st.lists(CELLS, max_size=12), max_size=12)


def squeezed(text: str) -> str:
    return "".join(text.replace("\\|", "|").split())


@given(ROWS)
@settings(deadline=None, max_examples=80)
def test_every_cell_is_somewhere_and_no_part_is_over_the_limit(rows: list[list[str]]) -> None:
    for split in (split_table, split_tables):
        parts = list(split(rows))
        assert all(len(part) <= PART_CHARS for part in parts)
        lines = [line for part in parts for line in part.split("\n")]
        every = squeezed("".join(parts))
        for cell in (cell for row in rows for cell in row):
            if len(cell) <= 60:
                assert squeezed(cell) in every
            else:  # divided over lines, which hold other cells, too
                assert sum(line.count(cell.split()[0]) for line in lines) >= len(cell.split())


def test_a_long_cell_is_divided_and_each_piece_stands_beside_the_rest_of_its_row() -> None:
    story = " ".join(f"Word{n}" for n in range(500))
    parts = list(split_table([["id", "subject", "body"], ["7", "Ticket 7", f"{story} Code RZ39."]]))
    assert all(part.startswith("| id | subject | body |\n| --- | --- | --- |\n| 7 | Ticket 7 | ") for part in parts)
    assert "Code RZ39." in parts[-1]
    assert all(any(f"Word{n}" in part.split() for part in parts) for n in range(500))


def test_long_titles_of_columns_stand_in_full_once() -> None:
    question = "How satisfied are you with " + "the course " * 60 + "in Uppsala?"
    parts = list(split_table([["Person", question], *([f"Anna {n}", "very"] for n in range(200))]))
    assert "in Uppsala?" in "".join(parts)
    assert all(part.startswith("| Person | How satisfied are you with") and len(part) <= PART_CHARS for part in parts)


def test_wide_tables_are_divided_by_columns_with_the_first_in_each() -> None:
    rows = [
        ["name", *(f"column {n}" for n in range(300))],
        *([f"row {r}", *(f"{r}x{n}" for n in range(300))] for r in range(3)),
    ]
    parts = list(split_table(rows))
    assert all("| name |" in part for part in parts)
    assert any("row 2" in part and "2x299" in part and "column 299" in part for part in parts)


def test_second_tables_second_headers_and_tables_side_by_side() -> None:
    stock = [["Tool", "Shelf"], *([f"Drill {n} mm", f"A{n}"] for n in range(3))]
    suppliers = [["Supplier", "Phone"], *([f"Halvorsen {n}", f"555-010{n}"] for n in range(60))]
    parts = list(split_tables([*stock, ["", ""], *suppliers]))
    assert parts[0].count("Halvorsen") == 0
    assert all(part.startswith("| Supplier | Phone |") for part in parts[1:])
    machines = [
        ["Machine", "2023", "2023"],
        ["Machine", "hours", "cost"],
        *([f"Mill {n}", "310", "90"] for n in range(99)),
    ]
    assert all("| Machine | hours | cost |" in part for part in split_tables(machines))
    beside = [
        ["Region", "Sales", "", "City", "People"],
        ["North", "10", "", "Oslo", "700"],
        ["", "", "", "Bergen", "290"],
    ]
    assert list(split_tables(beside)) == [
        "| Region | Sales |\n| --- | --- |\n| North | 10 |",
        "| City | People |\n| --- | --- |\n| Oslo | 700 |\n| Bergen | 290 |",
    ]


def test_an_empty_row_or_column_within_a_table_does_not_divide_it() -> None:
    assert len(list(split_tables([["city", "people"], ["Paris", "2"], ["", ""], ["Lima", "10"]]))) == 1
    assert len(list(split_tables([["a", "b"], ["x", "y"], ["", ""], ["p", "q"]]))) == 1
    assert len(list(split_tables([["Name", "", "Q1", "Q2"], ["Anna", "", "1", "2"], ["Bert", "", "3", "4"]]))) == 1


def test_lines_above_the_header_are_its_caption() -> None:
    rows = [
        ["Account", "4711"],
        ["Owner: Lindqvist"],
        ["Date", "Who", "Sum"],
        *([f"{n}.1.", "Shop", f"-{n},00"] for n in range(9)),
    ]
    (part,) = split_table(rows)
    assert part.startswith("Account 4711\nOwner: Lindqvist\n| Date | Who | Sum |\n| --- | --- | --- |\n| 0.1. |")


def test_a_row_of_millions_of_cells_is_refused() -> None:
    with pytest.raises(Unreadable, match="100,001 cells; the limit is 100,000"):
        list(split_tables([["a"] * (WIDEST_ROW + 1)]))
