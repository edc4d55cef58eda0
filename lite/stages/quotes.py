"""Quotes in a chain of reasoning, `[2] "…"`, and where they stand in the documents that they are taken from.

A quote is evidence only where nothing that carries meaning differs: words, their order, numbers, units, signs. What may
differ is how it is set: spaces, line breaks and hyphens at line ends, kinds of quotation marks and dashes, capitals,
punctuation, ligatures, marks of Markdown and HTML, footnote marks. Beyond that, a word may have one slip that text
recognition is known for (`rn` for `m`); a general edit distance would take `employee` for `employer`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import eq
from typing import Any

from rapidfuzz.distance import Levenshtein

from lite.library.parts import unpacked_boxes
from lite.schema import Document

QUOTE_CHARS = 200  # what the prompt asks for at most
# A document number or a list of them, or a quotation; the last may be long, but not endless
MARKS = re.compile(
    r"[\[【](?P<numbers>\s{0,3}[0-9]+(?:\s{0,3}[,;]\s{0,3}[0-9]+){0,20}\s{0,3})[\]】]"
    r"|(?:\"(?P<straight>(?:(?![\[【]\s?[0-9])[^\"]){1,2000})\"|“(?P<curly>(?:(?![\[【]\s?[0-9])[^“”]){1,2000})”"
    r"|„(?P<low>(?:(?![\[【]\s?[0-9])[^„“”]){1,2000})[“”]|«(?P<angle>(?:(?![\[【]\s?[0-9])[^«»]){1,2000})»"
    r"|「(?P<corner>(?:(?![\[【]\s?[0-9])[^「」]){1,2000})」)"
)
QUOTED = '"…"'  # in place of a quotation
TOGETHER = re.compile(r"\s*(?:[,;&]|,?\s*\b(?:and|or)\b)\s*", re.IGNORECASE)  # between numbers that are cited together
ELLIPSIS = re.compile(r"\s*(?:\[?(?:\.{3,}|…)\]?)\s*")
NOT_TEXT = re.compile(  # marks of HTML and Markdown in a text, and their targets
    r"</?[a-zA-Z][^<>]{0,300}>|\]\([^()\s]{1,1000}(?:\s\"[^\"]{0,300}\")?\)|^[ \t]{0,3}>+", re.MULTILINE
)
NOTE_MARK = re.compile(r"\[\^?\w{1,3}\]")
DROPPED = set("\xad\u200b\u200c\u200d\u2060\ufeff'’ʼ`*_")  # within words: nothing is meant by them
HYPHENS = set("-\u2010\u2011")
NO_SIGNS = set("|~^#=")  # of the symbols: what tables and headings are drawn with
# What text recognition takes for each other, in words alone, and how much a word must have to be told by the rest of it
LOOKALIKES = (("rn", "m"), ("vv", "w"), ("cl", "d"), ("e", "c"), ("h", "b"), ("q", "g"), ("n", "u"), ("i", "l"))
LONG_WORD = 5
ELIDED = 4  # words that an ellipsis stands for, at least
FURNITURE = 2  # lines of a header or footer, at most


@dataclass(frozen=True)
class Token:
    """A word, number or sign of a text: how it is compared, and the characters that it stands at.

    `optional`: a footnote's mark, as far as can be seen.
    """

    form: str
    start: int
    end: int
    optional: bool = False


@dataclass(frozen=True)
class Place:
    """Where a quote stands.

    Args:
        found: Whether it stands in the document.
        start, end: The characters `text[start:end]` of the document; None where it is not found.
        page: From 1; None where the document has no pages.
        boxes: (left, top, right, bottom), one per line, fractions of the page or image as it is shown, from its top
            left corner; of that page alone where the quote goes on on the next one. Empty where they are not known.
    """

    found: bool = False
    start: int | None = None
    end: int | None = None
    page: int | None = None
    boxes: tuple[tuple[float, float, float, float], ...] = ()


@dataclass(frozen=True)
class Passage:
    """What a chain says of the documents that it cites before it.

    Args:
        numbers: Those cited: one of `[2]`, several of `[1, 2]` or `[1] and [2]`.
        text: The chain's own words, with `QUOTED` in place of each quotation.
        quotes: The quotations.
    """

    numbers: tuple[int, ...]
    text: str
    quotes: tuple[str, ...]


def passages(reasoning: str) -> list[Passage]:
    """A chain in passages, each from one citation to the next. What stands before the first is left out."""
    found: list[tuple[list[int], list[str], list[str]]] = []  # numbers, words of its own, quotations
    end = 0
    for match in MARKS.finditer(reasoning):
        between = reasoning[end : match.start()]
        end = match.end()
        if found:
            found[-1][1].append(between)
        if match["numbers"]:
            numbers = [int(number.strip()[:9]) for number in re.split("[,;]", match["numbers"])]
            if found and len(found[-1][1]) == 1 and len(between) < 20 and TOGETHER.fullmatch(between):
                found[-1][0].extend(numbers)
                found[-1][1].clear()
            else:
                found.append((numbers, [], []))
        elif found:
            found[-1][1].append(QUOTED)
            found[-1][2].append(next(text for name, text in match.groupdict().items() if text and name != "numbers"))
    if found:
        found[-1][1].append(reasoning[end:])
    return [Passage(tuple(numbers), "".join(own), tuple(map(str.strip, quotes))) for numbers, own, quotes in found]


def quotes_of(reasoning: str, documents: Sequence[Document]) -> list[dict[str, Any]]:
    """What a chain quotes, and where it stands: `id`, `quote` and the fields of `Place`, as `Trace.quotes` has them.

    Of several documents that are cited together, the first that holds the quote is named. The title of a document is
    no quote.
    """
    entries = []
    said = [(passage, words) for passage in passages(reasoning) for words in passage.quotes]
    for passage, words in said:
        cited = [documents[number - 1] for number in passage.numbers if 1 <= number <= len(documents)]
        if not cited:
            continue
        places = [locate(words, document) for document in cited]
        if not any(place.found for place in places) and any(_is_title(words, document) for document in cited):
            continue
        which = next((i for i, place in enumerate(places) if place.found), 0)
        place = places[which]
        entries.append(
            {
                "id": cited[which].id, "quote": words, "found": place.found, "start": place.start, "end": place.end,
                "page": place.page, "boxes": [list(box) for box in place.boxes],
            }
        )  # fmt: skip
    return entries


def locate(quote: str, document: Document, following: Document | None = None) -> Place:
    """Look a quote up in a document.

    Parts of a quote around an ellipsis are looked up one after the other; what is left out between them must be more
    than the few words that could turn the meaning, such as a "not".

    Args:
        quote: Its words, without quotation marks around them.
        document: Where it should stand.
        following: The next page of the same file: a quote may go on there, past a footer and a header.
    """
    whole, text = tokens(quote), tokens(document.text)
    if not whole or not _says_something(whole):
        return Place()
    span = _find(whole, text)
    spans = [span] if span else _spans([part for part in map(tokens, ELLIPSIS.split(quote)) if part], text)
    if spans is None and following is not None:
        spans = _over_a_page_break(whole, document.text, following.text)
    if spans is None:
        return Place()
    boxes = [box for span in spans for box in boxes_of(document, *span)]
    return Place(True, spans[0][0], spans[-1][1], document.page or None, tuple(boxes))


def boxes_of(document: Document, start: int, end: int) -> list[tuple[float, float, float, float]]:
    """Where the characters `text[start:end]` stand on the page or image, one box per line."""
    lines: list[tuple[float, float, float, float]] = []
    for first, last, left, top, right, bottom in unpacked_boxes(document.boxes):
        if first >= end or last <= start:
            continue
        width = (right - left) / (last - first)
        begin, stop = left + width * max(0, start - first), right - width * max(0, last - end)
        upright = bottom - top
        before = lines[-1] if lines else None
        if (
            before
            and min(before[3], bottom) - max(before[1], top) > upright / 2
            and -0.05 < begin - before[2] < max(0.03, 2 * upright)
        ):
            lines[-1] = (before[0], min(before[1], top), max(before[2], stop), max(before[3], bottom))
        else:
            lines.append((begin, top, stop, bottom))
    return lines


@lru_cache(maxsize=512)  # a chain's quotes are looked up in the same few documents, as are those of a whole group
def tokens(text: str) -> tuple[Token, ...]:
    """The words, numbers and signs of a text in the form in which they are compared."""
    skipped = [match.span() for match in NOT_TEXT.finditer(text)]
    marks = {i for match in NOTE_MARK.finditer(text) for i in range(*match.span())}
    characters = _characters(text, skipped)
    found: list[Token] = []
    kind_before, index_before = "", -1
    for i, (character, index) in enumerate(characters):
        kind = _kind(characters, i)
        if not kind:
            kind_before = kind_before if kind is None else ""
            continue
        optional = index in marks or (kind == "number" and text[index] in "⁰¹²³⁴⁵⁶⁷⁸⁹")
        if kind == "mark" and found and kind_before:
            found[-1] = _longer(found[-1], character, index)
            continue
        if kind == kind_before and kind in ("word", "number") and optional <= found[-1].optional:
            found[-1] = _longer(found[-1], character, index)
        else:
            if kind == "number" and kind_before == "word" and index == index_before + 1 and len(found[-1].form) >= 4:
                optional = optional or _is_note(characters, i)
            found.append(Token(character, index, index + 1, optional))
        kind_before, index_before = kind, index
    return tuple(found)


def says(text: str, words: str) -> bool:
    """Whether the words, numbers and signs of `words` stand in `text`, in their order."""
    part = tokens(words)
    return bool(part) and _find(part, tokens(text)) is not None


def _longer(token: Token, character: str, index: int) -> Token:
    return Token(token.form + character, token.start, index + 1, token.optional)


def _characters(text: str, skipped: Sequence[tuple[int, int]]) -> list[tuple[str, int]]:
    """Each character, taken apart and without case, with its place in the text."""
    gone = {i for span in skipped for i in range(*span)}
    return [
        (part, i)
        for i, character in enumerate(text)
        if i not in gone
        for part in unicodedata.normalize("NFKD", character).casefold().replace("\u2212", "-")
    ]


def _kind(characters: Sequence[tuple[str, int]], i: int) -> str | None:
    """What a character is: `word`, `sign` (a letter that stands for a word among them), `number`, `mark`; empty where
    it parts words, and None where it means nothing and joins them."""
    character = characters[i][0]
    before = characters[i - 1][0] if i else " "
    after = characters[i + 1][0] if i + 1 < len(characters) else " "
    category = unicodedata.category(character)
    if character in DROPPED:
        return None
    if category == "Lo":
        return "sign"
    if category[0] == "L":
        return "word"
    if category[0] == "M":
        return "mark"
    if category[0] == "N" or (character in ".,:/\u2044" and before.isdigit() and after.isdigit()):
        return "number"
    if character in HYPHENS:
        if before.isalpha() and _next_letter(characters, i):
            return None
        return "sign" if after.isdigit() and not before.isalnum() and before not in HYPHENS else ""
    if character in "%‰§&@" or (category[0] == "S" and character not in NO_SIGNS and not "■" <= character <= "◿"):
        return "sign"
    return None if character.isspace() and _after_hyphen(characters, i) else ""


def _next_letter(characters: Sequence[tuple[str, int]], i: int) -> bool:
    """Whether a hyphen is followed by a letter, maybe on the next line."""
    rest = "".join(character for character, _ in characters[i + 1 : i + 12])
    return re.match(r"[ \t\r]*\n?[ \t\r]*\Z|[ \t\r]*\n[ \t\r]*[^\W\d_]|[^\W\d_]", rest) is not None


def _after_hyphen(characters: Sequence[tuple[str, int]], i: int) -> bool:
    """Whether the space at `i` belongs to the end of a line that a word's hyphen stands at."""
    around = "".join(character for character, _ in characters[max(0, i - 6) : i + 6])
    place = min(i, 6)
    return any(
        match.start(1) <= place < match.end(1)
        for match in re.finditer(r"(?<=[^\W\d_][-\u2010\u2011\xad])([ \t\r]*\n[ \t\r]*)(?=[^\W\d_])", around)
    )


