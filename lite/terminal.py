"""Text of strangers on the terminal: titles, file names, questions and arguments may hold control characters."""

from __future__ import annotations

import argparse
import json
import logging
import unicodedata
from collections.abc import Iterable
from typing import NoReturn, TextIO

import rich.console
from rich.segment import Segment
from rich.text import Text

KEPT = "\n\t\u200c\u200d"  # the last two join letters and emoji: they are not seen, and move nothing


def printable(text: str) -> str:
    """The text with a space in place of each character that could drive the terminal, turn the direction of what
    follows, or cannot be encoded. Line breaks and tabs stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in KEPT or unicodedata.category(c) == "Zs" else " " for c in text)


def printable_json(text: str) -> str:
    """JSON of the same value in which such characters are escaped instead."""
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


class Console(rich.console.Console):
    """rich's; whatever is printed by it, nothing but rich itself drives the terminal, and brackets stay brackets."""

    def __init__(self, **options):
        super().__init__(**{"markup": False, "emoji": False, **options})

    def render_str(self, text: str, **options) -> Text:
        return super().render_str(printable(text), **options)  # before its width is counted

    def render(self, *arguments, **options) -> Iterable[Segment]:
        for segment in super().render(*arguments, **options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


class ArgumentParser(argparse.ArgumentParser):
    """argparse's, whose errors repeat what the user typed."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


class LogFormatter(logging.Formatter):
    """Messages name files and texts, too."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class PrintableStream:
    """A text stream to which a library writes what strangers sent, such as the traceback of a server."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        return self.stream.write(printable(text))

    def __getattr__(self, name: str):
        return getattr(self.stream, name)
