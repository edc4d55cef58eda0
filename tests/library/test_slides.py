"""PowerPoint files: titles, texts, tables and notes by slide, hidden ones named."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from PIL import Image

from lite.library.workers import read_documents

OFFICE = "http://schemas.openxmlformats.org"
SPACES = (
    f'xmlns:p="{OFFICE}/presentationml/2006/main" xmlns:a="{OFFICE}/drawingml/2006/main" '
    f'xmlns:r="{OFFICE}/officeDocument/2006/relationships"'
)


def relations(*entries: tuple[str, str]) -> str:
    """Of (kind, target)."""
    return f'<Relationships xmlns="{OFFICE}/package/2006/relationships">' + "".join(
        f'<Relationship Id="r{n}" Type="{OFFICE}/officeDocument/2006/relationships/{kind}" Target="{target}"/>'
        for n, (kind, target) in enumerate(entries, start=1)
    ) + "</Relationships>"  # fmt: skip


def shape(*texts: str, kind: str = "", description: str = "") -> str:
    paragraphs = "".join(f"<a:p><a:r><a:t>{text}</a:t></a:r></a:p>" for text in texts)
    place = f'<p:ph type="{kind}"/>' if kind else ""
    name = f'<p:cNvPr id="1" name="n" descr="{description}"/>'
    return f"<p:sp><p:nvSpPr>{name}<p:nvPr>{place}</p:nvPr></p:nvSpPr><p:txBody>{paragraphs}</p:txBody></p:sp>"


def pptx(path: Path, *slides: str, notes: str = "", hidden: int = 0) -> Path:
    """`notes` stand below the first slide, which holds a picture; `hidden` is the number of a hidden one."""
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), "red").save(buffer, "PNG")
    order = "".join(f'<p:sldId id="{n + 255}" r:id="r{n}"/>' for n in range(len(slides), 0, -1))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("_rels/.rels", relations(("officeDocument", "ppt/presentation.xml")))
        archive.writestr(
            "ppt/presentation.xml", f"<p:presentation {SPACES}><p:sldIdLst>{order}</p:sldIdLst></p:presentation>"
        )
        archive.writestr(
            "ppt/_rels/presentation.xml.rels",
            relations(*(("slide", f"slides/slide{n}.xml") for n in range(1, len(slides) + 1))),
        )
        for n, slide in enumerate(slides, start=1):
            show = ' show="0"' * (n == hidden)
            archive.writestr(f"ppt/slides/slide{n}.xml", f"<p:sld {SPACES}{show}><p:spTree>{slide}</p:spTree></p:sld>")
        archive.writestr(
            "ppt/slides/_rels/slide1.xml.rels",
            relations(("notesSlide", "../notesSlides/notesSlide1.xml"), ("image", "../media/image1.png")),
        )
        archive.writestr("ppt/notesSlides/notesSlide1.xml", f"<p:notes {SPACES}><p:spTree>{notes}</p:spTree></p:notes>")
        archive.writestr("ppt/media/image1.png", buffer.getvalue())
    return path


def test_slides_in_their_order_with_titles_notes_and_pictures(tmp_path: Path, caplog) -> None:
    first = shape("Budget 2026", kind="title") + shape("Travel: 900", "Rent: 800", description="Chart of costs")
    notes = shape("Do not show page 9.", kind="body") + shape("7", kind="sldNum")
    path = pptx(tmp_path / "a.pptx", first, shape("Earlier slide"), notes=notes, hidden=1)
    documents = read_documents([path], ocr=False)
    assert "Earlier slide" in documents[0].text  # the list of slides, not their file names, gives the order
    assert documents[0].page == 1
    rest = [document for document in documents if document.page == 2]
    assert all(document.title.startswith("a: slide 2 (hidden)") for document in rest)
    assert "Budget 2026" in rest[0].title
    text = "\n".join(document.text for document in rest)
    assert all(
        words in text for words in ("Travel: 900", "Rent: 800", "Chart of costs", "Notes:", "Do not show page 9.")
    )
    assert [document.load_image().size for document in rest if document.image] == [(300, 200)]
    assert "hidden slides were read, too: 2." in caplog.text


def test_tables_on_slides(tmp_path: Path) -> None:
    rows = (("city", "people"), ("Lima", "10"))
    cells = "".join(
        f"<a:tr>{''.join(f'<a:tc><a:txBody><a:p><a:r><a:t>{cell}</a:t></a:r></a:p></a:txBody></a:tc>' for cell in row)}"
        "</a:tr>"
        for row in rows
    )
    documents = read_documents([pptx(tmp_path / "a.pptx", f"<a:tbl>{cells}</a:tbl>")], ocr=False)
    (table,) = [document for document in documents if document.kind == "table"]
    assert table.text == "| city | people |\n| --- | --- |\n| Lima | 10 |"
    assert sum(document.text.count("Lima") for document in documents) == 1
