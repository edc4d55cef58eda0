"""Data sets by name, their mixes, and what training and reports draw from them."""

import subprocess
import sys
from collections import Counter

import pytest
from official_files import BLUE, GREEN, RED, picture, webqa_record, write_webqa

from lite.data import webqa
from lite.data.problems import Problems
from lite.data.sources import (
    load_candidates,
    load_examples,
    load_report_examples,
    load_training_pairs,
    split_mix,
    without_unreadable,
)
from lite.schema import LiteError


@pytest.fixture
def spec(tmp_path):
    records = [webqa_record(f"q{n}", "train" if n < 20 else "val") for n in range(28)]
    return f"webqa:{write_webqa(tmp_path, records)}"


def pairs_of(data, weights=None, limit=None, hard_share=0.6, problems=None):
    return load_training_pairs(data, weights, limit, hard_share, 0, problems or Problems())


def test_importing_the_data_sets_loads_neither_torch_nor_spacy():
    code = "import sys, lite.data.sources; sys.exit(any(name in sys.modules for name in ('torch', 'spacy')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ("flags", ["flags"]),
        ("webqa:/a,flags", ["webqa:/a", "flags"]),
        ("webqa:/a,b,jsonl:c,d.jsonl,multimodalqa:e", ["webqa:/a,b", "jsonl:c,d.jsonl", "multimodalqa:e"]),
        ("webqa:/a,flags_old", ["webqa:/a,flags_old"]),
        ("own.jsonl", ["jsonl:own.jsonl"]),
        ("a.jsonl,b.parquet,flags", ["jsonl:a.jsonl", "jsonl:b.parquet", "flags"]),
        ("jsonl:a,b.jsonl,/c,d.jsonl", ["jsonl:a,b.jsonl", "jsonl:/c,d.jsonl"]),
    ],
)
def test_split_mix(data, parts):
    assert split_mix(data) == parts


def test_one_data_sets_pairs_are_balanced_and_hold_no_pools(spec):
    pairs = pairs_of(spec)
    assert Counter(pair.relevant for pair in pairs) == {True: 20, False: 20}
    assert all(pair.example.documents == () for pair in pairs)
    assert all(pair.relevant == (pair.document.id in pair.example.relevant) for pair in pairs)
    assert len(pairs_of(spec, limit=3)) == 6


def test_hard_negatives_are_the_benchmarks_own(spec):
    own = {e.id: {d.id for d in e.documents} for e in load_examples(spec, "train")}
    negatives = [pair for pair in pairs_of(spec, hard_share=1.0) if not pair.relevant]
    assert all(pair.document.id in own[pair.example.id] for pair in negatives)
    negatives = [pair for pair in pairs_of(spec, hard_share=0.0) if not pair.relevant]
    foreign = [pair.document.id not in own[pair.example.id] for pair in negatives]
    assert sum(foreign) > 8  # drawn from all pools, of which the three images are in every one


def test_a_mix_keeps_to_its_weights_and_repeats_no_pair(spec):
    pairs = pairs_of(f"{spec},flags", [1, 3])
    of_flags = sum(pair.example.id.startswith("2:flags:") for pair in pairs)
    assert (len(pairs) - of_flags, of_flags) == (40, 120)
    assert max(Counter((p.example.id, p.document.id) for p in pairs).values()) == 1
    assert not all(pair.example.id.startswith("2:flags:") for pair in pairs[40:])  # shuffled
    everything = pairs_of(f"{spec},flags")
    assert len(everything) == 40 + len(pairs_of("flags"))


def test_equal_ids_of_two_sets_stay_apart(spec):
    pairs = pairs_of(f"{spec},{spec}")
    assert {pair.document.id.split(":")[0] for pair in pairs} == {"1", "2"}
    assert all(pair.relevant == (pair.document.id in pair.example.relevant) for pair in pairs)


@pytest.mark.parametrize("weights", [[1], [1, 0], [1, 2, 3]])
def test_weights_that_do_not_fit_are_refused(spec, weights):
    with pytest.raises(LiteError, match="2 data sets need as many weights"):
        pairs_of(f"{spec},flags", weights)


