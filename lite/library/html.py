"""HTML pages in parts, as a browser shows them: text by heading, tables apart, nothing that is hidden."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lxml import html

from lite.library.decoding import decoded
from lite.library.parts import Part
from lite.library.splitting import Block, split_blocks
from lite.library.tables import split_table

HEADINGS = {f"h{level}": level for level in range(1, 7)}
UNSEEN = set(
    "annotation annotation-xml audio canvas datalist head iframe noembed noframes noscript object rp "
    "script style template title video".split()
)
LINES = {"br", "dd", "dt", "li", "option", "tr"}
LISTS = {"dir", "menu", "ol", "ul"}
INLINE = set(
    "a abbr acronym b bdi bdo big cite code data del dfn em font i img input ins kbd label mark math mfrac mi mn mo "
    "mrow msub msup mtext q rb rt ruby s samp small span strike strong sub sup time tt u var wbr".split()
)
VERBATIM = {"listing", "pre", "textarea", "xmp"}
HIDDEN = re.compile(r"(?:^|[;\s])(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse))", re.IGNORECASE)
RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
SELECTOR = re.compile(r"(?P<tag>[a-z][a-z0-9]*)?(?P<kind>[.#])?(?P<name>[\w-]+)?", re.IGNORECASE)
DECLARED = re.compile(rb"""<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)\s*=\s*["']?([\w.:-]{1,40})""", re.IGNORECASE)
LAYOUT_CELL = 300  # characters; a cell with paragraphs that is longer lays out the page
WIDEST_SPAN = 100  # a hostile page may claim any number


def split_html(data: bytes | str) -> Iterator[Part]:
    """The texts and tables of a page in their order; its title stands above all headings."""
    if isinstance(data, bytes):
        declared = DECLARED.search(data[:4096])
        data = decoded(data, declared[1].decode() if declared else "")
    # Beyond a depth, libxml2 drops what it reads. That is said.
    parser = html.HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
    text = data.replace("\0", "").encode("utf-8", "replace")
    root = html.document_fromstring(b"<html>" + text, parser=parser)  # it refuses a page of comments alone
    note = "elements that are nested too deeply were left out." if _is_cut(parser) else ""
    title = " ".join(next((node.text_content() for node in root.iter("title")), "").split())
    numbers = {"table": 0, "part": 0}
    for headings, text, is_table in split_blocks(_blocks_or_description(root), title):
        name = "table" if is_table else "part"
        numbers[name] += 1
        yield Part(f"{name}={numbers[name]}", "table" if is_table else "text", headings, text, note=note)
        note = ""


def _blocks_or_description(root: html.HtmlElement) -> Iterator[Block]:
    """Of a page that a script fills, what it says of itself."""
    found = blocks(root)
    if (first := next(found, None)) is not None:
        yield first
        yield from found
        return
    about = (meta.get("content", "") for meta in root.iter("meta") if meta.get("name", "").lower() == "description")
    if text := next(about, "").strip():
        yield Block(text)


def _is_cut(parser: html.HTMLParser) -> bool:
    return any("depth" in entry.message for entry in parser.error_log)


def blocks(root: html.HtmlElement) -> Iterator[Block]:
    """The headings, paragraphs and tables of a page in their order."""
    hides = _hiding_rules(root)
    pieces: list[str] = []
    lists: list[int | None] = []  # the number of the next item of each list around; None: it has none
    verbatim = 0
    marked = False  # whether the marker of an item was the last that was seen: its paragraph goes on beside it

    def paragraphs() -> Iterator[Block]:
        text = "".join(pieces)
        pieces.clear()
        if not verbatim:
            text = re.sub(r" *\n *", "\n", re.sub(r"[ \t\xa0]+", " ", text))
        yield from (Block(paragraph.strip("\n")) for paragraph in re.split(r"\n{2,}", text) if paragraph.strip())

    for kind, node, text in _events(root, hides):
        tag = node.tag
        marked = marked and not (kind == "text" and text.strip()) and not (kind == "close" and tag == "li")
        if kind == "text":
            pieces.append(text if verbatim else _collapsed(text))
        elif kind == "table":
            yield from paragraphs()
            yield from (Block(part, is_table=True) for part in split_table(_grid(node, hides)))
        elif tag in HEADINGS or tag in VERBATIM:
            if kind == "close" and tag in HEADINGS:
                yield Block("".join(pieces), HEADINGS[tag])
                pieces.clear()
            yield from paragraphs()
            verbatim += (tag in VERBATIM) * (1 if kind == "open" else -1)
        elif tag in LISTS:
            if kind == "open":
                lists.append(_number(node, "start", 1) if tag == "ol" else None)
            else:
                lists.pop()
            pieces.append("\n" if lists else "\n\n")
        elif kind == "open":
            pieces.append(_gap(tag) if not marked or tag in LINES else "")
            if tag == "li":
                pieces.append(_marker(node, lists))
                marked = True
            elif seen := _stand_in(node):
                pieces.append(f" {seen} ")
                marked = False
        else:
            pieces.append(_gap(tag) if tag not in LINES else "")
    yield from paragraphs()


def _events(root: html.HtmlElement, hides: set, tables: bool = True) -> Iterator[tuple[str, html.HtmlElement, str]]:
    """(open, close, text or table; node; text) of what is seen, in order. Not recursive: pages may nest deeply."""
    stack: list[tuple[str, html.HtmlElement, str]] = [("open", root, "")]
    while stack:
        kind, node, text = stack.pop()
        if kind != "open":
            yield kind, node, text
            continue
        if not isinstance(node.tag, str) or node.tag in UNSEEN or _is_hidden(node, hides):
            continue
        if tables and node.tag == "table" and not _is_layout(node):
            yield "table", node, ""
            continue
        yield "open", node, ""
        stack.append(("close", node, ""))
        for child in reversed(node):
            if child.tail:
                stack.append(("text", node, child.tail))
            stack.append(("open", child, ""))
        if node.text:
            stack.append(("text", node, node.text))


