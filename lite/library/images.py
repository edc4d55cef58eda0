"""Pictures as a library keeps them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from PIL import Image, ImageChops, UnidentifiedImageError

from lite.library.ocr import NOTHING, ocr_size, placed_text, recognise
from lite.library.parts import Limits, Part, Unreadable
from lite.schema import LiteError, as_seen, open_image_file

IMAGE_SIDE = 1280  # pixels of the longer side that are kept
MOST_FRAMES = 10  # of an animation; pages of a TIFF are limited by `Limits.pages`


def as_jpeg(picture: Image.Image) -> bytes:
    """What a library keeps."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


def open_image(data: bytes) -> Image.Image:
    """What `as_jpeg` wrote, as RGB."""
    return open_image_file(io.BytesIO(data)).convert("RGB")


def read_image(source: Path | IO[bytes], ocr: bool, limits: Limits) -> Iterator[Part]:
    """The pages or frames of an image file.

    Raises:
        Unreadable: It is no image, broken, or over a limit.
    """
    pillows_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # the limit is checked below
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata
            with open_image_file(source) as image:
                if image.format == "TIFF" and image.n_frames > 1:
                    yield from _pages(image, ocr, limits)
                elif image.format in ("GIF", "WEBP", "PNG", "AVIF") and image.n_frames > 1:
                    yield from _frames(image, ocr, limits)
                else:
                    yield _part(image, ocr, limits, "", "image")
    except UnidentifiedImageError as error:
        raise Unreadable(f"it is no image, whatever its name says{_looks_like(source)}.") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise Unreadable(f"it is a damaged image ({error}).") from error
    finally:
        Image.MAX_IMAGE_PIXELS = pillows_limit


def _pages(image: Image.Image, ocr: bool, limits: Limits) -> Iterator[Part]:
    if image.n_frames > limits.pages:
        raise Unreadable(f"it has {image.n_frames:,} pages; the limit is {limits.pages:,} (--max_pages).")
    for frame in range(image.n_frames):
        image.seek(frame)
        yield _part(image, ocr, limits, f"page {frame + 1}", "page", frame + 1)


def _frames(image: Image.Image, ocr: bool, limits: Limits) -> Iterator[Part]:
    """Those of an animation that differ from the one before; of a long one, some at equal distances."""
    count = image.n_frames
    chosen = sorted({round(n * (count - 1) / (MOST_FRAMES - 1)) for n in range(MOST_FRAMES)})
    note = f"it is an animation of {count} frames, of which {len(chosen)} were read." if count > len(chosen) else ""
    before: Image.Image | None = None
    for frame in chosen:
        image.seek(frame)
        _check_pixels(image, limits)
        picture = image.convert("RGBA")
        if before is None or ImageChops.difference(picture, before).getbbox(alpha_only=False):
            yield _part(picture, ocr, limits, f"frame {frame + 1}", "image", note=note)
            note = ""
        before = picture


def _part(image: Image.Image, ocr: bool, limits: Limits, title: str, kind: str, page: int = 0, note: str = "") -> Part:
    _check_pixels(image, limits)
    picture, large = _seen(image, ocr_size(*image.size) if ocr else (IMAGE_SIDE, IMAGE_SIDE))
    found = recognise(large) if ocr else NOTHING
    text, boxes = placed_text(found, " ")
    notes = " ".join(filter(None, (note, found.note)))
    return Part(title.replace(" ", "="), kind, title, text, as_jpeg(picture), page=page, boxes=boxes, note=notes)


def _seen(image: Image.Image, size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """As seen, at the size that is kept, and at the larger one that is asked for."""
    if image.format == "JPEG":
        image.draft("RGB", size)  # decodes at a fraction of the size, where that is enough
    resampling = Image.Resampling.BOX if image.mode != "P" else Image.Resampling.NEAREST
    image.thumbnail((2 * max(size), 2 * max(size)), resampling)  # conversions of the whole would double its memory
    large = as_seen(image)
    large.thumbnail((max(size), max(size)), Image.Resampling.LANCZOS)
    if max(large.size) <= IMAGE_SIDE:
        return large, large
    kept = large.copy()
    kept.thumbnail((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.LANCZOS)
    return kept, large


def _check_pixels(image: Image.Image, limits: Limits) -> None:
    megapixels = image.width * image.height / 1e6
    if megapixels > limits.megapixels:
        raise Unreadable(f"it has {megapixels:,.0f} megapixels; the limit is {limits.megapixels} (--max_megapixels).")


def _looks_like(source: Path | IO[bytes]) -> str:
    if not isinstance(source, Path):
        return ""
    with source.open("rb") as file:
        start = file.read(200).lstrip().lower()
    return ": it holds HTML" if start.startswith((b"<!doctype", b"<html")) else ""


@cache
def enable_heic() -> None:
    """Let Pillow open .heic; needs the extra `heic`."""
    if not find_spec("pillow_heif"):
        raise LiteError("reading .heic needs the extra: pip install 'mmrag-lite[heic]'.")
    from pillow_heif import register_heif_opener

    register_heif_opener()
