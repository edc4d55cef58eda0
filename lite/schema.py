"""The nouns that every other module passes around."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image, UnidentifiedImageError

Kind = Literal["text", "image", "table", "page"]


class LiteError(Exception):
    """A problem that the user can mend. The command line prints it without a traceback and exits with 1."""


@dataclass(frozen=True)
class Document:
    """One thing that can be retrieved.

    Args:
        id: Unique within its corpus.
        kind: What it is: a text, an image, a table (its `text` is Markdown) or a page scan.
        title: Shown to the model before the document and to people in every report.
        text: The body; empty for a bare image.
        image: A path, or a function without arguments that opens the image (for archives such as WebQA's
            `imgs.tsv`). It is opened only when a prompt needs it, so a corpus costs no pixels.
    """

    id: str
    kind: Kind
    title: str
    text: str = ""
    image: Path | str | Callable[[], Image.Image] | None = None

    def load_image(self) -> Image.Image:
        """Open the image as RGB.

        Raises:
            LiteError: The document has no image, or its file is missing, empty or not an image.
        """
        if self.image is None:
            raise LiteError(f"Document {self.id!r} has no image.")
        try:
            if callable(self.image):
                return _rgb(self.image())
            with Image.open(self.image) as image:
                return _rgb(image)
        except FileNotFoundError as error:
            raise LiteError(
                f"Document {self.id!r}: its image {self.image} does not exist. Restore the file or remove the document."
            ) from error
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise LiteError(
                f"Document {self.id!r}: its image {self.image} cannot be read ({error}). "
                "Replace the file or remove the document."
            ) from error


def _rgb(image: Image.Image) -> Image.Image:
    """Pillow clips 16-bit grey at 255 where it should scale."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = image.convert("I").point(lambda value: value / 257)
    return image.convert("RGB")


@dataclass(frozen=True)
class Example:
    """A question over a pool of documents, with what is known of its answer.

    Args:
        id: Unique within its data set.
        question: As a person would ask it.
        documents: The candidate pool, in no particular order.
        relevant: Ids of the documents in the pool that the answer rests on.
        answers: Accepted short answers.
        category: The data set's own question type, for reports by kind.
        split: `train`, `dev` or `test`.
    """

    id: str
    question: str
    documents: tuple[Document, ...]
    relevant: frozenset[str]
    answers: tuple[str, ...] = ()
    category: str = ""
    split: str = ""
