"""A folder as a library: what is kept up to date, what a kill leaves behind, and what a search finds."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast

from lite.cli import main as cli
from lite.library.images import open_image
from lite.library.readers import Limits
from lite.library.store import VECTORS, Library
from lite.runs import TINY
from lite.schema import LiteError

PARTS = 3  # documents of each file that `many_files` makes
INDEXER = """
import sys
from lite.library import store, update
update.BATCH_ROWS = 12  # many transactions
print("ready", flush=True)
store.Library.open(sys.argv[2], create=True).index(sys.argv[1], ocr=False)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "papers"
    (folder / "sub").mkdir(parents=True)
    (folder / "pump.md").write_text("# Pump\n\nThe pump needs three bar.\n\n# Valve\n\nThe valve is red.")
    (folder / "sub" / "prices.csv").write_text("item,price\nvalve,7\npump,300\n")
    Image.new("RGB", (60, 40), "red").save(folder / "sub" / "red_square.png")
    return folder


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library.open(tmp_path / "library", create=True)


def ids(library: Library) -> list[str]:
    return sorted(document.id for document in library.documents())


# --------------------------------------------------------------------------------------------------------------- index


def test_only_what_changed_is_read(folder: Path, library: Library) -> None:
    first = library.index(folder, ocr=False)
    assert (first.added, first.documents, first.problems) == (3, 4, [])
    again = library.index(folder, ocr=False)
    assert (again.unchanged, again.added, again.changed, again.removed) == (3, 0, 0, 0)
    os.utime(folder / "pump.md")
    assert library.index(folder, ocr=False).unchanged == 3  # the content counts, not the date
    (folder / "pump.md").write_text("# Pump\n\nThe pump needs four bar.")
    (folder / "new.txt").write_text("A new note.")
    (folder / "sub" / "prices.csv").unlink()
    third = library.index(folder, ocr=False)
    assert (third.added, third.changed, third.removed, third.unchanged) == (1, 1, 1, 1)
    assert ids(library) == ["papers/new.txt#part=1", "papers/pump.md#part=1", "papers/sub/red_square.png"]
    assert [hit.document.text for hit in library.search("pump bar")] == ["The pump needs four bar."]
    assert library.search("price of the valve") == []


def test_a_damaged_file_is_reported_and_its_old_documents_go(folder: Path, library: Library) -> None:
    library.index(folder, ocr=False)
    (folder / "sub" / "red_square.png").write_bytes(b"<html>")
    (folder / "empty.pdf").write_bytes(b"")
    report = library.index(folder, ocr=False)
    assert [problem.split(": ")[0] for problem in report.problems] == [
        str(folder / "empty.pdf"), str(folder / "sub" / "red_square.png"),
    ]  # fmt: skip
    assert report.documents == 3


def test_a_folder_whose_disk_is_away_is_not_forgotten(folder: Path, library: Library, tmp_path: Path) -> None:
    library.index(folder, ocr=False)
    folder.rename(tmp_path / "unmounted")
    namesake = tmp_path / "elsewhere" / folder.name
    namesake.mkdir(parents=True)
    (namesake / "other.txt").write_text("Another folder of that name.")
    refusal = r"holds none of the 3 files.*Nothing was changed.*--forget"
    with pytest.raises(LiteError, match=refusal):
        library.index(namesake, ocr=False)
    folder.mkdir()
    with pytest.raises(LiteError, match=refusal):
        library.index(folder, ocr=False)
    assert len(library) == 4
    assert library.forget(folder) == 3
    assert len(library) == 0


def test_links_hidden_files_and_other_kinds_are_left_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("The secret is outside.")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "links").symlink_to(tmp_path)
    (folder / ".hidden.txt").write_text("hidden")
    (folder / "program.exe").write_bytes(b"MZ")
    os.mkfifo(folder / "pipe.txt")
    library = Library.open(folder / "library", create=True)  # inside what is indexed
    report = library.index(folder, ocr=False)
    assert (report.added, report.documents) == (3, 4)
    assert report.kinds == Counter({"link": 2, ".exe": 1, "other": 1})
    assert library.search("secret outside") == []


