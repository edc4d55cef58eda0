"""The rows of CSV and Excel files, cells as text."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, time
from itertools import islice
from pathlib import Path

import openpyxl
from openpyxl.utils.cell import range_boundaries

WIDEST_SPAN = 100  # columns of a merged cell that are filled; a hostile file may claim any number
MERGED = re.compile(rb'<(?:\w+:)?mergeCell\s+ref="([A-Z]{1,3}[0-9]{1,7}:[A-Z]{1,3}[0-9]{1,7})"')


def csv_rows(text: str, delimiter: str = "") -> Iterator[list[str]]:
    """The rows of a CSV file; without a delimiter it is told from the first rows.

    Raises:
        csv.Error: It is no table.
    """
    if match := re.match(r"sep=(.)\r?\n", text, re.IGNORECASE):  # Excel's own first line
        delimiter, text = match[1], text[match.end() :]
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter or _delimiter(text[:20_000]))


def _delimiter(beginning: str) -> str:
    """What cuts the first rows into equally many cells, as many as can be. `csv.Sniffer` falls for decimal commas and
    guesses rules of quoting that no spreadsheet writes."""

    def evenness(delimiter: str) -> tuple[float, int]:
        try:
            rows = islice(csv.reader(io.StringIO(beginning, newline=""), delimiter=delimiter), 50)
            widths = Counter(len(row) for row in rows if row)
        except csv.Error:
            return 0, 0
        if not widths:
            return 0, 0
        width, rows_of_it = widths.most_common(1)[0]
        return (rows_of_it / widths.total() if width > 1 else 0), width

    return max(",;\t|", key=evenness)


def excel_sheets(path: Path) -> Iterator[tuple[str, Iterator[list[str]]]]:
    """(name, rows) of each sheet of an .xlsx file; of a formula, the result that was saved with it.

    Raises:
        Whatever openpyxl finds wrong with it: `zipfile.BadZipFile`, `KeyError`, `ValueError`, `TypeError`, …
    """
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        with zipfile.ZipFile(path) as archive:
            for sheet in book.worksheets:
                sheet.reset_dimensions()  # what the file claims them to be may be wrong
                merged = MERGED.findall(archive.read(sheet._worksheet_path))
                yield sheet.title, _unmerged(sheet.iter_rows(values_only=True), [found.decode() for found in merged])
    finally:
        book.close()


def _unmerged(rows: Iterable[Sequence[object]], merged: Sequence[str]) -> Iterator[list[str]]:
    """The cells of a sheet as text; in every cell of a merged range stands what the range shows.

    openpyxl knows merged cells only where it holds the whole sheet in memory, at fifty times the file's size.
    """
    beginning: defaultdict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for left, top, right, bottom in map(range_boundaries, merged):
        beginning[top].append((left - 1, min(right, left + WIDEST_SPAN), bottom))
    hanging: list[tuple[int, int, int, str]] = []
    for number, row in enumerate(rows, start=1):
        cells = [_cell_text(value) for value in row]
        hanging = [span for span in hanging if span[2] >= number]
        hanging += [
            (left, right, bottom, cells[left]) for left, right, bottom in beginning.get(number, ()) if left < len(cells)
        ]
        if any(cells):
            for left, right, _, text in hanging:
                cells += [""] * (right - len(cells))
                cells[left:right] = [text] * (right - left)
        yield cells


def _cell_text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.15g}"  # as Excel rounds what it shows: 0.1 + 0.2 is 0.3
    if isinstance(value, datetime) and value.time() == time():
        return value.date().isoformat()
    return "" if value is None else str(value)
