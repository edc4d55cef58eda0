"""One file in, its documents out: PDF, images, text, Markdown, HTML, Word, CSV, TSV and Excel tables.

What a file may cost is limited (`Limits`); whatever is over a limit, locked or broken raises `Unreadable` with a reason
that a person understands.
"""

from __future__ import annotations

import csv
import re
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from xml.parsers.expat import ExpatError

import mammoth
import pypdfium2 as pdfium
from openpyxl.utils.exceptions import InvalidFileException
from PIL import Image, UnidentifiedImageError
from pypdfium2.raw import FPDF_ERR_PASSWORD, FPDF_PAGEOBJ_IMAGE, FPDF_PAGEOBJ_PATH

from lite.library.html import split_html
from lite.library.images import IMAGE_SIDE, as_jpeg, enable_heic, open_image, reduced, text_in
from lite.library.parts import DEFAULT_LIMITS, Limits, Part, Unreadable
from lite.library.splitting import split_markdown, split_table, split_text
from lite.library.tables import csv_rows, excel_sheets
from lite.schema import Document, LiteError, open_image_file

TEXT = (".txt", ".text", ".rst")
MARKDOWN = (".md", ".markdown")
HTML = (".html", ".htm", ".xhtml")
WORD = (".docx",)
TABLES = (".csv", ".tsv", ".xlsx")
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".tif", ".tiff", ".bmp")
HEIC = (".heic", ".heif")  # need the extra `heic`
SUFFIXES = (".pdf", *TEXT, *MARKDOWN, *HTML, *WORD, *TABLES, *IMAGES, *HEIC)

LARGE_FIGURE = 0.02  # of the page's area; smaller pictures are logos and rules
MANY_PATHS = 40  # lines and curves on a page from which on it is taken to hold a drawing
VERSION = 2  # changes when other documents come out of the same file


def read_file(path: Path, ocr: bool, limits: Limits = DEFAULT_LIMITS) -> list[Part]:
    """The documents of a file, by the kind that its name says it is.

    Args:
        path: An existing file.
        ocr: Whether to read the text in images and scanned pages.
        limits: What the file may cost. `seconds` and `gigabytes` are the caller's to see to.

    Raises:
        Unreadable: It is broken, locked, empty or over a limit.
    """
    try:
        size = path.stat().st_size
        if not size:
            raise Unreadable("it is empty (0 bytes).")
        if size > limits.megabytes * 10**6:
            raise Unreadable(f"it has {size / 1e6:,.0f} MB; the limit is {limits.megabytes} MB (--max_megabytes).")
        if path.suffix.lower() not in SUFFIXES:
            raise Unreadable(f"files of its kind are not read. Save it as one of {' '.join(SUFFIXES)}")
        parts = [_clean(part) for part in _READERS[path.suffix.lower()](path, ocr, limits)]
    except LiteError as error:  # an extra is missing
        raise Unreadable(str(error)) from error
    except OSError as error:
        raise Unreadable(f"it cannot be read ({error.strerror or error}).") from error
    parts = [part for part in parts if part.text or part.image]
    if not parts:
        raise Unreadable("it holds no text and no image.")
    return parts


# ---------------------------------------------------------------------------------------------------------------- kinds


def _read_pdf(path: Path, ocr: bool, limits: Limits) -> Iterator[Part]:
    try:
        with pdfium.PdfDocument(path) as pdf:
            if len(pdf) > limits.pages:
                raise Unreadable(f"it has {len(pdf):,} pages; the limit is {limits.pages:,} (--max_pages).")
            for number in range(len(pdf)):
                yield from _read_page(pdf, number, ocr)
    except pdfium.PdfiumError as error:
        if error.err_code == FPDF_ERR_PASSWORD:
            raise Unreadable("it is protected by a password. Save it without one.") from error
        raise Unreadable(f"it is a damaged PDF, or none at all ({str(error).rstrip('.')}).") from error


