"""Long texts and tables in parts that fit into a prompt: at headings and sentence ends, or between rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

from markdown_it import MarkdownIt
from sentencex import segment

PART_CHARS = 1200  # what every full-size profile shows of a document (`document_chars`)
LONGEST_SENTENCE = 5 * PART_CHARS  # beyond it, it is no sentence: data, or a script without spaces
LONGEST_CELL = 500
CAPTION_ROWS = 5


def split_text(text: str) -> list[str]:
    """Parts of about 1,200 characters that end where a paragraph or a sentence ends."""
    paragraphs = (paragraph.strip() for paragraph in text.replace("\r\n", "\n").split("\n\n"))
    return _packed(_pieces(paragraph for paragraph in paragraphs if paragraph))


def split_markdown(text: str) -> list[tuple[str, str, bool]]:
    """(headings, part, is a table) of a Markdown text.

    A part lies in one section; its headings read `Setup > Wiring`. Tables are parts of their own, see `split_table`.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")  # as the parser counts them
    parts: list[tuple[str, str, bool]] = []
    path: dict[int, str] = {}
    blocks: list[str] = []

    def flush() -> None:
        parts.extend((" > ".join(path.values()), part, False) for part in _packed(_pieces(blocks)))
        blocks.clear()

    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for place, token in enumerate(tokens):
        if token.level or token.map is None:
            continue
        block = "\n".join(lines[slice(*token.map)]).strip()
        if token.type == "heading_open":
            flush()
            level = int(token.tag[1])
            path = {depth: title for depth, title in path.items() if depth < level}
            path[level] = " ".join(tokens[place + 1].content.split())
        elif token.type == "table_open":
            flush()
            rows = [_cells(line) for line in block.splitlines()]
            parts += [(" > ".join(path.values()), part, True) for part in split_table([rows[0], *rows[2:]])]
        elif block:
            blocks.append(block)
    flush()
    return parts or [("", title, False) for title in path.values()]  # of headings alone


def split_table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Markdown tables of about 1,200 characters, each with the table's header, which is its first row.

    A line or two above the header, of one cell each, are its caption and stand above each part. Empty rows are left
    out; cells are cut at 500 characters.
    """
    filled = (cells for row in rows if any(cells := [_cell(value) for value in row]))
    first = list(islice(filled, CAPTION_ROWS + 1))
    start = next((place for place, cells in enumerate(first) if len({*cells} - {""}) > 1), 0)
    if not first:
        return
    titles = first[start]
    width = max(n for n, cell in enumerate(titles, start=1) if cell)
    caption = [next(filter(None, cells)) for cells in first[:start]]
    header = "\n".join([*caption, _line(titles[:width], width), f"|{' --- |' * width}"])
    limit = max(PART_CHARS, 2 * len(header))  # a wide header is not repeated more than it is worth
    block: list[str] = []
    size = len(header)
    parts = 0
    for cells in chain(first[start + 1 :], filled):
        line = _line(cells, width)
        if block and size + len(line) > limit:
            yield "\n".join([header, *block])
            parts, block, size = parts + 1, [], len(header)
        block.append(line)
        size += len(line) + 1
    if block or not parts:
        yield "\n".join([header, *block])


def _pieces(blocks: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(what goes before it, piece): whole blocks, or the sentences of long ones."""
    for block in blocks:
        if len(block) <= PART_CHARS:
            yield "\n\n", block
            continue
        glue = "\n\n"
        for sentence in segment("en", block):
            stripped = sentence.strip()
            for start in range(0, len(stripped), LONGEST_SENTENCE):
                yield glue, stripped[start : start + LONGEST_SENTENCE]
                glue = "\n" if sentence.endswith("\n") else " "


def _packed(pieces: Iterable[tuple[str, str]]) -> list[str]:
    parts: list[str] = []
    for glue, piece in pieces:
        if parts and len(parts[-1]) + len(piece) <= PART_CHARS:
            parts[-1] += glue + piece
        else:
            parts.append(piece)
    return parts


def _cells(line: str) -> list[str]:
    """The cells of a line of a Markdown table."""
    inner = line.strip().removeprefix("|").removesuffix("|").replace("\\|", "\0")
    return [cell.replace("\0", "|") for cell in inner.split("|")]


def _cell(value: str) -> str:
    text = " ".join(value.split())
    return (text if len(text) <= LONGEST_CELL else text[:LONGEST_CELL] + " …").replace("|", "\\|")


def _line(cells: Sequence[str], width: int) -> str:
    return "| " + " | ".join([*cells, *[""] * (width - len(cells))]) + " |"
