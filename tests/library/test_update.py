"""What a library holds after folders were renamed, nested, damaged or locked, and what becomes of old libraries."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import lancedb
import pyarrow as pa
import pytest
from lancedb.index import FTS

from lite.cli import main as cli
from lite.library.parts import Part, Unreadable
from lite.library.readers import read_file
from lite.library.store import FIRST_FORMAT, FULL_TEXT, TABLE, WORDS, Library
from lite.library.update import IndexReport, _key
from lite.schema import LiteError


class Reader:
    """Reads in this process, and notes what."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, paths: Iterable[Path], ocr: bool, limits) -> Iterator[tuple[Path, list[Part] | Unreadable]]:
        for path in paths:
            self.read.append(path.name)
            try:
                yield path, read_file(path, ocr, limits)
            except Unreadable as error:
                yield path, error


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "papers"
    (folder / "2024").mkdir(parents=True)
    (folder / "pump.md").write_text("# Pump\n\nThe pump needs three bar.\n\n# Valve\n\nThe valve is red.")
    (folder / "2024" / "hedge.txt").write_text("The garden hedge is cut in May.")
    (folder / "2024" / "roof.txt").write_text("The roof is tight.")
    return folder


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library.open(tmp_path / "library", create=True)


def index(library: Library, folder: Path, reader: Reader | None = None) -> IndexReport:
    return library.index(folder, ocr=False, read=reader or Reader())


def ids(library: Library) -> list[str]:
    return sorted(document.id for document in library.documents())


def texts(library: Library) -> list[str]:
    return sorted(document.text for document in library.documents())


# --------------------------------------------------------------------------------------------------- moved and renamed


def test_a_renamed_folder_is_held_once_and_not_read_again(folder: Path, library: Library, reader: Reader) -> None:
    index(library, folder)
    before = texts(library)
    archive = folder.rename(folder.with_name("archive"))
    report = index(library, archive, reader)
    assert (report.moved, report.added, report.removed, report.documents) == (3, 0, 0, 4)
    assert reader.read == []
    assert texts(library) == before
    assert ids(library) == [
        "archive/2024/hedge.txt#part=1", "archive/2024/roof.txt#part=1", "archive/pump.md#part=1",
        "archive/pump.md#part=2",
    ]  # fmt: skip
    assert [hit.document.id for hit in library.search("hedge")] == ["archive/2024/hedge.txt#part=1"]
    assert [folder.path for folder in library.folders()] == [str(archive)]
    assert index(library, archive, reader).unchanged == 3


def test_what_a_renamed_folder_lost_meanwhile_is_removed(folder: Path, library: Library, reader: Reader) -> None:
    index(library, folder)
    archive = folder.rename(folder.with_name("archive"))
    (archive / "pump.md").unlink()
    (archive / "new.txt").write_text("A new note.")
    report = index(library, archive, reader)
    assert (report.moved, report.added, report.removed) == (2, 1, 1)
    assert reader.read == ["new.txt"]
    assert library.search("pump bar") == []


def test_a_copy_of_one_file_does_not_make_a_missing_disk_forgotten(
    folder: Path, library: Library, tmp_path: Path
) -> None:
    index(library, folder)
    folder.rename(tmp_path / "unmounted")
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "roof.txt").write_text("The roof is tight.")
    index(library, notes)
    assert len(library.search("hedge")) == len(library.search("bar")) == 1
    assert [hit.document.id for hit in library.search("roof")] == ["notes/roof.txt#part=1"]


def test_a_moved_folder_of_the_same_name_says_where_it_is(folder: Path, library: Library, tmp_path: Path) -> None:
    index(library, folder)
    (tmp_path / "it's here").mkdir()
    moved = folder.rename(tmp_path / "it's here" / "papers")
    assert index(library, moved).unchanged == 3
    assert [held.path for held in library.folders()] == [str(moved)]
    assert len(library.search("hedge")) == 1


