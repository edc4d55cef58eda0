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

import numpy as np
import pypdfium2 as pdfium
from pypdfium2 import raw

from lite.library.parts import packed_boxes

Box = tuple[float, float, float, float]
NOWHERE: Box = (0, 0, 0, 0)
LETTERS = re.compile(r"\S+")
WORD = re.compile(r"[^\s\ufffe\x02\0]+")  # pdfium writes these marks for hyphens at the ends of lines
FLAT = 0.0001  # of the page: lower than any letter
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
    return _columns_apart(_placed(text, page, textpage))


def _placed(text: str, page: pdfium.PdfPage, textpage: pdfium.PdfTextPage) -> list[Word]:
    """The words of a text layer with their boxes."""
    handle, count_rects, get_rect = textpage.raw, raw.FPDFText_CountRects, raw.FPDFText_GetRect
    left, top, right, bottom = corners = [ctypes.c_double() for _ in range(4)]
    pointers = [ctypes.byref(corner) for corner in corners]
    spans = [match.span() for match in WORD.finditer(text)]
    if not spans:
        return []
    rects: list[float] = []  # four numbers for each rectangle
    firsts, none = [], []  # for each word its first rectangle; words without any
    for place, (start, end) in enumerate(spans):
        firsts.append(len(rects) // 4)
        count = count_rects(handle, start, end - start)
        for number in range(count):
            get_rect(handle, number, *pointers)
            rects += (left.value, top.value, right.value, bottom.value)
        if not count:
            none.append(place)
            rects += NOWHERE
    boxes = _boxes(page, np.array(rects).reshape(-1, 4), firsts)
    if len(flat := np.flatnonzero((boxes[:, 2:] - boxes[:, :2]).min(axis=1) < FLAT)):
        loose = np.array([_loose_rect(handle, *spans[place]) for place in flat])
        boxes[flat] = _boxes(page, loose, range(len(flat)))
    boxes[none] = NOWHERE
    ends = [0, *(end for _, end in spans)]
    gaps = [_gap(text[end:start]) for end, (start, _) in zip(ends, spans, strict=False)]
    texts = (text[start:end] for start, end in spans)
    return list(map(Word, texts, map(tuple, boxes.tolist()), gaps))


def _gap(between: str) -> str:
    if between == " ":
        return between
    return "\n" if "\n" in between else " " if between.strip("\ufffe\x02\0") else ""


def _loose_rect(handle, start: int, end: int) -> Box:
    """Around letters by the size of their font: some fonts do not say how high their letters are."""
    rect, around = raw.FS_RECTF(), NOWHERE
    for place in range(start, end):
        if raw.FPDFText_GetLooseCharBox(handle, place, rect):
            around = _around(around, (rect.left, rect.bottom, rect.right, rect.top))
    return around


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
        rows = []
        for match in LETTERS.finditer(part):
            start, last = match.span()
            while start < last:
                if not left:
                    left, box = next(waiting, (last - start, NOWHERE))
                end = start + left if start + left < last else last
                left -= end - start
                if box != NOWHERE:
                    rows.append((start, end, *box))
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


def _boxes(page: pdfium.PdfPage, rects: np.ndarray, firsts: Sequence[int]) -> np.ndarray:
    """Boxes, as fractions of the page as it is shown, around rectangles on the page's own coordinates.

    Args:
        rects: [n, 4], any two opposite corners.
        firsts: Where the rectangles of each box begin.
    """

    def inverse(device_x: int, device_y: int) -> np.ndarray:
        px, py = ctypes.c_double(), ctypes.c_double()
        raw.FPDF_DeviceToPage(page, 0, 0, GRID, GRID, 0, device_x, device_y, px, py)
        return np.array([px.value, py.value])

    origin = inverse(0, 0)
    (a, b), (c, d) = inverse(GRID, 0) - origin, inverse(0, GRID) - origin
    area = a * d - b * c or 1.0
    points = (rects.reshape(-1, 2, 2) - origin) @ np.array([[d, -b], [-c, a]]) / area
    least = np.minimum.reduceat(points.min(axis=1), firsts)
    return np.concatenate([least, np.maximum.reduceat(points.max(axis=1), firsts)], axis=1)


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
    if not _has_gaps(words):
        return words
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


def _has_gaps(words: Sequence[Word]) -> bool:
    """Whether words stand beside each other, with room between them, as often as in two columns."""
    if len(words) <= COLUMN_LINES:
        return False
    left, top, right, bottom = np.array([word.box for word in words]).T
    height = bottom - top
    overlap = np.minimum(bottom[:-1], bottom[1:]) - np.maximum(top[:-1], top[1:])
    room = left[1:] - right[:-1]
    apart = (room >= 1.5 * height[1:]) | (overlap <= 0.5 * np.minimum(height[:-1], height[1:]))
    return np.count_nonzero((room > 0) & apart) >= COLUMN_LINES


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
