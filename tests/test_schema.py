"""Documents and how their images are opened."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lite.schema import Document, LiteError, Trace, first_line


def document(image):
    return Document("img:xx", "image", "Flag of X", image=image)


def test_image_of_a_path_a_string_and_a_function_is_the_same(tmp_path):
    path = tmp_path / "flag.png"
    Image.new("RGB", (3, 2), (200, 30, 4)).save(path)
    for source in (path, str(path), lambda: Image.open(path)):
        image = document(source).load_image()
        assert (image.mode, image.size, image.getpixel((2, 1))) == ("RGB", (3, 2), (200, 30, 4))


def test_image_is_opened_only_when_it_is_asked_for():
    opened = []

    def image():
        opened.append(1)
        return Image.new("RGB", (1, 1))

    lazy = document(image)
    assert not opened
    lazy.load_image()
    assert opened


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("LA", (77, 255), (77, 77, 77)),
        ("RGBA", (9, 80, 200, 255), (9, 80, 200)),
    ],
)
def test_other_modes_become_rgb(tmp_path, mode, color, expected):
    Image.new(mode, (4, 4), color).save(tmp_path / "a.png")
    image = document(tmp_path / "a.png").load_image()
    assert (image.mode, image.getpixel((1, 1))) == ("RGB", expected)


def test_palette_colors_are_looked_up(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 12, 34, 56])
    for name, options in (("plain.png", {}), ("transparent.png", {"transparency": 0}), ("a.gif", {})):
        image.save(tmp_path / name, **options)
        opened = document(tmp_path / name).load_image()
        assert (opened.mode, opened.getpixel((1, 1))) == ("RGB", (12, 34, 56))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_become_rgb(tmp_path, suffix):
    Image.fromarray(np.array([[0, 65535]], np.uint16)).save(tmp_path / f"a.{suffix}")
    image = document(tmp_path / f"a.{suffix}").load_image()
    assert image.mode == "RGB"
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), (255, 255, 255)]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, suffix):
    Image.fromarray(np.full((4, 4), 0x8000, np.uint16)).save(tmp_path / f"a.{suffix}")
    assert document(tmp_path / f"a.{suffix}").load_image().getpixel((0, 0))[0] in (127, 128)


@pytest.mark.parametrize(
    ("mode", "color"), [("RGBA", (0, 0, 0, 0)), ("LA", (0, 0)), ("PA", (0, 0)), ("RGBa", (0, 0, 0, 0))]
)
def test_transparency_is_white(mode, color):
    assert document(lambda: Image.new(mode, (4, 4), color)).load_image().getpixel((1, 1)) == (255, 255, 255)


def test_half_transparent_black_is_grey_and_a_transparent_palette_color_white(tmp_path):
    half = document(lambda: Image.new("RGBA", (4, 4), (0, 0, 0, 128))).load_image()
    assert half.getpixel((1, 1))[0] in (127, 128)
    Image.new("P", (4, 4), 0).save(tmp_path / "a.png", transparency=0)
    assert document(tmp_path / "a.png").load_image().getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (3, 1)), (6, (1, 0)), (8, (0, 3))])
def test_photos_stand_upright_as_their_camera_says(tmp_path, orientation, corner):
    photo = Image.new("RGB", (4, 2), "black")
    photo.putpixel((0, 0), (255, 255, 255))
    exif = photo.getexif()
    exif[0x0112] = orientation
    photo.save(tmp_path / "photo.png", exif=exif)  # without a JPEG's losses
    seen = document(tmp_path / "photo.png").load_image()
    assert seen.size == ((4, 2) if orientation in (1, 3) else (2, 4))
    assert seen.getpixel(corner) == (255, 255, 255)


def png_bytes(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    return (tmp_path / "whole.png").read_bytes()


def test_damaged_files_are_named_with_their_document(tmp_path):
    whole = png_bytes(tmp_path)
    contents = {
        "empty.png": b"",
        "header.png": whole[:20],
        "half.png": whole[: len(whole) // 2],
        "flipped.png": whole[:200] + bytes(len(whole) - 200),
        "page.jpg": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "words.png": b"not an image",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(LiteError, match=f"img:xx.*{name}.* cannot be read"):
            document(tmp_path / name).load_image()


@pytest.mark.parametrize("suffix", ["jpg", "png", "eps"])
@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"),
        ("PPM", b"P6\n1 1\n255\nabc"),
        ("XBM", b"#define i_width 8\n#define i_height 1\nstatic char i_bits[] = {\n0x00};\n"),
        ("PCX", None),
    ],
)
def test_formats_that_nobody_needs_are_refused_whatever_the_name(tmp_path, suffix, kind, content):
    path = tmp_path / f"a.{suffix}"
    if content is None:
        Image.new("RGB", (9, 9)).save(path, kind)
    else:
        path.write_bytes(content)
    with Image.open(path) as image:
        assert image.format == kind  # Pillow by itself takes it
    with pytest.raises(LiteError, match="it is none of PNG, JPEG"):
        document(path).load_image()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_format_is_taken_whatever_the_name(tmp_path, kind):
    Image.new("RGB", (9, 7), "red").save(tmp_path / "a.dat", kind)
    assert document(tmp_path / "a.dat").load_image().size == (9, 7)


def test_missing_file_and_folder_are_named_with_their_document(tmp_path):
    with pytest.raises(LiteError, match=r"img:xx.*gone\.png does not exist"):
        document(tmp_path / "gone.png").load_image()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(LiteError, match=r"img:xx.*folder\.png cannot be read"):
        document(tmp_path / "folder.png").load_image()


def test_function_that_fails_is_reported_with_its_document(tmp_path):
    (tmp_path / "half.png").write_bytes(png_bytes(tmp_path)[:500])
    with pytest.raises(LiteError, match="img:xx"):
        document(lambda: Image.open(tmp_path / "half.png")).load_image()
    with pytest.raises(LiteError, match="img:xx"):
        document(lambda: Image.open(tmp_path / "gone.png")).load_image()


def test_document_without_image_says_so():
    with pytest.raises(LiteError, match="'txt:xx' has no image"):
        Document("txt:xx", "text", "X", "A text.").load_image()


# --------------------------------------------------------------------------------------------------------------- traces


def fields() -> dict:
    """A trace over three documents, one of them switched off."""
    documents = [{"id": i, "kind": "text", "title": i, "text": f"Text of {i}."} for i in "abc"]
    return {
        "question": "Q?", "documents": documents[:2], "retrieved": ["b", "a"], "scores": {"a": 0.25, "b": 1},
        "kept": ["a"], "dropped": ["b"], "shown": ["a"], "reasoning": "[1] a.", "cited": ["a"], "ranking": ["a"],
        "answer": "A", "raw": "raw", "failure": "", "seconds": {"stage 1": 0.5}, "threshold": 0.1,
        "switched_off": [documents[2] | {"place": 1, "score": 0.7}],
    }  # fmt: skip


def test_a_trace_is_read_back_as_it_was_and_so_is_one_of_an_earlier_version():
    trace = Trace.from_json(json.dumps(fields()))
    assert Trace.from_json(trace.to_json()) == trace
    assert (trace.threshold, trace.switched_off[0]["place"]) == (0.1, 1)
    old = {name: value for name, value in fields().items() if name not in ("threshold", "switched_off", "failure")}
    assert (Trace.from_json(json.dumps(old)).threshold, Trace.from_json(json.dumps(old)).switched_off) == (None, ())


BIG = 10**400
OFF = fields()["switched_off"][0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"scores": {"a": BIG, "b": 0}}, {"scores": {"a": -BIG, "b": 0}}, {"scores": {"a": "0.5", "b": 0}},
        {"scores": {"a": float("nan"), "b": 0}}, {"scores": {"a": float("inf"), "b": 0}},
        {"scores": {"a": True, "b": 0}}, {"scores": [0.5, 0.5]}, {"scores": None}, {"scores": {"a": 0.5}},
        {"seconds": {"stage 1": BIG}}, {"seconds": {"stage 1": float("inf")}}, {"seconds": {"stage 1": -1}},
        {"seconds": {"\ud800": 1}}, {"seconds": ["stage 1"]}, {"threshold": BIG}, {"threshold": float("-inf")},
        {"threshold": "0.5"}, {"threshold": [0.5]}, {"question": "\ud800"}, {"answer": "a\udfff"}, {"raw": 5},
        {"kept": ["a", "a"]}, {"kept": "a", "shown": ["b"]}, {"retrieved": ["a", "b", "a"]}, {"cited": ["b"]},
        {"dropped": ["a"]}, {"shown": [["a"]]}, {"documents": [{"id": "a"}]}, {"documents": "ab"},
        {"switched_off": [OFF | {"place": 9}]}, {"switched_off": [OFF | {"place": BIG}]}, {"switched_off": [OFF, OFF]},
        {"switched_off": [OFF | {"score": float("nan")}]}, {"switched_off": [OFF | {"place": 0.5}]},
        {"switched_off": [OFF | {"id": "a"}]}, {"switched_off": [OFF | {"title": "\ud800"}]}, {"x" * 5000: 1},
    ],
)  # fmt: skip
def test_what_cannot_be_a_trace_gives_one_sentence(wrong):
    for text in (json.dumps(fields() | wrong), json.dumps(fields() | wrong).replace("1" + "0" * 400, "1" + "0" * 5000)):
        with pytest.raises(LiteError, match="This is not a trace") as refused:
            Trace.from_json(text)
        assert len(str(refused.value)) < 400
        assert str(refused.value).isprintable()


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner)))
def test_no_value_of_any_field_gives_another_error(value):
    for name in fields():
        try:
            Trace.from_json(json.dumps(fields() | {name: value}))
        except LiteError:
            continue


@pytest.mark.parametrize(
    ("message", "line"),
    [("", "no message"), ("\n \n", "no message"), ("\n  No such file\n  at 0x1", "No such file"), ("a\r\nb", "a")],
)
def test_the_first_line_of_a_message_that_may_hold_none(message, line):
    assert first_line(OSError(message)) == line