def _read_page(pdf: pdfium.PdfDocument, number: int, ocr: bool) -> Iterator[Part]:
    page = pdf[number]
    text = page.get_textpage().get_text_range().replace("\ufffe", "").replace("\x02", "")
    image = b""
    if not text.strip() or _has_figures(page):
        longer = max(page.get_size())
        picture = page.render(scale=min(IMAGE_SIDE / longer, 20)).to_pil().convert("RGB")
        if not text.strip() and picture.convert("L").getextrema()[0] > 250:
            return  # a blank page
        image = as_jpeg(picture)
        if ocr and not text.strip():
            text = text_in(picture)
    for count, chunk in enumerate(split_text(text) or [""]):
        more = count > 0
        place = f"page={number + 1}" + f",part={count + 1}" * more
        title = f"page {number + 1}" + f", part {count + 1}" * more
        yield Part(place, "page" if image else "text", title, chunk, image)
        image = b""  # with the first part of the text only


def _has_figures(page: pdfium.PdfPage) -> bool:
    width, height = page.get_size()
    paths = 0
    for item in page.get_objects(filter=[FPDF_PAGEOBJ_IMAGE, FPDF_PAGEOBJ_PATH], max_depth=4):
        if item.type == FPDF_PAGEOBJ_PATH:
            paths += 1
            if paths >= MANY_PATHS:
                return True
            continue
        left, bottom, right, top = item.get_bounds()
        if (right - left) * (top - bottom) >= LARGE_FIGURE * width * height:
            return True
    return False


def _read_image(path: Path, ocr: bool, limits: Limits) -> Iterator[Part]:
    if path.suffix.lower() in HEIC:
        enable_heic()
    pillows_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # ours is looked at below
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata
            with open_image_file(path) as image:
                frames = image.n_frames if image.format == "TIFF" else 1
                if frames > limits.pages:
                    raise Unreadable(f"it has {frames:,} pages; the limit is {limits.pages:,} (--max_pages).")
                for frame in range(frames):
                    image.seek(frame)
                    _check_pixels(image.width * image.height / 1e6, limits)
                    picture = reduced(image)
                    text = " ".join(text_in(picture).split("\n")) if ocr else ""
                    place, kind, title = (
                        (f"page={frame + 1}", "page", f"page {frame + 1}") if frames > 1 else ("", "image", "")
                    )
                    yield Part(place, kind, title, text, as_jpeg(picture))
    except UnidentifiedImageError as error:
        raise Unreadable(f"it is no image, whatever its name says{_looks_like(path)}.") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise Unreadable(f"it is a damaged image ({error}).") from error
    finally:
        Image.MAX_IMAGE_PIXELS = pillows_limit


def _check_pixels(megapixels: float, limits: Limits) -> None:
    if megapixels > limits.megapixels:
        raise Unreadable(f"it has {megapixels:,.0f} megapixels; the limit is {limits.megapixels} (--max_megapixels).")


def _read_text(path: Path, ocr: bool, limits: Limits) -> Iterator[Part]:
    for number, text in enumerate(split_text(_decoded(path)), start=1):
        yield Part(f"part={number}", "text", _part(number), text)


def _read_markdown(path: Path, ocr: bool, limits: Limits) -> Iterator[Part]:
    for number, (headings, text, is_table) in enumerate(split_markdown(_decoded(path)), start=1):
        yield Part(f"part={number}", "table" if is_table else "text", headings, text)


def _read_html(path: Path, ocr: bool, limits: Limits) -> Iterator[Part]:
    for place, is_table, title, text in split_html(path.read_bytes()):
        yield Part(place, "table" if is_table else "text", title, text)


