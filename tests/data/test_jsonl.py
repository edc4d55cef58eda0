"""A user's own labelled data."""

import json
import re
import subprocess
import sys
from collections import Counter, defaultdict

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from official_files import picture

from lite.data import jsonl
from lite.data.jsonl import divide
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


@st.composite
def labels(draw):
    """Relevant documents by question, of few documents or of many."""
    many = draw(st.sampled_from([1, 3, 30, 300]))
    ids = st.lists(st.integers(0, many).map(str), min_size=1, max_size=3)
    return draw(st.dictionaries(st.text(max_size=4), ids, min_size=1, max_size=120))


@given(labels(), st.randoms(use_true_random=False))
def test_division_is_decided_by_ids_and_leaves_no_split_empty(relevant, rng):
    found = divide(relevant)
    assert found.keys() == relevant.keys()
    shuffled = list(relevant.items())
    rng.shuffle(shuffled)
    assert divide(dict(shuffled)) == found
    if len(relevant) >= 3:
        assert set(found.values()) == {"train", "dev", "test"}
        assert max(Counter(found.values()).items(), key=lambda item: item[1])[0] == "train" or len(relevant) < 6


@given(st.integers(48, 400), st.integers(1, 6))
def test_documents_stay_apart_where_they_can(count, shared):
    relevant = {f"q{n}": [f"a{n // shared}", f"b{n // shared // 2}"] for n in range(count)}
    found = divide(relevant)
    splits_of = defaultdict(set)
    for question, ids in relevant.items():
        for i in ids:
            splits_of[i].add(found[question])
    assert all(len(splits) == 1 for splits in splits_of.values())
    sizes = Counter(found.values())
    assert sizes["dev"] + sizes["test"] <= count / 2


def test_where_all_rest_on_one_document_each_question_is_drawn_by_itself():
    sizes = Counter(divide({f"q{n}": ["manual"] for n in range(50)}).values())
    assert sizes == {"train": 40, "dev": 5, "test": 5}


def test_forty_questions_are_divided_fairly():
    sizes = Counter(divide({f"question-{n}": [f"d{n // 2}"] for n in range(40)}).values())
    assert 3 <= sizes["dev"] <= 6
    assert 3 <= sizes["test"] <= 6


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{'id': 'x'}", "JSON wants double quotes, not single ones"),
        ("{", "an object must stand on one line"),
        ('{"id": ' + "[" * 200_000, "it is nested too deeply"),
        ({"id": "x", "kind": "image", "image": "n" * 10_000}, "does not exist"),
        ({"id": "x", "kind": "image", "image": "a\0b"}, "does not exist"),
        ({"id": "x", "kind": "image", "image": "/etc/hostname"}, "is outside the file's folder"),
        ({"id": "x", "kind": "image", "image": "../outside.png"}, "is outside the file's folder"),
        ({"id": "x", "kind": "image", "image": "link.png"}, "is outside the file's folder"),
        (r'{"id": "x", "kind": "text", "text": "half \ud83d of it"}', "half a character"),
        (r'{"question": "half \udc00?", "relevant": ["d1"]}', "half a character"),
        (r'{"question": "?", "relevant": ["d1"], "answers": ["\ud83d"]}', "half a character"),
        ({"question": "?", "relevent": ["d1"]}, "unknown field 'relevent': did you mean 'relevant'?"),
        ({"qestion": "?", "relevant": ["d1"]}, "unknown field 'qestion': did you mean 'question'?"),
        ({"id": "x", "knid": "text", "text": "x"}, "unknown field 'knid': did you mean 'kind'?"),
        (QUESTION | {"relevant": ["d11"]}, "no document with the id 'd11': did you mean 'd1'?"),
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
        ({"question": "?", "relevant": "d1"}, "'relevant' must be a list of ids: did you mean [\"d1\"]?"),
        ({"question": " ", "relevant": ["d1"]}, "'question' must be a text, not empty"),
        (QUESTION | {"answers": [""]}, "'answers' must be a list of texts, none empty"),
        (QUESTION | {"split": "val"}, "unknown split 'val'"),
        (QUESTION | {"relevant": ["d9"]}, "there is no document with the id 'd9'"),
        (QUESTION | {"documents": ["d8"]}, "there is no document with the id 'd8'"),
        (QUESTION | {"id": "good"}, "the question id 'good' comes twice"),
    ],
)
def test_a_broken_line_is_numbered_and_can_be_skipped(write, row, message, tmp_path):
    (tmp_path.parent / "outside.png").write_bytes(picture("red"))
    (tmp_path / "link.png").symlink_to(tmp_path.parent / "outside.png")
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