def test_a_renamed_file_takes_its_new_name_and_is_not_read_again(
    folder: Path, library: Library, reader: Reader
) -> None:
    index(library, folder)
    (folder / "pump.md").rename(folder / "2024" / "Wasserkraft.md")
    report = index(library, folder, reader)
    assert (report.moved, report.removed, reader.read) == (1, 0, [])
    found = {hit.document.id: hit.document.title for hit in library.search("Wasserkraft")}
    assert found == {
        "papers/2024/Wasserkraft.md#part=1": "2024/Wasserkraft: Pump",
        "papers/2024/Wasserkraft.md#part=2": "2024/Wasserkraft: Valve",
    }


def test_all_files_of_a_folder_may_move_into_a_subfolder(folder: Path, library: Library, reader: Reader) -> None:
    index(library, folder)
    (folder / "all").mkdir()
    (folder / "pump.md").rename(folder / "all" / "pump.md")
    (folder / "2024").rename(folder / "all" / "2024")
    report = index(library, folder, reader)
    assert (report.moved, reader.read) == (3, [])


# ------------------------------------------------------------------------------------------------------------- overlaps


def test_a_folder_inside_an_indexed_one_is_part_of_it(folder: Path, library: Library, reader: Reader) -> None:
    index(library, folder)
    before = ids(library)
    report = index(library, folder / "2024", reader)
    assert (report.unchanged, report.added, ids(library)) == (2, 0, before)
    (folder / "2024" / "roof.txt").unlink()
    (folder / "2024" / "new.txt").write_text("A new note.")
    report = index(library, folder / "2024", reader)
    assert (report.added, report.removed, report.documents) == (1, 1, 4)
    assert "papers/2024/new.txt#part=1" in ids(library)
    assert index(library, folder).unchanged == 3


def test_a_folder_around_an_indexed_one_takes_it_in(folder: Path, library: Library, reader: Reader) -> None:
    index(library, folder / "2024")
    report = index(library, folder, reader)
    assert (report.moved, report.added, report.removed, report.documents) == (2, 1, 0, 4)
    assert reader.read == ["pump.md"]
    assert [held.path for held in library.folders()] == [str(folder)]


def test_a_changed_file_of_a_folder_that_is_taken_in_is_held_once(folder: Path, library: Library) -> None:
    index(library, folder / "2024")
    (folder / "2024" / "hedge.txt").write_text("The hedge is cut in June.")
    index(library, folder)
    assert [hit.document.text for hit in library.search("hedge")] == ["The hedge is cut in June."]


def test_a_folder_inside_one_of_its_own_name(tmp_path: Path, library: Library) -> None:
    inner = tmp_path / "papers" / "papers"
    inner.mkdir(parents=True)
    (inner / "a.txt").write_text("Inner apple.")
    (inner.parent / "a.txt").write_text("Outer pear.")
    index(library, inner)
    index(library, inner.parent)
    assert texts(library) == ["Inner apple.", "Outer pear."]
    index(library, inner.parent)
    assert ids(library) == ["papers/a.txt#part=1", "papers/papers/a.txt#part=1"]


def test_a_hidden_folder_that_was_asked_for_stays(folder: Path, library: Library) -> None:
    hidden = folder / ".notes"
    hidden.mkdir()
    (hidden / "secret.txt").write_text("A hidden note.")
    index(library, folder)
    index(library, hidden)
    index(library, folder)
    assert len(library.search("hidden note")) == 1


# ------------------------------------------------------------------------------------------------------ forget and list


