"""The text layer of a PDF page: words with their boxes, in reading order."""

from __future__ import annotations

import ctypes
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

import pypdfium2 as pdfium
from pypdfium2 import raw

from lite.library.parts import packed_boxes

Box = tuple[float, float, float, float]
NOWHERE: Box = (0, 0, 0, 0)
WORD = re.compile(r"[^\s\ufffe\x02\0]+")  # pdfium writes these marks for hyphens at the ends of lines
GRID = 1_000_000  # steps that a page is divided into to learn where its corners are
PROBES = 60  # letters that a font is judged by
PROSE = 18  # letters in a line of a column of prose; cells of tables have fewer
COLUMN_LINES = 3  # lines beside each other that make two columns


class Word(NamedTuple):
    """A word of a page.

    Args:
        text: Without spaces.
        box: Left, top, right, bottom as fractions of the page as it is shown.
        gap: What stands before it: a space, a line break, or nothing within a word.
    """

    text: str
    box: Box
    gap: str = " "


def page_words(page: pdfium.PdfPage, textpage: pdfium.PdfTextPage) -> list[Word]:
    """The words of the text layer, in the order of the file, but columns one after the other."""
    text = textpage.get_text_range()
    if len(text) != textpage.count_chars():  # letters without a code, or beyond 16 bits
        codes = (raw.FPDFText_GetUnicode(textpage, n) for n in range(textpage.count_chars()))
        text = "".join(chr(code) if code < 0x110000 else "\ufffd" for code in codes)
    to_fraction = _transform(page)
    left, top, right, bottom = (ctypes.c_double() for _ in range(4))
    words = []
    end = 0
    for match in WORD.finditer(text):
        start = match.start()
        gap = text[end:start]
        end = match.end()
        rects = raw.FPDFText_CountRects(textpage, start, end - start)
        box = NOWHERE
        for rect in range(rects):
            raw.FPDFText_GetRect(textpage, rect, left, top, right, bottom)
            box = _around(box, to_fraction(left.value, top.value, right.value, bottom.value))
        words.append(Word(match[0], box, "\n" if "\n" in gap else " " if gap.strip("\ufffe\x02\0") else ""))
    return _columns_apart(words)


def joined(words: Iterable[Word]) -> tuple[str, list[tuple[int, Box]]]:
    """The text, and for each word how many letters it has and where they are."""
    text = "".join(piece for word in words for piece in (word.gap, word.text)).lstrip()
    return text, [(len(word.text), word.box) for word in words]


def boxes_of(parts: Sequence[str], pieces: Sequence[tuple[int, Box]]) -> list[bytes]:
    """Where the letters of each part stand, see `packed_boxes`.

    Args:
        parts: Of a text, in order; all of its letters are in one of them.
        pieces: The number of letters, which are no spaces, of each word of the text, and its box.
    """
    found = []
    waiting = iter(pieces)
    left, box = 0, NOWHERE
    for part in parts:
        letters = [place for place, character in enumerate(part) if not character.isspace()]
        rows, start = [], 0
        while start < len(letters):
            if not left:
                left, box = next(waiting, (len(letters), NOWHERE))
            end = min(len(letters), start + left)
            if box != NOWHERE:
                rows.append((letters[start], letters[end - 1] + 1, *box))
            left -= end - start
            start = end
        found.append(packed_boxes(rows))
    return found


def in_rows(words: Sequence[Word]) -> list[Word]:
    """Words from top to bottom and left to right, as on a form whose fields stand at the end of its text."""
    rows: list[list[Word]] = []
    for word in sorted(words, key=lambda word: word.box[1] + word.box[3]):
        if rows and _overlap(rows[-1][0].box, word.box) > 0.5:
            rows[-1].append(word)
        else:
            rows.append([word])
    ordered = []
    for row in rows:
        for place, word in enumerate(sorted(row, key=lambda word: word.box[0])):
            ordered.append(word._replace(gap=" " if place else "\n"))
    return ordered


# ---------------------------------------------------------------------------------------------------- is it the content