def test_a_report_divides_dev_where_test_is_secret(spec):
    tune, test, documents = load_report_examples([spec], None, Problems())
    assert [e.id for e in tune] == ["q20", "q22", "q24", "q26"]
    assert [e.id for e in test] == ["q21", "q23", "q25", "q27"]
    assert {d.id for e in tune + test for d in e.documents} == {d.id for d in documents}
    assert [len(part) for part in load_report_examples([spec], 2, Problems())[:2]] == [2, 2]


def test_the_bundled_report_is_dev_and_test_over_the_whole_corpus():
    tune, test, documents = load_report_examples(["flags"], None, Problems())
    assert (tune, test) == (load_examples("flags", "dev"), load_examples("flags", "test"))
    assert documents == load_candidates("flags", "test", test)


def test_ids_of_a_mix_are_told_apart(spec):
    tune, test, documents = load_report_examples([f"{spec},{spec}"], None, Problems())
    ids = [e.id for e in tune + test]
    assert len(ids) == len(set(ids)) == 16
    assert {e.category for e in tune} == {"webqa: color"}
    known = {d.id for d in documents}
    assert len(known) == len(documents)
    assert all(e.relevant <= {d.id for d in e.documents} <= known for e in tune + test)
    assert {e.id for e in load_examples(f"{spec},flags", "dev", 2)} >= {"1:webqa:q20"}


def test_a_report_without_enough_labels_says_so(tmp_path):
    spec = f"webqa:{write_webqa(tmp_path, [webqa_record('a', 'val')])}"
    with pytest.raises(LiteError, match="there are 1 and 0"):
        load_report_examples([spec], None, Problems())
    with pytest.raises(LiteError, match="no question to train on"):
        pairs_of(spec)


def test_unreadable_images_leave_their_pools(tmp_path):
    images = {RED: picture(), BLUE: b"no image", GREEN: picture()}
    folder = write_webqa(tmp_path, [webqa_record("good")], images)
    problems = Problems(skip=True)
    [example] = without_unreadable(load_examples(f"webqa:{folder}", "train"), problems)
    assert str(BLUE) not in {d.id for d in example.documents}
    assert problems.counts == {"broken image": 1}
    images = {RED: b"no image", BLUE: picture(), GREEN: picture()}
    webqa.open_archive.cache_clear()
    write_webqa(tmp_path, [webqa_record("good")], images)
    problems = Problems(skip=True)
    assert without_unreadable(load_examples(f"webqa:{folder}", "train"), problems) == []
    assert problems.counts == {"broken image": 1, "question that loses a relevant image": 1}


@pytest.mark.parametrize(
    ("given", "merged"),
    [
        (["--data", "a", "--seed", "1", "--data", "b"], ["--data", "a,b", "--seed", "1"]),
        (["--data=a", "--data=b", "--data", "c"], ["--data", "a,b,c"]),
        (["--data_weights", "1", "2"], ["--data_weights", "1", "2"]),
        (["--seed", "1", "--data"], ["--seed", "1", "--data"]),
    ],
)
def test_data_that_is_named_repeatedly_is_a_mix(given, merged):
    from lite.config.parse import merge_repeated

    assert merge_repeated(given, "--data") == merged


def test_training_reads_any_data_set_and_leaves_out_broken_images(tmp_path, caplog):
    from lite.config.runs import Stage1Config
    from lite.train.rows import load_pairs

    images = {RED: picture(), BLUE: b"no image", GREEN: picture()}
    folder = write_webqa(tmp_path / "data", [webqa_record(f"q{n}") for n in range(20)], images)
    settings = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "data": f"webqa:{folder}", "hard_share": 1}
    assert len(load_pairs(Stage1Config(**settings, limit=5))) == 10
    pairs = load_pairs(Stage1Config(**settings, skip_broken=True))
    assert {pair.document.id for pair in pairs} >= {str(RED)}
    assert str(BLUE) not in {pair.document.id for pair in pairs}
    assert len(pairs) < 40
    assert "broken image" in caplog.text
