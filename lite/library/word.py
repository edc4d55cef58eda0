"""Word files as HTML: what Word shows, with numbers of lists, notes, comments, text boxes, equations, headers.

`mammoth`, `python-docx` and `docx2python` each leave out several of these.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections import defaultdict
from html import escape

from lxml import etree

from lite.library.equations import linear
from lite.library.office_xml import child, local, main_file, parse, relations, value

UNSEEN = {
    "del",
    "delText",
    "instrText",
    "moveFrom",
    "pPr",
    "rPr",
    "sdtPr",
    "sdtEndPr",
    "Fallback",
    "rt",
    "tblPr",
    "trPr",
}
SIGNS = {"tab": " ", "br": "<br>", "cr": "<br>", "noBreakHyphen": "-", "ptab": " "}
USUAL = ("styles", "numbering", "footnotes", "endnotes", "comments")  # where no file says where they are
NOTES = {"footnoteReference": "footnotes", "endnoteReference": "endnotes", "commentReference": "comments"}


def word_html(archive: zipfile.ZipFile) -> str:
    """The text of a .docx file as HTML.

    Raises:
        KeyError: It is no Word file.
        etree.XMLSyntaxError: It is damaged.
    """
    return _Word(archive, main_file(archive)).html()


class _Word:
    """The files of one document, and how far its lists have been counted."""

    def __init__(self, archive: zipfile.ZipFile, main: str):
        self.archive = archive
        self.root = parse(archive, main)
        self.files = relations(archive, main) or {
            kind: (kind, posixpath.join(posixpath.dirname(main), f"{kind}.xml")) for kind in USUAL
        }
        self.styles = {value(style, "styleId"): style for style in self._of("styles")}
        self.lists = {value(node, "numId"): node for node in self._of("numbering") if local(node) == "num"}
        abstract = {value(n, "abstractNumId"): n for n in self._of("numbering") if local(n) == "abstractNum"}
        self.kinds = {number: abstract.get(value(child(node, "abstractNumId"))) for number, node in self.lists.items()}
        self.notes = {name: {value(note, "id"): note for note in self._of(name)} for name in NOTES.values()}
        self.counters: defaultdict[str, dict[int, int]] = defaultdict(dict)
        self.marks = dict.fromkeys(NOTES.values(), 0)  # notes so far
        self.after: list[str] = []  # what stands beside the paragraph: text boxes, notes, comments

    def _of(self, kind: str) -> list[etree._Element]:
        """The children of the roots of all files of a kind."""
        roots = (parse(self.archive, place) for found, place in self.files.values() if found == kind)
        return [node for root in roots if root is not None for node in root]

    def html(self) -> str:
        found = [self.blocks(child(self.root, "body"))]
        edges = dict.fromkeys(
            self.blocks(root)
            for kind, place in self.files.values()
            if kind in ("header", "footer") and (root := parse(self.archive, place)) is not None
        )
        if any(re.sub("<[^>]*>", "", edge).strip() for edge in edges):
            found += ["<h1>Page header and footer</h1>", *edges]
        return "".join(found)

    def blocks(self, node: etree._Element | None) -> str:
        """The paragraphs and tables within a node."""
        found = []
        for inner in node if node is not None else ():
            name = local(inner)
            if name == "p":
                found.append(self.paragraph(inner))
            elif name == "tbl":
                found.append(self.table(inner))
            elif name not in UNSEEN:
                found.append(self.blocks(inner))
            if name in ("p", "tbl") and self.after:
                beside, self.after = self.after, []
                found += beside
        return "".join(found)

    def paragraph(self, node: etree._Element) -> str:
        properties = child(node, "pPr")
        text = self.label(properties) + self.runs(node)
        if level := self.level(properties):
            return f"<h{level}>{text}</h{level}>"
        tag = "dd" if self.numbering(properties) else "p"
        return f"<{tag}>{text}</{tag}>"

    def runs(self, node: etree._Element) -> str:
        """The text of a paragraph; what is beside it goes to `after`."""
        found = []
        for inner in node:
            name = local(inner)
            if name == "t":
                found.append(escape(inner.text or ""))
            elif name in SIGNS:
                found.append(SIGNS[name])
            elif name == "sym":
                code = int(value(inner, "char") or "0", 16)
                found.append("" if 0xE000 <= code <= 0xF8FF or not code else escape(chr(code)))
            elif name in ("oMath", "oMathPara"):
                found.append(escape(linear(inner)))
            elif name in NOTES:
                found.append(self.note(NOTES[name], value(inner, "id")))
            elif name == "txbxContent":
                self.after.append(self.apart(inner))
            elif name == "docPr" and value(inner, "descr"):
                found.append(f" {escape(value(inner, 'descr'))} ")
            elif name == "r" and child(inner, "rPr", "vanish") is not None:
                continue  # hidden text
            elif name not in UNSEEN:
                found.append(self.runs(inner))
        return "".join(found)

    def apart(self, node: etree._Element) -> str:
        """The blocks of a box or note, in which there may be others."""
        outer, self.after = self.after, []
        text = self.blocks(node)
        self.after = outer
        return text

    def note(self, kind: str, number: str) -> str:
        """The mark of a note; the note itself stands behind the paragraph."""
        note = self.notes[kind].get(number)
        if note is None:
            return ""
        text = re.sub(r"</?(?:p|dd)>", " ", self.apart(note)).strip()
        if kind == "comments":
            author = value(note, "author")
            self.after.append(f"<p>Comment{f' by {escape(author)}' if author else ''}: {text}</p>")
            return ""
        self.marks[kind] += 1
        mark = f"[{_numeral(str(self.marks[kind]), 'decimal' if kind == 'footnotes' else 'lowerRoman')}]"
        self.after.append(f"<p>{mark} {text}</p>")
        return mark

    def table(self, node: etree._Element) -> str:
        rows = []
        above: dict[int, str] = {}  # by column: what a cell that goes on below shows
        for row in inside_own(node, "tr", "tbl"):
            if child(row, "trPr", "del") is not None:
                continue
            column = int(value(child(row, "trPr", "gridBefore")) or 0)
            cells = ["<td></td>"] * column
            for cell in inside_own(row, "tc", "tbl"):
                span = int(value(child(cell, "tcPr", "gridSpan")) or 1)
                merge = child(cell, "tcPr", "vMerge")
                goes_on = merge is not None and value(merge) != "restart"
                text = above.get(column, "") if goes_on else self.blocks(cell)
                above = (
                    {**above, column: text} if merge is not None else {k: v for k, v in above.items() if k != column}
                )
                cells.append(f'<td colspan="{span}">{text}</td>')
                column += span
            rows.append(f"<tr>{''.join(cells)}</tr>")
        return f"<table>{''.join(rows)}</table>"

    # ----------------------------------------------------------------------------------------------- styles and lists

    def _chain(self, properties: etree._Element | None) -> list[etree._Element]:
        """The properties of a paragraph and of the styles that it rests on, nearest first."""
        found = [properties] if properties is not None else []
        style = value(child(properties, "pStyle"))
        seen = set()
        while style in self.styles and style not in seen:
            seen.add(style)
            if (inner := child(self.styles[style], "pPr")) is not None:
                found.append(inner)
            style = value(child(self.styles[style], "basedOn"))
        return found

    def level(self, properties: etree._Element | None) -> int:
        """Of a heading; 0: it is none."""
        style = self.styles.get(value(child(properties, "pStyle")))
        name = value(child(style, "name")).lower()
        if match := re.fullmatch(r"heading ([1-9])", name):
            return min(6, int(match[1]))
        if name == "title":
            return 1
        for step in self._chain(properties):
            outline = value(child(step, "outlineLvl"))
            if outline:
                return int(outline) + 1 if int(outline) < 6 else 0
        return 0

    def numbering(self, properties: etree._Element | None) -> tuple[str, int] | None:
        """(list, level from 0) of a paragraph."""
        for step in self._chain(properties):
            if (number := child(step, "numPr")) is not None and child(number, "numId") is not None:
                wanted = value(child(number, "numId"))
                level = int(value(child(number, "ilvl")) or 0)
                return (wanted, level) if self.kinds.get(wanted) is not None else None
        return None

    def label(self, properties: etree._Element | None) -> str:
        """What Word writes before an item of a list."""
        if not (found := self.numbering(properties)):
            return ""
        number, level = found
        levels = {int(value(n, "ilvl") or 0): n for n in self.kinds[number] if local(n) == "lvl"}
        for override in self.lists[number]:
            if local(override) == "lvlOverride" and (own := child(override, "lvl")) is not None:
                levels[int(value(override, "ilvl") or 0)] = own
        if level not in levels:
            return ""
        counter = self.counters[number]
        counter[level] = counter.get(level, self._start(number, level, levels) - 1) + 1
        for deeper in [deeper for deeper in counter if deeper > level]:
            del counter[deeper]
        if value(child(levels[level], "numFmt")) == "bullet":
            return "- "

        def numeral(match: re.Match) -> str:
            place = int(match[1]) - 1
            form = value(child(levels.get(place), "numFmt"))
            return _numeral(str(counter.get(place, self._start(number, place, levels))), form)

        text = re.sub(r"%([1-9])", numeral, value(child(levels[level], "lvlText")))
        return f"{escape(text)} " if text else ""

    def _start(self, number: str, level: int, levels: dict[int, etree._Element]) -> int:
        for override in self.lists[number]:
            own = local(override) == "lvlOverride" and int(value(override, "ilvl") or 0) == level
            if own and (first := value(child(override, "startOverride"))):
                return int(first)
        return int(value(child(levels.get(level), "start")) or 1)


def inside_own(node: etree._Element, name: str, stop: str) -> list[etree._Element]:
    """Elements of a name within a node, through wrappers such as content controls, not within a `stop`."""
    found = []
    for inner in node:
        if local(inner) == name:
            found.append(inner)
        elif local(inner) != stop and local(inner) not in UNSEEN:
            found += inside_own(inner, name, stop)
    return found


def _numeral(number: str, form: str) -> str:
    count = int(number) if number.lstrip("-").isdecimal() else 0
    if form == "none":
        return ""
    if form in ("lowerLetter", "upperLetter") and count > 0:
        text = chr(ord("a") + (count - 1) % 26) * ((count - 1) // 26 + 1)
    elif form in ("lowerRoman", "upperRoman") and 0 < count < 4000:
        text, left = "", count
        for size, sign in zip(
            (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),
            "m cm d cd c xc l xl x ix v iv i".split(),
            strict=True,
        ):
            text += sign * (left // size)
            left %= size
    else:
        return f"{count:02}" if form == "decimalZero" else str(count)
    return text.upper() if form.startswith("upper") else text
