"""Run folders that several tests need, made without a training; their texts are hostile."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

FIGURE = {"value": 0.75, "low": 0.5, "high": 0.9}


def make_runs(root: Path) -> Path:
    """A run of each stage and a table of ablations, as training and evaluation leave them, below `root`."""
    stage1, stage2, ablation = (root / "tiny" / name for name in ("stage1", "stage2", "ablation"))
    for folder in (stage1 / "completions", stage1 / "checkpoint-2", stage2 / "cold_start", ablation):
        folder.mkdir(parents=True)
    rows = [
        {"step": n, "reward": n / 3, "rewards/label/mean": n / 3, "rewards/format/mean": 1.0, "rewards/label/std": 0.1}
        for n in (1, 2)
    ]
    (stage1 / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 3, "rew')
    (stage2 / "cold_start" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    (stage1 / "checkpoint-2" / "report.json").write_text("{}")
    side = {name: {"auc": FIGURE} for name in ("base", "trained", "bm25", "difference")} | {
        "chance": {"auc": {"value": 0.5}}
    }
    (stage1 / "report.json").write_text(json.dumps(side | {"hard_pools": side}))
    evidence = {
        "questions": 9,
        "changed_without_cited": FIGURE,
        "changed_without_uncited": FIGURE,
        "difference": FIGURE,
    }
    figures = dict.fromkeys("format ndcg@5 recall@1 recall@3 recall@5 source_f1 exact_match f1".split(), FIGURE)
    systems = {"base": figures, "<b>no stage 1</b>": figures}
    report = {
        "systems": systems,
        "full": "<b>no stage 1</b>",
        "against": {"base": {"f1": FIGURE}},
        "evidence": evidence,
    }
    (ablation / "report.json").write_text(json.dumps(report))
    for step, prompts in ((1, "ab"), (4, "c")):
        frame = pd.DataFrame(
            [
                {"step": step, "prompt": f"<i>{prompt}</i>", "completion": f"<script>{prompt}{n}", "label": n / 2,
                 "format": 1.0, "expected": "Yes", "format_failure": "neither word" if n else "", "advantage": float(n)}
                for prompt in prompts for n in range(2)
            ]
        )  # fmt: skip
        frame.to_parquet(stage1 / "completions" / f"completions_{step:05d}.parquet")
    return root
