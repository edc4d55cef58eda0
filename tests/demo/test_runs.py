"""The second tab, from run folders: finished, running, damaged and hostile ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_folders import make_runs

from lite.demo.runs import NO_RUNS, find_runs, report_tables, reward_curves, sample_cards, sample_steps


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_runs(tmp_path)


def test_runs_and_tables_are_found_and_nothing_else(root: Path) -> None:
    assert sorted(find_runs(root)) == ["tiny/ablation", "tiny/stage1"]
    assert find_runs(root / "none") == []
    assert "recipes/stage1.sh" in NO_RUNS


def test_curves_have_a_row_per_step_and_reward_term(root: Path) -> None:
    curves = reward_curves(root / "tiny/stage1")  # its last line was cut short
    assert curves.to_dict("records") == [
        {"step": 1, "term": "label", "mean reward": 1 / 3}, {"step": 1, "term": "format", "mean reward": 1.0},
        {"step": 2, "term": "label", "mean reward": 2 / 3}, {"step": 2, "term": "format", "mean reward": 1.0},
    ]  # fmt: skip
    assert reward_curves(root / "tiny/ablation") is None


def test_tables_show_before_after_and_the_ablation(root: Path) -> None:
    stage1 = report_tables(root / "tiny/stage1")
    for text in ("chance", "bm25", "base", "trained", "hard pools", "0.750 (0.500–0.900)", "+0.750 (0.500–0.900)"):
        assert text in stage1
    ablation = report_tables(root / "tiny/ablation")
    assert "<b>" not in ablation
    assert "&lt;b&gt;no stage 1&lt;/b&gt;" in ablation
    assert "75%" in ablation  # the evidence test


def test_an_unfinished_or_damaged_report_is_no_error(root: Path) -> None:
    (root / "tiny/stage1/report.json").unlink()
    assert "at the end" in report_tables(root / "tiny/stage1")
    (root / "tiny/stage1/report.json").write_text("{")
    assert "at the end" in report_tables(root / "tiny/stage1")


def test_samples_are_one_prompt_s_best_first_with_every_reward(root: Path) -> None:
    folder = root / "tiny/stage1"
    assert sample_steps(folder) == [1, 4]
    html = sample_cards(folder, 2)  # nearest is 1
    assert "Step 1" in html
    assert html.index("a1") < html.index("a0")
    assert "b0" not in html
    assert "<script>" not in html
    assert "<i>" not in html
    assert html.count("neither word") == 1
    assert "label <b>0.50</b>" in html
    assert "advantage <b>1.00</b>" in html
    (folder / "completions/completions_00001.parquet").write_bytes(b"damaged")
    assert "cannot be read" in sample_cards(folder, 1)
    assert sample_cards(root / "tiny/ablation", 1) == ""