def is_noise(textpage: pdfium.PdfTextPage, text: str) -> bool:
    """Whether the letters mean nothing, as of a font that does not say which it holds."""
    letters = Counter("".join(text.split()))
    if not letters:
        return False
    strange = [c for c in letters if c == "\ufffd" or unicodedata.category(c) in ("Cc", "Co", "Cn", "Cs")]
    if sum(letters[character] for character in strange) > 0.15 * letters.total():
        return True
    count = textpage.count_chars()
    probes = range(0, count, max(1, count // PROBES))
    unknown = sum(raw.FPDFText_HasUnicodeMapError(textpage, place) == 1 for place in probes)
    return unknown > 0.3 * len(probes)


def looks_ciphered(text: str) -> bool:
    """Whether plain letters form no words, as where codes of glyphs are taken for letters: hardly any vowel, or hardly
    a letter or digit at all."""
    plain = [character for character in text.casefold() if "!" <= character <= "~"]
    letters = [character for character in plain if character.isalpha()]
    if len(plain) < 40 or len(plain) < 0.8 * sum(not character.isspace() for character in text):
        return False
    vowels = sum(letter in "aeiouy" for letter in letters)
    return vowels < 0.2 * len(letters) or sum(map(str.isalnum, plain)) < 0.4 * len(plain)


# --------------------------------------------------------------------------------------------------------------- where


def _transform(page: pdfium.PdfPage):
    """A function from a rectangle on the page's own coordinates to fractions of the page as it is shown."""

    def inverse(device_x: int, device_y: int) -> tuple[float, float]:
        px, py = ctypes.c_double(), ctypes.c_double()
        raw.FPDF_DeviceToPage(page, 0, 0, GRID, GRID, 0, device_x, device_y, px, py)
        return px.value, py.value

    origin, across, down = inverse(0, 0), inverse(GRID, 0), inverse(0, GRID)
    a, b = across[0] - origin[0], across[1] - origin[1]
    c, d = down[0] - origin[0], down[1] - origin[1]
    area = a * d - b * c or 1.0

    a, b, c, d = a / area, b / area, c / area, d / area
    x, y = origin[1] * c - origin[0] * d, origin[0] * b - origin[1] * a

    def transform(left: float, top: float, right: float, bottom: float) -> Box:
        x0, x1 = left * d - top * c + x, right * d - bottom * c + x
        y0, y1 = top * a - left * b + y, bottom * a - right * b + y
        if x0 > x1:
            x0, x1 = x1, x0
        return (x0, y0, x1, y1) if y0 < y1 else (x0, y1, x1, y0)

    return transform


def _around(box: Box, other: Box) -> Box:
    if box == NOWHERE:
        return other
    return min(box[0], other[0]), min(box[1], other[1]), max(box[2], other[2]), max(box[3], other[3])


def _overlap(box: Box, other: Box) -> float:
    """Of their heights, as a share of the lower one."""
    height = min(box[3] - box[1], other[3] - other[1])
    return (min(box[3], other[3]) - max(box[1], other[1])) / height if height > 0 else 0.0


# -------------------------------------------------------------------------------------------------------------- columns


def _columns_apart(words: list[Word]) -> list[Word]:
    """Words of columns of prose whose lines the file draws side by side, one column after the other."""
    lines = _lines(words)
    beside = [
        (left, right)
        for left, right in pairwise(lines)
        if right.box[0] > left.box[2] and _overlap(left.box, right.box) > 0.5
    ]
    if (
        len(beside) < COLUMN_LINES
        or min(median(line.letters for line in side) for side in zip(*beside, strict=True)) < PROSE
    ):
        return words
    few = len(beside) // 10  # lines that may reach into the gap
    start = sorted(left.box[2] for left, _ in beside)[-1 - few]
    end = sorted(right.box[0] for _, right in beside)[few]
    if start >= end:
        return words  # no straight gap between them
    ordered: list[Sequence[Word]] = []
    right: list[Sequence[Word]] = []
    for line in lines:
        if line.box[0] < start and line.box[2] > end:  # across both columns
            ordered += right
            right = []
        (right if line.box[0] > start else ordered).append(words[line.start : line.end])
    return _unhyphenated(ordered + right)


class _Line(NamedTuple):
    start: int
    end: int
    box: Box
    letters: int


def _lines(words: Sequence[Word]) -> list[_Line]:
    """Runs of words that stand close together on one line."""
    lines: list[_Line] = []
    for place, word in enumerate(words):
        last = lines[-1] if lines else None
        height = word.box[3] - word.box[1]
        beside = last and _overlap(last.box, word.box) > 0.5 and -height < word.box[0] - last.box[2] < 1.5 * height
        if beside:
            lines[-1] = _Line(last.start, place + 1, _around(last.box, word.box), last.letters + len(word.text))
        else:
            lines.append(_Line(place, place + 1, word.box, len(word.text)))
    return lines


def _unhyphenated(lines: Sequence[Sequence[Word]]) -> list[Word]:
    """The words of lines, those that were divided at the end of a line put together."""
    found: list[Word] = []
    for line in lines:
        first, *rest = line
        if found and re.search(r"\w\w-$", found[-1].text) and first.text[:1].islower():
            found[-1] = found[-1]._replace(text=found[-1].text[:-1])
            first = first._replace(gap="")
        else:
            first = first._replace(gap="\n")
        found += [first, *rest]
    return found