def _is_note(characters: Sequence[tuple[str, int]], i: int) -> bool:
    """Whether a number that stands right behind a word is short enough for a footnote's."""
    digits = 0
    while i + digits < len(characters) and characters[i + digits][0].isdigit():
        digits += 1
    after = characters[i + digits][0] if i + digits < len(characters) else " "
    return digits <= 2 and not after.isalnum()


def _says_something(part: Sequence[Token]) -> bool:
    """A quote of one small word proves nothing."""
    letters = sum(len(token.form) for token in part)
    script = sum(unicodedata.category(token.form[0]) == "Lo" for token in part)
    longest = max(len(token.form) for token in part)
    digits = any(token.form[0].isdigit() for token in part)
    return script >= 2 or (letters >= 4 and digits) or (letters >= LONG_WORD and longest >= 4)


def _is_title(words: str, document: Document) -> bool:
    return _find(tokens(words), tokens(document.title)) is not None


def _spans(parts: Sequence[Sequence[Token]], text: Sequence[Token]) -> list[tuple[int, int]] | None:
    """Where the parts stand, in this order; None where one does not, or says nothing, or follows too closely."""
    spans: list[tuple[int, int]] = []
    for part in parts:
        left = [token for token in text if not spans or token.start >= spans[-1][1]][ELIDED if spans else 0 :]
        span = _find(part, left)
        if span is None or not _says_something(part):
            return None
        spans.append(span)
    return spans if len(spans) > 1 else None


