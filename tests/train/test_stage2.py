"""The stage 2 command from settings to report, its resume, and what reads its results."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from peft import PeftModel, get_peft_model
from rich.console import Console

from lite.cli import main as cli
from lite.config.evaluate import EvaluateConfig, of_recipe
from lite.config.model import ModelConfig
from lite.config.parse import parse
from lite.config.runs import Stage2Config
from lite.evaluate.answers import predictions_path, read_predictions
from lite.models.adapters import activate, load_stack
from lite.models.loading import load_model, lora_config
from lite.runs import STAGE1, STAGE2, read_card, read_metrics
from lite.schema import Example, LiteError, Trace
from lite.stages.answer import say
from lite.stages.prompts import parse_stage2
from lite.train.ablation import ablate
from lite.train.cold_start import caption
from lite.train.stage2_rows import balance_yes_no, draw_pools, fill, prompt_dataset, unscored_rows

SMALL = [
    "--limit", "6", "--per_device_train_batch_size", "8", "--num_generations", "4", "--report_to", "none",
]  # fmt: skip


def command(parent: Path, *changes: str) -> list[str]:
    return [
        "train", "stage2", "--config", "recipes/tiny/stage2.yaml", *SMALL, "--max_steps", "4", "--save_steps", "1",
        "--max_completion_length", "16", "--cold_start_steps", "2", "--cold_start_batch_size", "4",
        "--report_orders", "2",
        "--stage1_adapter", str(parent / "stage1" / "adapter"), "--output_dir", str(parent / "stage2"), *changes,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short stage 1 run and a short stage 2 run on it, on the embedded model."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    stage1 = ["train", "stage1", "--config", "recipes/tiny/stage1.yaml", *SMALL, "--max_steps", "1"]
    assert cli.main([*stage1, "--output_dir", str(folder / "stage1")]) == 0
    assert cli.main(command(folder)) == 0
    return folder


def test_run_folder_holds_what_is_promised(parent: Path) -> None:
    run = parent / "stage2"
    report = json.loads((run / "report.json").read_text())
    assert list(report["systems"]) == ["base", "stage 1 + base", "stage 1 + cold start", "stage 1 + stage 2"]
    for found in [*report["systems"].values(), report["difference"], *report["against"].values()]:
        assert set(found["exact_match"]) == {"value", "low", "high"}
    for name in report["systems"]:
        first, second = (read_predictions(predictions_path(run, name, order)) for order in (0, 1))
        assert first.keys() == second.keys()
        assert len(first) == 6
        assert any(first[i].shown != second[i].shown for i in first)
    assert report["orders"] == 2
    assert "means over 2 orders" in (run / "report.md").read_text()
    assert "| stage 1 + base |" in (run / "report.md").read_text()
    completions = pd.read_parquet(run / "completions" / "completions_00004.parquet")
    terms = {"stage2_format", "ranking", "answer", "grounding", "format_failure", "accepted"}
    assert terms <= set(completions)
    metrics = read_metrics(run / "metrics.jsonl")
    assert [row["step"] for row in metrics] == [1, 2, 3, 4]
    card, stage1 = read_card(run / "adapter"), read_card(parent / "stage1" / "adapter")
    assert card["stage1_hash"] == stage1["hash"] == report["stage1_hash"]
    assert card["active"] == [STAGE1, STAGE2]
    # 16 tokens hold no chain: no reward tells completions apart, and GRPO leaves the cold start as it was, to the bit.
    assert {row["reward"] for row in metrics} == {0}
    assert read_card(run / "cold_start")["hash"] == card["hash"]


def test_same_command_again_trains_nothing_and_reports_the_same(parent: Path) -> None:
    before = (parent / "stage2" / "report.json").read_text()
    assert cli.main(command(parent)) == 0
    assert (parent / "stage2" / "report.json").read_text() == before
    assert len(read_metrics(parent / "stage2" / "metrics.jsonl")) == 4


def test_a_stopped_report_goes_on_unless_the_answers_are_of_another_adapter(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(parent, tmp_path / "tiny")
    run, asked = tmp_path / "tiny" / "stage2", []

    def counted(model: object, processor: object, listings: list, *rest: object) -> list[str]:
        asked.append(len(listings))
        return say(model, processor, listings, *rest)

    monkeypatch.setattr("lite.evaluate.stage2.say", counted)
    monkeypatch.setattr("lite.evaluate.stage2.evidence_test", lambda *_: {"questions": 0})
    path = predictions_path(run, "stage 1 + stage 2", 1)
    before = path.read_text().splitlines(keepends=True)
    path.write_text("".join(before[:-1]))  # all but one answer
    assert cli.main(command(run.parent)) == 0
    assert sum(asked) <= 1
    assert path.read_text().splitlines(keepends=True)[:-1] == before[:-1]
    owner = json.loads((run / "predictions" / "of.json").read_text())
    (run / "predictions" / "of.json").write_text(json.dumps(owner | {"adapter_hash": "another"}))
    assert cli.main(command(run.parent)) == 0
    assert sum(asked) > 20


def test_an_ablation_takes_the_finished_run_and_trains_what_is_missing(
    parent: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def trains(config: Stage2Config, *_: object) -> None:
        raise LiteError(f"trains {config.output_dir}")

    monkeypatch.setattr("lite.train.ablation.train_stage2", trains)
    recipe, model_config = parse(Stage2Config, "evaluate", command(parent)[2:])
    with pytest.raises(LiteError, match=f"^trains {parent / 'ablation' / 'no-stage-1'}$"):
        ablate(of_recipe(EvaluateConfig(), recipe), recipe, model_config, Console())
    assert f"stage 1 + stage 2: {parent / 'stage2'} is finished." in capsys.readouterr().out


def test_killed_run_ends_with_the_adapter_of_an_unbroken_one(parent: Path, tmp_path: Path) -> None:
    shutil.copytree(parent / "stage1", tmp_path / "stage1")
    again = [sys.executable, "-m", "lite.cli", *command(tmp_path)]
    process = subprocess.Popen(again, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    metrics, deadline = tmp_path / "stage2" / "metrics.jsonl", time.monotonic() + 240
    while len(read_metrics(metrics)) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "stage2" / "adapter").exists(), "it was killed too late to show anything"
    assert subprocess.run(again, capture_output=True, env=os.environ).returncode == 0
    assert read_card(tmp_path / "stage2" / "adapter")["hash"] == read_card(parent / "stage2" / "adapter")["hash"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--learning_rate", "1e-3"], "holds a run with other settings"),
        (["--stage1_adapter", "/nowhere"], "/nowhere does not exist. Train stage 1 first"),
        (["--adapter_mode", "melt"], "adapter_mode"),
        (["--max_steps", "0"], "max_steps is 0"),
        (["--unanswerable_share", "1.5"], "unanswerable_share is a share"),
        (["--as_filtered_share", "-1"], "as_filtered_share is a share"),
        (["--max_documents", "0"], "max_documents is 0"),
        (["--report_orders", "0"], "report_orders is 0"),
    ],
)
def test_wrong_settings_are_named(
    parent: Path, capsys: pytest.CaptureFixture, changes: list[str], message: str
) -> None:
    assert status(command(parent, *changes)) in (1, 2)
    assert message in capsys.readouterr().err


def status(arguments: list[str]) -> int:
    """The exit status, of argparse too."""
    try:
        return cli.main(arguments)
    except SystemExit as ended:
        return int(ended.code)


@pytest.mark.parametrize(("mode", "active"), [("continue", [STAGE2]), ("fresh", [STAGE2])])
def test_other_adapter_modes_train(parent: Path, tmp_path: Path, mode: str, active: list[str]) -> None:
    changes = ["--adapter_mode", mode, "--output_dir", str(tmp_path / "run"), "--max_steps", "1", "--beta", "0.04"]
    assert cli.main(command(parent, *changes)) == 0
    card = read_card(tmp_path / "run" / "adapter")
    assert card["active"] == active
    assert (card["stage1_hash"] is None) == (mode == "fresh")


def test_cold_start_imitates_what_the_bare_base_sees_on_relevant_images() -> None:
    base, processor = load_model(ModelConfig(model_name_or_path="tiny"))
    model = get_peft_model(base, lora_config(ModelConfig(), base), adapter_name=STAGE2)
    config = Stage2Config(
        output_dir="unused", use_cpu=True, bf16=False, limit=8, seed=0, document_chars=140,
        cold_start_caption="Describe the flag.", per_device_train_batch_size=8,
    )  # fmt: skip
    rows = unscored_rows(config)
    captions = caption(model, processor, rows, config, Console(quiet=True))
    relevant = {d.id for row in rows for d in row.listing.documents if d.id in row.example.relevant}
    assert captions
    assert set(captions) == {i for i in relevant if i.startswith("img:")}
    chains = prompt_dataset(rows, config, captions)[:]["completion"]
    for row, [turn] in zip(rows, chains, strict=True):
        for i in row.example.relevant & set(captions) & {d.id for d in row.listing.documents}:
            assert f": {captions[i]}." in turn["content"]
        by_stage1 = [number for number in row.listing.stage1_order if number in row.relevant()]
        assert parse_stage2(turn["content"], len(row.listing.documents)).ranking == tuple(by_stage1)
    assert "completion" not in prompt_dataset(rows, config)[:1]


def test_prompts_hold_everything_relevant_or_nothing(tmp_path: Path) -> None:
    config = Stage2Config(
        output_dir=str(tmp_path), max_documents=5, unanswerable_share=0.3, use_cpu=True, bf16=False, seed=3
    )
    rows = unscored_rows(config)
    assert len(rows) == 628  # 592 questions, and 36 answered "yes" again
    empty = [row for row in rows if not row.relevant()]
    assert 0.2 < len(empty) / len(rows) < 0.4
    for row in rows:
        assert 1 <= len(row.listing.documents) <= 5
        assert sorted(row.listing.stage1_order) == list(range(1, len(row.listing.documents) + 1))
        assert len(row.relevant()) in (0, len(row.example.relevant))
    firsts = [row.relevant()[0] for row in rows if len(row.relevant()) == 1 and len(row.listing.documents) == 5]
    assert {1, 2, 3, 4, 5} == set(firsts), "the place in the prompt must not tell what is relevant"


def test_yes_and_no_come_as_often_and_none_too_often() -> None:
    def said(answers: str) -> list[Example]:
        return [Example(f"q{i}", "?", (), frozenset(), (answer,)) for i, answer in enumerate(answers.split())]

    def counted(answers: str) -> dict[str, int]:
        return dict(Counter(example.answers[0] for example in balance_yes_no(said(answers), random.Random(0))))

    assert counted("yes no no red no no yes red") == {"yes": 4, "no": 4, "red": 2}
    assert counted("Yes. no") == {"Yes.": 1, "no": 1}
    assert counted("yes no no no no no") == {"yes": 3, "no": 5}
    assert counted("yes yes red") == {"yes": 2, "red": 1}
    drawn = balance_yes_no(said("yes yes yes no no no no no"), random.Random(0))
    assert len({example.id for example in drawn[8:]}) == 2, "other ones each time, as far as they reach"


def test_prompts_as_filtered_hold_what_stage_1_lets_through_and_nothing_else(tmp_path: Path) -> None:
    config = Stage2Config(
        output_dir=str(tmp_path), max_documents=4, unanswerable_share=0.0, as_filtered_share=1.0, use_cpu=True,
        bf16=False, limit=40,
    )  # fmt: skip
    rng = random.Random(0)
    pools = draw_pools(config, rng)
    scores = [np.array([rng.random() for _ in pool.documents]) for pool in pools]
    scores[0][:] = 0.1  # nothing gets through: such a prompt holds what is relevant
    by_example = {row.example.id: row for row in fill(pools, scores, 0.5, 3, config, rng)}
    for pool, of_pool in zip(pools, scores, strict=True):
        shown = {document.id for document in by_example[pool.example.id].listing.documents}
        best = sorted(range(len(of_pool)), key=lambda i: -of_pool[i])[:3]
        through = {pool.documents[i].id for i in best if of_pool[i] >= 0.5}
        assert shown == (through or pool.example.relevant)
    assert any(len(row.relevant()) == 1 < len(row.example.relevant) for row in by_example.values())


def evaluate(parent: Path, results: Path, *changes: str) -> int:
    adapters = [
        "--stage1_adapter",
        str(parent / "stage1" / "adapter"),
        "--stage2_adapter",
        str(parent / "stage2" / "adapter"),
    ]
    recipe = ["evaluate", "--config", "recipes/tiny/stage2.yaml", "--split", "dev", "--limit", "5"]
    return cli.main([*recipe, *adapters, "--output_dir", str(results), *changes])


def test_stopped_evaluation_continues_and_asks_nothing_twice(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate(parent, tmp_path) == 0
    path = tmp_path / "predictions.jsonl"
    whole, report = path.read_text(), (tmp_path / "report.json").read_text()
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 5
    path.write_text("".join(lines[:3]) + lines[3][:40])  # stopped while it wrote
    assert evaluate(parent, tmp_path) == 0
    after = path.read_text().splitlines(keepends=True)
    assert after[:3] == lines[:3]
    assert sorted(after) == sorted(lines)
    assert (tmp_path / "report.json").read_text() == report
    monkeypatch.setattr("lite.evaluate.engine.say", lambda _model, _processor, listings, *_: [""] * len(listings))
    assert evaluate(parent, tmp_path) == 0
    assert path.read_text().splitlines(keepends=True) == after


def test_predictions_of_other_data_are_not_continued(
    parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert evaluate(parent, tmp_path) == 0
    assert evaluate(parent, tmp_path, "--split", "test") == 1
    assert "holds predictions of other adapters or data" in capsys.readouterr().err


def test_traces_round_trip(parent: Path) -> None:
    for outcome in read_predictions(parent / "stage2" / "predictions" / "stage 1 + stage 2.jsonl").values():
        assert Trace.from_json(outcome.to_json()) == outcome
    with pytest.raises(LiteError, match="not a trace"):
        Trace.from_json("[1]")


@torch.no_grad()
def logits(model) -> torch.Tensor:
    ids = torch.arange(20, 40)[None]
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def test_exported_adapter_computes_what_the_stack_does_in_plain_peft(parent: Path, tmp_path: Path) -> None:
    assert cli.main(["export", "--run", str(parent / "stage2"), "--output_dir", str(tmp_path / "joined")]) == 0
    stack = load_stack(load_model(ModelConfig())[0], parent / "stage1" / "adapter", parent / "stage2" / "adapter")
    activate(stack, [STAGE1, STAGE2])
    expected = logits(stack)
    plain = PeftModel.from_pretrained(load_model(ModelConfig())[0], tmp_path / "joined")
    torch.testing.assert_close(logits(plain), expected, atol=1e-4, rtol=1e-4)
    activate(stack, [STAGE1])
    assert (logits(stack) - expected).abs().max() > 1e-3, "stage 2 does nothing here, so this shows nothing"
    card = (tmp_path / "joined" / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0")
    assert "## Figures on 6 questions of test" in card
    assert cli.main(["export", "--run", str(parent / "stage2"), "--output_dir", str(tmp_path / "joined")]) == 1


def test_merged_model_loads_without_this_package(parent: Path, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    assert cli.main(["export", "--run", str(parent / "stage2"), "--output_dir", str(out), "--merge"]) == 0
    program = (
        "import sys, torch; from transformers import AutoModelForImageTextToText as M, AutoProcessor as P; "
        "m, p = M.from_pretrained(sys.argv[1]), P.from_pretrained(sys.argv[1]); assert m.dtype == torch.bfloat16; "
        "ids = torch.arange(20, 40)[None]; torch.save(m.float()(input_ids=ids).logits, sys.argv[2]); "
        "assert not [n for n in sys.modules if n == 'lite' or n.startswith('peft')]"
    )
    subprocess.run([sys.executable, "-c", program, str(out), str(tmp_path / "logits.pt")], check=True, cwd=tmp_path)
    base = load_model(ModelConfig(load_in_4bit=False))[0]
    stack = load_stack(base, parent / "stage1" / "adapter", parent / "stage2" / "adapter")
    activate(stack, [STAGE1, STAGE2])
    expected = logits(stack)
    whole = stack.merge_and_unload(adapter_names=[STAGE1, STAGE2])
    torch.testing.assert_close(logits(whole), expected, atol=1e-3, rtol=1e-3)
    for weight in whole.parameters():
        weight.data = weight.data.to(torch.bfloat16).float()
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), logits(whole), atol=1e-3, rtol=1e-3)
