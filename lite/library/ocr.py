"""The text in pictures, with where it stands; needs the extra `ocr`."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from PIL import Image

from lite.library.parts import packed_boxes
from lite.schema import LiteError

OCR_SIDE = 1600  # pixels of the longer side of a picture of usual shape; letters of a page of A4 are 12 to 20 high
TILE_SIDE = 1400  # a longer picture is read in tiles
LEAST_SIDE = 736  # the detector scales pictures up to it, whatever their other side grows to; so they are padded
MOST_TILES = 200  # of one picture
BESIDE = 24  # pixels between pieces of a thin picture that are read together
FAINT = 12  # of 255: a difference that is no text
LOWEST_LETTERS = 10  # pixels; a picture that is lower holds no letters
SURE = 0.5  # a line that is less likely is not taken for text
LINE_SHAPE = 4  # times as long as high, at least, is a line of text that cannot be read; other shapes are patterns

Box = tuple[float, float, float, float]
Tile = tuple[int, int, int, int]  # left, top, right, bottom
_until: ContextVar[float] = ContextVar("until", default=math.inf)  # on the clock of `time.monotonic`


class Recognised(NamedTuple):
    """What was read in a picture.

    Args:
        words: (word, box) in reading order, boxes as fractions of the picture; a line break is a word of its own.
        unread: How many lines look like text and could not be read.
        left_out: What was not looked at, and why.
    """

    words: list[tuple[str, Box]]
    unread: int = 0
    left_out: str = ""

    @property
    def note(self) -> str:
        """For the report: what was not looked at; or that most of the lines could not be read."""
        lines = sum(word == "\n" for word, _ in self.words)
        if self.left_out or self.unread <= lines:
            return self.left_out
        return (
            f"{self.unread} line{'s' * (self.unread > 1)} in its picture could not be read, perhaps because of the "
            "script: text recognition reads Latin, Chinese and Japanese, not Cyrillic, Arabic, Hebrew, Thai or Hangul."
        )


NOTHING = Recognised([])


def placed_text(found: Recognised, line_break: str = "\n") -> tuple[str, bytes]:
    """The text that was read, and where its words stand, see `packed_boxes`."""
    text, rows, gap = "", [], ""
    for word, box in found.words:
        if word == "\n":
            gap = line_break
            continue
        text += gap
        rows.append((len(text), len(text) + len(word), *box))
        text += word
        gap = " "
    return text, packed_boxes(rows)


def ocr_installed() -> bool:
    """Whether the extra `ocr` is installed."""
    return bool(find_spec("rapidocr") and find_spec("onnxruntime"))


def ocr_size(width: int, height: int) -> tuple[int, int]:
    """The size at which a picture is read: the shorter side of long ones keeps its pixels."""
    short, long = sorted((width, height))
    scale = OCR_SIDE / long if long <= 2 * short else TILE_SIDE / short
    return (width, height) if scale >= 1 else (round(width * scale), round(height * scale))


def recognise(picture: Image.Image) -> Recognised:
    """What is written in an RGB picture. Long ones are read in tiles, cut where there is least to see.

    Raises:
        LiteError: The recognition does not start.
    """
    if min(picture.size) < LOWEST_LETTERS:
        return NOTHING
    tiles = _tiles(picture)
    read = max(tiles[-1][2:]) / max(picture.size)
    left_out = f"text was looked for in the first {100 * read:.0f} % of its length only." if read < 1 else ""
    words: list[tuple[str, Box]] = []
    unread = 0
    for together in _sheets(picture, [tile for tile in tiles if not _is_plain(picture.crop(tile))]):
        if time.monotonic() > _until.get():
            left_out = "there was no time left to look for text in all of it (--max_seconds)."
            break
        found, missed = _lines(np.asarray(_sheet(picture, together)))
        unread += missed
        words += _put_back(found, together, picture.size)
    return Recognised(words, unread, left_out)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Within it, `recognise` begins nothing new once so many seconds are over."""
    token = _until.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _until.reset(token)


def _is_plain(tile: Image.Image) -> bool:
    """Whether it is of one colour, but for what no eye sees."""
    return all(high - low < FAINT for low, high in tile.getextrema())


