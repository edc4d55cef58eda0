"""Families without the shared prompt, from training to an exported model: Gemma broke in the report, after training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_families import FAMILIES

from lite.cli import main as cli
from lite.rag import Rag
from lite.runs import read_card
from lite.schema import Document

RECIPES = Path(__file__).parents[2] / "recipes" / "tiny"
SMALL = (
    "--max_steps 1 --save_steps 1 --limit 6 --report_questions 1 --per_device_train_batch_size 4 --num_generations 2 "
    "--max_prompt_tokens 6000 --report_to none"
).split()
OF_STAGE2 = (
    "--max_completion_length 12 --cold_start_steps 1 --cold_start_batch_size 2 --report_orders 1 --max_documents 2 "
    "--prompts_per_question 1"
).split()


@pytest.mark.slow
@pytest.mark.parametrize(("family", "max_pixels"), [("gemma3", "4096"), ("gemma4", "80000")])
def test_both_stages_are_trained_reported_asked_and_exported(
    family: str, max_pixels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    FAMILIES[family](tmp_path / "model")
    model = ["--model_name_or_path", str(tmp_path / "model"), "--max_pixels", max_pixels]
    for stage, more in ((1, []), (2, OF_STAGE2)):
        config = ["--config", str(RECIPES / f"stage{stage}.yaml"), "--output_dir", f"runs/small/stage{stage}"]
        assert cli.main(["train", f"stage{stage}", *config, *model, *SMALL, *more]) == 0
        assert json.loads(Path(f"runs/small/stage{stage}/report.json").read_text())
        assert read_card(Path(f"runs/small/stage{stage}/adapter"))["model_type"] == family
    rag = Rag.load("small")
    documents = [
        Document("a", "text", "Chad", "The capital of Chad is N'Djamena."),
        Document("b", "text", "Mali", "Bamako."),
    ]
    outcome = rag.ask("What is the capital of Chad?", documents)
    assert outcome.raw
    assert set(outcome.scores) == {"a", "b"}
    assert cli.main(["export", "--run", "runs/small/stage2", "--output_dir", "joined"]) == 0
    assert cli.main(["export", "--run", "runs/small/stage2", "--output_dir", "merged", "--merge"]) == 0
    assert Rag.load(str(tmp_path / "merged")).untrained
