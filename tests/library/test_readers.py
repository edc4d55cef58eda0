"""What comes out of each kind of file, and what a hostile or broken one is refused for."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from datetime import datetime
from pathlib import Path

import openpyxl
import pypdfium2 as pdfium
import pytest
from matplotlib.figure import Figure
from openpyxl.chart import BarChart
from PIL import Image, ImageDraw, ImageFont

from lite.library.images import IMAGE_SIDE, enable_heic, open_image
from lite.library.markdown import split_markdown
from lite.library.readers import Limits, Unreadable, read_file
from lite.library.splitting import PART_CHARS, split_text
from lite.library.tables import split_table
from lite.library.workers import read_documents, read_files
from lite.schema import LiteError


def words(text: str, size: tuple[int, int] = (800, 200)) -> Image.Image:
    """A picture of a text."""
    picture = Image.new("RGB", size, "white")
    ImageDraw.Draw(picture).text((20, 60), text, fill="black", font=ImageFont.load_default(48))
    return picture


def pdf(path: Path, *pages: str, figure: bool = False) -> Path:
    """A PDF with a text layer."""
    from matplotlib.backends.backend_pdf import PdfPages

    with PdfPages(path) as file:
        for text in pages:
            page = Figure(figsize=(6, 8))
            page.text(0.1, 0.9, text)
            if figure:
                page.add_axes((0.2, 0.2, 0.6, 0.4)).imshow([[0, 1], [1, 0]])
            file.savefig(page)
    return path


# -------------------------------------------------------------------------------------------------------------- splits


def test_texts_end_with_a_sentence() -> None:
    text = "Dr. Smith set the pump to 3.5 bar, i.e. low. " * 200
    parts = split_text(text)
    assert len(parts) > 5
    assert all(part.startswith("Dr. Smith") and part.endswith("i.e. low.") for part in parts)
    assert all(len(part) <= PART_CHARS for part in parts)
    assert " ".join(parts) == text.strip()


def test_short_paragraphs_stay_together_and_long_sentences_whole() -> None:
    assert split_text("One.\n\nTwo.\r\n\r\nThree.") == ["One.\n\nTwo.\n\nThree."]
    assert split_text("Before. " + "word " * 300 + "end. After.") == [
        "Before.", "word " * 239 + "word", "word " * 60 + "end. After.",
    ]  # fmt: skip
    assert list(map(len, split_text("x" * 3000))) == [1200, 1200, 600]
    assert split_text(" \n\n ") == []


def test_markdown_by_heading_with_tables_apart() -> None:
    text = (
        "Preface.\n\n# Setup\n\nPlug in.\n\n```\n# no heading\n```\n\n## Wiring *now*\n\nRed.\n\n"
        "| a | b |\n|---|---|\n| x \\| y | 2 |\n\n# Use\n\nGo."
    )
    assert split_markdown(text) == [
        ("", "Preface.", False),
        ("Setup", "Plug in.\n\n```\n# no heading\n```", False),
        ("Setup > Wiring *now*", "Red.", False),
        ("Setup > Wiring *now*", "| a | b |\n| --- | --- |\n| x \\| y | 2 |", True),
        ("Use", "Go.", False),
    ]


def test_long_tables_repeat_their_header() -> None:
    rows = [["name", "price"], *([f"item {i}", str(i)] for i in range(500))]
    parts = list(split_table(rows))
    assert len(parts) > 5
    assert all(part.startswith("| name | price |\n| --- | --- |\n| item ") for part in parts)
    assert all(len(part) <= PART_CHARS for part in parts)
    assert [line for part in parts for line in part.splitlines()[2:]] == [f"| item {i} | {i} |" for i in range(500)]


def test_odd_tables() -> None:
    assert list(split_table([])) == []
    assert list(split_table([["", ""], ["a", "b", ""], ["", ""], ["1"], ["2|3", "x\ny"]])) == [
        "| a | b |\n| --- | --- |\n| 1 |  |\n| 2\\|3 | x y |"
    ]
    assert list(split_table([["a", "b"]])) == ["| a | b |\n| --- | --- |"]
    wide = [[f"column {i}" for i in range(1000)]] + [["1"] * 1000] * 100
    assert sum(map(len, split_table(wide))) < 3 * 100 * 4000  # a wide header is not repeated for every row


# --------------------------------------------------------------------------------------------------------------- kinds


def test_pdf_by_page(tmp_path: Path) -> None:
    first, second = read_file(pdf(tmp_path / "a.pdf", "The pump needs 3 bar.", "Second page."), ocr=False)
    assert (first.place, first.kind, first.text, first.image) == ("page=1", "text", "The pump needs 3 bar.", b"")
    assert second.place == "page=2"


def test_pdf_pages_with_figures_and_scans_are_images(tmp_path: Path) -> None:
    (figure,) = read_file(pdf(tmp_path / "a.pdf", "See the plot.", figure=True), ocr=False)
    assert figure.kind == "page"
    assert "See the plot." in figure.text
    assert max(open_image(figure.image).size) == IMAGE_SIDE
    words("scan").save(tmp_path / "scan.pdf")
    (scan,) = read_file(tmp_path / "scan.pdf", ocr=False)
    assert scan.kind == "page"
    assert scan.text == ""


def test_ocr_reads_images_and_scans(tmp_path: Path) -> None:
    words("Keep below 3 bar").save(tmp_path / "a.png")
    words("Valve 7 is closed").save(tmp_path / "b.pdf")
    assert read_file(tmp_path / "a.png", ocr=True)[0].text == "Keep below 3 bar"
    assert read_file(tmp_path / "b.pdf", ocr=True)[0].text == "Valve 7 is closed"


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "tiff", "bmp", "heic"])
def test_images_of_every_kind(tmp_path: Path, suffix: str) -> None:
    enable_heic()
    Image.new("RGB", (2000, 500), (200, 30, 40)).save(tmp_path / f"a.{suffix}")
    (part,) = read_file(tmp_path / f"a.{suffix}", ocr=False)
    picture = open_image(part.image)
    assert (part.kind, picture.size) == ("image", (1280, 320))
    assert picture.getpixel((600, 100)) == pytest.approx((200, 30, 40), abs=6)


def test_photos_are_upright_and_transparency_is_white(tmp_path: Path) -> None:
    photo = Image.new("RGB", (200, 100), "blue")
    exif = photo.getexif()
    exif[0x0112] = 6
    photo.save(tmp_path / "a.jpg", exif=exif)
    assert open_image(read_file(tmp_path / "a.jpg", ocr=False)[0].image).size == (100, 200)
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(tmp_path / "b.png")
    assert min(open_image(read_file(tmp_path / "b.png", ocr=False)[0].image).getpixel((9, 9))) > 250


def test_pages_of_a_tiff(tmp_path: Path) -> None:
    first, second = words("one"), words("two")
    first.save(tmp_path / "fax.tiff", save_all=True, append_images=[second])
    assert [(part.place, part.kind) for part in read_file(tmp_path / "fax.tiff", ocr=False)] == [
        ("page=1", "page"),
        ("page=2", "page"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_texts_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    text = "Der Kühlwasserdruck beträgt drei Bar. Die Höhe der Säule ändert sich über Nacht." * 3
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    assert read_file(tmp_path / "a.txt", ocr=False)[0].text == text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Anna, née Berg", "latin-1"),
        ("Año, niño, señor: 5 €", "cp1252"),
        ("Rødgrød på fløde, år", "latin-1"),
        ("Привет, это короткий текст на русском языке.", "cp1251"),
    ],
)
def test_short_texts_in_old_encodings(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    assert read_file(tmp_path / "a.txt", ocr=False)[0].text == text


def test_csv_tsv_and_excel(tmp_path: Path) -> None:
    table = "| city | people |\n| --- | --- |\n| Paris | 2 |\n| Lima, Peru | 10 |"
    (tmp_path / "a.csv").write_text('city,people\nParis,2\n"Lima, Peru",10\n')
    (tmp_path / "b.csv").write_text("city;people\nParis;2\nLima, Peru;10\n")
    (tmp_path / "c.tsv").write_text("city\tpeople\nParis\t2\nLima, Peru\t10\n")
    book = openpyxl.Workbook()
    book.active.title = "Cities"
    for row in (["city", "people"], ["Paris", 2], [None, None], ["Lima, Peru", 10]):
        book.active.append(row)
    book.create_sheet("Empty")
    book.save(tmp_path / "d.xlsx")
    for name in ("a.csv", "b.csv", "c.tsv", "d.xlsx"):
        (part,) = read_file(tmp_path / name, ocr=False)
        assert (part.kind, part.text) == ("table", table), name
    assert part.title == "Cities"


@pytest.mark.parametrize(
    ("content", "table"),
    [
        ("a;b\n1,5;2,5\n3,5;4,5\n", "| a | b |\n| --- | --- |\n| 1,5 | 2,5 |\n| 3,5 | 4,5 |"),
        ('name\n"Anna, née Berg"\nBert\n', "| name |\n| --- |\n| Anna, née Berg |\n| Bert |"),
        ('a,b\n"say ""hi""",1\n"two\nlines",2\n', '| a | b |\n| --- | --- |\n| say "hi" | 1 |\n| two lines | 2 |'),
        ("sep=|\r\na|b\r\n1,2|3\r\n", "| a | b |\n| --- | --- |\n| 1,2 | 3 |"),
        ("Straße;Umsatz\nGröße 5;1.234,50\n", "| Straße | Umsatz |\n| --- | --- |\n| Größe 5 | 1.234,50 |"),
        ("Sales 2025\n\na,b\n1,2\n", "Sales 2025\n| a | b |\n| --- | --- |\n| 1 | 2 |"),
    ],
)
def test_csv_as_spreadsheets_write_it(tmp_path: Path, content: str, table: str) -> None:
    (tmp_path / "a.csv").write_bytes(content.encode("latin-1"))
    (part,) = read_file(tmp_path / "a.csv", ocr=False)
    assert part.text == table


