"""MultimodalQA's official metrics and `lite metrics multimodalqa`."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from official_files import SHARED, multimodalqa_question, write_lines

from lite.cli.main import main
from lite.metrics.multimodalqa import Question, list_em, list_f1, normalise, score

needs_shared = pytest.mark.skipif(
    not (SHARED / "reference_metrics").is_dir(), reason="the official evaluator's outputs are not beside the repository"
)
ANSWERS = st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Bad News Bears!", "bad news bears"),
        ("New-York", "new york"),
        ("U.S.", "us"),
        ("1,234", "1234.0"),
        ("3", "3.0"), ("3.50", "3.5"), ("three", "3.0"), ("-5", "5.0"), ("1e3", "1000.0"),
        ("two million", "2.0 1000000.0"),
        ("the", ""), ("a", ""), ("", ""), ("'' ", ""),
        ("point", "0.0"),
        ("billion\tthousand", "billion\tthousand".replace("\t", " ")),
    ],
)  # fmt: skip
def test_normalise(text, normal):
    assert normalise(text) == normal


@pytest.mark.parametrize(
    ("predicted", "gold", "em", "f1"),
    [
        (["The Wall"], ["wall"], 1, 1),
        ("The Wall", ["wall"], 1, 1),
        (["a b", "c"], ["c", "a b"], 1, 1),
        (["c", "c"], ["c"], 0, 0.5),  # as many answers are wanted as there are
        (["c"], ["c", "d"], 0, 0.5),
        (["red house"], ["red car"], 0, 0.5),
        (["red house", "car"], ["house", "blue car"], 0, 0.67),
        (["1999 film"], ["2001 film"], 0, 0),  # numbers must agree
        (["2001"], ["2001 film"], 0, 0.67),
        (["2001 film"], ["film"], 0, 0.67),  # numbers that nobody asked for only cost precision
        ([], ["x"], 0, 0),
        ([""], ["x"], 0, 0),
        (["the"], ["a"], 1, 1),
        ([], [], 1, 1),
    ],
)
def test_list_metrics(predicted, gold, em, f1):
    assert list_em(predicted, gold) == em
    assert list_f1(predicted, gold) == f1


def test_the_best_alignment_is_found_not_the_greedy_one():
    # greedy takes "p q r k" with "p q r" (6/7) and has nothing for "k"; the best is 2/5 and 1/2
    assert list_f1(["p q r k", "p"], ["p q r", "k"]) == 0.45


@given(ANSWERS)
def test_an_answer_agrees_with_itself_in_any_order_and_case(answers):
    assert list_em(answers[::-1], answers) == 1
    assert list_f1(answers[::-1], answers) == 1


@given(ANSWERS, ANSWERS)
def test_bounds(predicted, gold):
    em, f1 = list_em(predicted, gold), list_f1(predicted, gold)
    assert em in (0, 1)
    assert 0 <= f1 <= 1
    assert f1 == round(f1, 2)
    if em:
        assert f1 > 0


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_floats_however_written(number):
    assert normalise(repr(abs(number)).replace("e-", "e")) or math.isinf(number)


def test_unanswered_questions_score_0():
    scores = score([Question("a", ("x",)), Question("b", ("y",))], {"b": ["y"]})
    assert scores == {"a": {"exact_match": 0, "f1": 0}, "b": {"exact_match": 1, "f1": 1}}


@needs_shared
def test_parity_on_all_of_the_official_evaluators_outputs():
    reference = json.loads((SHARED / "reference_metrics" / "mmqa_official_scores.json").read_text())
    predictions = json.loads((SHARED / "reference_metrics" / "mmqa_synthetic_predictions.json").read_text())
    from lite.cli.metrics import read_multimodalqa_gold

    questions = read_multimodalqa_gold(SHARED / "mmqa" / "MMQA_dev.jsonl.gz")
    scores = score(questions, predictions)
    assert len(scores) == 2441
    for question, figures in scores.items():
        em, f1 = reference["per_question"].get(question, [0, 0])
        assert (question, figures) == (question, {"exact_match": em, "f1": f1})
    totals = [100 * sum(s[name] for s in scores.values()) / len(scores) for name in ("exact_match", "f1")]
    assert totals == pytest.approx([68.20975010241705, 77.66284309709135], abs=1e-9)


@needs_shared
def test_parity_on_the_edge_cases():
    cases = json.loads((SHARED / "reference_metrics" / "mmqa_edge_cases.json").read_text())
    assert len(cases) == 22
    for case in cases:
        assert (case, list_em(case["pred"], case["gold"])) == (case, case["em"])
        assert (case, list_f1(case["pred"], case["gold"])) == (case, case["f1"])


@pytest.fixture
def gold(tmp_path):
    questions = [
        multimodalqa_question("q1", answers=["1976"]),
        multimodalqa_question("q2", answers=[300.0], kind="TableQ"),
        multimodalqa_question("q3", answers=["x", "y"], kind="TableQ"),
    ]
    write_lines(tmp_path / "gold.jsonl.gz", questions)
    return ["metrics", "multimodalqa", "--gold", str(tmp_path / "gold.jsonl.gz")]


def submit(tmp_path, predictions):
    (tmp_path / "p.json").write_text(predictions if isinstance(predictions, str) else json.dumps(predictions))
    return ["--predictions", str(tmp_path / "p.json")]


def test_command_json(gold, tmp_path, capfd):
    predictions = submit(tmp_path, {"q1": ["1976"], "q2": ["300"], "other": ["x"]})
    assert main([*gold, *predictions, "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["exact_match"] == pytest.approx(2 / 3)
    assert report["f1"] == pytest.approx(2 / 3)
    assert (report["questions"], report["missing"], report["unknown"]) == (3, 1, 1)
    assert report["by_category"]["TableQ"] == {"questions": 2, "exact_match": 0.5, "f1": 0.5}
    assert report["by_modality"]["text"]["questions"] == 3


def test_command_table(gold, tmp_path, capsys):
    assert main([*gold, *submit(tmp_path, {"q1": ["1976"], "q2": "300", "q3": ["y"]})]) == 0
    out = capsys.readouterr().out
    assert "TableQ" in out
    assert "0.6667" in out
    assert "0.8333" in out


def test_malformed_predictions_are_named_or_count_0(gold, tmp_path, capsys):
    predictions = submit(tmp_path, {"q1": [1976], "q2": {"answer": "300"}, "q3": ["x", "y"]})
    assert main([*gold, *predictions]) == 1
    error = capsys.readouterr().err
    assert "2 predictions are malformed" in error
    assert "q1: not a list of texts" in error
    assert "q2: " in error
    assert main([*gold, *predictions, "--skip_broken", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["exact_match"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("predictions", "message"), [("{", "is not JSON"), ("[]", "must hold one JSON object")])
def test_a_file_that_is_no_submission_is_named(gold, tmp_path, capsys, predictions, message):
    assert main([*gold, *submit(tmp_path, predictions)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "p.json" in error


def test_a_gold_file_without_labels_is_named(tmp_path, capsys):
    question = {k: v for k, v in multimodalqa_question("q").items() if k not in ("answers", "supporting_context")}
    write_lines(tmp_path / "test.jsonl", [question])
    arguments = ["metrics", "multimodalqa", "--gold", str(tmp_path / "test.jsonl"), *submit(tmp_path, {})]
    assert main(arguments) == 1
    assert "test.jsonl, line 1" in capsys.readouterr().err
