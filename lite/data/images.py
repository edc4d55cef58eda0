"""Images that stay in their folder or archive until a prompt needs them."""

from __future__ import annotations

import io
import logging
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image, ImageFile

from lite.schema import open_image_file

logger = logging.getLogger(__name__)

_truncated_flag = threading.Lock()  # Pillow knows this setting for the whole process only
_seen_truncated: set[str] = set()


class Store(Protocol):
    """Where the bytes of images are: a folder, or WebQA's archive."""

    def read(self, key: str | int) -> bytes: ...

    def where(self, key: str | int) -> str: ...


@dataclass(frozen=True)
class Folder:
    """A folder of image files; the key is the path inside it."""

    path: Path

    def read(self, key: str) -> bytes:
        return (self.path / key).read_bytes()

    def where(self, key: str) -> str:
        return str(self.path / key)


@dataclass(frozen=True, slots=True)
class LazyImage:
    """What `Document.image` holds: calling it reads and decodes the image. Hundreds of thousands fit into memory, and
    a copy that was sent to another process opens its own file there."""

    store: Store
    key: str | int

    def __call__(self) -> Image.Image:
        """Decode. Of an animation the first frame; what a truncated file lacks is grey, and a warning says so.

        Raises:
            OSError: The bytes are no image that Pillow knows.
            LiteError: The archive does not hold the image.
        """
        data = self.store.read(self.key)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata, once per image
            try:
                return _decoded(data)
            except OSError:
                image = self._decode_truncated(data)
        if str(self) not in _seen_truncated:
            _seen_truncated.add(str(self))
            logger.warning("%s is truncated: what is missing of the image stays grey.", self)
        return image

    def _decode_truncated(self, data: bytes) -> Image.Image:
        with _truncated_flag:
            ImageFile.LOAD_TRUNCATED_IMAGES = True
            try:
                return _decoded(data)
            finally:
                ImageFile.LOAD_TRUNCATED_IMAGES = False

    def size(self) -> tuple[int, int]:
        """(width, height), read from the header alone."""
        with open_image_file(io.BytesIO(self.store.read(self.key))) as image:
            return image.size

    def __str__(self) -> str:
        return self.store.where(self.key)


def _decoded(data: bytes) -> Image.Image:
    image = open_image_file(io.BytesIO(data))
    image.load()
    return image
