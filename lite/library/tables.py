"""Rows of cells as Markdown tables that fit into a prompt, whatever kind of file they come from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, islice

from lite.library.parts import Unreadable
from lite.library.splitting import PART_CHARS, split_text

AHEAD = 50  # rows that are looked at to find the header of a table, or that there are two side by side
HEADER_CHARS = PART_CHARS // 2  # a wider table is divided by columns
LONG_TITLE = 200  # a title of a column that is longer is shortened above the parts, and stands in full in the first
WIDEST_ROW = 100_000  # cells; six times what a spreadsheet holds
SHORT_CELL = 80  # stands in each part of a row that is divided
NUMBER = re.compile(r"[-+(]?\W{0,3}\d[\d.,:/ '%-]*\W{0,3}[A-Za-z°%]{0,3}\W?")


def split_tables(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """`split_table` of each of the tables that stand below or beside each other on one sheet.

    Tables end at an empty row or column; an empty row within a table does not divide it, unless what follows it begins
    with a header of its own.
    """
    for table in _below_each_other(rows):
        first = list(islice(table, AHEAD))
        if len(_side_by_side(first)) < 2:
            yield from split_table(chain(first, table))
            continue
        first += table
        for start, end in _side_by_side(first):
            yield from split_table(row[start:end] for row in first)


def split_table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Markdown tables of at most 1,200 characters, each with the table's header.

    The header is the first row that is as wide as most, with a second one below it where that has no numbers and the
    rows below have. What stands above the header is its caption, and stands above each part, too, unless it is long.
    Empty rows are left out. Tables wider than a part are divided by columns, rows longer than a part are divided; their
    first column stands in each piece.
    """
    filled = (cells for row in rows if any(cells := [_cell(value) for value in _bounded(row)]))
    first = list(islice(filled, AHEAD))
    if not first:
        return
    start = _header_row(first)
    caption = "\n".join(" ".join(dict.fromkeys(filter(None, cells))) for cells in first[:start])
    if len(caption) > LONG_TITLE:
        yield from split_text(caption)
        caption = ""
    second = _has_second_header(first[start:])
    titles, *below = first[start : start + 1 + second]
    body = chain(first[start + 1 + second :], filled)
    if any(len(title) > LONG_TITLE for title in titles):
        body = chain([titles], body)
        titles = [title if len(title) <= LONG_TITLE else f"{title[:LONG_TITLE]} …" for title in titles]
    columns = _columns([titles, *below])
    groups = [_Columns(caption, group, titles, below, group is columns[-1]) for group in columns]
    for cells in body:
        for group in groups:
            yield from group.add(cells)
    for group in groups:
        yield from group.rest()


