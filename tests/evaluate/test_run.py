"""Whole evaluations of data sets in their official layouts, with the shipped adapters of the embedded model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from official_files import (
    BLUE,
    GREEN,
    RED,
    image_fact,
    multimodalqa_question,
    picture,
    webqa_record,
    write_multimodalqa,
    write_webqa,
)

from lite.cli import main as cli
from lite.config.evaluate import EvaluateConfig
from lite.config.model import ModelConfig
from lite.evaluate.run import adapters_of

RECIPE = str(Path(__file__).parents[2] / "recipes" / "tiny" / "stage2.yaml")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without runs, so that the shipped adapters are taken."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evaluate(data: str, split: str, *changes: str) -> int:
    return cli.main(
        ["evaluate", "--config", RECIPE, "--data", data, "--split", split, "--output_dir", "results", *changes]
    )


def test_webqa_is_answered_reported_and_submitted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    records = [webqa_record(f"q{i}", split="val") for i in range(3)]
    write_webqa(tmp_path / "webqa", records)
    assert evaluate(f"webqa:{tmp_path / 'webqa'}", "val") == 0
    submission = json.loads((tmp_path / "results" / "submission.json").read_text())
    assert set(submission) == {"q0", "q1", "q2"}
    for entry in submission.values():
        assert set(entry) == {"sources", "answer"}
        assert set(entry["sources"]) <= {RED, BLUE, GREEN, *(f"q{i}_{j}" for i in range(3) for j in (1, 2))}
    report = json.loads((tmp_path / "results" / "report.json").read_text())
    assert {"one document", "on image", "color"} <= set(report["by_kind"])
    capsys.readouterr()
    gold = ["--gold", str(tmp_path / "webqa" / "WebQA_train_val.json"), "--predictions", "results/submission.json"]
    assert cli.main(["metrics", "webqa", *gold, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["qa_fl"] is None or 0 <= figures["qa_fl"] <= 1
    assert 0 <= figures["qa_acc"] <= 1


def test_secret_test_split_is_submitted_without_a_report(tmp_path: Path) -> None:
    questions = [multimodalqa_question("a"), multimodalqa_question("b")]
    for question in questions:
        del question["answers"], question["supporting_context"]
    write_multimodalqa(tmp_path / "mmqa", questions, split="test")
    assert evaluate(f"multimodalqa:{tmp_path / 'mmqa'}", "test") == 0
    assert not (tmp_path / "results" / "report.json").exists()
    submission = json.loads((tmp_path / "results" / "submission.json").read_text())
    assert set(submission) == {"a", "b"}
    assert all(isinstance(answers, list) for answers in submission.values())


def test_broken_images_are_left_out_and_counted_on_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By the rule of training and its reports: an image leaves the pools, and with it the questions that rest on it."""
    records = [webqa_record("on red", split="val"), webqa_record("on green", split="val")]
    records[1] |= {"img_posFacts": [image_fact(GREEN)], "img_negFacts": [image_fact(RED), image_fact(BLUE)]}
    images = {RED: b"no picture", BLUE: b"no picture", GREEN: picture("green")}
    write_webqa(tmp_path / "webqa", records, images)
    data = f"webqa:{tmp_path / 'webqa'}"
    assert evaluate(data, "val") == 1
    assert evaluate(data, "val", "--skip_broken", "true") == 0
    assert "2 × broken image, 1 × question that loses a relevant image" in caplog.text
    assert set(json.loads((tmp_path / "results" / "submission.json").read_text())) == {"on green"}
    (asked,) = [json.loads(line) for line in (tmp_path / "results" / "predictions.jsonl").read_text().splitlines()]
    assert not {str(RED), str(BLUE)} & set(asked["trace"]["retrieved"])
    assert str(GREEN) in asked["trace"]["retrieved"]


@pytest.mark.parametrize("changed", ["question", "documents"])
def test_predictions_of_data_that_changed_are_not_taken_for_the_new_ones(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def write(**changes: object) -> None:
        question = {"id": "q", "question": "Which?", "relevant": ["d0"], "answers": ["yes"], "split": "test"}
        texts = [{"id": f"d{i}", "kind": "text", "title": f"T{i}", "text": f"Text {i}."} for i in range(3)]
        lines = [*texts, {**question, "documents": ["d0", "d1"], **changes}]
        (tmp_path / "own.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    write()
    assert evaluate(f"jsonl:{tmp_path / 'own.jsonl'}", "test") == 0
    before = (tmp_path / "results" / "predictions.jsonl").read_text()
    write(**{changed: {"question": "Which other?", "documents": ["d0", "d2"]}[changed]})
    monkeypatch.setattr("lite.evaluate.engine.load_model", lambda *_: pytest.fail("the model was loaded first"))
    assert evaluate(f"jsonl:{tmp_path / 'own.jsonl'}", "test") == 1
    refused = r"predictions.jsonl answers another q.*data have changed.*--overwrite true"
    assert re.search(refused, capsys.readouterr().err.replace("\n", " "))
    assert (tmp_path / "results" / "predictions.jsonl").read_text() == before


def test_vllm_takes_the_stage_1_that_the_run_is_stacked_on_wherever_it_lies(tmp_path: Path) -> None:
    run, below = tmp_path / "mine" / "stage2", tmp_path / "profile" / "stage1" / "adapter"
    for folder in (run, below):
        folder.mkdir(parents=True)
    (below / "lite.json").write_text("{}")
    (run / "config.yaml").write_text(f"stage1_adapter: {below}\n")
    config = EvaluateConfig(run=str(run), engine="vllm", exported=str(tmp_path / "exported"))
    assert adapters_of(config, ModelConfig()) == (below, tmp_path / "exported")


def test_ablation_in_several_processes_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("lite.train.ablation.processes", lambda: 2)
    assert evaluate("flags", "test", "--ablate", "true") == 1
    assert "without accelerate" in capsys.readouterr().err