def test_forget_and_list(folder: Path, library: Library, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "note.txt").write_text("Another note.")
    index(library, folder)
    index(library, other)
    place = ["--library", library.address]
    assert cli.main(["index", "--list", *place]) == 0
    assert capsys.readouterr().out == f"{other}: 1 files, 1 documents\n{folder}: 3 files, 4 documents\n"
    assert cli.main(["index", "--forget", str(folder / "2024"), *place]) == 0
    assert "2 documents" not in capsys.readouterr().err
    library = Library.open(library.address)
    assert len(library.search("hedge")) == 0
    assert (folder / "2024" / "hedge.txt").exists()
    folder.rename(tmp_path / "gone")
    cli.main(["index", "--list", *place])
    assert "no longer exists" in capsys.readouterr().out
    assert cli.main(["index", "--forget", "papers", *place]) == 0
    assert texts(Library.open(library.address)) == ["Another note."]
    assert cli.main(["index", "--forget", "nowhere", *place]) == 1
    assert f"holds nothing of nowhere. It holds: {other}" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------- what cannot be looked at


def refuse(monkeypatch: pytest.MonkeyPatch, module, name: str, place: Path, number: int = errno.EACCES) -> None:
    """Make a function of the system fail for what lies in a folder, as it does for others than root."""
    real = getattr(module, name)

    def refusing(path, *rest, **more):
        if Path(os.fsdecode(path)).is_relative_to(place):
            raise OSError(number, os.strerror(number), os.fspath(path))
        return real(path, *rest, **more)

    monkeypatch.setattr(module, name, refusing)


def test_a_folder_that_cannot_be_listed_any_more_is_kept(
    folder: Path, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(library, folder)
    before = ids(library)
    refuse(monkeypatch, os, "scandir", folder / "2024")
    report = index(library, folder)
    assert ids(library) == before
    assert (report.removed, report.unchanged) == (0, 1)
    assert report.problems == [f"{folder / '2024'}: it cannot be read (Permission denied)."]
    refuse(monkeypatch, os, "scandir", folder)  # nor the folder itself
    assert index(library, folder).problems
    assert ids(library) == before


def test_a_folder_that_can_be_listed_and_not_entered_is_one_line(
    folder: Path, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(library, folder)
    before = ids(library)
    real = Path.lstat

    def lstat(path: Path):
        if path.parent == folder / "2024":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "lstat", lstat)
    (folder / "later.txt").write_text("Read all the same.")
    report = index(library, folder)
    assert report.problems == [f"{folder / '2024'}: it cannot be read (Permission denied)."]
    assert set(ids(library)) == {*before, "papers/later.txt#part=1"}


def test_a_path_that_is_too_long_is_one_short_line(tmp_path: Path, library: Library) -> None:
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "note.txt").write_text("A note.")
    here = os.open(folder, os.O_RDONLY)
    for _ in range(25):  # of 200 letters each
        os.mkdir("d" * 200, dir_fd=here)
        deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    report = index(library, folder)
    assert report.documents == 1
    (problem,) = report.problems
    assert "File name too long" in problem
    assert len(problem) < 400