class _Columns:
    """Some columns of a table while its rows go by."""

    def __init__(self, caption: str, columns: list[int], titles: list[str], below: list[list[str]], last: bool):
        self.columns, self.width = columns, len(columns)
        self.last = last
        self.keys = int(columns[0] == 0 and columns[1:2] > [1])  # the first column, where it stands beside others
        rule = f"|{' --- |' * self.width}"
        lines = [_line(self.of(titles), self.width), rule, *(_line(self.of(row), self.width) for row in below)]
        self.header = "\n".join([*filter(None, [caption]), *lines])
        self.room = max(PART_CHARS - len(self.header) - 1, PART_CHARS // 4)
        self.block: list[str] = []
        self.size = self.parts = 0

    def of(self, cells: Sequence[str]) -> list[str]:
        found = [cells[column] if column < len(cells) else "" for column in self.columns]
        if self.last:  # what a row has beyond the header
            found += cells[self.columns[-1] + 1 : _reach(cells)]
        return found

    def add(self, cells: Sequence[str]) -> Iterator[str]:
        """The part that is full, if this row does not fit into it any more."""
        own = self.of(cells)
        if not any(own[self.keys :]):
            return
        whole = _line(own, self.width)
        for line in [whole] if len(whole) <= self.room else _divided(own, self.width, self.room):
            if self.block and self.size + len(line) > self.room:
                yield self.part()
            self.block.append(line)
            self.size += len(line) + 1

    def part(self) -> str:
        text = "\n".join([self.header, *self.block])
        self.block, self.size, self.parts = [], 0, self.parts + 1
        return text

    def rest(self) -> Iterator[str]:
        if self.block or not self.parts:
            yield self.part()


def _columns(header: Sequence[Sequence[str]]) -> list[list[int]]:
    """The columns of each table that a wide one is divided into: nearly always all of them."""
    width = _reach(header[0])
    costs = [6 + sum(3 + len(row[n]) for row in header if n < len(row)) for n in range(width)]
    key = [0] if costs[0] <= 2 * SHORT_CELL else []  # what the rows are about
    groups: list[list[int]] = [[]]
    size = 0
    for column, cost in enumerate(costs):
        if groups[-1] and size + cost > HEADER_CHARS:
            groups.append([*key])
            size = sum(costs[n] for n in key)
        groups[-1].append(column)
        size += cost
    return groups


def _divided(cells: Sequence[str], width: int, room: int) -> Iterator[str]:
    """Lines of a row that is longer than a part, each with the short cells of the row and a piece of the long ones."""
    room -= 3 * max(width, len(cells)) + 2
    short = {n: cell for n, cell in enumerate(cells) if len(cell) <= SHORT_CELL}
    if sum(map(len, short.values())) > room // 2:
        short = {0: cells[0]} if 0 in short and len(cells[0]) <= room // 2 else {}
    free = room - sum(map(len, short.values()))
    if free < SHORT_CELL:  # so many columns that nothing fits beside them
        yield from (f"| {piece} |" for piece in split_text(" ".join(filter(None, cells)), PART_CHARS // 2))
        return
    line, size = dict(short), 0
    for n, cell in enumerate(cells):
        if n in short:
            continue
        for piece in split_text(cell, free) if len(cell) > free else filter(None, [cell]):
            if n in line or size + len(piece) > free:
                yield _line([line.get(column, "") for column in range(len(cells))], width)
                line, size = dict(short), 0
            line[n] = piece.replace("\n", " ")
            size += len(piece)
    yield _line([line.get(column, "") for column in range(len(cells))], width)


# ---------------------------------------------------------------------------------------------------- what is a header


def _header_row(rows: Sequence[Sequence[str]]) -> int:
    """Its place: the first row of more than one value that reaches as far as most rows do, or the one above it where
    only a title or two are missing."""
    widths = Counter(_reach(row) for row in rows)
    usual = max(widths, key=lambda width: (width * widths[width], width))
    full = next((n for n, row in enumerate(rows) if _reach(row) >= usual and len({*row} - {""}) > 1), 0)
    above = rows[full - 1] if full else ()
    titles = len({*above} - {""}) > 1 and _reach(above) > usual / 2 and not any(map(_is_number, above))
    return full - titles


def _has_second_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether below the first row stands another of titles or units: no number, above columns of numbers."""
    if len(rows) < 4 or any(_is_number(cell) or len(cell) > SHORT_CELL for cell in rows[1]):
        return False
    columns = [n for n, cell in enumerate(rows[1]) if cell]
    numbers = [n for n in columns if all(n < len(row) and _is_number(row[n]) for row in rows[2:4])]
    repeats = len({*rows[0]} - {""}) < _reach(rows[0])  # as merged cells show
    return len(numbers) >= (1 if repeats else max(2, (len(columns) + 1) // 2))


def _is_number(cell: str) -> bool:
    return len(cell) <= SHORT_CELL and bool(NUMBER.fullmatch(cell.strip()))


def _beginning(row: Sequence[str]) -> int:
    return next((n for n, cell in enumerate(row) if cell), len(row))


def _reach(row: Sequence[str]) -> int:
    return max((n for n, cell in enumerate(row, start=1) if cell), default=0)


# ------------------------------------------------------------------------------------------------ tables on one sheet


def _below_each_other(rows: Iterable[Sequence[str]]) -> Iterator[Iterator[Sequence[str]]]:
    """The rows of each table, without empty ones."""

    def numbered() -> Iterator[tuple[int, Sequence[str]]]:
        table, gap = 0, False
        waiting = iter(rows)
        extent = 0, 0  # the first column of the table, and the one after its last
        ahead: list[Sequence[str]] = []
        while True:
            while len(ahead) < 4 and (row := next(waiting, None)) is not None:
                ahead.append(row)
            if not ahead:
                return
            row = ahead.pop(0)
            if not any(row):
                gap = True
                continue
            if gap and extent[1] and _begins_a_table(extent, [row, *ahead]):
                table, extent = table + 1, (len(row), 0)
            gap = False
            extent = min(extent[0], _beginning(row)), max(extent[1], _reach(row))
            yield table, row

    for _, table in groupby(numbered(), key=lambda pair: pair[0]):
        yield (row for _, row in table)


def _begins_a_table(extent: tuple[int, int], rows: Sequence[Sequence[str]]) -> bool:
    """Whether, after an empty row, a table begins: with a header, or with a caption above one."""
    if extent[1] - extent[0] < 2:
        return False  # so far there was its caption
    filled = [row for row in rows if any(row)]
    if len(filled) > 1 and _reach(filled[0]) - _beginning(filled[0]) == 1:
        filled = filled[1:]  # a caption
    if len(filled) < 2:
        return False
    header, *below = filled
    titles = [n for n, cell in enumerate(header) if cell]
    if len(titles) < 2 or any(_is_number(cell) or len(cell) > SHORT_CELL for cell in header):
        return False
    own = _beginning(header), _reach(header)
    if own != extent and all((_beginning(row), _reach(row)) == own for row in below):
        return True
    digits = [n for n in titles if n < len(below[0]) and _has_digit(below[0][n])]
    return bool(digits) and not any(map(_has_digit, header))


def _side_by_side(rows: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    """(first column, column after the last) of tables with an empty column between them; one where it is one table.

    Each has a header of two titles or more and begins with a column of names; anything else is a gap in a table.
    """
    width = max(map(_reach, rows), default=0)
    filled = [any(column < len(row) and row[column] for row in rows) for column in range(width)]
    spans: list[tuple[int, int]] = []
    for column in range(width):
        if filled[column]:
            spans = (
                [*spans[:-1], (spans[-1][0], column + 1)]
                if column and filled[column - 1]
                else [*spans, (column, column + 1)]
            )
    if len(spans) < 2 or len(rows) < 2:
        return [(0, width)]
    for start, end in spans:
        head, *body = [[*row[start:end], *[""] * (end - len(row))] for row in rows if any(row[start:end])]
        names = [row[0] for row in body if row[0]]
        if end - start < 2 or not body or not all(head) or any(map(_is_number, head)):
            return [(0, width)]
        if not names or sum(map(_is_number, names)) * 2 > len(names):
            return [(0, width)]
    return spans


def _has_digit(cell: str) -> bool:
    return any(character.isdigit() for character in cell)


# ---------------------------------------------------------------------------------------------------------------- cells


def _bounded(row: Sequence[str]) -> Sequence[str]:
    if len(row) > WIDEST_ROW:
        raise Unreadable(f"a row of its table has {len(row):,} cells; the limit is {WIDEST_ROW:,}.")
    return row


def _cell(value: str) -> str:
    return " ".join(value.split()).replace("|", "\\|")


def _line(cells: Sequence[str], width: int) -> str:
    return "| " + " | ".join([*cells, *[""] * (width - len(cells))]) + " |"
