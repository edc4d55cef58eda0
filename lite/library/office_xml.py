"""What .docx, .pptx and .odt files have in common: a zip archive of XML files that point at each other."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator

from lxml import etree


def parse(archive: zipfile.ZipFile, name: str) -> etree._Element | None:
    """The root of a file in the archive; None where there is no such file. No entity is expanded, nothing is fetched.

    Raises:
        etree.XMLSyntaxError: It is no XML.
    """
    if name not in archive.NameToInfo:
        return None
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, huge_tree=True, remove_comments=True, remove_pis=True
    )
    return etree.fromstring(archive.read(name), parser)


def relations(archive: zipfile.ZipFile, name: str) -> dict[str, tuple[str, str]]:
    """Kind and file name, by id, of what a file in the archive points at within the archive."""
    folder, base = posixpath.split(name)
    root = parse(archive, posixpath.join(folder, "_rels", f"{base}.rels"))
    found = {}
    for relation in root if root is not None else ():
        target = relation.get("Target", "")
        if relation.get("TargetMode") != "External" and target:
            place = target.lstrip("/") if target.startswith("/") else posixpath.join(folder, target)
            found[relation.get("Id", "")] = relation.get("Type", "").rpartition("/")[2], posixpath.normpath(place)
    return found


def main_file(archive: zipfile.ZipFile) -> str:
    """The name of the file that holds the document itself.

    Raises:
        KeyError: It is no office file.
    """
    for kind, place in relations(archive, "").values():
        if kind == "officeDocument" and place in archive.NameToInfo:
            return place
    raise KeyError("it holds no document")


def local(node: etree._Element) -> str:
    """The name of an element without its namespace, of which Office has two."""
    return node.tag.rpartition("}")[2] if isinstance(node.tag, str) else ""


def child(node: etree._Element | None, *names: str) -> etree._Element | None:
    """The first child of the first child … of these names."""
    for name in names:
        node = next((inner for inner in node if local(inner) == name), None) if node is not None else None
    return node


def value(node: etree._Element | None, name: str = "val") -> str:
    """An attribute, whatever its namespace."""
    if node is None:
        return ""
    return next((text for key, text in node.attrib.items() if key.rpartition("}")[2] == name), "")


def inside(node: etree._Element, *names: str) -> Iterator[etree._Element]:
    """All elements of these names within a node."""
    return (inner for inner in node.iter() if local(inner) in names)