def test_excel_shows_what_excel_shows(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    for row in (
        ["Budget", "", ""], ["team", "Q1", ""], ["", "plan", "actual"], ["Sales", 0.1 + 0.2, datetime(2025, 3, 1)],
        [None, 7, datetime(2025, 3, 1, 8, 30)], ["IT", None, 5],
    ):  # fmt: skip
        sheet.append(row)
    for span in ("A1:C1", "B2:C2", "A2:A3", "A4:A5"):
        sheet.merge_cells(span)
    book.create_chartsheet("Chart").add_chart(BarChart())
    book.save(tmp_path / "a.xlsx")
    (part,) = read_file(tmp_path / "a.xlsx", ocr=False)
    assert part.text == (
        "Budget\n| team | Q1 | Q1 |\n| --- | --- | --- |\n| team | plan | actual |\n"
        "| Sales | 0.3 | 2025-03-01 |\n| Sales | 7 | 2025-03-01 08:30:00 |\n| IT |  | 5 |"
    )


def test_html_text_by_heading_and_tables_with_spans(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        "<head><title>t</title><script>bad()</script></head><h1>Rivers</h1><p>The <b>Ni</b>le is\nlong.</p>"
        "<table><tr><th>river<th>km</tr><tr><td rowspan=2>Nile<td>6650</tr><tr><td>6671</tr>"
        "<tr><td colspan=99999999>none</tr></table><h2>Lakes</h2>Chad"
    )
    parts = read_file(tmp_path / "a.html", ocr=False)
    assert [(part.kind, part.title, part.text) for part in parts if part.kind == "text"] == [
        ("text", "t > Rivers", "The Nile is long."),
        ("text", "t > Rivers > Lakes", "Chad"),
    ]
    (table,) = [part for part in parts if part.kind == "table"]
    assert table.title == "t > Rivers"
    assert table.text.startswith("| river | km |\n| --- | --- |\n| Nile | 6650 |\n| Nile | 6671 |\n| none | none |")


def test_word_text_by_heading_and_tables(tmp_path: Path) -> None:
    def paragraph(text: str, style: str = "Normal") -> str:
        return f'<w:p><w:pPr><w:pStyle w:val="{style}"/></w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>'

    rows = "".join(
        f"<w:tr>{''.join(f'<w:tc>{paragraph(cell)}</w:tc>' for cell in row)}</w:tr>"
        for row in (("pump", "bar"), ("2", "9,5"))
    )
    body = paragraph("Pumps", "Heading1") + paragraph("Nach Prüfung, 5 µm.") + f"<w:tbl>{rows}</w:tbl>"
    office = "http://schemas.openxmlformats.org"
    files = {
        "[Content_Types].xml": f'<Types xmlns="{office}/package/2006/content-types"/>',
        "_rels/.rels": f'<Relationships xmlns="{office}/package/2006/relationships"><Relationship Id="r1" '
        f'Type="{office}/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/>'
        "</Relationships>",
        "word/document.xml": f'<w:document xmlns:w="{office}/wordprocessingml/2006/main"><w:body>{body}</w:body>'
        "</w:document>",
        "word/styles.xml": f'<w:styles xmlns:w="{office}/wordprocessingml/2006/main"><w:style w:type="paragraph" '
        'w:styleId="Heading1"><w:name w:val="heading 1"/></w:style></w:styles>',
    }
    with zipfile.ZipFile(tmp_path / "a.docx", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    text, table = sorted(read_file(tmp_path / "a.docx", ocr=False), key=lambda part: part.kind == "table")
    assert (text.kind, text.title, text.text) == ("text", "Pumps", "Nach Prüfung, 5 µm.")
    assert (table.kind, table.title) == ("table", "Pumps")
    assert all(cell in table.text for cell in ("pump", "bar", "9,5"))


def test_source_code_by_lines_and_notebooks_by_cell(tmp_path: Path) -> None:
    (tmp_path / "pump.py").write_text("".join(f"def step_{n}():\n    return {n}\n\n" for n in range(200)))
    parts = read_file(tmp_path / "pump.py", ocr=False)
    assert len(parts) > 2
    assert parts[0].title.startswith("lines 1–")
    lines = [line for part in parts for line in part.text.splitlines() if line]
    assert [line.strip() for line in lines] == [
        line for n in range(200) for line in (f"def step_{n}():", f"return {n}")
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Pump\n", "Needs 3 bar."]},
        {"cell_type": "code", "source": "pressure = 3", "outputs": [{"text": "noise"}]},
    ]
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    (part,) = read_file(tmp_path / "a.ipynb", ocr=False)
    assert (part.title, part.text) == ("Pump", "Needs 3 bar.\n\n```\npressure = 3\n```")
    (tmp_path / "a.ipynb").write_text('{"cells": 5}')
    with pytest.raises(Unreadable, match="damaged notebook"):
        read_file(tmp_path / "a.ipynb", ocr=False)


# ------------------------------------------------------------------------------------------------------------- hostile


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be large and holds next to nothing."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 99))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in [*chunks, (b"IEND", b"")]
    )


def locked_pdf() -> bytes:
    """A PDF whose encryption dictionary no empty password opens."""
    parts = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] >>",
        b"<< /Filter /Standard /V 1 /R 2 /O <" + b"41" * 32 + b"> /U <" + b"42" * 32 + b"> /P -4 >>",
    ]
    out, offsets = b"%PDF-1.4\n", []
    for number, part in enumerate(parts, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, part)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    ids = b"<" + b"00" * 16 + b">"
    trailer = b"<< /Size 5 /Root 1 0 R /Encrypt 4 0 R /ID [%s %s] >>" % (ids, ids)
    return out + b"xref\n0 5\n0000000000 65535 f \n%strailer\n%s\nstartxref\n%d\n%%%%EOF" % (table, trailer, len(out))


