"""The nouns that every other module passes around."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Literal

from PIL import Image, ImageOps, UnidentifiedImageError

Kind = Literal["text", "image", "table", "page"]

# What an image file may be, whatever its name is. Pillow knows forty more formats, some of which start other programs
# (PostScript) or are seldom tested.
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF")

# Of an image that a model is shown: its sides' largest ratio, and the pixels of the longer one where it is exceeded.
LARGEST_RATIO, LONGEST_STRIPE = 100, 4096


class LiteError(Exception):
    """A problem that the user can fix. The command line prints it without a traceback and exits with 1."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message that holds anything; many go on with a traceback or a list of hints."""
    return next(filter(None, map(str.strip, str(error).splitlines())), "no message")


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
        page: Of the file it comes from, from 1; 0 where that has no pages.
        boxes: Where on the page the text stands, see `lite.library.parts.unpacked_boxes`; empty where not known.
    """

    id: str
    kind: Kind
    title: str
    text: str = ""
    image: Path | str | Callable[[], Image.Image] | None = None
    page: int = 0
    boxes: bytes = b""

    def load_image(self) -> Image.Image:
        """Open the image, see `as_seen`.

        Raises:
            LiteError: The document has no image, or its file is missing, empty or not an image.
        """
        if self.image is None:
            raise LiteError(f"Document {self.id!r} has no image.")
        try:
            if callable(self.image):
                return as_seen(self.image())
            with open_image_file(self.image) as image:
                return as_seen(image)
        except FileNotFoundError as error:
            raise LiteError(
                f"Document {self.id!r}: its image {self.image} does not exist. Restore the file or remove the document."
            ) from error
        except LiteError:
            raise
        except Exception as error:  # whatever Pillow raises for a damaged file
            kinds = f"it is none of {', '.join(IMAGE_FORMATS)}"
            reason = kinds if isinstance(error, UnidentifiedImageError) else error or type(error).__name__
            raise LiteError(
                f"Document {self.id!r}: its image {str(self.image)[:300]} cannot be read ({reason}). "
                "Replace the file or remove the document."
            ) from error


def open_image_file(source: Path | str | IO[bytes]) -> Image.Image:
    """`PIL.Image.open` for the formats in `IMAGE_FORMATS` that are installed, and no others.

    Raises:
        UnidentifiedImageError: The file is of another format, or no image.
    """
    Image.init()
    return Image.open(source, formats=[name for name in IMAGE_FORMATS if name in Image.OPEN])


def as_seen(image: Image.Image) -> Image.Image:
    """RGB as a person sees the image: upright, as a camera's Exif says, and on white where it is transparent.

    An image so narrow that models refuse it gets white margins, see `shown_size`.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = image.convert("I").point(lambda value: value / 257)  # Pillow would clip 16-bit grey at 255
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if (size := shown_size(*image.size)) == image.size:
        return image.convert("RGB")
    image.thumbnail(size)
    canvas = Image.new("RGB", size, "white")
    canvas.paste(image.convert("RGB"), ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return canvas


def shown_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of an image as `as_seen` gives it, in pixels: its own, but no side is more than 100 times the
    other, as Qwen's processor refuses 200."""
    long, short = max(width, height), max(1, min(width, height))
    if long <= LARGEST_RATIO * short:
        return width, height
    long = min(long, LONGEST_STRIPE)
    least = -(-long // LARGEST_RATIO)
    return (long, least) if width > height else (least, long)


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
        keywords: What an answer must contain, where the data set names it apart from the answers (WebQA).
        metric: How answers are scored, see `lite.metrics.answers.answer_score`.
    """

    id: str
    question: str
    documents: tuple[Document, ...]
    relevant: frozenset[str]
    answers: tuple[str, ...] = ()
    category: str = ""
    split: str = ""
    keywords: str = ""
    metric: str = ""


def described(documents: Sequence[Document]) -> tuple[dict, ...]:
    """Documents as a trace lists them."""
    return tuple(
        {"id": d.id, "kind": d.kind, "title": d.title, "text": d.text}
        | ({} if d.image is None or callable(d.image) else {"image": str(d.image)})
        for d in documents
    )


def digest(examples: Sequence[Example]) -> str:
    """Tells sets of examples apart by their questions and documents; what is on an image does not count."""
    found = hashlib.sha256()
    for example in examples:
        documents = [(document.id, document.title, document.text) for document in example.documents]
        found.update(repr((example.id, example.question, documents)).encode())
    return found.hexdigest()


@dataclass(frozen=True)
class Trace:
    """All that happened to one question: what was found, kept, said and answered.

    Args:
        question: As asked.
        documents: `id`, `kind`, `title`, `text` and, if it has a file, `image` of every document that was looked at.
        retrieved: Ids in the order of retrieval.
        scores: P(relevant) of stage 1 by id; empty where stage 1 did not run.
        kept: Ids that stage 2 saw, in stage 1's order.
        dropped: Ids that passed stage 1's threshold but not stage 2's budget, best first.
        shown: `kept` in the order of the prompt: `[1]` in the reasoning is the first.
        reasoning: The chain, citing documents as `[1]`.
        cited: Ids that the answer rests on, best first (`<rank>`).
        ranking: `cited`, then the rest of `kept` in stage 1's order.
        answer: The answer; the raw text where the output was malformed.
        raw: What the model said.
        failure: Why the output is malformed; empty when it is well formed.
        seconds: Time by step.
        threshold: Of P(relevant), where stage 1 ran; None in traces of earlier versions.
        switched_off: What was retrieved, too, and then switched off by hand: `id`, `kind`, `title`, `text`, its `place`
            in the order of retrieval among all documents, from 0, and its `score`.
        untrained: Whether the model has no adapters: no threshold was tuned, and a fixed number of documents was kept.
        fused: Whether those are the best by the ranks of search and of stage 1's scores together.
        quotes: What the chain quotes, in its order: `id` of the document, `quote`, `found` (whether it stands there),
            `start` and `end` in its text, `page` from 1 (the three None where that is not known), `boxes`: `[left, top,
            right, bottom]` per line, as fractions of the page or image.
        note: What a reader must know of it: how an output was read that was a little off its form, or that no model
            was asked.
    """

    question: str
    documents: tuple[dict, ...]
    retrieved: tuple[str, ...]
    scores: dict[str, float]
    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    shown: tuple[str, ...]
    reasoning: str
    cited: tuple[str, ...]
    ranking: tuple[str, ...]
    answer: str
    raw: str
    failure: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    threshold: float | None = None
    switched_off: tuple[dict, ...] = ()
    untrained: bool = False
    note: str = ""
    fused: bool = False
    quotes: tuple[dict, ...] = ()

    @property
    def format_ok(self) -> bool:
        return not self.failure

    def to_json(self) -> str:
        """One line of JSON; `from_json` reads it back."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Trace:
        """Raises LiteError where `line` is not what `to_json` wrote; it may come from anybody."""
        lists = ("documents", "retrieved", "kept", "dropped", "shown", "cited", "ranking", "switched_off", "quotes")
        try:
            line.encode()  # of a file read with surrogateescape
            fields = json.loads(line, parse_constant=_no_number)
            trace = cls(**{name: tuple(value) if name in lists else value for name, value in fields.items()})
            _check(trace)
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            reason = repr(str(error)[:200])[1:-1]  # it may quote the file
            raise LiteError(f"This is not a trace ({reason}). Give a file that lite wrote.") from error
        return trace


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _check(trace: Trace) -> None:
    """Raises ValueError or another error of Python's where a field holds what it cannot."""
    documents = (*trace.documents, *trace.switched_off)
    texts = [trace.question, trace.reasoning, trace.answer, trace.raw, trace.failure, trace.note, *trace.seconds]
    texts += [document[name] for document in documents for name in ("id", "kind", "title", "text")]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a text is not a string")
    json.dumps(asdict(trace), ensure_ascii=False).encode()  # half of a surrogate pair is no character
    ids = {document["id"] for document in trace.documents}
    if len(ids) < len(trace.documents) or set(trace.retrieved) != ids or len(trace.retrieved) != len(ids):
        raise ValueError("`retrieved` does not list the documents")
    for name in ("kept", "dropped", "shown", "cited", "ranking"):
        listed = getattr(trace, name)
        if len(set(listed)) < len(listed) or not ids.issuperset(listed):
            raise ValueError(f"`{name}` lists a document twice, or one that does not exist")
    if set(trace.shown) != set(trace.kept) or not set(trace.cited) <= set(trace.ranking) <= set(trace.kept):
        raise ValueError("`kept`, `shown`, `ranking` and `cited` do not fit together")
    if set(trace.kept) & set(trace.dropped):
        raise ValueError("a document is in both `kept` and `dropped`")
    _check_quotes(trace)
    for name in ("untrained", "fused"):
        if not isinstance(getattr(trace, name), bool):
            raise ValueError(f"`{name}` is neither true nor false")
    if trace.scores and set(trace.scores) != ids:
        raise ValueError("`scores` are not those of the documents")
    _check_numbers(trace)


def _check_quotes(trace: Trace) -> None:
    lengths = {document["id"]: len(document["text"]) for document in trace.documents}
    for quote in trace.quotes:
        place = quote["start"], quote["end"], quote["page"]
        if not isinstance(quote["quote"], str) or quote["id"] not in trace.shown or type(quote["found"]) is not bool:
            raise ValueError("a quote is of no document that was shown")
        if not all(number is None or (type(number) is int and number >= 0) for number in place):
            raise ValueError("the place of a quote is not a number")
        start, end, _ = place
        if (start is None) is not (end is None) or not (start or 0) <= (end or 0) <= lengths[quote["id"]]:
            raise ValueError("a quote ends where its document does not go")
        sides = [side for box in quote["boxes"] for side in box]
        if not all(len(box) == 4 for box in quote["boxes"]) or not all(
            type(side) in (int, float) and 0 <= side <= 1 for side in sides
        ):
            raise ValueError("a box of a quote is not four shares of the page")


def _check_numbers(trace: Trace) -> None:
    off = trace.switched_off
    places = [document["place"] for document in off]
    if not all(type(place) is int for place in places) or len(set(places)) < len(places):
        raise ValueError("a place of `switched_off` is not a number of its own")
    if not all(0 <= place < len(trace.documents) + len(off) for place in places):
        raise ValueError("a place of `switched_off` is out of range")
    if len({document["id"] for document in (*trace.documents, *off)}) < len(trace.documents) + len(off):
        raise ValueError("`switched_off` lists a document twice")
    scores = [*trace.scores.values(), *(document["score"] for document in off if document["score"] is not None)]
    # not probabilities alone: a report's base gets its documents by BM25
    if not all(type(score) in (int, float) and 0 <= score <= 1e9 for score in scores):
        raise ValueError("a score is not a number from 0")
    if not all(type(s) in (int, float) and 0 <= s <= 1e9 for s in trace.seconds.values()):
        raise ValueError("a time is not a number of seconds")
    if trace.threshold is not None and not (type(trace.threshold) in (int, float) and abs(trace.threshold) <= 1e9):
        raise ValueError("`threshold` is not a number")
