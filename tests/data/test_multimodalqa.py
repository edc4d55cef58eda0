"""The MultimodalQA loader, on files in the official layout that the tests write."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from official_files import SHARED, multimodalqa_question, picture, table, write_lines, write_multimodalqa

from lite.data.multimodalqa import TABLE_CHARS, submission, table_markdown
from lite.data.problems import Problems
from lite.data.sources import load_examples
from lite.schema import LiteError


def load(folder, split="dev", limit=None, problems=None):
    return load_examples(f"multimodalqa:{folder}", split, limit, problems)


def refusal(folder, split="dev"):
    with pytest.raises(LiteError) as raised:
        load(folder, split)
    return str(raised.value)


def skipped(folder):
    problems = Problems(skip=True)
    return [example.id for example in load(folder, problems=problems)], problems


def test_official_files_become_examples(tmp_path):
    gold = [("t1", "text"), ("b1", "table"), ("t1", "text"), ("i2", "image")]
    question = multimodalqa_question("q1", gold, ["1976", 300.0], "Compose(TextQ,TableQ)")
    [example] = load(write_multimodalqa(tmp_path, [question]))
    assert (example.id, example.category, example.split) == ("q1", "Compose(TextQ,TableQ)", "dev")
    assert example.relevant == {"t1", "b1", "i2"}  # of every modality, the repeated one once
    assert example.answers == ("1976", "300.0")
    assert {d.id: d.kind for d in example.documents} == {
        "t1": "text", "t2": "text", "b1": "table", "i1": "image", "i2": "image",
    }  # fmt: skip
    documents = {d.id: d for d in example.documents}
    assert (documents["t1"].title, documents["t1"].text) == ("Film t1", "t1 was released in 1976.")
    assert documents["b1"].title == "Ben Piazza: Filmography"
    assert documents["b1"].text == "| Year | Title |\n|---|---|\n| 1976 | The Bad News Bears |"


def test_png_with_transparency_gif_and_tiff_open_as_rgb(tmp_path):
    question = multimodalqa_question("q", image_doc_ids=["i1", "i2", "i3"])
    [example] = load(write_multimodalqa(tmp_path, [question]))
    images = [document for document in example.documents if document.kind == "image"]
    assert [document.load_image().getpixel((0, 0)) for document in images] == [(255, 255, 255)] * 3
    assert [document.image.size() for document in images] == [(64, 48)] * 3


def test_a_truncated_image_is_tolerated_and_one_that_is_none_is_named(tmp_path, caplog):
    folder = write_multimodalqa(tmp_path, [multimodalqa_question("q")])
    pictures = folder / "final_dataset_images"
    (pictures / "i1.PNG").write_bytes(picture("white", (200, 200), "JPEG")[:900])
    (pictures / "i2.gif").write_bytes(b"<html>")
    images = {d.id: d for d in load(folder)[0].documents if d.kind == "image"}
    assert images["i1"].load_image().size == (200, 200)
    assert "i1.PNG is truncated" in caplog.text
    with pytest.raises(LiteError, match=r"i2\.gif cannot be read"):
        images["i2"].load_image()


def test_gold_outside_the_pool_joins_it_and_is_counted(tmp_path):
    folder = write_multimodalqa(tmp_path, [multimodalqa_question("q", [("i3", "image"), ("t1", "text")])])
    problems = Problems()
    [example] = load(folder, problems=problems)
    assert example.relevant == {"i3", "t1"} <= {document.id for document in example.documents}
    assert problems.notes == {"gold document outside its pool, added": 1}


def test_the_test_split_has_no_labels_and_limit_counts_questions(tmp_path):
    rows = [multimodalqa_question(f"q{n}") for n in range(3)]
    write_multimodalqa(tmp_path, rows)
    assert [example.id for example in load(tmp_path, limit=2)] == ["q0", "q1"]
    bare = {key: rows[0][key] for key in ("qid", "question", "metadata")}
    write_lines(tmp_path / "MMQA_test.jsonl.gz", [bare])
    [example] = load(tmp_path, "test")
    assert (example.relevant, example.answers, len(example.documents)) == (frozenset(), (), 5)


def test_a_question_without_a_table_and_unzipped_files_of_the_repository_layout(tmp_path):
    question = multimodalqa_question("q", table_id=None)
    folder = write_multimodalqa(tmp_path / "dataset", [question])
    for path in folder.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    [example] = load(tmp_path)
    assert [document.kind for document in example.documents] == ["text", "text", "image", "image"]


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        ("{", "bad JSON", "line 2"),
        ("[1]", "bad JSON", "not an object"),
        ({"qid": "x"}, "malformed question", "qid x"),
        (multimodalqa_question("x", answers=[]), "empty question or answer", "qid x"),
        (multimodalqa_question("x", answers=[" "]), "empty question or answer", "qid x"),
        (multimodalqa_question("x", [("t1", "video")]), "unknown modality", "'video'"),
        (multimodalqa_question("x", []), "question without its gold", "supporting_context is empty"),
        (multimodalqa_question("x", text_doc_ids=["t1", "t9"]), "missing document", "document t9"),
        (multimodalqa_question("x", image_doc_ids=None), "malformed question", "qid x"),
    ],
)
def test_a_broken_question_is_placed_and_can_be_skipped(tmp_path, row, kind, message):
    folder = write_multimodalqa(tmp_path, [multimodalqa_question("a"), row, multimodalqa_question("b")])
    error = refusal(folder)
    assert "MMQA_dev.jsonl.gz, line 2" in error
    assert message in error
    ids, problems = skipped(folder)
    assert [i for i in ids if i != "x"] == ["a", "b"]
    assert problems.counts == {kind: 1}
    assert ("x" in ids) == (kind == "missing document")  # which only leaves the pool


def test_a_missing_image_file_is_named_and_leaves_the_pool(tmp_path):
    folder = write_multimodalqa(tmp_path, [multimodalqa_question("a"), multimodalqa_question("b", [("i2", "image")])])
    (folder / "final_dataset_images" / "i2.gif").unlink()
    error = refusal(folder)
    assert "MMQA_images.jsonl.gz, line 2" in error
    assert "i2.gif does not exist" in error
    ids, problems = skipped(folder)
    assert ids == ["a"]
    assert problems.counts == {"missing image": 1, "question without its gold": 1}


def test_missing_context_files_are_named_once(tmp_path):
    folder = write_multimodalqa(tmp_path, [multimodalqa_question(str(n)) for n in range(3)])
    (folder / "MMQA_tables.jsonl.gz").unlink()
    assert "no MMQA_tables.jsonl.gz" in refusal(folder)
    ids, problems = skipped(folder)
    assert ids == ["0", "1", "2"]
    assert problems.counts == {"missing file": 1}
    with pytest.raises(LiteError, match=r"no MMQA_train\.jsonl\.gz"):
        load(folder, "train")


def test_malformed_documents_are_placed(tmp_path):
    folder = write_multimodalqa(tmp_path, [multimodalqa_question("a")])
    write_lines(folder / "MMQA_tables.jsonl.gz", [{"id": "other"}, {"id": "b1", "title": "x", "table": {}}])
    assert "MMQA_tables.jsonl.gz, line 2" in refusal(folder)


def test_a_download_that_was_cut_is_named(tmp_path):
    folder = write_multimodalqa(tmp_path, [multimodalqa_question(f"{n}") for n in range(50)])
    path = folder / "MMQA_dev.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-30])
    assert "MMQA_dev.jsonl.gz, after line" in refusal(folder)
    ids, problems = skipped(folder)
    assert problems.counts == {"broken file": 1}
    assert len(ids) < 50


def test_links_bars_and_line_breaks_in_cells():
    content = table(rows=[("x", "y")], header=("[[Page|Year]]", ""))
    content["table_rows"] = [
        [{"text": "[[Mask (film)|Mask]], [[Jaws]]", "links": []}, {"text": "a|b\nc", "links": []}],
        [
            {"text": "", "links": [{"text": "one"}, {"text": "two"}]},
            {"text": "[site](http://x.org/y) [a]", "links": []},
        ],
        [{"text": "long"}, {"text": "row"}, {"text": "extra"}],
    ]
    assert table_markdown(content).splitlines() == [
        "| Year |  |  |", "|---|---|---|", "| Mask, Jaws | a\\|b c |  |", "| one, two | site [a] |  |",
        "| long | row | extra |",
    ]  # fmt: skip


@given(st.integers(0, 200), st.integers(60, 3000))
def test_a_long_table_loses_whole_rows_in_its_middle_and_says_how_many(rows, max_chars):
    content = table(rows=[(str(1000 + n), "x" * (n % 30)) for n in range(rows)])
    lines = table_markdown(content, max_chars).splitlines()
    whole = table_markdown(content, 10**6).splitlines()
    assert lines[:2] == whole[:2]
    marks = [line for line in lines if "rows left out" in line]
    kept = [line for line in lines if line not in marks]
    assert set(kept) <= set(whole)
    if marks:
        assert len(marks) == 1
        assert f" {len(whole) - len(kept)} rows" in marks[0]
        at = lines.index(marks[0])
        assert lines[:at] == whole[:at]
        assert lines[at + 1 :] == whole[len(whole) - (len(lines) - at - 1) :]
        assert at == 2 or len("\n".join(lines)) <= max_chars
    else:
        assert lines == whole
    if len("\n".join(whole)) <= max_chars:
        assert not marks


def test_submission_is_official(tmp_path):
    [example] = load(write_multimodalqa(tmp_path, [multimodalqa_question("q")]))
    assert submission(example, "Mask; Jaws, the film\nE.T. ", ["t1"]) == {"q": ["Mask", "Jaws, the film", "E.T."]}
    assert submission(example, ["Mask; Jaws", ""]) == {"q": ["Mask; Jaws"]}


@pytest.mark.skipif(not (SHARED / "mmqa").is_dir(), reason="the real MultimodalQA files are not beside the repository")
def test_the_real_mini_train_set(tmp_path):
    rows = {}
    for part in ("questions", "texts", "tables", "images"):
        with gzip.open(SHARED / "mmqa" / f"mini_train_{part}.jsonl.gz", "rt") as file:
            rows[part] = [json.loads(line) for line in file]
        name = "train" if part == "questions" else part
        write_lines(tmp_path / f"MMQA_{name}.jsonl.gz", rows[part])
    (tmp_path / "images").mkdir()
    for row in rows["images"]:
        (tmp_path / "images" / row["path"]).write_bytes(b"")
    problems = Problems()
    examples = load(tmp_path, "train", problems=problems)
    assert len(examples) == len(rows["questions"]) == 339
    for example, row in zip(examples, rows["questions"], strict=True):
        assert example.relevant == {context["doc_id"] for context in row["supporting_context"]}
        assert example.answers == tuple(str(answer["answer"]) for answer in row["answers"])
    tables = {d.id: d for e in examples for d in e.documents if d.kind == "table"}
    assert len(tables) == 24
    cut = [d for d in tables.values() if "rows left out" in d.text]
    assert all(len(d.text) <= TABLE_CHARS for d in tables.values())
    assert 0 < len(cut) < 12


@pytest.mark.skipif(not (SHARED / "mmqa").is_dir(), reason="the real MultimodalQA files are not beside the repository")
def test_the_real_dev_questions_keep_all_their_gold(tmp_path):
    with gzip.open(SHARED / "mmqa" / "MMQA_dev.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    write_lines(tmp_path / "MMQA_dev.jsonl.gz", rows)
    ids = {part: set() for part in ("text", "table", "image")}
    for row in rows:
        ids["text"] |= set(row["metadata"]["text_doc_ids"])
        ids["image"] |= set(row["metadata"]["image_doc_ids"])
        ids["table"].add(row["metadata"]["table_id"])
        for context in row["supporting_context"]:
            ids[context["doc_part"]].add(context["doc_id"])
    write_lines(tmp_path / "MMQA_texts.jsonl.gz", [{"id": i, "title": i, "text": "x"} for i in ids["text"]])
    write_lines(tmp_path / "MMQA_tables.jsonl.gz", [{"id": i, "title": i, "table": table()} for i in ids["table"]])
    write_lines(tmp_path / "MMQA_images.jsonl.gz", [{"id": i, "title": i, "path": "x.png"} for i in ids["image"]])
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x.png").write_bytes(b"")
    problems = Problems()
    examples = load(tmp_path, problems=problems)
    assert len(examples) == 2441
    assert problems.notes == {"gold document outside its pool, added": 1}
    assert all(example.relevant <= {d.id for d in example.documents} for example in examples)
    assert sum(answer == "300.0" for example in examples for answer in example.answers) == 1
