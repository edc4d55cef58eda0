"""PowerPoint files as HTML, a page for each slide: titles, texts, tables, speaker's notes."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from html import escape

from lxml import etree

from lite.library.office_xml import child, inside, local, main_file, parse, relations, value

TITLES = ("title", "ctrTitle")


def slides_html(archive: zipfile.ZipFile) -> Iterator[tuple[str, bool, list[str]]]:
    """(HTML, is hidden, names of its pictures) of each slide, in order.

    Raises:
        KeyError: It is no PowerPoint file.
        etree.XMLSyntaxError: It is damaged.
    """
    main = main_file(archive)
    places = relations(archive, main)
    for entry in inside(parse(archive, main), "sldId"):
        # Two attributes are named `id`; the one that points at the slide has a namespace.
        target = next((text for key, text in entry.attrib.items() if key.startswith("{")), "")
        slide = parse(archive, places[target][1])
        files = relations(archive, places[target][1])
        found = "".join(_shape(shape) for shape in slide.iter() if local(shape) in ("sp", "tbl", "cNvPr"))
        for kind, place in files.values():
            root = parse(archive, place) if kind in ("notesSlide", "comments", "diagramData") else None
            if root is None:
                continue
            if kind == "notesSlide":
                notes = "".join(_paragraphs(s) for s in inside(root, "sp") if _placeholder(s) == "body")
                found += f"<div>Notes:<br>{notes}</div>" if notes else ""
            else:
                found += "".join(f"<p>{escape(node.text or '')}</p>" for node in inside(root, "text", "t"))
        yield found, slide.get("show") == "0", [place for kind, place in files.values() if kind == "image"]


def _shape(node: etree._Element) -> str:
    if local(node) == "tbl":
        rows = ("".join(f"<td>{_paragraphs(cell)}</td>" for cell in inside(row, "tc")) for row in inside(node, "tr"))
        return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
    if local(node) == "cNvPr":
        return f"<p>{escape(node.get('descr', ''))}</p>" if node.get("descr") else ""
    if _placeholder(node) in TITLES:
        return f"<h1>{' '.join(map(_text, inside(node, 'p')))}</h1>"  # a <p> would end the heading
    return _paragraphs(node)


def _paragraphs(node: etree._Element) -> str:
    return "".join(f"<p>{_text(paragraph)}</p>" for paragraph in inside(node, "p"))


def _text(paragraph: etree._Element) -> str:
    return "".join("<br>" if local(node) == "br" else escape(node.text or "") for node in inside(paragraph, "t", "br"))


def _placeholder(shape: etree._Element) -> str:
    return value(child(shape, "nvSpPr", "nvPr", "ph"), "type")
