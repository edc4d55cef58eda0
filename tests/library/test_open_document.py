"""OpenDocument texts as LibreOffice shows them."""

from __future__ import annotations

import zipfile
from pathlib import Path

from lite.library.workers import read_documents

KINDS = ("office", "text", "table", "style", "draw", "svg")
SPACES = " ".join(f'xmlns:{kind}="urn:oasis:names:tc:opendocument:xmlns:{kind}:1.0"' for kind in KINDS)
SPACES += ' xmlns:dc="http://purl.org/dc/elements/1.1/"'


def odt(path: Path, body: str, lists: str = "", edges: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "content.xml",
            f"<office:document-content {SPACES}><office:automatic-styles>{lists}</office:automatic-styles>"
            f"<office:body><office:text>{body}</office:text></office:body></office:document-content>",
        )
        archive.writestr(
            "styles.xml",
            f"<office:document-styles {SPACES}><style:master>{edges}</style:master></office:document-styles>",
        )
    return path


def text_of(path: Path) -> str:
    return "\n".join(f"{document.title}\n{document.text}" for document in read_documents([path], ocr=False))


def test_headings_paragraphs_and_signs(tmp_path: Path) -> None:
    body = (
        '<text:h text:outline-level="1">Pump</text:h><text:h text:outline-level="2">Oil</text:h>'
        "<text:p>Use <text:span>5W-30</text:span><text:s/>only<text:line-break/>&lt;b&gt; &amp; more</text:p>"
    )
    text = text_of(odt(tmp_path / "a.odt", body))
    assert "a: Pump > Oil\nUse 5W-30 only\n<b> & more" in text


def test_notes_comments_boxes_header_and_footer(tmp_path: Path) -> None:
    body = (
        "<text:p>Net<text:note><text:note-citation>1</text:note-citation><text:note-body><text:p>VAT 19 %</text:p>"
        "</text:note-body></text:note>.<office:annotation><dc:creator>Eva</dc:creator><text:p>Sure?</text:p>"
        "</office:annotation></text:p><text:p><draw:frame><draw:text-box><text:p>Danger: 400 V</text:p>"
        "</draw:text-box></draw:frame><draw:frame><svg:desc>Plan of hall 3</svg:desc></draw:frame></text:p>"
    )
    edges = (
        "<style:header><text:p>AZ-4711</text:p></style:header><style:header-left><text:p>Even page</text:p>"
        "</style:header-left><style:footer><text:p>Account 12 34</text:p></style:footer>"
    )
    text = text_of(odt(tmp_path / "a.odt", body, edges=edges))
    assert "Net[1: VAT 19 %].[Comment: Sure?]" in text
    for words in ("Danger: 400 V", "Plan of hall 3", "AZ-4711", "Even page", "Account 12 34"):
        assert text.count(words) == 1, words


def test_deleted_text_is_left_out(tmp_path: Path) -> None:
    gone = "<text:tracked-changes><text:deletion><text:p>90</text:p></text:deletion></text:tracked-changes>"
    assert text_of(odt(tmp_path / "a.odt", f"{gone}<text:p>120</text:p>")).split() == ["a", "120"]


def test_numbered_lists_and_their_first_number(tmp_path: Path) -> None:
    lists = (
        '<text:list-style style:name="L1"><text:list-level-style-number text:level="1" style:num-format="1"/>'
        '</text:list-style><text:list-style style:name="L2"><text:list-level-style-bullet text:level="1"/>'
        "</text:list-style>"
    )
    item = "<text:list-item><text:p>{}</text:p></text:list-item>"
    body = (
        f'<text:list text:style-name="L1">{item.format("cut")}{item.format("weld")}</text:list>'
        f'<text:list text:style-name="L2">{item.format("dot")}</text:list>'
    )
    lines = [line for line in text_of(odt(tmp_path / "a.odt", body, lists)).splitlines() if line]
    assert lines == ["a", "1. cut", "2. weld", "- dot"]


def test_tables_with_repeated_cells_stay_small(tmp_path: Path) -> None:
    cell = "<table:table-cell{}><text:p>{}</text:p></table:table-cell>"
    empty = '<table:table-row table:number-rows-repeated="1048576"><table:table-cell/></table:table-row>'
    body = (
        f"<table:table><table:table-row>{cell.format('', 'city')}{cell.format('', 'people')}</table:table-row>"
        f"<table:table-row>{cell.format(' table:number-columns-repeated=' + chr(34) + '2' + chr(34), 'x')}"
        f"</table:table-row>{empty}</table:table>"
    )
    (document,) = read_documents([odt(tmp_path / "a.odt", body)], ocr=False)
    assert document.kind == "table"
    assert document.text == "| city | people |\n| --- | --- |\n| x | x |"
