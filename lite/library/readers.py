"""One file in, its documents out: PDF, images, office files, web pages, mails, texts, source code and tables.

What a file may cost is limited (`Limits`); whatever is over a limit, locked or broken raises `Unreadable` with a reason
that a person understands. What is left out of a file that is read is named in the `note` of one of its parts.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from lxml import etree
from openpyxl.utils.exceptions import InvalidFileException

from lite.library.decoding import decoded
from lite.library.html import split_html
from lite.library.images import enable_heic, open_image, read_image
from lite.library.mail import split_mail
from lite.library.markdown import split_markdown
from lite.library.ocr import time_limit
from lite.library.open_document import open_document_html
from lite.library.parts import DEFAULT_LIMITS, Limits, Part, Unreadable
from lite.library.pdf import read_pdf
from lite.library.sheets import csv_rows, excel_sheets
from lite.library.slides import slides_html
from lite.library.splitting import split_lines, split_text
from lite.library.tables import split_tables
from lite.library.word import word_html
from lite.schema import Document, LiteError

TEXT = (".txt", ".text", ".rst", ".log", ".org", ".tex", ".srt", ".vtt")
MARKDOWN = (".md", ".markdown")
HTML = (".html", ".htm", ".xhtml")
OFFICE = (".docx", ".pptx", ".odt")
MAIL = (".eml",)
TABLES = (".csv", ".tsv", ".xlsx")
IMAGES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif")
HEIC = (".heic", ".heif")  # need the extra `heic`
CODE = tuple(
    ".bash .bat .c .cc .clj .cpp .cs .css .cu .cxx .dart .diff .ex .exs .f90 .fs .go .gradle .groovy .h .hpp .hs "
    ".ini .ipynb .java .jl .js .json .jsx .kt .lua .m .mjs .nim .patch .php .pl .ps1 .py .pyi .r .rb .rs .sass "
    ".scala .scss .sh .sql .swift .tf .toml .ts .tsx .vb .vue .xml .yaml .yml .zig .zsh".split()
)
DOCUMENTS = (".pdf", *TEXT, *MARKDOWN, *HTML, *OFFICE, *MAIL, *TABLES, *IMAGES, *HEIC)
SUFFIXES = (*DOCUMENTS, *CODE)
PICTURED = (".pdf", *OFFICE, *IMAGES, *HEIC)  # other documents come out of them with text recognition

VERSION = 4  # changes when other documents come out of the same file
SMALL_PICTURE = 64  # pixels of a side up to which a picture in a document is a logo or a rule
OCR_TIME = 0.8  # of the seconds that a file may take: what is left then is kept as pictures, without their text
DAMAGED = (
    zipfile.BadZipFile, InvalidFileException, etree.LxmlError, OSError, AttributeError, IndexError, KeyError,
    RecursionError, SyntaxError, TypeError, ValueError,
)  # fmt: skip


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
            raise Unreadable(f"it has {-(-size // 10**6):,} MB; the limit is {limits.megabytes} MB (--max_megabytes).")
        if path.suffix.lower() not in SUFFIXES:
            raise Unreadable(f"files of its kind are not read. Save it as one of {' '.join(DOCUMENTS)}")
        with time_limit(OCR_TIME * limits.seconds):
            parts = [_clean(part) for part in _READERS[path.suffix.lower()](path, ocr, limits)]
    except LiteError as error:  # an extra is missing
        raise Unreadable(str(error)) from error
    except OSError as error:
        raise Unreadable(f"it cannot be read ({error.strerror or error}).") from error
    full = [part for part in parts if part.text or part.image]
    notes = list(dict.fromkeys(part.note for part in parts if part.note))
    if not full:
        raise Unreadable(" ".join(["it holds no text and no image.", *notes]))
    return [replace(part, note=" ".join(notes) if part is full[0] else "") for part in full]


# ---------------------------------------------------------------------------------------------------------------- kinds


def _read_image(path: Path, ocr: bool, limits: Limits) -> Iterator[Part]:
    if path.suffix.lower() in HEIC:
        enable_heic()
    return read_image(path, ocr, limits)


def _read_text(path: Path, ocr: bool, limits: Limits) -> Iterator[Part]:
    return _numbered(split_text(decoded(path.read_bytes())))


def _read_code(path: Path, ocr: bool, limits: Limits) -> Iterator[Part]:
    for first, last, text in split_lines(decoded(path.read_bytes())):
        yield Part(f"lines={first}-{last}", "text", f"lines {first}–{last}", text)


def _read_notebook(path: Path, ocr: bool, limits: Limits) -> Iterator[Part]:
    """The cells of a Jupyter notebook; what they printed is left out."""
    try:
        cells = json.loads(decoded(path.read_bytes()))["cells"]
        texts = [("".join(cell["source"]), cell["cell_type"] == "code") for cell in cells]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unreadable(f"it is a damaged notebook ({error}).") from error
    return _sections("\n\n".join(f"```\n{text}\n```" if code else text for text, code in texts))


def _read_markdown(path: Path, ocr: bool, limits: Limits) -> Iterator[Part]:
    return _sections(decoded(path.read_bytes()))


def _sections(text: str) -> Iterator[Part]:
    for number, (headings, part, is_table) in enumerate(split_markdown(text), start=1):
        yield Part(f"part={number}", "table" if is_table else "text", headings, part)


def _read_html(path: Path, ocr: bool, limits: Limits) -> Iterator[Part]:
    return split_html(path.read_bytes())


def _read_mail(path: Path, ocr: bool, limits: Limits) -> Iterator[Part]:
    return split_mail(path.read_bytes())


def _read_docx(path: Path, ocr: bool, limits: Limits) -> list[Part]:
    def read(archive: zipfile.ZipFile) -> Iterator[Part]:
        yield from split_html(word_html(archive))
        yield from _pictures(archive, _names(archive, "word/media/"), ocr, limits)

    return _from_archive(path, "Word", read, ocr, limits)


def _read_odt(path: Path, ocr: bool, limits: Limits) -> list[Part]:
    def read(archive: zipfile.ZipFile) -> Iterator[Part]:
        yield from split_html(open_document_html(archive))
        yield from _pictures(archive, _names(archive, "Pictures/"), ocr, limits)

    return _from_archive(path, "OpenDocument", read, ocr, limits)


def _read_pptx(path: Path, ocr: bool, limits: Limits) -> list[Part]:
    def read(archive: zipfile.ZipFile) -> Iterator[Part]:
        hidden, seen = [], set()
        for number, (html, is_hidden, pictures) in enumerate(slides_html(archive), start=1):
            place = f"page={number}"
            name = f"slide {number}" + " (hidden)" * is_hidden
            hidden += [str(number)] * is_hidden
            own = [picture for picture in dict.fromkeys(pictures) if picture not in seen]
            seen.update(own)
            for part in [*split_html(html), *_pictures(archive, own, ocr, limits)]:
                title = " > ".join(filter(None, (name, part.title)))
                yield replace(part, place=f"{place},{part.place}", title=title, page=number)
        if hidden:
            yield Part("", "text", "", note=f"hidden slides were read, too: {', '.join(hidden)}.")

    return _from_archive(path, "PowerPoint", read, ocr, limits)


def _read_csv(path: Path, ocr: bool, limits: Limits) -> Iterator[Part]:
    rows = csv_rows(decoded(path.read_bytes()), "\t" if path.suffix.lower() == ".tsv" else "")
    try:
        yield from _numbered(split_tables(rows), "table")
    except csv.Error as error:
        raise Unreadable(f"it is no table ({error}).") from error


def _read_xlsx(path: Path, ocr: bool, limits: Limits) -> Iterator[Part]:
    try:
        with _archive(path, limits) as archive:
            left_out = {kind: len(_names(archive, f"xl/{kind}s/{kind}")) for kind in ("chart", "drawing")}
            left_out["picture"] = len(_names(archive, "xl/media/"))
        left_out.pop("drawing")
        hidden = []
        for name, is_hidden, rows in excel_sheets(path):
            hidden += [name] * is_hidden
            for part in _numbered(split_tables(rows), "table"):
                title = ", ".join(filter(None, (name + " (hidden)" * is_hidden, part.title)))
                yield replace(part, place=f"sheet={name},{part.place}", title=title)
        notes = [f"hidden sheets were read, too: {', '.join(hidden)}."] * bool(hidden)
        notes += [f"{count} {kind}{'s' * (count > 1)} in it not read." for kind, count in left_out.items() if count]
        if notes:
            yield Part("", "text", "", note=" ".join(notes))
    except DAMAGED as error:
        raise Unreadable(f"it is a damaged or locked Excel file ({error}).") from error


_READERS: dict[str, Callable[[Path, bool, Limits], Iterable[Part]]] = {
    ".pdf": read_pdf,
    **dict.fromkeys(TEXT, _read_text),
    **dict.fromkeys(MARKDOWN, _read_markdown),
    **dict.fromkeys(HTML, _read_html),
    **dict.fromkeys(MAIL, _read_mail),
    ".docx": _read_docx,
    ".odt": _read_odt,
    ".pptx": _read_pptx,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".xlsx": _read_xlsx,
    **dict.fromkeys((*IMAGES, *HEIC), _read_image),
    **dict.fromkeys(CODE, _read_code),
    ".ipynb": _read_notebook,
}

# ------------------------------------------------------------------------------------------------- archives of Office


def _from_archive(
    path: Path, program: str, read: Callable[[zipfile.ZipFile], Iterator[Part]], ocr: bool, limits: Limits
) -> list[Part]:
    try:
        with _archive(path, limits) as archive:
            parts = list(read(archive))
    except DAMAGED as error:
        raise Unreadable(f"it is a damaged or locked {program} file ({error}).") from error
    if not ocr and any(part.image for part in parts) and not any(part.text for part in parts):
        parts[0] = replace(parts[0], note="it holds pictures only; the text in them was not read (--ocr).")
    return parts


def _archive(path: Path, limits: Limits) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(path)
    unpacked = sum(info.file_size for info in archive.infolist()) / 1e6
    if unpacked > 5 * limits.megabytes:
        archive.close()
        raise Unreadable(f"it unpacks to {unpacked:,.0f} MB; the limit is {5 * limits.megabytes} MB.")
    return archive


def _names(archive: zipfile.ZipFile, start: str) -> list[str]:
    return [name for name in archive.namelist() if name.startswith(start) and not name.endswith("/")]


def _pictures(archive: zipfile.ZipFile, names: Iterable[str], ocr: bool, limits: Limits) -> Iterator[Part]:
    """The pictures in an office file as documents of their own; those of kinds that are not read are counted."""
    number = 0
    unread: list[str] = []
    for name in names:
        try:
            found = list(read_image(io.BytesIO(archive.read(name)), ocr, limits))
        except Unreadable:
            unread.append(PurePosixPath(name).suffix or name)
            continue
        for part in found:
            if min(open_image(part.image).size) > SMALL_PICTURE:
                number += 1
                yield replace(part, place=f"picture={number}", title=f"picture {number}")
    if unread:
        kinds = ", ".join(sorted(set(unread)))
        yield Part("", "text", "", note=f"{len(unread)} picture{'s' * (len(unread) > 1)} in it not read ({kinds}).")


# -------------------------------------------------------------------------------------------------------------- helpers


def _numbered(texts: Iterable[str], kind: str = "text") -> Iterator[Part]:
    """Parts of one text or table; later ones say in their titles which they are."""
    for number, text in enumerate(texts, start=1):
        yield Part(f"part={number}", kind, f"part {number}" if number > 1 else "", text)


def _clean(part: Part) -> Part:
    """Without what no database and no tokenizer takes: zero bytes, lone surrogates."""
    title, text = (
        value.replace("\0", "").encode("utf-8", "replace").decode().strip() for value in (part.title, part.text)
    )
    return replace(part, title=" ".join(title.split()), text=text)


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