def _read_docx(path: Path, ocr: bool, limits: Limits) -> Iterator[Part]:
    """By way of HTML: headings, paragraphs and tables. Its pictures are left out."""
    try:
        _check_archive(path, limits)
        with path.open("rb") as file:
            html = mammoth.convert_to_html(file, convert_image=lambda image: []).value
    except (zipfile.BadZipFile, OSError, ExpatError, KeyError, ValueError, AttributeError, IndexError) as error:
        raise Unreadable(f"it is a damaged or locked Word file ({error}).") from error
    for place, is_table, title, text in split_html(f'<meta charset="utf-8">{html}'.encode()):
        yield Part(place, "table" if is_table else "text", title, text)


def _read_csv(path: Path, ocr: bool, limits: Limits) -> Iterator[Part]:
    rows = csv_rows(_decoded(path), "\t" if path.suffix.lower() == ".tsv" else "")
    try:
        for number, table in enumerate(split_table(rows), start=1):
            yield Part(f"part={number}", "table", _part(number), table)
    except csv.Error as error:
        raise Unreadable(f"it is no table ({error}).") from error


def _read_xlsx(path: Path, ocr: bool, limits: Limits) -> Iterator[Part]:
    try:
        _check_archive(path, limits)
        for name, rows in excel_sheets(path):
            for number, table in enumerate(split_table(rows), start=1):
                title = ", ".join(filter(None, (name, _part(number))))
                yield Part(f"sheet={name},part={number}", "table", title, table)
    except (zipfile.BadZipFile, InvalidFileException, KeyError, ValueError, TypeError, SyntaxError) as error:
        raise Unreadable(f"it is a damaged or locked Excel file ({error}).") from error


def _check_archive(path: Path, limits: Limits) -> None:
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(info.file_size for info in archive.infolist()) / 1e6
    if unpacked > 5 * limits.megabytes:
        raise Unreadable(f"it unpacks to {unpacked:,.0f} MB; the limit is {5 * limits.megabytes} MB.")


_READERS = {
    ".pdf": _read_pdf,
    **dict.fromkeys(TEXT, _read_text),
    **dict.fromkeys(MARKDOWN, _read_markdown),
    **dict.fromkeys(HTML, _read_html),
    **dict.fromkeys(WORD, _read_docx),
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".xlsx": _read_xlsx,
    **dict.fromkeys((*IMAGES, *HEIC), _read_image),
}

# -------------------------------------------------------------------------------------------------------------- helpers


def _part(number: int) -> str:
    """For titles: later parts of one text or table say which they are."""
    return f"part {number}" if number > 1 else ""


def _decoded(path: Path) -> str:
    """UTF-8, UTF-16 with its mark, or what the bytes look like."""
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    if b"\0" in data[:100_000]:
        raise Unreadable("it is no text, whatever its name says (it holds zero bytes).")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        runs = re.findall(rb"[\x80-\xff]+", data[:100_000])
        if sum(len(run) == 1 for run in runs) >= 0.75 * len(runs):
            return data.decode("cp1252", errors="replace")  # accents between plain letters: a western language
        from charset_normalizer import from_bytes  # takes short western texts for Chinese or Czech

        best = from_bytes(data[:100_000]).best()
        return data.decode(best.encoding if best else "latin-1", errors="replace")


def _clean(part: Part) -> Part:
    """Without what no database and no tokenizer takes: zero bytes, lone surrogates."""
    title, text = (
        value.replace("\0", "").encode("utf-8", "replace").decode().strip() for value in (part.title, part.text)
    )
    return replace(part, title=" ".join(title.split()), text=text)


def _looks_like(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(200).lstrip().lower()
    return ": it holds HTML" if start.startswith((b"<!doctype", b"<html")) else ""


def as_document(part: Part, file: str, name: str) -> Document:
    """The document that a part of a file is.

    Args:
        part: One of `read_file`.
        file: What its id begins with.
        name: What its title begins with, as the model sees it.
    """
    name = " ".join(name.split())
    return Document(
        id=f"{file}#{part.place}" if part.place else file,
        kind=part.kind,
        title=f"{name}: {part.title}" if part.title else name,
        text=part.text,
        image=partial(open_image, part.image) if part.image else None,
        page=part.page,
        boxes=part.boxes,
    )
