"""Word files: what Word shows, and nothing that it does not."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from lite.library.workers import read_documents

OFFICE = "http://schemas.openxmlformats.org"
SPACES = f'xmlns:w="{OFFICE}/wordprocessingml/2006/main" xmlns:m="{OFFICE}/officeDocument/2006/math"'
KINDS = ("styles", "numbering", "footnotes", "endnotes", "comments", "header", "footer")


def run(text: str, properties: str = "") -> str:
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>'


def paragraph(inside: str, properties: str = "") -> str:
    inside = inside if inside.startswith("<") or not inside else run(inside)
    return f"<w:p><w:pPr>{properties}</w:pPr>{inside}</w:p>"


def item(text: str, level: int = 0, number: int = 1) -> str:
    return paragraph(text, f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{number}"/></w:numPr>')


def docx(path: Path, body: str, pictures: dict[str, bytes] | None = None, **files: str) -> Path:
    """A Word file; `files` are the contents of its other files by kind."""
    known = [(n, kind) for n, kind in enumerate(files, start=1) if kind in KINDS]
    rels = "".join(
        f'<Relationship Id="r{n}" Type="{OFFICE}/officeDocument/2006/relationships/{kind}" Target="{kind}.xml"/>'
        for n, kind in known
    )
    main = f'<Relationship Id="r1" Type="{OFFICE}/officeDocument/2006/relationships/officeDocument" '
    head = f'<Relationships xmlns="{OFFICE}/package/2006/relationships">'
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("_rels/.rels", f'{head}{main}Target="word/document.xml"/></Relationships>')
        archive.writestr("word/_rels/document.xml.rels", f"{head}{rels}</Relationships>")
        archive.writestr("word/document.xml", f"<w:document {SPACES}><w:body>{body}</w:body></w:document>")
        for kind, content in files.items():
            archive.writestr(f"word/{kind}.xml", f"<w:{kind} {SPACES}>{content}</w:{kind}>")
        for name, data in (pictures or {}).items():
            archive.writestr(f"word/media/{name}", data)
    return path


def text_of(path: Path) -> str:
    return "\n".join(f"{document.title}\n{document.text}" for document in read_documents([path], ocr=False))


def test_header_and_footer_are_read_once(tmp_path: Path) -> None:
    text = text_of(
        docx(
            tmp_path / "a.docx",
            paragraph("The contract."),
            header=paragraph("Reference AZ-4711"),
            footer=paragraph("Account 12 34"),
        )
    )
    assert text.count("AZ-4711") == 1
    assert text.count("Account 12 34") == 1


def test_comments_and_notes_stand_behind_their_paragraph(tmp_path: Path) -> None:
    body = (
        paragraph(run("Pay within 30 days.") + '<w:r><w:commentReference w:id="7"/></w:r>')
        + paragraph(run("Prices are net") + '<w:r><w:footnoteReference w:id="2"/></w:r>' + run("."))
        + paragraph(run("End") + '<w:r><w:endnoteReference w:id="2"/></w:r>')
    )
    text = text_of(
        docx(
            tmp_path / "a.docx",
            body,
            comments=f'<w:comment w:id="7" w:author="Eva">{paragraph("Better 14?")}</w:comment>',
            footnotes=f'<w:footnote w:id="2">{paragraph("VAT is 19 %.")}</w:footnote>',
            endnotes=f'<w:endnote w:id="2">{paragraph("See annex.")}</w:endnote>',
        )
    )
    assert text.index("30 days.") < text.index("Comment by Eva: Better 14?") < text.index("Prices are net[1].")
    assert "[1] VAT is 19 %." in text
    assert "End[i]" in text
    assert "[i] See annex." in text


@pytest.mark.parametrize(
    ("math", "line"),
    [
        ("<m:f><m:num>{a}</m:num><m:den>{b}</m:den></m:f>", "a+1/b"),
        ("<m:sSup><m:e>{b}</m:e><m:sup>{a}</m:sup></m:sSup>", "b^(a+1)"),
        ("<m:rad><m:deg/><m:e>{b}</m:e></m:rad>", "√(b)"),
        ('<m:nary><m:naryPr><m:chr m:val="∑"/></m:naryPr><m:sub>{b}</m:sub><m:sup/><m:e>{b}</m:e></m:nary>', "∑_b b"),
        ("<m:d><m:e>{a}</m:e></m:d>", "(a+1)"),
    ],
)
def test_equations_are_typed_on_a_line(tmp_path: Path, math: str, line: str) -> None:
    math = math.format(a="<m:r><m:t>a+1</m:t></m:r>", b="<m:r><m:t>b</m:t></m:r>")
    text = text_of(docx(tmp_path / "a.docx", paragraph(f"{run('Given ')}<m:oMath>{math}</m:oMath>{run('.')}")))
    assert f"Given {line}." in text or f"Given ({line.replace('/', ')/')}." in text


LISTS = """<w:abstractNum w:abstractNumId="5">
  <w:lvl w:ilvl="0"><w:start w:val="1"/><w:numFmt w:val="{form}"/><w:lvlText w:val="§ %1"/></w:lvl>
  <w:lvl w:ilvl="1"><w:start w:val="1"/><w:numFmt w:val="decimal"/><w:lvlText w:val="%1.%2"/></w:lvl>
  <w:lvl w:ilvl="2"><w:numFmt w:val="bullet"/><w:lvlText w:val=""/></w:lvl></w:abstractNum>
  <w:num w:numId="1"><w:abstractNumId w:val="5"/></w:num>
  <w:num w:numId="2"><w:abstractNumId w:val="5"/>
    <w:lvlOverride w:ilvl="0"><w:startOverride w:val="8"/></w:lvlOverride></w:num>"""


@pytest.mark.parametrize(
    ("form", "second", "eighth"),
    [("decimal", "2", "8"), ("upperRoman", "II", "VIII"), ("lowerLetter", "b", "h"), ("decimalZero", "02", "08")],
)
def test_items_of_lists_keep_their_numbers(tmp_path: Path, form: str, second: str, eighth: str) -> None:
    body = item("One") + item("Two") + item("Deep", 1) + item("Deeper", 1) + item("Dot", 2) + item("Eight", 0, 2)
    lines = text_of(docx(tmp_path / "a.docx", body, numbering=LISTS.format(form=form))).splitlines()
    for line in (f"§ {second} Two", f"{second}.1 Deep", f"{second}.2 Deeper", "- Dot", f"§ {eighth} Eight"):
        assert line in lines


def test_text_boxes_are_read_once_and_captions_of_pictures_too(tmp_path: Path) -> None:
    box = f"<w:txbxContent>{paragraph('Danger: 400 V')}</w:txbxContent>"
    both = (
        '<mc:AlternateContent xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006">'
        f"<mc:Choice>{box}</mc:Choice><mc:Fallback>{box}</mc:Fallback></mc:AlternateContent>"
    )
    drawing = '<w:drawing><wp:docPr xmlns:wp="urn:wp" id="1" descr="Plan of hall 3"/></w:drawing>'
    text = text_of(docx(tmp_path / "a.docx", paragraph(f"<w:r>{both}{drawing}</w:r>{run('Before.')}")))
    assert text.count("Danger: 400 V") == 1
    assert "Plan of hall 3" in text


def test_deleted_moved_and_hidden_text_is_left_out(tmp_path: Path) -> None:
    body = paragraph(
        f"{run('Price ')}<w:del><w:r><w:delText>90</w:delText></w:r></w:del><w:ins>{run('120')}</w:ins>"
        f"<w:moveFrom>{run('moved')}</w:moveFrom>{run('secret', '<w:vanish/>')}"
        "<w:r><w:instrText>HYPERLINK x</w:instrText></w:r>"
    )
    assert text_of(docx(tmp_path / "a.docx", body)).split() == ["a", "Price", "120"]


def test_tables_with_merged_cells_and_long_ones_to_their_end(tmp_path: Path) -> None:
    def cell(text: str, properties: str = "") -> str:
        return f"<w:tc><w:tcPr>{properties}</w:tcPr>{paragraph(text)}</w:tc>"

    rows = (
        cell("pump", '<w:vMerge w:val="restart"/>') + cell("bar"),
        cell("", "<w:vMerge/>") + cell("long " * 300 + "lastword"),
    )
    text = text_of(docx(tmp_path / "a.docx", f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in rows)}</w:tbl>"))
    assert text.count("pump") >= 2
    assert "lastword" in text


def test_a_file_with_a_picture_only_holds_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), "red").save(buffer, "PNG")
    pictures = {"image1.png": buffer.getvalue(), "image2.wmf": b"\xd7\xcd\xc6\x9a"}
    (document,) = read_documents([docx(tmp_path / "a.docx", paragraph(""), pictures)], ocr=False)
    assert document.load_image().size == (300, 200)
    assert "1 picture in it not read (.wmf)" in caplog.text


def test_headings_by_style_by_outline_and_without_text_below(tmp_path: Path) -> None:
    styles = (
        '<w:style w:styleId="H1"><w:name w:val="heading 1"/></w:style>'
        '<w:style w:styleId="Own"><w:name w:val="Own"/><w:pPr><w:outlineLvl w:val="1"/></w:pPr></w:style>'
    )
    body = (
        paragraph("Pumps", '<w:pStyle w:val="H1"/>')
        + paragraph("Oil", '<w:pStyle w:val="Own"/>')
        + paragraph("Use 5W-30.")
        + paragraph("Call 555-0199", '<w:pStyle w:val="H1"/>')
    )
    text = text_of(docx(tmp_path / "a.docx", body, styles=styles))
    assert "Pumps > Oil" in text
    assert "Call 555-0199" in text