def _gap(tag: str) -> str:
    return "" if tag in INLINE else "\n" if tag in LINES else "\n\n"


def _marker(item: html.HtmlElement, lists: list[int | None]) -> str:
    """What stands before the item of a list: its number, to which the text may refer."""
    if not lists or lists[-1] is None:
        return "- "
    number = _number(item, "value", lists[-1])
    lists[-1] = number + 1
    return f"{number}. "


def _stand_in(node: html.HtmlElement) -> str:
    """What is seen of an element without text: what stands for a picture, what a field holds."""
    if node.tag in ("img", "area"):
        return node.get("alt", "")
    if node.tag == "input" and node.get("type", "text").lower() not in ("password", "checkbox", "radio", "file"):
        return node.get("value", "") or node.get("placeholder", "")
    return ""


# --------------------------------------------------------------------------------------------------------------- tables


def _is_layout(table: html.HtmlElement) -> bool:
    """Whether a table only places what is in it: one column or row, or cells with sections of their own."""
    if table.get("role", "").lower() in ("presentation", "none"):
        return True
    rows = [[cell for cell in row if cell.tag in ("td", "th")] for row in _rows(table)]
    if len(rows) < 2 or max(map(len, rows), default=0) < 2:
        return True
    for cell in (cell for row in rows for cell in row):
        for inner in cell.iterdescendants(*HEADINGS, "table", "p", "ul", "ol", "div"):
            if inner.tag in HEADINGS or len(_collapsed(cell.text_content())) > LAYOUT_CELL:
                return True
            break
    return False


def _rows(table: html.HtmlElement) -> list[html.HtmlElement]:
    """Its own, not those of tables within it."""
    found = []
    for child in table:
        if child.tag == "tr":
            found.append(child)
        elif child.tag in ("thead", "tbody", "tfoot"):
            found += [row for row in child if row.tag == "tr"]
    return found


def _grid(table: html.HtmlElement, hides: set) -> Iterator[list[str]]:
    """Its caption, and the cells by row; what spans several is repeated in each."""
    for caption in table.iterchildren("caption"):
        yield [_words(caption, hides)]
    hanging: dict[int, tuple[int, str]] = {}  # column: rows that are left, text
    for row in _rows(table):
        if _is_hidden(row, hides):
            continue
        cells: list[str] = []
        for cell in [*(cell for cell in row if cell.tag in ("td", "th")), None]:
            while len(cells) in hanging:
                left, text = hanging.pop(len(cells))
                if left > 1:
                    hanging[len(cells)] = (left - 1, text)
                cells.append(text)
            if cell is None:
                break
            text = _words(cell, hides)
            for _ in range(_span(cell, "colspan")):
                if (down := _span(cell, "rowspan")) > 1:
                    hanging[len(cells)] = (down - 1, text)
                cells.append(text)
        yield cells


def _words(node: html.HtmlElement, hides: set) -> str:
    """What is seen of an element, on one line."""
    found = []
    for kind, inner, text in _events(node, hides, tables=False):
        found.append(text if kind == "text" else " " * (inner.tag not in INLINE))
        if kind == "open":
            found.append(f" {seen} " if (seen := _stand_in(inner)) else "")
    return " ".join("".join(found).split())


def _span(cell: html.HtmlElement, name: str) -> int:
    return max(1, min(WIDEST_SPAN, _number(cell, name, 1)))


# ------------------------------------------------------------------------------------------------------- what is hidden


def _hiding_rules(root: html.HtmlElement) -> set[tuple[str, str, str]]:
    """(tag, `.` or `#`, name) of what the page's own style sheets hide, as far as a name alone decides it."""
    found = set()
    for style in root.iter("style"):
        sheet = re.sub(r"/\*.*?\*/", "", style.text or "", flags=re.DOTALL)
        sheet = re.sub(r"@[^{};]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}", "", sheet)  # for printers and narrow screens
        for selectors, rule in RULE.findall(sheet):
            if HIDDEN.search(rule):
                for selector in selectors.split(","):
                    if (match := SELECTOR.fullmatch(selector.strip())) and (match["name"] or match["tag"]):
                        found.add(((match["tag"] or "").lower(), match["kind"] or "", match["name"] or ""))
    return found


def _is_hidden(node: html.HtmlElement, hides: set[tuple[str, str, str]]) -> bool:
    if node.tag == "dialog" and "open" not in node.attrib:
        return True
    if not node.attrib:
        return bool(hides) and (node.tag, "", "") in hides
    if "hidden" in node.attrib or HIDDEN.search(node.get("style", "")):
        return True
    if node.tag == "input" and node.get("type", "").lower() == "hidden":
        return True
    if not hides:
        return False
    names = [("", "")] + [(".", name) for name in node.get("class", "").split()] + [("#", node.get("id", ""))]
    return any((tag, *name) in hides for name in names for tag in ("", node.tag))


# -------------------------------------------------------------------------------------------------------------- helpers


def _collapsed(text: str) -> str:
    """With single spaces, also at its ends."""
    return " ".join(text.split()).join((" " * text[:1].isspace(), " " * text[-1:].isspace())) if text.strip() else " "


def _number(node: html.HtmlElement, name: str, otherwise: int) -> int:
    value = node.get(name, "").strip()
    return int(value[:6]) if value[:6].isdecimal() else otherwise
