"""PDF pages as a person sees them: what was filled in and noted, columns, broken pages, fonts that say nothing."""

from __future__ import annotations

import ctypes
import io
from pathlib import Path

import pypdfium2 as pdfium
import pytest
from PIL import Image, ImageDraw, ImageFont

from lite.library.ocr import ocr_installed
from lite.library.parts import unpacked_boxes
from lite.library.pdf_text import looks_ciphered
from lite.library.workers import read_documents
from lite.schema import Document

FONT = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
# Codes of glyphs and nothing that says which letters they are.
MUTE_FONT = (
    "<< /Type /Font /Subtype /Type0 /BaseFont /ABCDEF+Own /Encoding /Identity-H /DescendantFonts "
    "[<< /Type /Font /Subtype /CIDFontType2 /BaseFont /ABCDEF+Own /CIDSystemInfo "
    "<< /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> /FontDescriptor << /Type /FontDescriptor "
    "/FontName /ABCDEF+Own /Flags 4 >> >>] >>"
)
# A font of the reader's own that gives no heights.
FLAT_FONT = (
    "<< /Type /Font /Subtype /Type0 /BaseFont /STSong-Light /Encoding /UniGB-UCS2-H /DescendantFonts "
    "[<< /Type /Font /Subtype /CIDFontType0 /BaseFont /STSong-Light /DW 1000 /CIDSystemInfo "
    "<< /Registry (Adobe) /Ordering (GB1) /Supplement 0 >> /FontDescriptor << /Type /FontDescriptor "
    "/FontName /STSong-Light /Flags 4 >> >>] >>"
)


def line(text: str, x: int = 72, y: int = 700, size: int = 12) -> str:
    return f"BT /F1 {size} Tf {x} {y} Td ({text}) Tj ET\n"


def pdf(
    path: Path, *pages: str, font: str = FONT, page: str = "", catalog: str = "", extra: tuple[str, ...] = ()
) -> Path:
    """A PDF of content streams. The font is object 3, `extra` are 4, 5, …; `page` is added to each page."""
    objects = ["", "", font, *extra]
    kids = []
    for content in pages:
        kids.append(f"{len(objects) + 1} 0 R")
        objects.append(
            content.removeprefix("broken:")
            if content.startswith("broken:")
            else f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] {page} /Contents {len(objects) + 2} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    objects[0] = f"<< /Type /Catalog /Pages 2 0 R {catalog} >>"
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    out, offsets = "%PDF-1.7\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    start = len(out)
    out += f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R >>\n"
    out += f"startxref\n{start}\n%%EOF"
    path.write_bytes(out.encode("latin-1"))
    return path


def read(path: Path, ocr: bool = False) -> list[Document]:
    return read_documents([path], ocr=ocr)


def picture(text: str, size: tuple[int, int] = (1200, 1600)) -> Image.Image:
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).text((150, 400), text, fill="black", font=ImageFont.load_default(60))
    return image


def stamped_scan(path: Path) -> Path:
    """A scan, over which a program wrote a page number."""
    with pdfium.PdfDocument.new() as document:
        page = document.new_page(600, 800)
        jpeg = io.BytesIO()
        picture("Valve seven\nis closed").save(jpeg, "JPEG")
        image = pdfium.PdfImage.new(document)
        image.load_jpeg(jpeg, inline=True)
        image.set_matrix(pdfium.PdfMatrix().scale(600, 800))
        page.insert_obj(image)
        font = pdfium.raw.FPDFText_LoadStandardFont(document, b"Helvetica")
        stamp = pdfium.raw.FPDFPageObj_CreateTextObj(document, font, 10)
        text = ctypes.create_string_buffer("Bates 0042\0".encode("utf-16-le"))
        pdfium.raw.FPDFText_SetText(stamp, ctypes.cast(text, pdfium.raw.FPDF_WIDESTRING))
        pdfium.raw.FPDFPageObj_Transform(stamp, 1, 0, 0, 1, 500, 20)
        pdfium.raw.FPDFPage_InsertObject(page, stamp)
        page.gen_content()
        document.save(path)
    return path


