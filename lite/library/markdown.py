"""Markdown texts in parts: by heading, tables apart, front matter with the first part."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from markdown_it import MarkdownIt

from lite.library.splitting import PART_CHARS, Block, split_blocks, split_text
from lite.library.tables import split_table

# What Obsidian, Jekyll, Hugo and others put above a note: YAML between lines of ---, or TOML between lines of +++.
FRONT_MATTER = re.compile(r"\s*(---|\+\+\+)[ \t]*\n(?P<fields>(?:.*\n){0,500}?)(?:\1|\.\.\.)[ \t]*(?:\n|\Z)")
FIELD = re.compile(r"^[\w.-]+[ \t]*[:=]", re.MULTILINE)
TITLE = re.compile(r"^title[ \t]*[:=][ \t]*(?P<title>\S.*)$", re.MULTILINE | re.IGNORECASE)


def split_markdown(text: str) -> list[tuple[str, str, bool]]:
    """(headings, part, is a table) of a Markdown text, see `split_blocks`.

    The title in its front matter stands above all headings; the other fields stand in the first part.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    fields = ""
    if (front := FRONT_MATTER.match(text)) and FIELD.search(front["fields"]):
        fields, text = front["fields"].strip(), text[front.end() :]
    found = TITLE.search(fields)
    title = found["title"].strip().strip("\"'") if found else ""
    parts = list(split_blocks(_blocks(text), title))
    if not fields:
        return parts
    if parts and not parts[0][2] and len(fields) + len(parts[0][1]) + 2 <= PART_CHARS:
        return [(parts[0][0], f"{fields}\n\n{parts[0][1]}", False), *parts[1:]]
    return [*((title, part, False) for part in split_text(fields)), *parts]


def _blocks(text: str) -> Iterator[Block]:
    lines = text.split("\n")  # as the parser counts them
    tokens = _parser().parse(text)
    seen = 0  # lines
    for place, token in enumerate(tokens):
        if token.level or token.map is None:
            continue
        start, end = token.map
        yield Block("\n".join(lines[seen:start]))  # footnotes and link definitions, which are no tokens
        seen = end
        block = "\n".join(lines[start:end]).strip("\n")
        if token.type == "heading_open":
            yield Block(tokens[place + 1].content, level=int(token.tag[1]))
        elif token.type == "table_open":
            rows = [_cells(line) for line in block.splitlines()]
            yield from (Block(table, is_table=True) for table in split_table([rows[0], *rows[2:]]))
        else:
            yield Block(block)
    yield Block("\n".join(lines[seen:]))


@cache
def _parser() -> MarkdownIt:
    """Finds blocks; what is in their lines is taken as it is written."""
    return MarkdownIt("commonmark").enable("table").disable(["inline", "text_join"])


def _cells(line: str) -> list[str]:
    """The cells of a line of a Markdown table."""
    inner = line.strip().removeprefix("|").removesuffix("|").replace("\\|", "\0")
    return [cell.replace("\0", "|") for cell in inner.split("|")]
