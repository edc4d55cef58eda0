"""Equations of Office (OMML) on one line, as one would type them."""

from __future__ import annotations

from lxml import etree

from lite.library.office_xml import child, local, value


def linear(node: etree._Element | None) -> str:
    """`A=πr^2`, `(a+b)/2`, `√(x)`. Parts of more than one character stand in brackets."""
    if node is None:
        return ""
    name = local(node)
    if name == "t":
        return node.text or ""
    part = {local(inner): inner for inner in node}
    if name == "f":
        return f"{_grouped(part.get('num'))}/{_grouped(part.get('den'))}"
    if name in ("sSup", "sSub", "sSubSup", "sPre"):
        below = f"_{_grouped(part['sub'])}" if "sub" in part else ""
        above = f"^{_grouped(part['sup'])}" if "sup" in part else ""
        return f"{_grouped(part.get('e'))}{below}{above}"
    if name == "rad":
        degree = linear(part.get("deg"))
        return f"{degree}√({linear(part.get('e'))})"
    if name == "nary":
        sign = value(child(node, "naryPr", "chr")) or "∫"
        below = f"_{_grouped(part['sub'])}" if linear(part.get("sub")) else ""
        above = f"^{_grouped(part['sup'])}" if linear(part.get("sup")) else ""
        return f"{sign}{below}{above} {linear(part.get('e'))}"
    if name == "d":
        properties = child(node, "dPr")
        opening, between, closing = (
            value(found) if (found := child(properties, sign)) is not None else usual
            for sign, usual in (("begChr", "("), ("sepChr", "|"), ("endChr", ")"))
        )
        return opening + between.join(linear(inner) for inner in node if local(inner) == "e") + closing
    if name in ("limLow", "limUpp"):
        return f"{linear(part.get('e'))}{'_' if name == 'limLow' else '^'}{_grouped(part.get('lim'))}"
    if name == "func":
        return f"{linear(part.get('fName'))} {linear(part.get('e'))}"
    if name in ("m", "eqArr"):
        rows = [inner for inner in node if local(inner) in ("mr", "e")]
        return "; ".join(", ".join(linear(cell) for cell in row) if local(row) == "mr" else linear(row) for row in rows)
    if name.endswith("Pr"):
        return ""
    return "".join(linear(inner) for inner in node)


def _grouped(node: etree._Element | None) -> str:
    text = linear(node)
    return text if len(text) < 2 or text.isalnum() else f"({text})"
