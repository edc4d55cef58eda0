"""A user's own labelled data."""

import json
import re

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from official_files import picture

from lite.data import jsonl
from lite.data.jsonl import split_of
from lite.data.problems import Problems
from lite.data.sources import load_examples
from lite.metrics.answers import answer_score
from lite.schema import LiteError

TEXT = {"id": "d1", "kind": "text", "title": "Manual", "text": "Keep it below 3 bar."}
IMAGE = {"id": "d2", "kind": "image", "title": "Gauge", "image": "photos/gauge.png"}
QUESTION = {"question": "Is it too high?", "relevant": ["d1", "d2"], "documents": ["d1", "d2"], "answers": ["yes"],
            "split": "dev"}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "gauge.png").write_bytes(picture("red"))

    def to_file(*rows):
        lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
        (tmp_path / "own.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return f"jsonl:{tmp_path / 'own.jsonl'}"

    return to_file


def test_the_documented_example_is_read(write, tmp_path):
    lines = re.findall(r"^    (\{.*\})$", jsonl.__doc__, flags=re.MULTILINE)
    assert len(lines) == 3
    (tmp_path / "photos" / "gauge.jpg").write_bytes(picture("blue", kind="JPEG"))
    spec = write(*lines)
    [example] = [e for split in ("train", "dev", "test") for e in load_examples(spec, split)]
    assert example.relevant == {"manual-12", "gauge-2"}
    assert example.answers == ("no",)
    assert {d.id for d in example.documents} == example.relevant


def test_a_parquet_file_says_the_same(write, tmp_path):
    spec = write(QUESTION, TEXT, IMAGE)
    rows = [json.loads(line) for line in (tmp_path / "own.jsonl").read_text().splitlines()]
    pq.write_table(pa.Table.from_pandas(pd.DataFrame(rows)), tmp_path / "own.parquet")
    table = f"jsonl:{tmp_path / 'own.parquet'}"
    assert load_examples(table, "dev") == load_examples(spec, "dev")
    (tmp_path / "own.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(LiteError, match="damaged"):
        load_examples(table, "dev")


def test_fields_become_an_example(write):
    spec = write(QUESTION | {"id": "q", "category": "gauges", "keywords": "high"}, TEXT, "", IMAGE)
    [example] = load_examples(spec, "dev")
    assert (example.id, example.category, example.keywords, example.split) == ("q", "gauges", "high", "dev")
    assert answer_score(example.metric, "It is high.", example.answers, example.keywords, example.category) == 1
    assert [d.id for d in example.documents] == ["d1", "d2"]
    assert example.documents[1].load_image().getpixel((0, 0)) == (255, 0, 0)
    assert load_examples(spec, "train") == []


def test_numbers_and_single_answers_become_texts(write):
    [one, two] = load_examples(write(TEXT, IMAGE, QUESTION | {"answers": 3}, QUESTION | {"answers": [2.5, "x"]}), "dev")
    assert (one.answers, two.answers) == (("3",), ("2.5", "x"))
    assert (one.id, two.id) == ("line-3", "line-4")


def test_without_candidates_a_pool_is_drawn_from_the_file(write):
    others = [{"id": f"o{n}", "kind": "text", "text": f"Something about bars {n}."} for n in range(60)]
    bare = {key: value for key, value in QUESTION.items() if key != "documents"}
    [example] = load_examples(write(*others, TEXT, IMAGE, bare), "dev")
    assert len(example.documents) == 30
    assert example.relevant <= {d.id for d in example.documents}


def test_questions_divide_themselves_where_none_names_its_split(write):
    questions = [{"id": f"q{n}", "question": "?", "relevant": ["d1"], "documents": ["d1"]} for n in range(200)]
    spec = write(TEXT, *questions)
    parts = [{e.id for e in load_examples(spec, split)} for split in ("train", "dev", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 200
    assert 130 < len(parts[0]) < 185
    assert min(map(len, parts)) > 8
    assert len(load_examples(spec, "train", 7)) == 7


@given(st.text())
def test_the_split_of_an_id_is_fixed(identifier):
    assert split_of(identifier) == split_of(identifier) in ("train", "dev", "test")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "Expecting property name"),
        ("7", "not an object"),
        ({"id": "x", "kind": "video", "title": "x"}, "unknown kind 'video'; there are text, table, image, page"),
        ({"id": "x", "kind": "text"}, "the text 'x' needs 'text'"),
        ({"id": "x", "kind": "text", "text": "x", "image": "photos/gauge.png"}, "cannot have an image"),
        ({"kind": "text", "text": "x"}, "a document needs 'id'"),
        ({"id": "x", "kind": "image"}, "needs 'image', a path"),
        ({"id": "x", "kind": "page", "image": "photos/none.png"}, "none.png does not exist"),
        ({"id": "d1", "kind": "text", "text": "again"}, "the document id 'd1' comes twice"),
        ({"id": "x", "kind": "text", "text": "x", "titel": "x"}, "unknown field 'titel'"),
        ({"question": "?"}, "'relevant' must name at least one document"),
        ({"question": "?", "relevant": []}, "'relevant' must name at least one document"),
        ({"question": "?", "relevant": "d1"}, "'relevant' must be a list of ids"),
        ({"question": " ", "relevant": ["d1"]}, "'question' must be a text, not empty"),
        (QUESTION | {"answers": [""]}, "'answers' must be a list of texts, none empty"),
        (QUESTION | {"split": "val"}, "unknown split 'val'"),
        (QUESTION | {"relevant": ["d9"]}, "there is no document with the id 'd9'"),
        (QUESTION | {"documents": ["d8"]}, "there is no document with the id 'd8'"),
        (QUESTION | {"id": "good"}, "the question id 'good' comes twice"),
    ],
)
def test_a_broken_line_is_numbered_and_can_be_skipped(write, row, message):
    spec = write(TEXT, IMAGE, QUESTION | {"id": "good"}, row)
    with pytest.raises(LiteError) as raised:
        load_examples(spec, "dev")
    assert "own.jsonl, line 4: " in str(raised.value)
    assert message in str(raised.value)
    problems = Problems(skip=True)
    assert [e.id for e in load_examples(spec, "dev", None, problems)] == ["good"]
    assert sum(problems.counts.values()) == 1


def test_a_file_that_is_not_utf8_is_numbered(write, tmp_path):
    spec = write(TEXT)
    (tmp_path / "own.jsonl").write_bytes(b'{"id": "d1", "kind": "text", "text": "caf\xe9"}\n')
    with pytest.raises(LiteError, match=r"own\.jsonl, line 1"):
        load_examples(spec, "dev")


def test_a_file_without_questions_is_an_error(write):
    with pytest.raises(LiteError, match="holds no question"):
        load_examples(write(TEXT), "dev")