def many_pages(count: int) -> bytes:
    document = pdfium.PdfDocument.new()
    for _ in range(count):
        document.new_page(100, 100)
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def unpacks_to(megabytes: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", bytes(megabytes * 10**6))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("huge.png", png_header(30_000, 30_000), "900 megapixels; the limit is 100 "),
        ("large.png", png_header(11_000, 10_000), r"110 megapixels; the limit is 100 \(--max_megapixels\)"),
        ("cut.png", png_header(100, 100), "damaged image"),
        ("page.jpg", b"<!DOCTYPE html><html></html>", "no image, whatever its name says: it holds HTML"),
        ("empty.pdf", b"", "empty"),
        ("locked.pdf", locked_pdf(), "password"),
        ("junk.pdf", b"%PDF-1.7 \x00 junk", "damaged PDF"),
        ("bomb.pdf", many_pages(2001), r"2,001 pages; the limit is 2,000 \(--max_pages\)"),
        ("blank.pdf", many_pages(1), "no text and no image"),
        ("letter.pages", b"PK", "files of its kind are not read. Save it as one of .pdf"),
        ("binary.txt", b"\x7fELF\x00\x00\x01", "no text"),
        ("blank.md", b" \n\n", "no text and no image"),
        ("no.xlsx", b"PK\x03\x04 junk", "damaged or locked Excel"),
        ("bomb.xlsx", unpacks_to(501), "unpacks to 501 MB; the limit is 500 MB"),
        ("no.docx", b"PK\x03\x04 junk", "damaged or locked Word"),
        ("other.docx", unpacks_to(1), "damaged or locked Word"),
        ("bomb.docx", unpacks_to(501), "unpacks to 501 MB; the limit is 500 MB"),
    ],
)
def test_hostile_files_are_refused_with_a_reason(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Unreadable, match=reason):
        read_file(tmp_path / name, ocr=False)


