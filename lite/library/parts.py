"""What comes out of a file, what a file may cost, and why one is refused."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import numpy as np

from lite.schema import Kind

BOX = struct.Struct("<6H")
WHOLE = 65535  # the width or height of a page, in the numbers that boxes are stored as


class Unreadable(Exception):
    """A file that gives no documents; the message says why, and what helps."""


@dataclass(frozen=True)
class Limits:
    """What one file may cost; whatever is over is refused.

    Args:
        megabytes: Of the file; times five, of what a .docx, .xlsx or another archive unpacks to.
        megapixels: Of an image.
        pages: Of a PDF or an image with several frames.
        seconds: To read it.
        gigabytes: Of memory while it is read.
    """

    megabytes: int = 100
    megapixels: int = 100
    pages: int = 2000
    seconds: int = 300
    gigabytes: int = 4


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Part:
    """A document before it has an id.

    Args:
        place: Where in the file: `page=3`, `sheet=Prices`; empty for all of it.
        kind, title, text: As in `Document`.
        image: A JPEG file, or empty.
        vector: Where whoever read it also embedded it; empty: the library does.
        page: From 1; 0 where the file has no pages.
        boxes: Where on the page or image the text stands, see `packed_boxes`; empty where that is not known.
        note: What was left out of the file or could not be read, for the report; with the first part it concerns.
    """

    place: str
    kind: Kind
    title: str
    text: str = ""
    image: bytes = b""
    vector: tuple[float, ...] = ()
    page: int = 0
    boxes: bytes = b""
    note: str = ""


def packed_boxes(rows: Iterable[tuple[int, int, float, float, float, float]]) -> bytes:
    """Boxes as they are stored: 12 bytes for a word or line.

    Args:
        rows: (start, end, left, top, right, bottom): the characters `text[start:end]` stand in the box, in order and
            about evenly spaced. Boxes are fractions of the page as it is shown, from its top left corner.
    """
    numbers = chain.from_iterable(row for row in rows if row[1] <= WHOLE)
    table = np.fromiter(numbers, dtype=float).reshape(-1, 6)
    table[:, 2:] = np.rint(WHOLE * np.clip(table[:, 2:], 0, 1))
    return table.astype("<u2").tobytes()


def unpacked_boxes(boxes: bytes) -> list[tuple[int, int, float, float, float, float]]:
    """The rows that `packed_boxes` was given."""
    return [(start, end, *(value / WHOLE for value in box)) for start, end, *box in BOX.iter_unpack(boxes)]


@dataclass(frozen=True)
class File:
    """What a library knows of a file that it holds.

    Args:
        root: The folder that was indexed.
        path: From there.
        state: Changes with the file's content, and with what reads it.
        documents: How many it holds of it.
    """

    root: str
    path: str
    state: str
    documents: int