def test_images_elsewhere_are_read_where_their_folder_is_named(write, tmp_path, monkeypatch):
    elsewhere = tmp_path.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / "a.png").write_bytes(picture("red"))
    (tmp_path / "linked").symlink_to(elsewhere)
    rows = [IMAGE | {"id": f"i{n}", "image": name} for n, name in enumerate([f"{elsewhere}/a.png", "linked/a.png"])]
    spec = write(TEXT, IMAGE, *rows, QUESTION | {"documents": ["i0", "i1"]})
    with pytest.raises(LiteError, match=f"export LITE_IMAGE_FOLDERS={elsewhere}"):
        load_examples(spec, "dev")
    monkeypatch.setenv("LITE_IMAGE_FOLDERS", f"/nowhere:{elsewhere}")
    [example] = load_examples(spec, "dev")
    assert all(d.load_image().getpixel((0, 0)) == (255, 0, 0) for d in example.documents if d.image)


def mistaken(tmp_path, text):
    path = tmp_path / "own.jsonl"
    path.write_text(text)
    problems = Problems(skip=True)
    with pytest.raises(LiteError) as raised:
        load_examples(f"jsonl:{path}", "train", None, problems)
    return str(raised.value), problems


def test_a_key_that_is_misspelt_throughout_is_named_three_times_and_counted(tmp_path):
    rows = [TEXT, *({"question": "?", "relevent": ["d1"]} for _ in range(40))]
    message, problems = mistaken(tmp_path, "".join(json.dumps(row) + "\n" for row in rows))
    assert "holds no question that can be read" in message
    assert message.count("did you mean 'relevant'?") == 3
    assert [f"line {n}:" in message for n in (2, 3, 4, 5)] == [True, True, True, False]
    assert "… and 37 more of the kind: unknown field 'relevent'" in message
    assert problems.counts == {"unknown field 'relevent'": 40}


def test_the_same_file_read_for_three_splits_is_counted_once(write):
    spec = write(TEXT, IMAGE, QUESTION, {"id": "x", "kind": "video"})
    problems = Problems(skip=True)
    for split in ("train", "dev", "test"):
        load_examples(spec, split, None, problems)
    assert problems.counts == {"malformed line": 1}


@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_is_told_with_the_command_that_converts_it(tmp_path, indent):
    message, _ = mistaken(tmp_path, json.dumps([TEXT, QUESTION], indent=indent))
    assert "is one JSON array, and must hold one object per line" in message
    command = message.partition("writes it so: ")[2]
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True, cwd=tmp_path)
    assert [json.loads(line) for line in (tmp_path / "own-lines.jsonl").read_text().splitlines()] == [TEXT, QUESTION]


def test_a_message_is_never_as_long_as_the_value(tmp_path):
    row = {"question": "?", "relevant": ["x" * 10**6]}
    (tmp_path / "own.jsonl").write_text("\n".join(json.dumps(r) for r in (TEXT, row, {"kind": "y" * 10**6})))
    with pytest.raises(LiteError) as raised:
        load_examples(f"jsonl:{tmp_path / 'own.jsonl'}", "train")
    assert len(str(raised.value)) < 2000
