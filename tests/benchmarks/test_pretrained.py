"""The benchmark on pretrained weights: its splits leak nothing, its figures are right, and every line of it runs."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pretrained
import pretrained_data
import pretrained_scores
import pretrained_table
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lite.data.sources import load_examples
from lite.metrics.ranking import Judged
from lite.schema import Document, Example

ROOT = Path(__file__).parents[2]


def write_rows(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the form of the benchmarks' files, with made-up questions on numbered towns."""
    folder = tmp_path_factory.mktemp("official")
    towns = [
        f"{a}{b}" for a in ("Ar", "Bel", "Cor", "Dun", "Els", "Far") for b in ("by", "ford", "holm", "stad", "wick")
    ]
    write_rows(
        folder / "webqa" / "val_image_captions.jsonl.gz",
        [{"image_id": str(i), "caption": f"The old bridge of {town}, {i}  August"} for i, town in enumerate(towns)]
        + [{"image_id": "again", "caption": f"the old bridge of {towns[0]}, 0 August"}],
    )
    questions = [
        {"Guid": f"q{i}", "Q": f"Has {town} a bridge?", "A": ["Yes, it has."], "Keywords_A": "Yes", "Qcate": "YesNo",
         "gold_image_ids": [str(i)], "gold_tier": "gold"}
        for i, town in enumerate(towns)
    ]  # fmt: skip
    same = {"Guid": "same", "gold_image_ids": ["again"]}
    unsure = {"Guid": "unsure", "gold_tier": "B"}
    write_rows(
        folder / "webqa" / "val_image_queries.jsonl.gz", [*questions, questions[0] | same, questions[1] | unsure]
    )
    texts = [
        {"id": f"t{i}", "title": town, "text": f"{town} is a town. It was founded in {1100 + i}. " + "It rains. " * 30}
        for i, town in enumerate(towns)
    ]
    write_rows(folder / "mmqa" / "mini_train_texts.jsonl.gz", texts)
    asked = [
        {"qid": f"m{i}", "question": f"When was {town} founded?", "answers": [{"answer": 1100 + i}],
         "supporting_context": [{"doc_id": f"t{i}", "doc_part": "text"}]}
        for i, town in enumerate(towns)
    ]  # fmt: skip
    both = [{"doc_id": "t0", "doc_part": "text"}, {"doc_id": "t1", "doc_part": "text"}]
    nowhere = {"qid": "nowhere", "answers": [{"answer": "Rome"}]}
    write_rows(
        folder / "mmqa" / "mini_train_questions.jsonl.gz",
        [*asked, asked[0] | {"qid": "both", "supporting_context": both}, asked[2] | nowhere],
    )
    return folder


def test_webqa_questions_are_those_whose_captions_are_known_for_sure(official: Path) -> None:
    documents, examples = pretrained_data.webqa_captions(official / "webqa")
    assert len(examples) == 31
    assert "unsure" not in {example.id for example in examples}
    assert documents[0].text == "The old bridge of Arby, 0 August"


def test_a_passage_gives_the_piece_that_holds_the_answer(official: Path) -> None:
    documents, examples = pretrained_data.multimodalqa_passages(official / "mmqa")
    pieces = {document.id: document for document in documents}
    assert all(len(document.text) <= pretrained_data.PIECE_CHARS for document in documents)
    found = {example.id: example for example in examples}
    assert "nowhere" not in found, "its answer stands in none of its texts"
    assert [pieces[i].text for i in found["m3"].relevant] == [
        "Arstad is a town. It was founded in 1103. " + " ".join(["It rains."] * 15)
    ]
    assert found["m3"].answers == ("1103",)
    assert (found["both"].category, len(found["both"].relevant)) == ("two passages", 2)


@given(st.text(max_size=300), st.integers(5, 60))
def test_cutting_loses_no_word(text: str, most: int) -> None:
    pieces = pretrained_data.cut(text, most)
    assert " ".join(pieces).split() == text.split()
    assert all(len(piece) <= most or len(pretrained_data.cut(piece, 1)) == 1 for piece in pieces)


@given(st.lists(st.sets(st.integers(0, 30), min_size=1, max_size=3), min_size=1, max_size=40), st.integers(0, 5))
def test_no_document_nor_an_equal_text_is_in_two_splits(relevant: list[set[int]], seed: int) -> None:
    documents = [Document(f"d{i // 2}-{i % 2}", "text", "", f"text {i % 25}") for i in range(31)]
    examples = [
        Example(f"q{n}", "?", (), frozenset(documents[i].id for i in ids), ("x",)) for n, ids in enumerate(relevant)
    ]
    split = pretrained_data.split_by_document(documents, examples, pretrained_data.CAPTION_SHARES, seed)
    assert split.keys() == {example.id for example in examples}
    text = {document.id: document.text for document in documents}
    for what in (lambda i: i, text.get, pretrained_data.source_of):
        found: dict[str, set[str]] = {}
        for example in examples:
            for i in example.relevant:
                found.setdefault(what(i), set()).add(split[example.id])
        assert all(len(splits) == 1 for splits in found.values())


