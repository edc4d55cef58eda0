"""Pictures as a library keeps them, and the text in them."""

from __future__ import annotations

import io
import os
from functools import cache
from importlib.util import find_spec

from PIL import Image

from lite.schema import LiteError, as_seen, open_image_file

IMAGE_SIDE = 1280  # pixels of the longer side that are kept


def reduced(image: Image.Image) -> Image.Image:
    """As seen, at the size that is kept."""
    if image.format == "JPEG":
        image.draft("RGB", (IMAGE_SIDE, IMAGE_SIDE))  # decodes at a fraction of the size, where that is enough
    resampling = Image.Resampling.BOX if image.mode != "P" else Image.Resampling.NEAREST
    image.thumbnail((2 * IMAGE_SIDE, 2 * IMAGE_SIDE), resampling)  # conversions of the whole would double its memory
    image = as_seen(image)
    image.thumbnail((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.LANCZOS)
    return image


def as_jpeg(picture: Image.Image) -> bytes:
    """What a library keeps."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


def open_image(data: bytes) -> Image.Image:
    """What `as_jpeg` wrote, as RGB."""
    return open_image_file(io.BytesIO(data)).convert("RGB")


def ocr_installed() -> bool:
    """Whether the extra `ocr` is there."""
    return bool(find_spec("rapidocr") and find_spec("onnxruntime"))


def text_in(picture: Image.Image) -> str:
    """What is written in a picture, by line; needs the extra `ocr`.

    Raises:
        LiteError: The recognition does not start.
    """
    import numpy as np

    found = _ocr_engine()(np.asarray(picture)[:, :, ::-1])  # it wants blue first
    return "\n".join(line for line in found.txts or () if any(c.isalnum() for c in line))  # a stripe is no dash


@cache
def _ocr_engine():
    try:
        from rapidocr import RapidOCR
    except ImportError as error:
        raise LiteError(f"text recognition does not start ({error}). --ocr off goes on without it.") from error
    threads = int(os.environ.get("OMP_NUM_THREADS", "-1"))
    return RapidOCR(params={"Global.log_level": "critical", "EngineConfig.onnxruntime.intra_op_num_threads": threads})


@cache
def enable_heic() -> None:
    """Let Pillow open .heic; needs the extra `heic`."""
    if not find_spec("pillow_heif"):
        raise LiteError("reading .heic needs the extra: pip install 'mmrag-lite[heic]'.")
    from pillow_heif import register_heif_opener

    register_heif_opener()
