"""Long texts in parts that fit into a prompt: at paragraphs and sentence ends, else between lines, words or letters.

No character but spaces is lost, and none is doubled: put together, the parts have the letters of the text in order.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sentencex import segment

PART_CHARS = 1200  # what every full-size profile shows of a document (`document_chars`)
LONGEST_TITLE = 300  # headings are repeated above each of their parts
PARAGRAPHS = re.compile(r"\n[^\S\n]*(?:\n\s*)+")
# Where a text without ends of sentences is cut, best first: lines, sentences, words, then signs.
CUTS = [re.compile(c) for c in (r"\n", r"(?<=[.!?…;])\s|(?<=[。！？；])", r"\s", r"(?<=[,、，:：)\]}>|/_=&-])")]
SPACE = CUTS[2]
JOINERS = "\u200d\ufe0e\ufe0f"  # hold emoji and letters together


class Block(NamedTuple):
    """A piece of a document in its order, whatever the kind of file.

    Args:
        text: A heading, a paragraph, or a table in Markdown.
        level: Of a heading, from 1; 0 otherwise.
        is_table: It is a part by itself.
    """

    text: str
    level: int = 0
    is_table: bool = False


def split_text(text: str, limit: int = PART_CHARS) -> list[str]:
    """Parts of at most `limit` characters, 1,200 unless given, that end where a paragraph or a sentence ends."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _packed(PARAGRAPHS.split(text.strip()), limit)


def split_lines(text: str, limit: int = PART_CHARS) -> Iterator[tuple[int, int, str]]:
    """(first line, last line, part) of source code: whole lines, their indentation kept."""
    first, block, size = 1, [], 0
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1):
        for piece in [line.rstrip()] if len(line) <= limit else [piece for _, piece in _cut(line, limit, "")]:
            if block and size + len(piece) > limit:
                yield first, number - (first < number), "\n".join(block)
                first, block, size = number, [], 0
            block.append(piece)
            size += len(piece) + 1
    if block:
        yield first, number, "\n".join(block)


def split_blocks(blocks: Iterable[Block], title: str = "") -> Iterator[tuple[str, str, bool]]:
    """(headings, part, is a table) of a document.

    A part lies in one section; its headings read `Setup > Wiring`. A heading with nothing below it becomes text of the
    section around it.

    Args:
        blocks: In the order of the document.
        title: Of the whole, above all headings.
    """
    path: dict[int, str] = {0: title} if title else {}
    named = bool(not title)  # whether the last heading of `path` stands above a part, or need not
    texts: list[str] = []
    lonely: list[str] = []  # headings without text
    above = ""  # the headings above these

    def flush() -> Iterator[tuple[str, str, bool]]:
        nonlocal named
        if lonely:
            yield from ((above, part, False) for part in _packed(["\n".join(lonely)]))
            lonely.clear()
        if texts:
            named = True
            yield from ((_path(path), part, False) for part in _packed(texts))
            texts.clear()

    for block in blocks:
        if block.level:
            if texts:
                yield from flush()
            heading = " ".join(block.text.split())
            if not heading or (block.level == 1 and heading == path.get(0)):
                continue
            if not named and path and max(path) >= block.level:
                outer = _path({level: text for level, text in path.items() if level < max(path)})
                if lonely and outer != above:
                    yield from flush()
                above = outer
                lonely.append(path[max(path)])
            path = {level: text for level, text in path.items() if level < block.level}
            path[block.level] = heading
            named = False
            if len(_path(path)) > LONGEST_TITLE:  # no heading but a paragraph that looks like one
                texts.append(path.pop(block.level))
                named = True
        elif block.is_table:
            yield from flush()
            named = True
            yield _path(path), block.text, True
        elif block.text.strip():
            texts.append(block.text)
    if not named and path and not texts:
        last = max(path)
        outer = _path({level: text for level, text in path.items() if level < last})
        if lonely and outer != above:
            yield from flush()
        above = outer
        lonely.append(path[last])
    yield from flush()


def _path(headings: dict[int, str]) -> str:
    return " > ".join(headings.values())


def _packed(paragraphs: Iterable[str], limit: int = PART_CHARS) -> list[str]:
    parts: list[str] = []
    for paragraph in paragraphs:
        for glue, piece in _pieces(paragraph.strip(), limit):
            if parts and len(parts[-1]) + len(glue) + len(piece) <= limit:
                parts[-1] += glue + piece
            else:
                parts.append(piece)
    return parts


def _pieces(paragraph: str, limit: int) -> Iterator[tuple[str, str]]:
    """(what goes before it, piece): the whole paragraph, or the sentences of a long one."""
    if len(paragraph) <= limit:
        if paragraph:
            yield "\n\n", paragraph
        return
    glue = "\n\n"
    for sentence in segment("en", paragraph):
        yield from _cut(sentence.strip(), limit, glue)
        glue = _glue(sentence)


def _cut(text: str, limit: int, glue: str) -> Iterator[tuple[str, str]]:
    start = 0
    while len(text) - start > limit:
        end = _best_cut(text, start, start + limit)
        yield glue, text[start:end].rstrip()
        start = end
        while text[start].isspace():
            start += 1
        glue = _glue(text[end - 1 : start])
    if start < len(text):
        yield glue, text[start:]


def _glue(text: str) -> str:
    """What the end of a text puts before the next one: a line break, a space, or nothing, as in Chinese."""
    end = text[len(text.rstrip()) :]
    return "\n" if "\n" in end else " " * bool(end)


def _best_cut(text: str, start: int, end: int) -> int:
    """Where a piece ends that begins at `start` and may not go beyond `end`."""
    middle = (start + end) // 2
    for kind in CUTS:
        if places := [match.end() for match in kind.finditer(text, middle, end + 1) if match.start() <= end]:
            return min(places[-1], end)
        if kind is SPACE and (places := [match.end() for match in kind.finditer(text, start, middle)]):
            after = SPACE.search(text, end)
            if (after.start() if after else len(text)) - places[-1] <= end - start:
                return places[-1]  # a word of several hundred letters stays whole
    while end > middle and (unicodedata.combining(text[end]) or text[end] in JOINERS or text[end - 1] == JOINERS[0]):
        end -= 1  # accents stay with their letters
    return end
