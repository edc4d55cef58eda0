"""WebQA's official metrics and `lite metrics webqa`."""

import gzip
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from official_files import RED, SHARED, text_fact, webqa_record, write_lines
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

from lite.cli.main import main
from lite.metrics.fluency import load_bartscore, plain, qa_fluency
from lite.metrics.webqa import (
    Prediction,
    Question,
    load_lemmatizer,
    normalise,
    qa_accuracy,
    retrieval_f1,
    score,
)
from lite.schema import LiteError

PERFECT = 2 / (2 + 1e-5)  # the official F1 of equal sets


@pytest.fixture(scope="module")
def lemmatize():
    return load_lemmatizer("lookup")[0]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Horses are running.", "horse be run"),
        ("Blue footprints.", "blue footprint"),
        ("two point five", "2 point 5"),
        ("It is 2.5 km long.", "it be 2.5 km long"),
        ("A", "a"), (".", "."), ("the", "the"), ("The!", "the"),
        ("twenty-one", "twentyone"), ("Three.", "3"), ("", ""), (" \n", ""), ("a the", ""),
    ],
)  # fmt: skip
def test_normalise(lemmatize, text, normal):
    assert normalise(text, lemmatize) == normal


@pytest.mark.parametrize(
    ("category", "answer", "keywords", "expected"),
    [
        ("color", "The house is red.", "red", PERFECT),
        ("color", "The house is red and blue.", "red", 2 * 0.5 / (1.5 + 1e-5)),
        ("color", "The house is big.", "red", 0),
        ("shape", "It looks like circles", "circle", PERFECT),
        ("YesNo", "No, it does not.", "no", PERFECT),
        ("YesNo", "It does not.", "no", 0),
        ("YesNo", "yes and no", "no", 2 * 0.5 / (1.5 + 1e-5)),
        ("number", "There are three trees.", "3", PERFECT),
        ("number", "There are 2.5 trees.", "2.5", 0),  # only integers are looked at
        ("number", "3 of 4", "3", 2 * 0.5 / (1.5 + 1e-5)),
        ("Others", "A large fountain is there.", "fountains", 1),
        ("choose", "a red car", "red blue car", 2 / 3),
        ("text", "In Delft, by the river", "Delft", 1),
        ("text", "In Delft", "river river", 0),
        ("text", "river", "river river", 0.5),
        ("unheard of", "x y", "x z", 0.5),
    ],
)
def test_qa_accuracy(lemmatize, category, answer, keywords, expected):
    assert qa_accuracy(answer, keywords, category, lemmatize) == pytest.approx(expected, abs=1e-12)


@given(
    st.text(max_size=30), st.text(max_size=30), st.sampled_from("color shape YesNo number choose Others text".split())
)
def test_accuracy_is_a_fraction(lemmatize, answer, keywords, category):
    assert 0 <= qa_accuracy(answer, keywords, category, lemmatize) <= 1


@pytest.mark.parametrize(
    ("predicted", "gold", "expected"),
    [("ab", "ab", 1), ("a", "ab", 2 / 3), ("abcd", "ab", 2 / 3), ("c", "ab", 0), ("", "ab", 0)],
)
def test_retrieval_f1(predicted, gold, expected):
    assert retrieval_f1(frozenset(predicted), frozenset(gold)) == pytest.approx(expected)


def test_scores_without_fluency_hold_no_number_for_it(lemmatize):
    questions = [
        Question("a", "color", ("It is red.",), "red", frozenset("x")),
        Question("b", "text", ("y",), "y", None),
    ]
    scores = score(questions, {"a": Prediction("red", frozenset("xz"))}, lemmatize)
    assert scores["a"] == {"qa_acc": PERFECT, "qa_fl": None, "qa": None, "retrieval_f1": pytest.approx(2 / 3)}
    assert scores["b"] == {"qa_acc": 0, "qa_fl": None, "qa": None, "retrieval_f1": None}


def test_qa_is_the_product_for_each_question(lemmatize):
    questions = [Question(i, "text", ("a b",), "red car", frozenset()) for i in ("p", "q", "r")]
    predictions = {"p": Prediction("red"), "q": Prediction("car red")}
    scores = score(
        questions, predictions, lemmatize, lambda pairs: [0.8 if answer == "red" else 0.5 for _, answer in pairs]
    )
    assert [scores[i]["qa"] for i in "pqr"] == [pytest.approx(0.4), 0.5, 0]
    assert [scores[i]["qa_fl"] for i in "pqr"] == [0.8, 0.5, 0]


