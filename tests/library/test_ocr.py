"""Text in pictures: long ones in tiles, turned ones, where the words stand, and what cannot be read."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from lite.library import ocr
from lite.library.ocr import OCR_SIDE, Recognised, ocr_installed, ocr_size, placed_text, recognise, time_limit
from lite.library.parts import Limits, unpacked_boxes
from lite.library.readers import read_file

needs_ocr = pytest.mark.skipif(not ocr_installed(), reason="needs the extra ocr")


def lines(size: tuple[int, int], *texts: tuple[int, int, str]) -> Image.Image:
    """A picture of (x, y, text)."""
    picture = Image.new("RGB", size, "white")
    for x, y, text in texts:
        ImageDraw.Draw(picture).text((x, y), text, fill="black", font=ImageFont.load_default(36))
    return picture


def test_the_shorter_side_of_long_pictures_keeps_its_pixels() -> None:
    assert ocr_size(1080, 12_000) == (1080, 12_000)
    assert ocr_size(12_000, 1080) == (12_000, 1080)
    assert max(ocr_size(4000, 3000)) == OCR_SIDE
    assert ocr_size(300, 200) == (300, 200)


def test_the_text_says_where_its_words_stand() -> None:
    found = Recognised(
        [("Valve", (0, 0, 0.5, 0.5)), ("7", (0.5, 0, 1, 0.5)), ("\n", (0, 0, 0, 0)), ("closed", (0, 0.5, 1, 1))]
    )
    text, boxes = placed_text(found)
    assert text == "Valve 7\nclosed"
    rows = unpacked_boxes(boxes)
    assert [text[start:end] for start, end, *_ in rows] == ["Valve", "7", "closed"]
    assert rows[1][2:] == pytest.approx((0.5, 0, 1, 0.5), abs=1e-4)


def test_lines_that_could_not_be_read_are_told_where_they_are_most() -> None:
    line = [("word", (0, 0, 1, 1)), ("\n", (0, 0, 0, 0))]
    assert "3 lines in its picture could not be read" in Recognised(line, unread=3).note
    assert Recognised(line * 3, unread=3).note == ""


@needs_ocr
def test_long_screenshots_are_read_to_their_end() -> None:
    texts = [f"Ticket {4000 + 37 * n}" for n in range(12)]
    picture = lines((700, 4600), *((40, 60 + 380 * n, text) for n, text in enumerate(texts)))
    text, boxes = placed_text(recognise(picture))
    assert [line.strip() for line in text.splitlines()] == texts
    tops = [top for _, _, _, top, _, _ in unpacked_boxes(boxes)]
    assert tops[-1] == pytest.approx((60 + 380 * 11) / 4600, abs=0.01)


@needs_ocr
@pytest.mark.parametrize("turn", [Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270])
def test_turned_pages_are_read_and_their_boxes_turned_back(turn: Image.Transpose) -> None:
    texts = ["The pump needs three bar", "Close the valve by hand", "Then wait five minutes"]
    upright = lines((700, 600), *((60, 60 + 100 * n, text) for n, text in enumerate(texts)))
    turned = upright.transpose(turn)
    text, boxes = placed_text(recognise(turned))
    assert text.splitlines() == texts
    pixels = np.asarray(turned.convert("L"))
    for _, _, left, top, right, bottom in unpacked_boxes(boxes):
        x, y = [
            slice(int(a * n), int(b * n)) for a, b, n in ((left, right, turned.width), (top, bottom, turned.height))
        ]
        assert pixels[y, x].min() < 100  # there is a word


@needs_ocr
@pytest.mark.parametrize("size", [(4000, 12), (20_000, 4), (1, 1)])
def test_thin_and_tiny_pictures_cost_little(size: tuple[int, int]) -> None:
    picture = Image.linear_gradient("L").resize(size).convert("RGB")
    start = time.monotonic()
    assert recognise(picture).words == []
    assert time.monotonic() - start < 60


@needs_ocr
@pytest.mark.parametrize("turn", [None, Image.Transpose.ROTATE_90])
def test_thin_banners_are_read_to_their_end_with_the_words_where_they_stand(turn: Image.Transpose | None) -> None:
    texts = [f"Platform {n} closed" for n in range(10, 16)]
    picture = lines((6000, 60), *((100 + 1000 * n, 8, text) for n, text in enumerate(texts)))
    text, boxes = placed_text(recognise(picture.transpose(turn) if turn is not None else picture))
    words = [(text[start:end], left, bottom) for start, end, left, _, _, bottom in unpacked_boxes(boxes)]
    starts = {word: left if turn is None else 1 - bottom for word, left, bottom in words if word.isdigit()}
    assert starts == pytest.approx({str(n): (270 + 1000 * (n - 10)) / 6000 for n in range(10, 16)}, abs=0.02)


@needs_ocr
def test_what_was_not_looked_at_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = lines((700, 4600), (40, 60, "The first of all lines"), (40, 4500, "The last of all lines"))
    with time_limit(0):
        late = recognise(picture)
    assert late.words == []
    assert "no time left" in late.note
    assert recognise(Image.new("RGB", (700, 4600), "white")) == Recognised([])
    monkeypatch.setattr(ocr, "MOST_TILES", 2)
    begun = recognise(picture)
    assert placed_text(begun)[0] == "The first of all lines"
    assert "% of its length only" in begun.note


def test_pictures_without_a_mark_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr, "_lines", lambda pixels: pytest.fail("it was looked at"))
    assert recognise(Image.new("RGB", (20_000, 12), "white")).words == []


@needs_ocr
def test_a_scan_without_time_for_all_pages_keeps_them_as_pictures(tmp_path: Path) -> None:
    page = lines((900, 700), (60, 60, "The pump needs three bar"))
    page.save(tmp_path / "scan.pdf", save_all=True, append_images=[page] * 3)
    parts = read_file(tmp_path / "scan.pdf", ocr=True, limits=Limits(seconds=0))
    assert [part.page for part in parts if part.image] == [1, 2, 3, 4]
    assert "pages 1, 2, 3, 4: there was no time left" in parts[0].note