def test_what_was_filled_in_stands_beside_its_label(tmp_path: Path) -> None:
    extra = (
        "<< /Type /Annot /Subtype /Widget /FT /Tx /T (name) /V (Ada Byron) /DA (/F1 12 Tf 0 g) /F 4 "
        "/Rect [150 695 400 715] >>",
        "<< /Type /Annot /Subtype /Widget /FT /Btn /T (smoker) /V /Yes /AS /Yes /F 4 /Rect [150 600 170 620] "
        "/AP << /N << /Yes 6 0 R /Off 6 0 R >> >> >>",
        "<< /Type /XObject /Subtype /Form /BBox [0 0 20 20] /Length 0 >>\nstream\n\nendstream",
        "<< /Type /Annot /Subtype /Widget /FT /Btn /T (pilot) /V /Off /AS /Off /F 4 /Rect [150 560 170 580] "
        "/AP << /N << /Yes 6 0 R /Off 6 0 R >> >> >>",
    )
    form = "/AcroForm << /Fields [4 0 R 5 0 R 7 0 R] /NeedAppearances true /DR << /Font << /F1 3 0 R >> >> >>"
    path = pdf(
        tmp_path / "a.pdf",
        line("Full name:") + line("Remarks:", y=500),
        page="/Annots [4 0 R 5 0 R 7 0 R]",
        catalog=form,
        extra=extra,
    )
    (document,) = read(path)
    assert "Full name: Ada Byron" in document.text
    assert "[x] smoker" in document.text
    assert "pilot" not in document.text


def test_notes_are_text_but_hidden_ones_and_links_are_not(tmp_path: Path) -> None:
    note = "<< /Type /Annot /Subtype /{} /Rect [9 9 99 99] /F {} /Contents ({}) >>"
    extra = (note.format("Text", 4, "Check the seal"), note.format("Text", 2, "secret"), note.format("Link", 4, "url"))
    path = pdf(tmp_path / "a.pdf", line("The pump."), page="/Annots [4 0 R 5 0 R 6 0 R]", extra=extra)
    (document,) = read(path)
    assert document.text == "The pump.\n\nCheck the seal"


def test_letters_that_nobody_named_are_no_text_and_that_is_said(tmp_path: Path, caplog) -> None:
    codes = "".join(f"{n:04x}" for n in range(3, 60))
    path = pdf(tmp_path / "a.pdf", f"BT /F1 20 Tf 72 700 Td <{codes}> Tj ET 72 500 200 9 re f", font=MUTE_FONT)
    (document,) = read(path)
    assert (document.kind, document.text) == ("page", "")
    assert "page 1: not indexed as text" in caplog.text


def test_a_cipher_is_no_prose_but_part_numbers_and_other_scripts_are_not_judged() -> None:
    assert looks_ciphered("Wklv lv qrw d whaw wkdw dqbrqh fdq uhdg, dv hyhub ohwwhu lv vkliwhg eb wkuhh.")
    assert not looks_ciphered("This is a text that anyone can read, as every letter is where it belongs.")
    assert not looks_ciphered("Насос проверен в Твери. Давление в трубах не должно превышать трёх бар.")
    assert not looks_ciphered("4711 0815 2026-03-01 12.5 99 1234 5678 9012 3456 7890 1111 2222")


@pytest.mark.parametrize("broken", ["broken:null", "broken:42", "broken:(text)"])
def test_one_broken_page_leaves_the_others(tmp_path: Path, broken: str, caplog: pytest.LogCaptureFixture) -> None:
    documents = read(pdf(tmp_path / "a.pdf", line("First page."), broken, line("Third page.")))
    assert [document.text for document in documents] == ["First page.", "Third page."]
    assert "missing" in caplog.text or "page 2: damaged" in caplog.text


def test_columns_are_read_one_after_the_other_and_divided_words_put_together(tmp_path: Path) -> None:
    left = ["The pump needs oil every", "month, says the mainte-", "nance plan of the works,", "and clean water daily."]
    right = [
        "Valves are opened by hand",
        "only when the red signal",
        "is off and the operator",
        "has signed the sheet.",
    ]
    rows = zip(left, right, range(700, 600, -16), strict=False)
    path = pdf(tmp_path / "a.pdf", "\n".join(line(a, 72, y) + line(b, 320, y) for a, b, y in rows))
    (document,) = read(path)
    text = " ".join(document.text.split())
    assert "says the maintenance plan" in text
    assert "clean water daily. Valves are opened by hand only when" in text