def test_a_lemmatizer_that_is_not_installed_is_an_error():
    with pytest.raises(LiteError, match="xx_not_there"):
        load_lemmatizer("xx_not_there")
    assert load_lemmatizer()[1] in ("lookup", "en_core_web_sm")


@pytest.mark.skipif(
    not (SHARED / "reference_metrics").is_dir(), reason="the official evaluator's outputs are not beside the repository"
)
@pytest.mark.parametrize(("baseline", "mean"), [("x101fpn", 0.4445), ("vinvl", 0.4979)])
def test_parity_on_the_official_baselines(lemmatize, baseline, mean):
    with gzip.open(SHARED / "reference_metrics" / "webqa_official_qa_acc.json.gz") as file:
        reference = json.load(file)["per_question"]
    with gzip.open(SHARED / "webqa" / "val_image_queries.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    ours = {r["Guid"]: qa_accuracy(r[f"baseline_{baseline}"], r["Keywords_A"], r["Qcate"], lemmatize) for r in rows}
    assert len(ours) == 2511
    assert {
        i: value for i, value in ours.items() if not math.isclose(value, reference[i][baseline]["acc"], abs_tol=1e-12)
    } == {}
    assert sum(ours.values()) / len(ours) == pytest.approx(mean, abs=5e-5)
    assert all(normalise(r["Keywords_A"], lemmatize) == reference[r["Guid"]]["normalized_keywords"] for r in rows)


@pytest.fixture(scope="module")
def bart(tmp_path_factory):
    """A tiny BART with random weights and a tokenizer of whole words."""
    folder = tmp_path_factory.mktemp("bart")
    words = ["<s>", "<pad>", "</s>", "<unk>", *"it is a red blue house car The".split()]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=len(words), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=64, init_std=0.5,
    )  # fmt: skip
    BartForConditionalGeneration(config).save_pretrained(folder)
    return folder


def by_hand(folder, source, target):
    """Mean log-probability per token, one text at a time and without padding."""
    from transformers import AutoTokenizer

    tokenizer, model = (
        AutoTokenizer.from_pretrained(folder),
        BartForConditionalGeneration.from_pretrained(folder).eval(),
    )
    ids = tokenizer(target, return_tensors="pt")["input_ids"]
    start = torch.full((1, 1), model.config.decoder_start_token_id)
    with torch.no_grad():
        logits = model(
            input_ids=tokenizer(source, return_tensors="pt")["input_ids"],
            decoder_input_ids=torch.cat([start, ids[:, :-1]], 1),
        ).logits
    return logits.log_softmax(-1)[0].gather(1, ids[0][:, None]).mean().item()


def test_bartscore_is_the_mean_log_probability_whatever_else_is_in_the_batch(bart):
    sources = ["it is a red house", "blue car", "it is"] * 7
    targets = ["a red house", "it is a blue car", ""] * 7
    scores = load_bartscore(str(bart))(sources, targets)
    expected = [by_hand(bart, *pair) for pair in list(zip(sources, targets, strict=True))[:3]]
    assert scores == pytest.approx(expected * 7, abs=1e-4)
    assert len({round(value, 3) for value in expected}) == 3


def test_fluency_is_relative_to_the_gold_answer_and_at_most_1(bart):
    bartscore = load_bartscore(str(bart))
    golds, answer = ("It is a red house.", "red house"), "a blue, blue car"
    ratios = [
        math.exp(by_hand(bart, plain(gold), plain(answer)) - by_hand(bart, plain(gold), plain(gold))) for gold in golds
    ]
    found = qa_fluency([(golds, answer), (golds[:1], golds[0]), (golds[1:], "red house !")], bartscore)
    assert found == pytest.approx([min(1, max(ratios)), 1, 1], abs=1e-4)
    assert qa_fluency([], bartscore) == []


def test_fine_tuned_weights_are_used_and_foreign_ones_refused(bart, tmp_path):
    model = BartForConditionalGeneration.from_pretrained(bart)
    torch.nn.init.normal_(model.model.decoder.layers[0].fc1.weight)
    torch.save(model.state_dict(), tmp_path / "bart.pth")
    texts = ["it is red"], ["a red house"]
    assert load_bartscore(str(bart), tmp_path / "bart.pth")(*texts) != pytest.approx(load_bartscore(str(bart))(*texts))
    torch.save({"x": torch.zeros(1)}, tmp_path / "bart.pth")
    with pytest.raises(LiteError, match="does not fit"):
        load_bartscore(str(bart), tmp_path / "bart.pth")
    (tmp_path / "bart.pth").write_text("no weights")
    with pytest.raises(LiteError, match=r"bart.pth cannot be loaded"):
        load_bartscore(str(bart), tmp_path / "bart.pth")


