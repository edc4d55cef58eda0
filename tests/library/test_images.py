"""Pictures of all kinds: frames of animations, names of formats, shapes that models refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, features

from lite.library.images import IMAGE_SIDE, MOST_FRAMES
from lite.library.readers import Limits, Unreadable, read_file
from lite.library.workers import read_documents


def frames(count: int, same: int = 0) -> list[Image.Image]:
    """Pictures that differ, the first of them `same` more times."""
    colors = [(20 * n % 256, 250 - 20 * n % 250, n) for n in range(count)]
    return [Image.new("RGB", (60, 40), color) for color in [colors[0]] * same + colors]


def save(path: Path, pictures: list[Image.Image]) -> Path:
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)
    return path


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_frames_that_differ_are_documents(tmp_path: Path, suffix: str) -> None:
    documents = read_documents([save(tmp_path / f"a.{suffix}", frames(3))], ocr=False)
    assert [document.title for document in documents] == ["a: frame 1", "a: frame 2", "a: frame 3"]
    middles = [document.load_image().getpixel((30, 20)) for document in documents]
    assert [middle[0] for middle in middles] == pytest.approx([0, 20, 40], abs=6)


def test_frames_that_are_alike_are_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.webp").write_bytes(b"")
    pictures = frames(2, same=3)
    pictures[0].save(tmp_path / "a.webp", save_all=True, append_images=pictures[1:], lossless=True, minimize_size=False)
    assert len(read_documents([tmp_path / "a.webp"], ocr=False)) == 2


def test_of_long_animations_some_frames_are_read_and_that_is_said(tmp_path: Path, caplog) -> None:
    documents = read_documents([save(tmp_path / "a.gif", frames(40))], ocr=False)
    assert len(documents) == MOST_FRAMES
    assert documents[0].title == "a: frame 1"
    assert documents[-1].title == "a: frame 40"
    assert f"an animation of 40 frames, of which {MOST_FRAMES} were read" in caplog.text


def test_pages_of_a_tiff_are_limited(tmp_path: Path) -> None:
    save(tmp_path / "a.tiff", frames(4))
    assert len(read_file(tmp_path / "a.tiff", False, Limits(pages=4))) == 4
    with pytest.raises(Unreadable, match=r"4 pages; the limit is 3 \(--max_pages\)"):
        read_file(tmp_path / "a.tiff", False, Limits(pages=3))


@pytest.mark.parametrize(("suffix", "kind"), [("jfif", "JPEG"), ("avif", "AVIF"), ("PNG", "PNG"), ("jpg", "WEBP")])
def test_other_names_and_kinds(tmp_path: Path, suffix: str, kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    Image.new("RGB", (80, 40), "red").save(tmp_path / f"a.{suffix}", kind)
    (document,) = read_documents([tmp_path / f"a.{suffix}"], ocr=False)
    assert document.load_image().getpixel((40, 20)) == pytest.approx((255, 0, 0), abs=12)


@pytest.mark.parametrize("size", [(20_000, 30), (30, 20_000), (5000, 1), (1, 300), (400, 3)])
def test_thin_images_are_no_thinner_than_models_take(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, "black").save(tmp_path / "a.png")
    (document,) = read_documents([tmp_path / "a.png"], ocr=False)
    shown = document.load_image()
    assert max(shown.size) <= 100 * min(shown.size)
    assert max(shown.size) <= IMAGE_SIDE
    assert (shown.width > shown.height) == (size[0] > size[1])
    assert min(shown.convert("L").getextrema()) < 200  # what it shows is still there