def test_files_that_vanish_while_indexing_stop_nothing(
    folder: Path, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(library, folder)
    real = Path.lstat

    def vanishing(path: Path):
        if path.name == "hedge.txt":
            path.unlink()  # before it is looked at
        return real(path)

    monkeypatch.setattr(Path, "lstat", vanishing)
    (folder / "new.txt").write_text("A new note.")

    def later(paths, ocr, limits):
        for path, found in Reader()(paths, ocr, limits):
            (folder / "2024" / "roof.txt").unlink(missing_ok=True)  # after it was listed
            yield path, found

    (folder / "2024" / "zz.txt").write_text("Read before the roof: names are in order of folders.")
    report = library.index(folder, ocr=False, read=later)
    assert report.problems == []
    index(library, folder)
    assert len(library.search("hedge roof")) == 1  # zz.txt
    assert library.search("garden") == []


# ------------------------------------------------------------------------------------------------------- old libraries


def old_library(address: Path, rows: list[dict]) -> None:
    """As lite 0.1.0 made it."""
    texts = ("key", "file", "root", "state", "id", "kind", "title", "text", "searchable")
    fields = [pa.field(name, pa.string()) for name in texts] + [pa.field("image", pa.large_binary())]
    table = lancedb.connect(address).create_table(TABLE, schema=pa.schema(fields, metadata={"embedding": "none"}))
    table.add(pa.Table.from_pylist(rows, schema=table.schema))
    table.create_index(FIRST_FORMAT, config=FTS(), name="searchable_idx")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """With a folder that exists, and one whose disk is not mounted."""
    address = tmp_path / "old"
    address.mkdir()
    rows = []
    for number, (root, path, text) in enumerate(
        [(str(tmp_path / "papers"), "pump.md", "The pump needs three bar."), ("/mnt/usb/photos", "a/b#1.txt", "水泵")]
    ):
        name = f"{Path(root).name}/{path}"
        file = _key(Path(root), Path(root) / path)
        rows.append(
            {"key": f"{file}-000000", "file": file, "root": root, "state": "20" + "0" * 64,
             "id": f"{name}#part=1", "kind": "text", "title": path, "text": text, "searchable": f"{path}\n{text}",
             "image": b"jpeg" if number else None}
        )  # fmt: skip
    old_library(address, rows)
    return address


def test_an_old_library_can_be_searched_as_before(old: Path) -> None:
    library = Library.open(old)
    assert [hit.document.id for hit in library.search("pumps")] == ["papers/pump.md#part=1"]
    assert len(list(library.documents())) == 2


def test_the_next_run_brings_an_old_library_up_to_date(folder: Path, old: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["index", str(folder), "--ocr", "off", "--library", str(old)]) == 0
    assert capsys.readouterr().err.count("earlier version") == 1
    library = Library.open(old)
    assert [hit.document.id for hit in library.search("水泵")] == ["photos/a/b#1.txt#part=1"]
    (photo,) = library.rows([_key(Path("/mnt/usb/photos"), Path("/mnt/usb/photos/a/b#1.txt"))])
    assert photo["path"] == "a/b#1.txt"
    assert (photo["image"], photo["page"]) == (b"jpeg", None)
    assert library.search("水泵")[0].document.page == 0
    assert len(library.search("bar")) == 1
    assert FIRST_FORMAT not in library._table.schema.names
    assert cli.main(["index", str(folder), "--ocr", "off", "--library", str(old)]) == 0
    assert "earlier version" not in capsys.readouterr().err


def test_an_upgrade_that_was_stopped_goes_on(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lite.library.store.UPGRADE_ROWS", 1)
    library = Library.open(old)
    real, calls = library._table.merge_insert, []

    def stopping(key: str):
        calls.append(key)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(key)

    monkeypatch.setattr(library._table, "merge_insert", stopping)
    with pytest.raises(KeyboardInterrupt):
        library.upgrade()
    again = Library.open(old)
    assert len(again.search("pump")) == 1  # half-way, by the old words
    assert again.upgrade()
    assert len(again.search("水泵")) == len(again.search("pump")) == 1
    assert not again.upgrade()
    assert again._table.index_stats(FULL_TEXT).num_unindexed_rows == 0
    assert WORDS in again._table.schema.names


# ------------------------------------------------------------------------------------------------------------ positions


def test_documents_say_where_they_are(folder: Path, library: Library) -> None:
    boxes = b"\x00" * 12

    def read(paths, ocr, limits):
        for path in paths:
            yield path, [Part("page=7", "page", "page 7", "The pump.", page=7, boxes=boxes)]

    library.index(folder, ocr=False, read=read)
    (hit, *_) = library.search("pump")
    assert (hit.document.page, hit.document.boxes) == (7, boxes)
    assert {(document.page, document.boxes) for document in library.documents()} == {(7, boxes)}
    folder.rename(folder.with_name("archive"))
    library.index(folder.with_name("archive"), ocr=False, read=read)
    assert library.search("pump")[0].document.page == 7


def test_a_folder_of_nothing_known_is_refused(folder: Path, library: Library) -> None:
    index(library, folder)
    for path in (folder / "2024").iterdir():
        path.unlink()
    with pytest.raises(LiteError, match=r"holds none of the 2 files.*lite index --forget"):
        index(library, folder / "2024")
    assert len(library) == 4
