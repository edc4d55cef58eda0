"""The rows of CSV and Excel files, cells as text."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, repeat
from pathlib import Path

import openpyxl
from openpyxl.utils.cell import range_boundaries

from lite.library.number_formats import shown

WIDEST_SPAN = 100  # columns of a merged cell that are filled; a hostile file may claim any number
MERGED = re.compile(rb'<(?:\w+:)?mergeCell\s+ref="([A-Z]{1,3}[0-9]{1,7}:[A-Z]{1,3}[0-9]{1,7})"')
# A formula that was saved without its result, as programs write it that do not calculate.
NO_RESULT = re.compile(
    rb"(?:</(?:\w+:)?f>|<(?:\w+:)?f[^>]*/>)\s*(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v></(?:\w+:)?v>)?\s*</(?:\w+:)?c>"
)


def csv_rows(text: str, delimiter: str = "") -> Iterator[list[str]]:
    """The rows of a CSV file; without a delimiter it is told from the first rows.

    Raises:
        csv.Error: It is no table.
    """
    if match := re.match(r"sep=(.)\r?\n", text, re.IGNORECASE):  # Excel's own first line
        delimiter, text = match[1], text[match.end() :]
    csv.field_size_limit(2**31 - 1)  # the size of the file is limited already
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter or _delimiter(text[:20_000]))


def _delimiter(beginning: str) -> str:
    """What cuts most of the first rows into equally many cells, as many as can be. Lines above the table count little,
    and a comma only where nothing else fits: it may be a decimal one. `csv.Sniffer` falls for these and guesses rules
    of quoting that no spreadsheet writes."""

    def evenness(delimiter: str) -> tuple[float, bool, int]:
        try:
            rows = list(islice(csv.reader(io.StringIO(beginning, newline=""), delimiter=delimiter), 50))
        except csv.Error:
            return 0, False, 0
        widths = Counter(len(row) for row in rows if row)
        width = max(widths, key=lambda width: (widths[width] * (width > 1), width), default=1)
        return (widths[width] / widths.total() if width > 1 else 0), delimiter != ",", width

    return max(",;\t|", key=evenness)


def excel_sheets(path: Path) -> Iterator[tuple[str, bool, Iterator[list[str]]]]:
    """(name, is hidden, rows) of each sheet of an .xlsx file; of a formula, the result that was saved with it, or else
    the formula.

    Raises:
        Whatever openpyxl finds wrong with it: `zipfile.BadZipFile`, `KeyError`, `ValueError`, `TypeError`, …
    """
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    formulas: openpyxl.Workbook | None = None
    try:
        with zipfile.ZipFile(path) as archive:
            for sheet in book.worksheets:
                sheet.reset_dimensions()  # what the file claims them to be may be wrong
                xml = archive.read(sheet._worksheet_path)
                merged = [found.decode() for found in MERGED.findall(xml)]
                unsaved: Iterable[Sequence[object]] = repeat(())
                if NO_RESULT.search(xml):
                    formulas = formulas or openpyxl.load_workbook(path, read_only=True)
                    formulas[sheet.title].reset_dimensions()
                    unsaved = formulas[sheet.title].iter_rows(values_only=True)
                del xml
                rows = (_texts(row, other) for row, other in zip(sheet.iter_rows(), unsaved, strict=False))
                yield sheet.title, sheet.sheet_state != "visible", _unmerged(rows, merged)
    finally:
        book.close()
        if formulas:
            formulas.close()


def _texts(row: Sequence, formulas: Sequence[object]) -> list[str]:
    cells = [shown(cell.value, cell.number_format) if cell.value is not None else "" for cell in row]
    for column, formula in enumerate(formulas):
        if formula is not None and column < len(cells) and not cells[column]:
            cells[column] = str(getattr(formula, "text", formula))
    return cells


def _unmerged(rows: Iterable[list[str]], merged: Sequence[str]) -> Iterator[list[str]]:
    """The cells of a sheet; in every cell of a merged range stands what the range shows.

    openpyxl knows merged cells only where it holds the whole sheet in memory, at fifty times the file's size.
    """
    beginning: defaultdict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for left, top, right, bottom in map(range_boundaries, merged):
        beginning[top].append((left - 1, min(right, left + WIDEST_SPAN), bottom))
    hanging: list[tuple[int, int, int, str]] = []
    for number, cells in enumerate(rows, start=1):
        hanging = [span for span in hanging if span[2] >= number]
        hanging += [
            (left, right, bottom, cells[left]) for left, right, bottom in beginning.get(number, ()) if left < len(cells)
        ]
        if any(cells):
            for left, right, _, text in hanging:
                cells += [""] * (right - len(cells))
                cells[left:right] = [text] * (right - left)
        yield cells