def _tiles(picture: Image.Image) -> list[Tile]:
    """The pieces that are looked at one by one, in order; of a very long picture, the first ones."""
    width, height = picture.size
    upright = height >= width
    length, side = max(width, height), min(width, height)
    usual = max(TILE_SIDE, side)
    if length <= max(OCR_SIDE, 1.5 * usual):
        return [(0, 0, width, height)]
    tiles: list[Tile] = []
    start = 0
    while start < length and len(tiles) < MOST_TILES:
        end = min(start + usual, length)
        if length - end > usual // 4:
            near = end - usual // 3
            strip = picture.crop((0, near, width, end) if upright else (near, 0, end, height)).convert("L")
            change = np.asarray(strip, dtype=np.float32).std(axis=1 if upright else 0)
            end = near + _gap(np.convolve(change, np.ones(9) / 9, mode="same"))
        else:
            end = length
        tiles.append((0, start, width, end) if upright else (start, 0, end, height))
        start = end
    return tiles


def _gap(change: np.ndarray) -> int:
    """The middle of the widest place where least is to see."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], change < change.min() + 0.5, [0]])))
    starts, ends = edges[::2], edges[1::2]
    widest = len(starts) - 1 - int(np.argmax((ends - starts)[::-1]))
    return int(starts[widest] + ends[widest]) // 2


def _sheets(picture: Image.Image, tiles: list[Tile]) -> Iterator[list[Tile]]:
    """Which pieces are read at once: as many of a thin picture as fill the height that the detector wants anyway."""
    count = max(1, LEAST_SIDE // (min(picture.size) + BESIDE))
    for start in range(0, len(tiles), count):
        yield tiles[start : start + count]


def _sheet(picture: Image.Image, tiles: list[Tile]) -> Image.Image:
    """Pieces of a thin picture side by side."""
    if len(tiles) == 1:
        return picture.crop(tiles[0])
    upright, step = picture.height >= picture.width, min(picture.size) + BESIDE
    longest = max(max(right - left, bottom - top) for left, top, right, bottom in tiles)
    size = (step * len(tiles), longest) if upright else (longest, step * len(tiles))
    sheet = Image.new("RGB", size, tuple(np.median(np.asarray(picture.crop(tiles[0])), axis=(0, 1)).astype(int)))
    for number, tile in enumerate(tiles):
        sheet.paste(picture.crop(tile), (step * number, 0) if upright else (0, step * number))
    return sheet


def _put_back(found: list[tuple[str, Box]], tiles: list[Tile], size: tuple[int, int]) -> list[tuple[str, Box]]:
    """Words of a sheet, piece by piece, with their boxes as fractions of the picture that the pieces are of."""
    (width, height), axis, step = size, 0 if size[1] >= size[0] else 1, min(size) + BESIDE
    pieces: list[list[tuple[str, Box]]] = [[] for _ in tiles]
    number = 0
    for word, box in found:
        if word == "\n":
            pieces[number].append((word, box))
            continue
        number = min(len(tiles) - 1, int((box[axis] + box[axis + 2]) / 2 // step)) if len(tiles) > 1 else 0
        x, y = tiles[number][:2]
        x, y = (x - step * number, y) if axis == 0 else (x, y - step * number)
        box = ((x + box[0]) / width, (y + box[1]) / height, (x + box[2]) / width, (y + box[3]) / height)
        pieces[number].append((word, box))
    return [word for piece in pieces for word in piece]


def _lines(pixels: np.ndarray) -> tuple[list[tuple[str, Box]], int]:
    """Words and line breaks with their boxes in pixels, and how many lines were found and not read.

    Most lines decide how the picture lies: a single one is easily taken for upside down.
    """
    found = _detected(pixels)
    if found is None:
        return [], 0
    tall = [max(down, 1) > 1.5 * across for across, down in _sides(found.boxes)]
    turned = [label == "180" and score > 0.9 for label, score in found.turns]
    quarters = 0  # by which it is turned counter-clockwise to stand upright
    if 2 * sum(tall) > len(tall):
        quarters = 3 if 2 * sum(turned) > len(turned) else 1
    elif 2 * sum(turned) > len(turned):
        quarters = 2
    if quarters:
        found = _detected(np.rot90(pixels, quarters))
        if found is None:
            return [], 0
    lines, missed = _recognised(found, upright=bool(quarters))
    height, width = pixels.shape[:2]
    return [(word, _turned_back(box, quarters, width, height)) for word, box in lines], missed


class _Detected(NamedTuple):
    """What looks like lines of text in a picture."""

    pixels: np.ndarray
    record: dict
    result: object
    boxes: np.ndarray
    crops: list[np.ndarray]
    turned: object
    turns: list[tuple[str, float]]


def _detected(pixels: np.ndarray) -> _Detected | None:
    from rapidocr.main import RapidOCRError

    height, width = pixels.shape[:2]
    least = min(LEAST_SIDE, max(height, width))
    edge = np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]), axis=0).astype(np.uint8)
    padded = np.full((max(height, least), max(width, least), 3), edge)
    padded[:height, :width] = pixels
    engine = _engine()
    prepared, record = engine.preprocess_img(padded[:, :, ::-1])  # it wants blue first
    try:
        crops, result = engine.detect_and_crop(prepared, record)
        _, turns = engine.cls_and_rotate(crops)
    except RapidOCRError:  # nothing was found
        return None
    return _Detected(padded, record, result, result.boxes, crops, turns, turns.cls_res)


def _recognised(found: _Detected, upright: bool) -> tuple[list[tuple[str, Box]], int]:
    engine = _engine()
    sides = _sides(found.boxes)
    # On an upright picture a line may still stand on its side, as along an axis, and then either way up.
    turned = [
        down > 1.5 * across and label == "180" and score > 0.9 and not upright
        for (across, down), (label, score) in zip(sides, found.turns, strict=True)
    ]
    crops = [np.rot90(crop, 2) if turn else crop for crop, turn in zip(found.crops, turned, strict=True)]
    texts = engine.recognize_txt(crops)
    missed = sum(
        bool(score < SURE or not text.strip()) and bool(max(size) >= LINE_SHAPE * min(size))
        for text, score, size in zip(texts.txts, texts.scores, sides, strict=True)
    )
    turned = [turn for turn, text in zip(turned, texts.txts, strict=True) if text.strip()]
    read = engine.build_final_output(found.pixels, found.result, found.turned, texts, crops, found.record)
    words: list[tuple[str, Box]] = []
    for line, (text, score) in enumerate(zip(read.txts or (), read.scores or (), strict=True)):
        if score >= SURE and any(character.isalnum() for character in text):  # a stripe is no dash
            pieces = read.word_results[line] if read.word_results and line < len(read.word_results) else ()
            own = _placed(text, read.boxes[line], pieces)
            words += [*(_mirrored(own, read.boxes[line]) if turned[line] else own), ("\n", (0, 0, 0, 0))]
    return words, missed


def _turned_back(box: Box, quarters: int, width: int, height: int) -> Box:
    """A box of a picture that was turned counter-clockwise, on the picture as it was."""
    left, top, right, bottom = box
    if quarters == 1:
        return width - bottom, left, width - top, right
    if quarters == 2:
        return width - right, height - bottom, width - left, height - top
    if quarters == 3:
        return top, height - right, bottom, height - left
    return box


def _sides(boxes: np.ndarray | None) -> list[tuple[float, float]]:
    """Width and height of each."""
    return [] if boxes is None else [tuple(np.ptp(box, axis=0)) for box in boxes]


def _placed(text: str, box: np.ndarray, pieces: tuple) -> list[tuple[str, Box]]:
    """The words of a line with their boxes: the recognition's own, or the line divided by letters."""
    found, start, words = [], 0, text.split()
    where: list[tuple[int, int, Box]] = []  # characters of the line and their box
    for piece, _, corners in pieces:
        place = text.find(piece, start)
        if place >= 0 and piece:
            corners = np.asarray(corners, dtype=float)
            where.append((place, place + len(piece), (*corners.min(axis=0), *corners.max(axis=0))))
            start = place + len(piece)
    start = 0
    line = (*box.min(axis=0), *box.max(axis=0))
    for word in words:
        start = text.find(word, start)
        own = [b for first, last, b in where if first < start + len(word) and last > start]
        found.append((word, _around(own) if own else _share(line, start, start + len(word), len(text))))
        start += len(word)
    return found