def _find(part: Sequence[Token], text: Sequence[Token]) -> tuple[int, int] | None:
    """The first and the last character of a part in a text: word for word; then without what may be footnote marks;
    then with a slip of text recognition in long words."""
    plain = [token for token in text if not token.optional]
    for tried, same in ((text, eq), (plain, eq), (text, _alike), (plain, _alike)):
        for i in range(len(tried) - len(part) + 1):
            if all(same(a.form, tried[i + n].form) for n, a in enumerate(part)):
                return tried[i].start, tried[i + len(part) - 1].end
    return None


def _alike(one: str, other: str) -> bool:
    """Whether two words are one, but for a slip that text recognition is known for."""
    if one == other:
        return True
    if min(len(one), len(other)) < LONG_WORD or not (one.isalpha() and other.isalpha()):
        return False
    if abs(len(one) - len(other)) > 1 or Levenshtein.distance(one, other, score_cutoff=2) > 2:
        return False
    return any(
        one[:i] + right + one[i + len(wrong) :] == other
        for wrong, right in (*LOOKALIKES, *((b, a) for a, b in LOOKALIKES))
        for i in range(len(one))
        if one.startswith(wrong, i)
    )


def _over_a_page_break(part: Sequence[Token], text: str, following: str) -> list[tuple[int, int]] | None:
    """Where a quote begins on a page whose last lines, and the first of the next, may be a footer and a header."""
    above, below = text.rstrip().split("\n"), following.strip().split("\n")
    for last in range(FURNITURE + 1):
        head = "\n".join(above[: len(above) - last])
        for first in range(FURNITURE + 1):
            joined = head + "\n" + "\n".join(below[first:])
            span = _find(part, tokens(joined))
            if span is not None and span[0] < len(head) < span[1]:
                return [(span[0], len(head))]
    return None