def test_a_folder_without_a_bart_is_an_error(tmp_path):
    with pytest.raises(LiteError, match="holds no BART"):
        load_bartscore(str(tmp_path))


@pytest.fixture
def command(tmp_path):
    """`lite metrics webqa` on three val questions and one of train, with a submission that is given."""
    records = [
        webqa_record("a", "val"),
        webqa_record("b", "val", Qcate="text", Keywords_A="TBD", A=['"In Delft"'], img_posFacts=[],
                     txt_posFacts=[text_fact("b_1"), text_fact("b_2")]),
        webqa_record("c", "val"),
        webqa_record("d", "train"),
    ]  # fmt: skip
    (tmp_path / "WebQA_train_val.json").write_text(json.dumps({record["Guid"]: record for record in records}))

    def arguments(predictions, *more):
        (tmp_path / "p.json").write_text(json.dumps(predictions))
        gold = ["--gold", str(tmp_path / "WebQA_train_val.json"), "--predictions", str(tmp_path / "p.json")]
        return ["metrics", "webqa", *gold, "--lemmatizer", "lookup", *more]

    return arguments


ANSWERED = {
    "a": {"sources": [RED, "a_1"], "answer": "It is red."},
    "b": {"sources": ["b_1", "b_2"], "answer": ["in Delft."]},
}


def test_command_json_without_fluency(command, capfd):
    assert main(command(ANSWERED, "--json", "--fluency_model", "none")) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["qa_acc"] == pytest.approx((PERFECT + 1) / 3)
    assert report["retrieval_f1"] == pytest.approx((2 / 3 + 1) / 3)
    assert report["qa_fl"] is report["qa"] is report["fluency_model"] is None
    assert (report["questions"], report["missing"], report["lemmatizer"]) == (3, 1, "lookup")
    assert report["by_category"]["text"]["qa_acc"] == 1


def test_command_json_with_fluency(command, bart, capfd):
    assert main(command(ANSWERED, "--json", "--fluency_model", str(bart))) == 0
    report = json.loads(capfd.readouterr().out)
    assert 0 < report["qa"] <= report["qa_fl"] <= 2 / 3
    assert report["fluency_model"] == str(bart)


def test_a_model_that_cannot_be_had_leaves_fluency_unavailable(command, capfd):
    assert main(command(ANSWERED, "--fluency_model", "nobody/no-such-bart")) == 0
    out = capfd.readouterr().out
    assert "unavailable" in out
    assert "Lemmatiser: lookup" in out


def test_command_on_the_train_split(command, capsys):
    assert (
        main(command({"d": {"sources": [], "answer": "red"}}, "--json", "--fluency_model", "none", "--split", "train"))
        == 0
    )
    assert json.loads(capsys.readouterr().out)["questions"] == 1


def test_lines_of_records_are_gold_too_and_padded_ids_are_numbers(tmp_path, capsys):
    write_lines(tmp_path / "gold.jsonl.gz", [webqa_record("a")])
    (tmp_path / "p.json").write_text(json.dumps({"a": {"sources": [f"0{RED}"], "answer": "red"}}))
    arguments = ["--gold", str(tmp_path / "gold.jsonl.gz"), "--predictions", str(tmp_path / "p.json")]
    assert main(["metrics", "webqa", *arguments, "--json", "--fluency_model", "none"]) == 0
    assert json.loads(capsys.readouterr().out)["retrieval_f1"] == 1


def test_malformed_predictions_are_named_or_count_0(command, capsys):
    bad = {"a": "red", "b": {"sources": "b_1", "answer": "x"}, "c": {"sources": [], "answer": 3}, "e": {"sources": []}}
    assert main(command(bad, "--fluency_model", "none")) == 1
    error = capsys.readouterr().err
    assert all(part in error for part in ("4 predictions", "a: not {", "b: the sources", "c: the answer", "e: not {"))
    assert main(command(bad, "--fluency_model", "none", "--json", "--skip_broken")) == 0
    assert json.loads(capsys.readouterr().out)["qa_acc"] == 0


def test_a_gold_file_without_answers_is_named(tmp_path, capsys):
    (tmp_path / "WebQA_test.json").write_text(json.dumps({"t": {"Q": "x", "Qcate": "text", "split": "test"}}))
    (tmp_path / "p.json").write_text("{}")
    arguments = ["--gold", str(tmp_path / "WebQA_test.json"), "--predictions", str(tmp_path / "p.json")]
    assert main(["metrics", "webqa", *arguments]) == 1
    assert "WebQA_test.json, Guid t" in capsys.readouterr().err