def _mirrored(words: list[tuple[str, Box]], line: np.ndarray) -> list[tuple[str, Box]]:
    """Boxes of a line that was turned by 180° to be read: its first word is the last on the picture."""
    across, down = line.min(axis=0) + line.max(axis=0)
    return [
        (word, (across - right, down - bottom, across - left, down - top)) for word, (left, top, right, bottom) in words
    ]


def _around(boxes: list[Box]) -> Box:
    return (*np.min(boxes, axis=0)[:2], *np.max(boxes, axis=0)[2:])


def _share(box: Box, start: int, end: int, length: int) -> Box:
    left, top, right, bottom = box
    if bottom - top > 1.5 * (right - left):
        return left, top + (bottom - top) * start / length, right, top + (bottom - top) * end / length
    return left + (right - left) * start / length, top, left + (right - left) * end / length, bottom


@cache
def _engine():
    try:
        from rapidocr import RapidOCR
    except ImportError as error:
        raise LiteError(f"text recognition does not start ({error}). --ocr off goes on without it.") from error
    threads = int(os.environ.get("OMP_NUM_THREADS", "-1"))
    return RapidOCR(
        params={
            "Global.log_level": "critical", "Global.text_score": 0.0, "Global.return_word_box": True,
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
        }
    )  # fmt: skip