@pytest.mark.parametrize(
    "name", ['it\'s "quoted".txt', "new\nline.txt", "🙂 emoji.txt", "a' OR '1'='1.txt", "[3] x.txt"]
)
def test_any_file_name(folder: Path, library: Library, name: str) -> None:
    library.index(folder, ocr=False)
    (folder / name).write_text("Zebra crossing.")
    library.index(folder, ocr=False)
    (hit,) = library.search("zebra")
    assert hit.document.id == f"papers/{name}#part=1"
    assert "\n" not in hit.document.title
    (folder / name).unlink()
    assert library.index(folder, ocr=False).removed == 1
    assert len(library) == 4


def test_names_that_are_not_utf8_stay_apart(folder: Path, library: Library) -> None:
    for byte in (b"\xff", b"\xfe"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + byte + b".txt")).write_text("Zebra.")
    library.index(folder, ocr=False)
    assert len({hit.document.id for hit in library.search("zebra")}) == 2
    assert library.index(folder, ocr=False).unchanged == 5


def test_limits_are_said(folder: Path, library: Library) -> None:
    with (folder / "big.csv").open("wb") as file:
        file.truncate(200 * 10**6)
    report = library.index(folder, ocr=False)
    assert report.added == 3
    assert "200 MB; the limit is 100 MB" in report.problems[0]
    Image.new("RGB", (1500, 1500)).save(folder / "photo.png")
    report = library.index(folder, ocr=False, limits=Limits(megapixels=2))
    assert "2 megapixels; the limit is 2 (--max_megapixels)" in report.problems[1]


def test_several_folders_share_a_library(folder: Path, library: Library, tmp_path: Path) -> None:
    library.index(folder, ocr=False)
    other = tmp_path / "other"
    other.mkdir()
    (other / "pump.md").write_text("The other pump.")
    assert library.index(other, ocr=False).documents == 5
    assert library.index(folder, ocr=False).unchanged == 3
    twin = tmp_path / "elsewhere" / "papers"
    shutil.copytree(folder, twin)
    with pytest.raises(LiteError, match="another folder of that name"):
        library.index(twin, ocr=False)
    shutil.rmtree(folder)
    assert library.index(twin, ocr=False).unchanged == 3  # the folder was moved


def test_progress_counts_to_the_end(folder: Path, library: Library) -> None:
    seen: list[tuple[int, int, int]] = []
    library.index(folder, ocr=False, progress=lambda *counts: seen.append(counts))
    assert seen[-1] == (3, 3, 4)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


def test_one_writer_at_a_time(folder: Path, library: Library) -> None:
    other = Library.open(library.address)
    with library._locked(), pytest.raises(LiteError, match="Another run is writing"):
        other.index(folder)
    assert other.index(folder, ocr=False).added == 3


def test_wrong_places_say_what_to_do(library: Library, tmp_path: Path) -> None:
    with pytest.raises(LiteError, match="lite index FOLDER --library"):
        Library.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(LiteError, match="is not a folder"):
        library.index(tmp_path / "nowhere")


def test_an_object_store_opens_with_the_same_code(folder: Path) -> None:
    library = Library.open("memory://papers", create=True)
    assert library.index(folder, ocr=False).documents == 4
    assert library.search("three bar")[0].document.id == "papers/pump.md#part=1"