def test_pools_of_one_split_hold_no_text_of_another(official: Path, tmp_path: Path) -> None:
    documents, examples = pretrained_data.multimodalqa_passages(official / "mmqa")
    shares = pretrained_data.PASSAGE_SHARES
    counts = pretrained_data.write_jsonl(documents, examples, shares, 6, tmp_path / "a.jsonl")
    assert sum(counts.values()) == len(examples)
    assert min(counts.values()) > 0
    shown = {}
    for split in shares:
        loaded = load_examples(f"jsonl:{tmp_path / 'a.jsonl'}", split)
        assert all(len(example.documents) == 6 for example in loaded)
        shown[split] = {pretrained_data.source_of(d.id) for example in loaded for d in example.documents}
    assert not shown["train"] & shown["test"]
    assert not shown["train"] & shown["dev"]
    assert not shown["dev"] & shown["test"]


def test_figures_of_one_question() -> None:
    documents = tuple(Document(str(i), "text", "", "x") for i in range(4))
    example = Example("q", "?", documents, frozenset({"1", "2"}))
    assert pretrained_scores.figures([example], [np.array([0.9, 0.8, 0.1, 0.0])]) == [[0.5, 1.0, 0.0, 0.6934]]
    assert pretrained_scores.figures([example], [np.array([0.1, 0.8, 0.7, 0.0])]) == [[1.0, 1.0, 1.0, 1.0]]


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=2, max_size=8), st.data())
def test_auc_is_a_half_without_information_and_turns_with_the_scores(scores: list[float], data: st.DataObject) -> None:
    labels = np.array(data.draw(st.permutations([True, *[False] * (len(scores) - 1)])))
    values = np.array(scores)
    assert pretrained_scores.own_auc(Judged(np.zeros(len(scores)), labels)) == 0.5
    there, back = (pretrained_scores.own_auc(Judged(v, labels)) for v in (values, -values))
    assert there + back == pytest.approx(1)


def test_fusing_ranks_needs_no_common_scale() -> None:
    first, second = np.array([3.0, 2.0, 1.0]), np.array([100.0, 300.0, 200.0])
    assert np.argsort(-pretrained_scores.fused(first, second)).tolist() == [1, 0, 2]
    assert pretrained_scores.mean_ranks(np.array([1.0, 5.0, 1.0, 0.0])).tolist() == [2.5, 1.0, 2.5, 4.0]
    unknown = pretrained_scores.fused(first, np.zeros(3))
    assert np.argsort(-unknown).tolist() == [0, 1, 2], "a system that knows nothing changes no order"


def test_differences_are_paired_and_of_the_systems_that_are_asked_about() -> None:
    rows = {
        "bm25": [[0.5, 0.0, 0.0, 0.5], [0.9, 1.0, 1.0, 0.9]] * 10,
        "base": [[0.4, 0.0, 0.0, 0.2], [0.8, 1.0, 0.0, 0.6]] * 10,
        "seed 0": [[0.6, 1.0, 0.0, 0.6], [1.0, 1.0, 1.0, 1.0]] * 10,
        "seed 0 + bm25": [[0.6, 1.0, 1.0, 0.6], [1.0, 1.0, 1.0, 1.0]] * 10,
    }
    found = pretrained_scores.compared(rows)
    assert set(found["differences"]) == {"seed 0 - base", "seed 0 - bm25", "seed 0 + bm25 - bm25"}
    gain = found["differences"]["seed 0 - base"]["auc"]
    assert gain["value"] == gain["low"] == gain["high"] == pytest.approx(0.2), "the same for each question"
    assert found["systems"]["bm25"]["auc"]["low"] < 0.7 < found["systems"]["bm25"]["auc"]["high"]


def test_what_was_scored_is_not_scored_again(tmp_path: Path) -> None:
    examples = [Example(str(i), "?", (), frozenset("x")) for i in range(4)]
    asked = []

    def scores_of(example: Example) -> np.ndarray:
        asked.append(example.id)
        return np.array([float(example.id)])

    pretrained_scores.kept(tmp_path / "new" / "s.jsonl", examples[:2], scores_of)
    scores = pretrained_scores.kept(tmp_path / "new" / "s.jsonl", examples, scores_of)
    assert asked == ["0", "1", "2", "3"]
    assert [float(score[0]) for score in scores] == [0, 1, 2, 3]


def test_a_score_that_a_kill_cut_short_is_made_again(tmp_path: Path) -> None:
    examples = [Example(str(i), "?", (), frozenset("x")) for i in range(2)]
    (tmp_path / "s.jsonl").write_text('{"id": "0", "scores": [1.0]}\n{"id": "1", "sco')
    scores = pretrained_scores.kept(tmp_path / "s.jsonl", examples, lambda example: np.array([2.0]))
    assert [score.tolist() for score in scores] == [[1.0], [2.0]]
    assert pretrained_scores.kept(tmp_path / "s.jsonl", examples, lambda example: 1 / 0)[1].tolist() == [2.0]


