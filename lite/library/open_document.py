"""OpenDocument files (.odt of LibreOffice) as HTML. `odfpy`, which reads them, too, is hardly kept any more."""

from __future__ import annotations

import re
import zipfile
from html import escape

from lxml import etree

from lite.library.office_xml import child, inside, local, parse, value

UNSEEN = {"tracked-changes", "sequence-decls", "forms", "creator", "date", "initials", "bookmark-name", "rt"}
SIGNS = {"tab": " ", "line-break": "<br>", "soft-page-break": ""}
TAGS = {"p": "p", "list-item": "li", "list-header": "li", "table": "table", "table-row": "tr"}
EDGES = [f"{edge}{pages}" for edge in ("header", "footer") for pages in ("", "-first", "-left")]
WIDEST_SPAN = 100  # columns or rows that a cell or row is repeated for; a file may claim any number


def open_document_html(archive: zipfile.ZipFile) -> str:
    """The text of an .odt file as HTML.

    Raises:
        KeyError: It is no OpenDocument file.
        etree.XMLSyntaxError: It is damaged.
    """
    content, styles = parse(archive, "content.xml"), parse(archive, "styles.xml")
    if content is None:
        raise KeyError("it holds no content.xml")
    numbered = set()  # names of lists with numbers
    for root in (content, styles):
        for style in inside(root, "list-style") if root is not None else ():
            if any(local(level) == "list-level-style-number" and value(level, "num-format") for level in style):
                numbered.add(value(style, "name"))
    text = _html(child(content, "body"), numbered)
    edges = inside(styles, *EDGES) if styles is not None else ()
    edge = "".join(dict.fromkeys(_html(node, numbered) for node in edges))
    return text + (f"<h1>Page header and footer</h1>{edge}" if edge.replace("<p></p>", "") else "")


def _html(node: etree._Element, numbered: set[str], ordered: bool = False) -> str:
    """What is within a node. `ordered`: the list around it has numbers."""
    found = [escape(node.text or "")] if local(node) in ("p", "h", "span", "a", "title", "desc", "ruby-base") else []
    inline = bool(found)
    for inner in node:
        found.append(_element(inner, numbered, ordered))
        if inline and inner.tail:
            found.append(escape(inner.tail))
    return "".join(found)


def _element(node: etree._Element, numbered: set[str], ordered: bool) -> str:
    name = local(node)
    if not name or name in UNSEEN:
        return ""
    if name in SIGNS:
        return SIGNS[name]
    if name == "s":
        return " "
    if name == "list":
        style = value(node, "style-name")
        ordered = style in numbered if style else ordered  # a list within a list has the style of the outer one
        tag = "ol" if ordered else "ul"
        return f"<{tag}>{_html(node, numbered, ordered)}</{tag}>"
    text = _html(node, numbered, ordered)
    if name == "h":
        level = min(6, _count(node, "outline-level"))
        return f"<h{level}>{text}</h{level}>"
    if name == "note":
        body, mark = child(node, "note-body"), child(node, "note-citation")
        mark = escape("".join(mark.itertext())) if mark is not None else ""
        return f"[{mark}: {_on_a_line(_html(body, numbered))}]" if body is not None else ""
    if name == "annotation":
        return f"[Comment: {_on_a_line(text)}]"
    if name in ("table-cell", "covered-table-cell"):
        again = _count(node, "number-columns-repeated")
        return f"<td>{text}</td>" * (again if text or again <= 3 else 1)
    if name in TAGS:
        again = _count(node, "number-rows-repeated") if text.replace("<td></td>", "") else 1
        return f"<{TAGS[name]}>{text}</{TAGS[name]}>" * again
    return f"<div>{text}</div>" if name in ("text-box", "frame", "page", "section") else text


def _on_a_line(text: str) -> str:
    """What stands within a paragraph, which another one would end."""
    return " ".join(re.sub(r"</?p>", " ", text).split())


def _count(node: etree._Element, name: str) -> int:
    number = value(node, name)
    return max(1, min(WIDEST_SPAN, int(number[:6]))) if number.isdecimal() else 1
