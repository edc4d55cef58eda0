"""Reading what a model wrote a little off stage 2's form: for people who ask, never for rewards or reports.

Those take `lite.stages.prompts.parse_stage2`, which accepts the form and nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from lite.stages.prompts import NONE, UNKNOWN, Stage2Output, citations, parse_stage2

# Repeats have bounds, so that the time is linear in whatever a model writes.
TAG = re.compile(r"<\s{0,3}(/?)\s{0,3}(think|rank|answer)(?:ing)?\s{0,3}>", re.IGNORECASE)
HALF_A_TAG = re.compile(
    r"<\s{0,3}/?\s{0,3}[a-z]{0,9}\s{0,3}$", re.IGNORECASE
)  # at the end of a text that was cut or is being written
PREAMBLE = 60  # characters before a first tag that may be "Sure, here is the answer:"
NO_DOCUMENT = re.compile(r"\W*(?:none|no documents?|nothing|n/a|empty)\W*", re.IGNORECASE)
NOT_THERE = re.compile(rf"\W*{UNKNOWN}\W*", re.IGNORECASE)
FENCE = re.compile(r"^[ \t]{0,3}```[a-z]{0,9}[ \t]{0,3}$", re.IGNORECASE | re.MULTILINE)
LIST = re.compile(r"\[\s{0,3}\d{1,9}(?:\s{0,3}[,;>]\s{0,3}\d{1,9})*\s{0,3}\]")
OTHER_BRACKETS = re.compile(r"[【［〔]\s{0,3}(\d{1,9})[^】］〕\n]{0,20}[】］〕]")


@dataclass(frozen=True)
class Mark:
    """A tag in a text: its name, whether it closes, and where it starts and ends."""

    name: str
    closes: bool
    start: int
    end: int


@dataclass(frozen=True)
class Section:
    """What stands inside a tag, where it ends, and what was wrong with its tags, if anything."""

    text: str
    start: int
    end: int
    note: str = ""


def read_stage2(completion: str, n_documents: int) -> tuple[Stage2Output, str]:
    """Read a stage 2 completion as `parse_stage2` does, and where that refuses it, as a person would.

    Read all the same are: code fences, tags in other letters or with spaces, 【1】, `[1], [2]`, `[1, 2]`, `1 > 2`,
    `None`, a tag that is missing at the end or between the parts, text outside the tags, a document that is ranked
    twice. Document numbers out of range are left out, but an answer that cites no others is refused.

    Returns:
        The output, and a note on what was off the form; empty where nothing was. An output that cannot be read has
        `parse_stage2`'s `failure`.
    """
    strict = parse_stage2(completion, n_documents)
    if not strict.failure:
        return strict, ""
    text, notes = _with_our_brackets(completion, n_documents)
    marks = [Mark(m[2].lower(), bool(m[1]), *m.span()) for m in TAG.finditer(text)]
    if not marks:
        return strict, ""
    think = _section("think", text, marks)
    rank = _section("rank", text, marks, think.end if think else 0) or _section("rank", text, marks)
    answer = _answer(text, marks, think, rank)
    if answer is None or not re.search(r"\w", answer.text):
        return strict, ""
    ranking, off = _ranking(rank, answer, n_documents)
    if off == "rank out of range" and not ranking:
        return replace(strict, failure=off), ""
    first = min(part.start for part in (rank, answer) if part)
    begins, ends = (think.start, think.end) if think else (0, first)
    reasoning = text[begins : first if begins < first < ends else ends]
    reasoning = TAG.sub("", FENCE.sub("", reasoning)).strip()
    if think is None:
        notes.append("no <think>")
    if "```" in completion:
        notes.append("a code fence")
    notes += [part.note for part in (think, rank, answer) if part and part.note] + [off]
    said = UNKNOWN if NOT_THERE.fullmatch(answer.text) else answer.text
    note = "; ".join(dict.fromkeys(filter(None, notes))) or strict.failure
    return Stage2Output(reasoning, ranking, said), note


def chain_so_far(said: str) -> str:
    """The part of an unfinished completion that belongs to the chain; it only ever grows.

    What comes before `<think>` is no part of it, unless it is long: then the model does without the tag.
    """
    marks = [Mark(m[2].lower(), bool(m[1]), *m.span()) for m in TAG.finditer(said)]
    opening = marks[0] if marks and marks[0].name == "think" and not marks[0].closes else None
    begun = opening is not None and len(said[: opening.start].strip()) < PREAMBLE
    if not begun and (len(said.strip()) < PREAMBLE or (marks and len(said[: marks[0].start].strip()) < PREAMBLE)):
        return ""
    start = opening.end if begun and opening else 0
    end = next((m.start for m in marks if m.start >= start and (m.closes or m.name != "think")), None)
    if end is None:
        half = HALF_A_TAG.search(said, max(start, len(said) - PREAMBLE))
        end = half.start() if half else len(said)
    return TAG.sub("", said[start:end]).strip()


def _with_our_brackets(completion: str, n_documents: int) -> tuple[str, list[str]]:
    """Document numbers in the form `[1]`, one by one."""
    text = OTHER_BRACKETS.sub(r"[\1]", completion)
    notes = ["another kind of bracket"] if text != completion else []

    def one_by_one(found: re.Match) -> str:
        numbers = [int(number) for number in re.findall(r"\d+", found[0])]
        fits = all(1 <= number <= n_documents for number in numbers)
        return ", ".join(f"[{number}]" for number in numbers) if fits else found[0]

    apart = LIST.sub(one_by_one, text)
    return apart, notes + ["several numbers in one bracket"] * (apart.count("[") > text.count("["))


def _section(name: str, text: str, marks: list[Mark], after: int = 0) -> Section | None:
    """The first part of this name at or after a place; it reaches to its closing tag, else to the next tag or the end.
    Without an opening tag it starts where it is looked for."""
    later = [mark for mark in marks if mark.start >= after]
    opening = next((mark for mark in later if mark.name == name and not mark.closes), None)
    closing = next((m for m in later if m.name == name and m.closes and (not opening or m.start >= opening.end)), None)
    if opening is None and closing is None:
        return None
    if opening is None:
        before = max((mark.end for mark in later if mark.end <= closing.start), default=after)
        return Section(text[before : closing.start].strip(), before, closing.end, f"no <{name}>")
    if closing is not None:
        return Section(text[opening.end : closing.start].strip(), opening.end, closing.end, _spelling(opening, text))
    following = next((mark.start for mark in later if mark.start >= opening.end), len(text))
    return Section(text[opening.end : following].strip(), opening.end, following, f"no </{name}>")


def _spelling(mark: Mark, text: str) -> str:
    written = text[mark.start : mark.end]
    return "" if written == f"<{mark.name}>" else f"{' '.join(written.split())} for <{mark.name}>"


def _answer(text: str, marks: list[Mark], think: Section | None, rank: Section | None) -> Section | None:
    """The answer in its tag; where that is missing altogether, what follows the closed parts before it."""
    before = max((part.end for part in (think, rank) if part), default=0)
    found = _section("answer", text, marks, before) or _section("answer", text, marks)
    if found is None:
        closed = (
            part for part in (think, rank) if part and part.note != f"no </{'think' if part is think else 'rank'}>"
        )
        if not any(closed):
            return None
        found = Section(text[before:], before, len(text), "no <answer>")
    said = HALF_A_TAG.sub("", found.text) if found.end == len(text) else found.text
    return replace(found, text=TAG.sub("", FENCE.sub("", said)).strip())


def _ranking(rank: Section | None, answer: Section, n_documents: int) -> tuple[tuple[int, ...], str]:
    """The documents that the answer rests on, and what was off."""
    if rank is None:
        numbers, off = citations(answer.text), "no <rank>"
    elif NO_DOCUMENT.fullmatch(rank.text):
        return (), "" if rank.text == NONE else f"{rank.text!r:.20} in <rank>"
    else:
        numbers, off = citations(rank.text), ""
        if not numbers and not re.search(r"[^\W\d_]", re.sub(r"\bdoc(?:ument)?s?\b|\band\b", "", rank.text.lower())):
            numbers, off = (
                tuple(int(number[:9]) for number in re.findall(r"\d+", rank.text)),
                "numbers without brackets",
            )
        if not numbers:
            return (), "<rank> names no document"
    known = tuple(dict.fromkeys(number for number in numbers if 1 <= number <= n_documents))
    if len(known) < len(set(numbers)):
        off = "rank out of range"
    elif len(known) < len(numbers) and not off:
        off = "rank repeats a document"
    return known, off