def test_tables_drawn_side_by_side_stay_in_rows(tmp_path: Path) -> None:
    cells = [("M6", "10 Nm"), ("M8", "25 Nm"), ("M10", "49 Nm"), ("M12", "85 Nm")]
    path = pdf(
        tmp_path / "a.pdf",
        "\n".join(line(a, 72, 700 - 16 * n) + line(b, 320, 700 - 16 * n) for n, (a, b) in enumerate(cells)),
    )
    (document,) = read(path)
    assert " ".join(document.text.split()) == "M6 10 Nm M8 25 Nm M10 49 Nm M12 85 Nm"


@pytest.mark.parametrize(
    ("page", "left", "top"), [("", 0.12, 0.1), ("/Rotate 90", 0.86, 0.12), ("/CropBox [0 400 600 800]", 0.12, 0.2)]
)
def test_boxes_are_where_the_words_are_seen(tmp_path: Path, page: str, left: float, top: float) -> None:
    (document,) = read(pdf(tmp_path / "a.pdf", line("Seal", y=710, size=20), page=page))
    ((start, end, x, y, _, _),) = unpacked_boxes(document.boxes)
    assert document.text[start:end] == "Seal"
    assert (x, y) == pytest.approx((left, top), abs=0.03)


@pytest.mark.parametrize("page", ["", "/Rotate 90"])
def test_a_font_that_does_not_say_how_high_its_letters_are_has_boxes_around_them(tmp_path: Path, page: str) -> None:
    text = "图书馆每周二开放"
    content = f"BT /F1 20 Tf 72 700 Td <{text.encode('utf-16-be').hex()}> Tj ET"
    [document] = read_documents([pdf(tmp_path / "a.pdf", content, font=FLAT_FONT, page=page)], ocr=False)
    assert document.text == text
    [(start, end, left, top, right, bottom)] = unpacked_boxes(document.boxes)
    assert (start, end) == (0, len(text))
    if page:  # turned clockwise: what was above is on the right
        left, top, right, bottom = top, 1 - right, bottom, 1 - left
    assert left == pytest.approx(72 / 600, abs=0.01)
    assert right == pytest.approx((72 + 20 * len(text)) / 600, abs=0.01)
    assert 15 < 800 * (bottom - top) < 35
    assert top < 1 - 705 / 800 < bottom


def test_attached_files_are_named_as_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pdfium.PdfDocument(pdf(tmp_path / "a.pdf", line("See the annex."))) as document:
        document.new_attachment("annex.xlsx").set_data(b"PK")
        document.save(tmp_path / "b.pdf")
    assert read(tmp_path / "b.pdf")[0].text == "See the annex."
    assert "1 attached file not read." in caplog.text


def test_long_pages_are_parts_of_which_a_prompt_shows_all(tmp_path: Path) -> None:
    content = "\n".join(
        line(f"Row {n} of the log of the pump, and nothing more to say.", y=790 - 8 * n) for n in range(95)
    )
    documents = read(pdf(tmp_path / "a.pdf", content))
    assert len(documents) > 2
    assert all(len(document.text) <= 1200 and document.page == 1 for document in documents)
    assert "Row 94 of" in documents[-1].text


def test_a_stamped_scan_is_a_picture_with_its_stamp(tmp_path: Path) -> None:
    (document,) = read(stamped_scan(tmp_path / "a.pdf"))
    assert (document.kind, document.text) == ("page", "Bates 0042")


@pytest.mark.skipif(not ocr_installed(), reason="needs the extra ocr")
def test_a_stamped_scan_is_read(tmp_path: Path) -> None:
    (document,) = read(stamped_scan(tmp_path / "a.pdf"), ocr=True)
    text = document.text.casefold()
    assert "valve seven" in text
    assert "is closed" in text
    assert text.count("0042") == 1
