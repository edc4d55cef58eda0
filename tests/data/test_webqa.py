"""The WebQA loader, on files in the official layout that the tests write."""

import json
import multiprocessing
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from official_files import (
    BLUE,
    GREEN,
    RED,
    SHARED,
    image_fact,
    picture,
    text_fact,
    webqa_record,
    write_webqa,
)

from lite.data import webqa
from lite.data.problems import Problems
from lite.data.sources import load_examples
from lite.schema import LiteError


def load(folder, split="train", limit=None, **problems):
    return load_examples(f"webqa:{folder}", split, limit, Problems(**problems) if problems else None)


def refusal(folder, split="train"):
    with pytest.raises(LiteError) as raised:
        load(folder, split)
    return str(raised.value)


def skipped(folder, split="train"):
    problems = Problems(skip=True)
    return [example.id for example in load_examples(f"webqa:{folder}", split, None, problems)], problems


def color(document):
    return document.load_image().getpixel((0, 0))


def test_official_files_become_examples(tmp_path):
    [example] = load(write_webqa(tmp_path, [webqa_record("q1")]))
    assert (example.id, example.question, example.category, example.split) == (
        "q1", "What color is house q1?", "color", "train",
    )  # fmt: skip
    assert (example.answers, example.keywords) == (("The house is red.",), "red")
    assert example.relevant == {str(RED)}
    assert {d.id: d.kind for d in example.documents} == {
        str(RED): "image", str(BLUE): "image", str(GREEN): "image", "q1_1": "text", "q1_2": "text",
    }  # fmt: skip
    house = next(d for d in example.documents if d.id == str(RED))
    assert (house.title, house.text) == ("A house", "in Delft")


def test_every_image_is_its_own(tmp_path):
    [example] = load(write_webqa(tmp_path, [webqa_record("q1")]))
    pixels = {d.id: color(d) for d in example.documents if d.kind == "image"}
    assert pixels == {str(RED): (255, 0, 0), str(BLUE): (0, 0, 255), str(GREEN): (0, 128, 0)}
    assert example.documents[0].image.size() == (64, 48)


def test_splits_limit_and_the_unlabelled_test_file(tmp_path):
    write_webqa(tmp_path, [webqa_record("a"), webqa_record("b", "val"), webqa_record("c"), webqa_record("d")])
    assert [e.id for e in load(tmp_path)] == ["a", "c", "d"]
    assert [e.id for e in load(tmp_path, limit=2)] == ["a", "c"]
    assert [e.id for e in load(tmp_path, "dev")] == [e.id for e in load(tmp_path, "val")] == ["b"]
    record = {"Q": '"Which?"', "Guid": "t", "Qcate": "Others", "split": "test",
              "img_Facts": [image_fact(RED)], "txt_Facts": [text_fact("t_0")]}  # fmt: skip
    (tmp_path / "WebQA_test.json").write_text(json.dumps({"t": record}))
    [example] = load(tmp_path, "test")
    assert (example.relevant, example.answers, len(example.documents)) == (frozenset(), (), 2)


def test_a_text_question_keeps_all_of_its_gold_and_hidden_keywords_give_way_to_the_answer(tmp_path):
    record = webqa_record("q", Qcate="text", Keywords_A="TBD", A=['"In Delft"'], img_posFacts=[],
                          txt_posFacts=[text_fact("q_7"), text_fact("q_8"), text_fact("q_7")])  # fmt: skip
    [example] = load(write_webqa(tmp_path, [record]))
    assert example.relevant == {"q_7", "q_8"}
    assert [d.id for d in example.documents].count("q_7") == 1
    assert example.keywords == "In Delft"


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ('"What is it?"', "What is it?"),
        ('"Is "Arcadian Landscape" old?"', 'Is "Arcadian Landscape" old?'),
        ('"It is "Landscape""', 'It is "Landscape"'),
        ('"Foo" or "Bar"', '"Foo" or "Bar"'),
        ("Yes", "Yes"), ('"', '"'), ('""', ""), ("", ""), (' "a" ', "a"),
    ],
)  # fmt: skip
def test_only_marks_around_the_whole_text_are_dropped(text, bare):
    assert webqa.unquoted(text) == bare