def test_a_bucket_holds_a_library(folder: Path, bucket: str, capsys: pytest.CaptureFixture) -> None:
    index = ["index", str(folder), "--ocr", "off", "--library", bucket]
    with pytest.raises(LiteError, match="no library in s3://papers/library"):
        Library.open(bucket)
    assert cli.main(index) == 0
    assert "4 documents. Files: 3 added" in capsys.readouterr().out
    assert cli.main(index) == 0
    assert "0 added, 0 changed, 0 removed, 3 unchanged" in capsys.readouterr().out
    (folder / "sub" / "prices.csv").unlink()
    (folder / "pump.md").write_text("The pump needs four bar.")
    assert cli.main(index) == 0
    assert "2 documents. Files: 0 added, 1 changed, 1 removed, 1 unchanged" in capsys.readouterr().out
    assert cli.main(["search", "price of the valve", "--library", bucket]) == 3
    assert cli.main(["search", "four bar", "--library", bucket]) == 0
    assert "papers/pump.md#part=1" in capsys.readouterr().out


@pytest.mark.parametrize("address", ["s3://no-such-bucket/library", "nonsense://papers/library"])
def test_an_object_store_that_does_not_answer_is_one_message(
    bucket: str, address: str, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    assert cli.main(["index", str(folder), "--library", address]) == 1
    assert f"Cannot open the library in {address}" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------------- kills


def many_files(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        sections = (f"# Section {part}\n\nFile {number} says {number * part}." for part in range(PARTS))
        (folder / f"file{number:03}.md").write_text("\n\n".join(sections))


def start_indexing(folder: Path, address: Path) -> subprocess.Popen:
    """A run of `INDEXER` that has got as far as its first line."""
    command = [sys.executable, "-c", INDEXER, str(folder), str(address)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def check_kills(tmp_path: Path, kills: int) -> None:
    """Start indexing and kill it, again and again, at any moment of a run; each time look at what is there."""
    folder, address = tmp_path / "papers", tmp_path / "library"
    many_files(folder, 150)
    process, start = start_indexing(folder, tmp_path / "unbroken"), time.monotonic()
    assert process.wait() == 0
    unbroken = time.monotonic() - start  # on this machine, under its load
    rng = random.Random(0)
    for _ in range(kills):
        process = start_indexing(folder, address)
        time.sleep(rng.uniform(0, unbroken))
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = ids(Library.open(address, create=True))
        assert len(found) == len(set(found))
        assert set(Counter(i.split("#")[0] for i in found).values()) <= {PARTS}
    library = Library.open(address)
    before = len(library)
    assert kills < 20 or before > 0  # some came in the middle
    report = library.index(folder, ocr=False)
    assert report.added + report.unchanged == 150
    assert report.unchanged * PARTS == before
    assert ids(library) == sorted({f"papers/file{n:03}.md#part={p + 1}" for n in range(150) for p in range(PARTS)})
    assert {hit.document.id.split("#")[0] for hit in library.search("file 77")} >= {"papers/file077.md"}
    assert not library.is_stale()


def test_killed_at_random(tmp_path: Path) -> None:
    check_kills(tmp_path, 3)


@pytest.mark.slow
def test_killed_twenty_times_at_random(tmp_path: Path) -> None:
    check_kills(tmp_path, 20)


# --------------------------------------------------------------------------------------------------------------- search


def test_search_finds_words_titles_and_ignores_syntax(folder: Path, library: Library) -> None:
    library.index(folder, ocr=False)
    assert library.search("What does the valve cost?", 1)[0].document.kind in ("table", "text")
    (image,) = [hit.document for hit in library.search("red square") if hit.document.kind == "image"]
    assert image.load_image().size == (60, 40)
    for odd in ('"', "a AND (b OR", "+pump -bar", "x:y*", "🙂", "'; DROP TABLE documents", "the of and"):
        library.search(odd)
    hits = library.search("pump bar valve")
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len(library.search("pump bar valve", 1)) == 1


def test_hybrid_finds_what_shares_no_whole_word(folder: Path, tmp_path: Path, static_model: str) -> None:
    words = Library.open(tmp_path / "words", create=True)
    hybrid = Library.open(tmp_path / "hybrid", create=True, embedding=static_model)
    for library in (words, hybrid):
        library.index(folder, ocr=False)
    assert words.search("xyzzy") == []
    assert len(hybrid.search("xyzzy")) == 4  # every document has a vector
    assert hybrid.search("The pump needs three bar.", 1)[0].document.id == "papers/pump.md#part=1"
    (folder / "new.txt").write_text("Zebra crossing.")
    hybrid.index(folder, ocr=False)
    assert hybrid.search("zebra crossing", 1)[0].document.id == "papers/new.txt#part=1"
    with pytest.raises(LiteError, match="was made with the embedding"):
        Library.open(tmp_path / "words", embedding=static_model)
    assert Library.open(tmp_path / "hybrid").embedding == static_model


def test_many_vectors_get_an_index_that_follows_the_folder(
    tmp_path: Path, static_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    for file in range(4):
        sections = (f"# Flag {n}\n\nThe flag of place {n} has {n} stars." for n in range(80 * file, 80 * file + 80))
        (notes / f"flags{file}.md").write_text("\n\n".join(sections))
    library = Library.open(tmp_path / "library", create=True, embedding=static_model)
    library.index(notes, ocr=False)
    assert library._table.index_stats(VECTORS) is None
    few = [hit.document.id for hit in library.search("stars of place 123", 5)]
    monkeypatch.setattr("lite.library.store.VECTOR_INDEX_ROWS", 320)
    (notes / "new.md").write_text("# Green\n\nA green field with a moon.")
    library.index(notes, ocr=False)
    stats = library._table.index_stats(VECTORS)
    assert (stats.num_indexed_rows, stats.num_unindexed_rows) == (321, 0)
    library._table.drop_index(VECTORS)  # as if the run had been stopped before it made this one
    library.index(notes, ocr=False)
    assert library._table.index_stats(VECTORS).num_indexed_rows == 321
    assert library.search("stars of place 123", 5)[0].document.id == few[0]
    assert library.search("green moon", 1)[0].document.id == "notes/new.md#part=1"


@pytest.fixture(scope="module")
def seeing_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CLIP with random weights: it puts texts and images into one space, without sense."""
    folder = str(tmp_path_factory.mktemp("seeing"))
    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(TINY / "tokenizer.json"), pad_token=end, eos_token=end, bos_token=end, model_max_length=64
    )
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.eos_token_id}
    text = ends | shape | {"vocab_size": len(tokenizer), "max_position_embeddings": 64}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=shape | {"image_size": 32, "patch_size": 16}, projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    pixels = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(pixels, tokenizer).save_pretrained(folder)
    return folder


def test_an_embedding_that_sees_embeds_the_pictures(folder: Path, tmp_path: Path, seeing_model: str) -> None:
    library = Library.open(tmp_path / "library", create=True, embedding=seeing_model)
    library.index(folder, ocr=False)
    rows = {row["id"]: row for row in library._table.search().limit(None).to_list()}
    image = rows["papers/sub/red_square.png"]
    seen = SentenceTransformer(seeing_model).encode_document(open_image(image["image"]), normalize_embeddings=True)
    assert image["vector"] == pytest.approx(seen.tolist(), abs=1e-4)
    assert len({tuple(row["vector"]) for row in rows.values()}) == 4
    assert "papers/sub/red_square.png" in [hit.document.id for hit in library.search("xyzzy")]


def test_slow_files_are_written_every_few_seconds(
    folder: Path, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lite.library.update.BATCH_SECONDS", 0)
    written: list[int] = []
    library.index(folder, ocr=False, progress=lambda done, total, documents: written.append(documents))
    assert written[:3] == [2, 3, 4]


def test_an_embedding_that_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(LiteError, match="Cannot load the embedding"):
        Library.open(tmp_path / "library", create=True, embedding=str(tmp_path / "no-model"))
    assert len(Library.open(tmp_path / "library", create=True)) == 0
