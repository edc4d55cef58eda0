"""Text of strangers on the terminal: titles, file names, questions and arguments may hold control characters."""

from __future__ import annotations

import argparse
import json
import logging
import unicodedata
from typing import NoReturn, TextIO

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