@given(st.dictionaries(st.text(min_size=1), st.dictionaries(st.text(), st.text() | st.lists(st.text()))), st.data())
def test_records_reads_what_json_reads_whatever_the_chunks(tmp_path_factory, content, data):
    path = tmp_path_factory.mktemp("json") / "file.json"
    path.write_text(json.dumps(content, indent=data.draw(st.sampled_from([None, 2]))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(webqa, "JSON_CHUNK", data.draw(st.integers(2, 40)))
        assert dict(webqa.records(path, Problems())) == content


def test_bad_json_is_placed_and_what_follows_can_be_kept(tmp_path):
    write_webqa(tmp_path, [webqa_record("a")])
    good = [json.dumps(webqa_record(name)) for name in "abc"]
    broken = good[1].replace('"Q": ', '"Q" ')
    (tmp_path / "WebQA_train_val.json").write_text(
        '{\n"a": ' + good[0] + ',\n"b": ' + broken + ',\n"c": ' + good[2] + "}"
    )
    message = refusal(tmp_path)
    assert "WebQA_train_val.json, line 3" in message
    assert "Guid a" in message
    ids, problems = skipped(tmp_path)
    assert ids == ["a", "c"]
    assert problems.counts == {"bad JSON": 1}


def test_a_file_that_ends_early_is_named(tmp_path):
    path = write_webqa(tmp_path, [webqa_record("a"), webqa_record("b")]) / "WebQA_train_val.json"
    path.write_text(path.read_text()[:-100])
    assert "after Guid a" in refusal(tmp_path)
    assert skipped(tmp_path)[0] == ["a"]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"A": []}, "empty question or answer"),
        ({"A": ['""']}, "empty question or answer"),
        ({"Q": ' "" '}, "empty question or answer"),
        ({"Q": None}, "malformed question"),
        ({"A": 7}, "malformed question"),
        ({"img_posFacts": []}, "question without its gold"),
        ({"img_posFacts": [{"image_id": "x"}]}, "malformed question"),
        ({"img_posFacts": [{"title": "x"}]}, "malformed question"),
        ({"txt_negFacts": [{"snippet_id": 1, "fact": "x"}]}, "malformed question"),
        ({"img_negFacts": "none"}, "malformed question"),
    ],
)
def test_a_broken_question_is_named_and_can_be_skipped(tmp_path, changes, kind):
    write_webqa(tmp_path, [webqa_record("good"), webqa_record("bad", **changes)])
    message = refusal(tmp_path)
    assert "WebQA_train_val.json, Guid bad" in message
    assert "--skip_broken" in message
    ids, problems = skipped(tmp_path)
    assert ids == ["good"]
    assert problems.counts == {kind: 1}


def test_images_that_the_archive_cannot_hold_are_found_without_reading_it(tmp_path):
    far = webqa_record("far", img_negFacts=[image_fact(30_000_400)])
    gold = webqa_record("gold", img_posFacts=[image_fact(30_000_400)])
    write_webqa(tmp_path, [far, gold])
    message = refusal(tmp_path)
    assert "Guid far" in message
    assert "imgs.lineidx ends after 14 lines" in message
    ids, problems = skipped(tmp_path)
    assert ids == ["far"]
    assert problems.counts == {"missing image": 2, "question without its gold": 1}

    webqa.open_archive.cache_clear()
    lines = (tmp_path / "imgs.lineidx").read_text().splitlines()
    lines[RED % 10_000_000] = "999999"
    lines[BLUE % 10_000_000] = "-1"
    (tmp_path / "imgs.lineidx").write_text("\n".join(lines))
    message = refusal(write_webqa_questions(tmp_path, [webqa_record("q")]))
    assert f"image {RED}: its offset 999999 is past the end" in message
    assert "subset" in webqa.Archive(tmp_path).missing(BLUE)


def write_webqa_questions(folder, records):
    (folder / "WebQA_train_val.json").write_text(json.dumps({record["Guid"]: record for record in records}))
    return folder


def test_an_index_of_another_archive_is_found_when_the_image_is_read(tmp_path):
    write_webqa(tmp_path, [webqa_record("q")])
    lines = (tmp_path / "imgs.lineidx").read_text().splitlines()
    lines[RED % 10_000_000] = lines[BLUE % 10_000_000]
    (tmp_path / "imgs.lineidx").write_text("\n".join(lines))
    [example] = load(tmp_path)
    with pytest.raises(LiteError, match=rf"image {RED}.*'{BLUE}' instead"):
        example.documents[0].load_image()


def test_an_image_that_is_not_base64_or_no_image_is_named(tmp_path):
    write_webqa(tmp_path, [webqa_record("q")], {RED: b"no image", BLUE: picture(), GREEN: picture()})
    [example] = load(tmp_path)
    with pytest.raises(LiteError, match=rf"image {RED} cannot be read"):
        example.documents[0].load_image()
    content = (tmp_path / "imgs.tsv").read_bytes()
    (tmp_path / "imgs.tsv").write_bytes(content.replace(b"\tbm8g", b"\t!!!!"))
    with pytest.raises(LiteError, match=rf"image {RED}: line 3 is not base64"):
        example.documents[0].load_image()


def test_a_truncated_image_is_shown_as_far_as_it_goes(tmp_path, caplog):
    whole = picture("white", (300, 300), "JPEG")
    write_webqa(tmp_path, [webqa_record("q")], {RED: whole[: len(whole) * 2 // 3], BLUE: picture(), GREEN: picture()})
    [example] = load(tmp_path)
    image = example.documents[0].load_image()
    assert image.size == (300, 300)
    assert image.getpixel((0, 0)) == (255, 255, 255)
    example.documents[0].load_image()
    assert [str(RED) in record.getMessage() and "truncated" in record.getMessage() for record in caplog.records] == [
        True
    ]


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "L"), ("GIF", "P"), ("TIFF", "RGB"), ("PNG", "RGBA")])
def test_all_kinds_of_images_open_as_rgb(tmp_path, kind, mode):
    images = {RED: picture("white", kind=kind, mode=mode), BLUE: picture(), GREEN: picture()}
    [example] = load(write_webqa(tmp_path, [webqa_record("q")], images))
    assert color(example.documents[0]) == (255, 255, 255)