def answered(value: float) -> dict:
    return {
        figure: {"value": value, "low": value - 0.1, "high": value + 0.1}
        for figure in ("format", "ndcg@5", "source_f1", "exact_match", "f1")
    }


def test_the_table_says_what_was_trained_and_what_was_not() -> None:
    assert pretrained_table.section({}) == pretrained_table.NOTHING
    per_question = {name: [[0.5, 0.5, 0.0, 0.5]] * 3 for name in ("bm25", "base")}
    for seed, value in ((0, 0.75), (2, 0.875)):
        per_question |= {name: [[value, 1.0, 1.0, 1.0]] * 3 for name in (f"seed {seed}", f"seed {seed} + bm25")}
    found = {
        "model": "A model",
        "stage1": {
            "about": {"data": "Questions", "questions": 3, "documents": 30},
            "seeds": [{"seed": 0, "steps": 80}, {"seed": 2, "steps": 80}],
            **pretrained_scores.compared(per_question),
        },
    }
    text = pretrained_table.section(found)
    assert "| after stage 1 | 0.750 to 0.875 | 1.000 | 1.000 | 1.000 |" in text
    assert "| after stage 1 minus untouched | 2 | +0.375 (+0.375 to +0.375) |" in text
    assert "cross-encoder" not in text
    assert text.endswith("Stage 2 has not been trained on it.")
    systems = dict.fromkeys(["stage 1 + base", "stage 1 + cold start", "stage 1 + stage 2"], answered(0.5))
    run = {"seed": 1, "systems": systems, "against": {"stage 1 + cold start": answered(0.2)}, "imitation": {}}
    run["imitation"]["systems"] = {"stage 1 + cold start": answered(0.25)}
    found["stage2"] = {"about": {"data": "Other questions", "questions": 9}, "seeds": [run]}
    text = pretrained_table.section(found)
    assert "seed 1 alone: Other questions; 9 test questions" in text
    assert "| imitation for as many completions | 0.250 |" in text
    assert "| 1 | +0.200 (+0.100 to +0.300) |" in text
    assert "has not been trained" not in text


@pytest.mark.slow
def test_a_quick_run_trains_both_stages(official: Path, tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/pretrained.py", "--quick", "--model", "tiny", "--data", str(official)]
    done = subprocess.run([*command, "--work", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    found = json.loads((tmp_path / "quick" / "pretrained.json").read_text())
    assert set(found["stage1"]["per_question"]) == {"bm25", "base", "seed 0", "seed 0 + bm25"}
    (filtered,) = found["stage1"]["seeds"]
    assert set(filtered["first_step"]) == {"begin_with_a_word", "credit 0", "credit 0.3"}
    assert filtered["first_step"]["credit 0"]["reward"] == pytest.approx(filtered["reward"][0], abs=1e-3)
    (seed,) = found["stage2"]["seeds"]
    assert list(seed["systems"]) == ["base", "stage 1 + base", "stage 1 + cold start", "stage 1 + stage 2"]
    assert {"one document", "two or more documents"} & set(seed["by_kind"])
    assert seed["imitation"]["adapter_hash"] != seed["adapter_hash"]


def test_seeds_of_the_result_file_are_kept_though_their_run_folders_are_lost(
    official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = pretrained.argparse.Namespace(
        data=official, work=tmp_path / "a", questions=3, quick=False, cross_encoder=None
    )
    trained = []

    def train(stage: int, seed: int, *_: object) -> dict:
        trained.append(seed)
        return {"seed": seed, "adapter_hash": f"h{seed}", "steps": 1, "training_seconds": 1, "reward": [1.0]}

    monkeypatch.setattr(pretrained, "train", train)
    monkeypatch.setattr(pretrained, "first_step", lambda *_: {})
    monkeypatch.setattr(
        pretrained.Scorer, "model_scores", lambda self, *_: [np.arange(len(e.documents)) for e in self.examples]
    )
    first = pretrained.stage1(options, "tiny", 0, {})
    options.work = tmp_path / "b"
    both = pretrained.stage1(options, "tiny", 1, json.loads(json.dumps(first)))
    assert trained == [0, 1]
    assert [run["seed"] for run in both["seeds"]] == [0, 1]
    assert both["per_question"]["seed 0"] == first["per_question"]["seed 0"]
    assert pretrained.stage1(options, "tiny", 1, json.loads(json.dumps(both))) == both
    assert trained == [0, 1]
    options.questions = 2
    assert [run["seed"] for run in pretrained.stage1(options, "tiny", 1, both)["seeds"]] == [1], "other questions"