def test_a_csv_of_200_megabytes_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "big.csv").open("wb") as file:
        file.truncate(200 * 10**6)
    with pytest.raises(Unreadable, match=r"200 MB; the limit is 100 MB \(--max_megabytes\)"):
        read_file(tmp_path / "big.csv", ocr=False)


def test_zero_bytes_and_lone_surrogates_do_not_pass(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_bytes(b"<h1>T</h1><p>a&#xD800;b&#0;c</p>")
    (part,) = read_file(tmp_path / "a.html", ocr=False)
    part.text.encode()
    assert "\0" not in part.text


def test_a_slow_or_greedy_file_does_not_stop_the_rest(tmp_path: Path) -> None:
    names = ["a.txt", "slow.md", "b.txt", "c.txt"]
    for name in names:
        (tmp_path / name).write_text("Fine text.")
    (tmp_path / "slow.md").write_text("# a\n\nb\n\n" * 800_000)  # most of a minute
    found = dict(read_files([tmp_path / name for name in names], False, Limits(seconds=15)))
    assert "more than 15 seconds" in str(found[tmp_path / "slow.md"])
    assert [found[tmp_path / name][0].text for name in ("a.txt", "b.txt", "c.txt")] == ["Fine text."] * 3


def test_a_file_that_wants_too_much_memory_does_not_stop_the_rest(tmp_path: Path) -> None:
    for name in ("a.txt", "z.txt"):
        (tmp_path / name).write_text("Fine text.")
    (tmp_path / "big.png").write_bytes(png_header(25_000, 25_000))
    found = dict(read_files(sorted(tmp_path.iterdir()), False, Limits(megapixels=1000, gigabytes=1)))
    assert "memory" in str(found[tmp_path / "big.png"])
    assert found[tmp_path / "z.txt"][0].text == "Fine text."


# ------------------------------------------------------------------------------------------------------------ documents


def test_documents_of_files_and_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.md").write_text("# Pump\n\nNeeds 3 bar.")
    words("x").save(tmp_path / "b.png")
    text, image = read_documents([tmp_path / "sub", tmp_path / "b.png"], ocr=False)
    assert (text.id, text.title) == (f"{tmp_path}/sub/a.md#part=1", "a: Pump")
    assert image.load_image().size == (800, 200)
    (tmp_path / "sub" / "b.pages").write_bytes(b"PK")
    (tmp_path / "sub" / ".hidden.txt").write_text("Hidden.")
    (tmp_path / "sub" / "~$a.xlsx").write_bytes(b"Office keeps this while a.xlsx is open")
    (tmp_path / "sub" / "link.txt").symlink_to(tmp_path / "b.png")
    assert [document.id for document in read_documents([tmp_path / "sub"], ocr=False)] == [text.id]
    assert "1 × .pages, 1 × link" in caplog.text
    (tmp_path / "c.jpg").write_text("<html>")
    with pytest.raises(LiteError, match=r"c\.jpg: it is no image"):
        read_documents([tmp_path / "c.jpg"])
    with pytest.raises(LiteError, match="does not exist"):
        read_documents([os.devnull + "x"])
