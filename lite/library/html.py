"""HTML pages in parts: text by heading, tables apart."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from bs4 import BeautifulSoup, MarkupResemblesLocatorWarning
from bs4.element import Tag

from lite.library.splitting import split_table, split_text

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
INLINE = ("a", "abbr", "b", "code", "em", "i", "mark", "small", "span", "strong", "sub", "sup", "u")
UNSEEN = ("head", "noscript", "script", "style", "template")
WIDEST_SPAN = 100  # a hostile page may claim any number


def split_html(data: bytes) -> Iterator[tuple[str, bool, str, str]]:
    """(place, is a table, title, text) of each part, tables first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MarkupResemblesLocatorWarning)
        soup = BeautifulSoup(data, "lxml")
    for tag in soup(UNSEEN):
        tag.decompose()
    number = 0
    for table in soup("table"):
        if table.find("table"):
            continue  # it lays out the page; those inside count
        heading = table.caption or table.find_previous(HEADINGS)
        title = heading.get_text(" ", strip=True) if heading else ""
        for text in split_table(_grid(table)):
            number += 1
            yield f"table={number}", True, title, text
        table.decompose()
    number = 0
    for title, section in _sections(soup):
        for text in split_text(section):
            number += 1
            yield f"part={number}", False, title, text


def _sections(soup: BeautifulSoup) -> Iterator[tuple[str, str]]:
    """(heading, text below it), paragraphs apart by an empty line."""
    heading, pieces = "", []
    for node in soup.descendants:
        if isinstance(node, Tag) and node.name in HEADINGS:
            yield heading, "".join(pieces)
            heading, pieces = node.get_text(" ", strip=True), []
        elif isinstance(node, Tag):
            pieces.append("" if node.name in INLINE else "\n\n")
        elif not node.find_parent(HEADINGS):
            pieces.append(" ".join(node.split()).join((" " * node[:1].isspace(), " " * node[-1:].isspace())))
    yield heading, "".join(pieces)


def _grid(table: Tag) -> list[list[str]]:
    """The cells of a table by row; what spans several is repeated in each."""
    rows: list[list[str]] = []
    hanging: dict[int, tuple[int, str]] = {}  # column: rows that are left, text
    for row in table("tr"):
        cells: list[str] = []
        for cell in [*row(["td", "th"]), None]:
            while len(cells) in hanging:
                left, text = hanging.pop(len(cells))
                if left > 1:
                    hanging[len(cells)] = (left - 1, text)
                cells.append(text)
            if cell is None:
                break
            text = cell.get_text(" ", strip=True)
            for _ in range(_span(cell, "colspan")):
                if (down := _span(cell, "rowspan")) > 1:
                    hanging[len(cells)] = (down - 1, text)
                cells.append(text)
        rows.append(cells)
    return rows


def _span(cell: Tag, name: str) -> int:
    value = str(cell.get(name, "1")).strip()
    return max(1, min(WIDEST_SPAN, int(value[:4]))) if value.isdecimal() else 1