def test_a_line_longer_than_one_read_and_one_without_a_line_break(tmp_path, monkeypatch):
    write_webqa(tmp_path, [webqa_record("q")])
    content = (tmp_path / "imgs.tsv").read_bytes()
    (tmp_path / "imgs.tsv").write_bytes(content.rstrip(b"\n"))
    monkeypatch.setattr(webqa, "READ_AT_ONCE", 7)
    [example] = load(tmp_path)
    assert [color(d) for d in example.documents[:3]] == [(255, 0, 0), (0, 0, 255), (0, 128, 0)]


def read_in_worker(document):
    return color(document)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_the_same_archive_at_once(tmp_path, start):
    [example] = load(write_webqa(tmp_path, [webqa_record("q")]))
    with multiprocessing.get_context(start).Pool(2) as pool:
        found = pool.map(read_in_worker, example.documents[:3] * 40)
    assert found == [(255, 0, 0), (0, 0, 255), (0, 128, 0)] * 40


def test_the_archive_is_opened_once_and_a_pickled_image_finds_it_again(tmp_path):
    one, two = load(write_webqa(tmp_path, [webqa_record("a"), webqa_record("b")]))
    assert one.documents[0].image.store is two.documents[0].image.store
    again = pickle.loads(pickle.dumps(one.documents[0]))
    assert again.image.store is one.documents[0].image.store
    assert color(again) == (255, 0, 0)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(LiteError, match=r"imgs\.tsv is missing"):
        load(tmp_path)
    write_webqa(tmp_path, [webqa_record("q")])
    with pytest.raises(LiteError, match=r"WebQA_test\.json is missing"):
        load(tmp_path, "test")
    (tmp_path / "imgs.lineidx").write_text("0\nx\n")
    webqa.open_archive.cache_clear()
    with pytest.raises(LiteError, match=r"imgs.lineidx must hold one byte offset per line"):
        load(tmp_path)


def test_without_the_archive_text_questions_remain(tmp_path):
    text = webqa_record("text", img_posFacts=[], txt_posFacts=[text_fact("text_9")])
    (write_webqa(tmp_path, [webqa_record("image"), text]) / "imgs.tsv").unlink()
    ids, problems = skipped(tmp_path)
    assert ids == ["text"]
    assert problems.counts == {"missing archive": 1, "question without its gold": 1}
    assert "2 × " not in problems.summary()


def test_submission_is_official(tmp_path):
    [example] = load(write_webqa(tmp_path, [webqa_record("q")]))
    assert webqa.submission(example, "It is red.", [str(RED), "q_1"]) == {
        "q": {"sources": [RED, "q_1"], "answer": "It is red."}
    }


@pytest.mark.skipif(not (SHARED / "webqa").is_dir(), reason="the real WebQA files are not beside the repository")
def test_a_real_record(tmp_path):
    [record] = json.loads((SHARED / "webqa" / "full_record_example.json").read_text()).values()
    facts = record["img_posFacts"] + record["img_negFacts"]
    images = {int(fact["image_id"]): picture() for fact in facts}
    [example] = load(write_webqa(tmp_path, [record], images))
    assert example.question == "What color is the belly of a Green Tree Frog?"
    assert (example.keywords, example.category, len(example.documents)) == ("white", "color", 33)
    assert all(color(d) == (255, 0, 0) for d in example.documents if d.kind == "image")


@pytest.mark.skipif(not (SHARED / "webqa").is_dir(), reason="the real WebQA files are not beside the repository")
def test_real_photographs_in_the_official_layout(tmp_path):
    rows = json.loads((SHARED / "webqa" / "images" / "index.json").read_text())
    images = {int(row["image_id"]): (SHARED / "webqa" / row["path"]).read_bytes() for row in rows}
    facts = [image_fact(int(row["image_id"]), caption=row["caption"]) for row in rows]
    records = [
        webqa_record(f"q{i}", Q=row["question"], A=[row["answer"]], img_posFacts=[fact], img_negFacts=facts)
        for i, (row, fact) in enumerate(zip(rows, facts, strict=True))
    ]
    examples = load(write_webqa(tmp_path, records, images))
    for example, row in zip(examples, rows, strict=True):
        [gold] = [document for document in example.documents if document.id in example.relevant]
        assert gold.load_image().size == gold.image.size() == tuple(row["size"])
        assert not example.answers[0].startswith('"')


def test_paths_in_messages_are_those_of_the_user(tmp_path, monkeypatch):
    write_webqa(tmp_path / "data", [webqa_record("q", A=[])])
    monkeypatch.chdir(tmp_path)
    assert str(Path("data") / "WebQA_train_val.json") in refusal("data")
