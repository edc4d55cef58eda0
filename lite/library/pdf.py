"""PDF files page by page: what a person sees, with where each word stands.

The text layer is taken where it is the page's content. Scans, fonts that do not say which letters they hold, and pages
whose text layer is a stamp or a footer under a picture are read by text recognition, where that is wanted.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pypdfium2 as pdfium
from PIL import Image
from pypdfium2 import raw

from lite.library.images import IMAGE_SIDE, as_jpeg
from lite.library.ocr import OCR_SIDE, recognise
from lite.library.parts import Limits, Part, Unreadable
from lite.library.pdf_annotations import added_texts
from lite.library.pdf_text import Word, boxes_of, in_rows, is_noise, joined, looks_ciphered, page_words
from lite.library.splitting import split_text

LARGE_FIGURE = 0.02  # of the page's area; smaller pictures are logos and rules
MANY_PATHS = 40  # lines and curves on a page from which on it is taken to hold a drawing
OUTLINES = 400  # from which on it may hold letters that are drawn
SCAN = 0.5  # of the page's area that pictures cover, from which on it may be a scan
STAMP = 0.04  # of the page's area that text covers, up to which it may be a stamp on a scan
LARGEST_SCALE = 20  # pixels for a point of a tiny page
# An entry of a list of pages that is no page, which keeps pdfium from reaching the last ones.
NO_PAGE = re.compile(rb"/Kids\s*\[[^\]]{0,200000}?\bnull\b[^\]]{0,200000}\]")

DAMAGED = "damaged and left out; the other pages were read"
NOISE = "not indexed as text, as a font does not say which letters it holds; text recognition would read it"


def read_pdf(path: Path, ocr: bool, limits: Limits) -> list[Part]:
    """The pages of a file; a broken page is left out and named in a note.

    Raises:
        Unreadable: It is locked, over the limit of pages, or not one page can be read.
    """
    parts: list[Part] = []
    notes: defaultdict[str, list[int]] = defaultdict(list)  # reason: pages
    try:
        source, missing = _with_all_pages(path)
        with pdfium.PdfDocument(source) as pdf:
            if len(pdf) > limits.pages:
                raise Unreadable(f"it has {len(pdf):,} pages; the limit is {limits.pages:,} (--max_pages).")
            pdf.init_forms()
            for number in range(1, len(pdf) + 1):
                try:
                    parts += _read_page(pdf, number, ocr, notes)
                except pdfium.PdfiumError:
                    notes[DAMAGED].append(number)
            if len(notes[DAMAGED]) == len(pdf):
                raise Unreadable("it is a damaged PDF: none of its pages can be read.")
            about = ["pages that its list names are missing; the others were read."] * missing + _about(pdf)
    except pdfium.PdfiumError as error:
        if error.err_code == raw.FPDF_ERR_PASSWORD:
            raise Unreadable("it is protected by a password. Save it without one.") from error
        raise Unreadable(f"it is a damaged PDF, or none at all ({str(error).rstrip('.')}).") from error
    about += [f"{_pages(pages)}: {reason}." for reason, pages in notes.items() if pages]
    return [replace(parts[0], note=" ".join(about)), *parts[1:]] if parts and about else parts


def _with_all_pages(path: Path) -> tuple[Path | bytes, bool]:
    """The file, and whether its list of pages named some that are missing."""
    data = path.read_bytes()
    fixed, count = NO_PAGE.subn(lambda match: re.sub(rb"\bnull\b", b"    ", match[0]), data)
    return (fixed, True) if count else (path, False)


def _about(pdf: pdfium.PdfDocument) -> list[str]:
    """What the file holds that is not read."""
    found = []
    if attached := pdf.count_attachments():
        found.append(f"{attached} attached file{'s' * (attached > 1)} not read.")
    if pdf.get_formtype() == raw.FORMTYPE_XFA_FULL:
        found.append("its form is of a kind (XFA) of which only the plain pages are read.")
    return found


def _pages(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:20])) + f" and {len(numbers) - 20} more" * (len(numbers) > 20)
    return f"page{'s' * (len(numbers) > 1)} {shown}"


def _read_page(pdf: pdfium.PdfDocument, number: int, ocr: bool, notes: dict[str, list[int]]) -> Iterator[Part]:
    page = pdf[number - 1]
    added, fields = added_texts(pdf, page)
    if added or fields:
        raw.FPDFPage_Flatten(page, raw.FLAT_NORMALDISPLAY)
        page.close()
        page = pdf[number - 1]
    textpage = page.get_textpage()
    words = page_words(page, textpage)
    if fields:
        words = in_rows(words)
    text, _ = joined(words)
    noise = is_noise(textpage, text)
    if noise:
        words = []
        if not ocr:
            notes[NOISE].append(number)
    scan, figures = _pictures(page, words)
    picture = None
    if not words or figures:
        picture = _rendered(page, IMAGE_SIDE)
        if not words and not added and picture.convert("L").getextrema()[0] > 250:
            return  # a blank page
    if ocr and (not words or scan or looks_ciphered(text)):
        found = recognise(_rendered(page, OCR_SIDE))
        if found.note:
            notes[found.note.rstrip(".")].append(number)
        words = _merged(found.words, words, replaced=not scan)
    yield from _parts(number, words, added, as_jpeg(picture) if picture else b"")


def _parts(number: int, words: list[Word], added: list[str], image: bytes) -> Iterator[Part]:
    text, pieces = joined(words)
    squeezed = "".join(text.split())
    beside = [line for line in dict.fromkeys(added) if "".join(line.split()) not in squeezed]
    text = "\n\n".join(filter(None, (text, *beside)))
    chunks = split_text(text) or [""]
    for count, (chunk, boxes) in enumerate(zip(chunks, boxes_of(chunks, pieces), strict=True), start=1):
        more = f"part={count}" if count > 1 else ""
        place = ",".join(filter(None, (f"page={number}", more)))
        title = place.replace("=", " ").replace(",", ", ")
        yield Part(place, "page" if image else "text", title, chunk, image, page=number, boxes=boxes)
        image = b""  # with the first part of the text only


def _merged(read: list[tuple[str, tuple]], words: list[Word], replaced: bool) -> list[Word]:
    """What was read in the picture; then the words of the text layer that are not in it, as a stamp is.

    Args:
        replaced: The text layer is not the page's content: it stays only where nothing was read.
    """
    found, gap = [], "\n"
    for word, box in read:
        if word != "\n":
            found.append(Word(word, box, gap))
        gap = "\n" if word == "\n" else " "
    if not found or not replaced:
        seen = {word.text.casefold() for word in found}
        rest = [word for word in words if word.text.casefold() not in seen]
        found += words if len(rest) > len(words) // 2 else rest
    return found


def _rendered(page: pdfium.PdfPage, side: int) -> Image.Image:
    return page.render(scale=min(side / max(page.get_size()), LARGEST_SCALE)).to_pil().convert("RGB")


def _pictures(page: pdfium.PdfPage, words: list[Word]) -> tuple[bool, bool]:
    """Whether the page is a picture of text under little real text, and whether it holds figures."""
    width, height = page.get_size()
    little = sum((box[2] - box[0]) * (box[3] - box[1]) for _, box, _ in words) < STAMP
    paths = covered = 0
    figures = False
    for item in page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE, raw.FPDF_PAGEOBJ_PATH], max_depth=4):
        if item.type == raw.FPDF_PAGEOBJ_PATH:
            paths += 1
            figures = figures or paths >= MANY_PATHS
        else:
            left, bottom, right, top = item.get_bounds()
            share = (right - left) * (top - bottom) / (width * height)
            covered += share
            figures = figures or share >= LARGE_FIGURE
        if (figures and not little) or paths > OUTLINES or covered > SCAN:
            break
    return little and (covered > SCAN or paths > OUTLINES), figures or covered > SCAN
