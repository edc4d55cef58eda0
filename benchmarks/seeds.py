"""Both stages with several seeds: does training improve the result each time?

    python benchmarks/seeds.py [--profile tiny] [--seeds 0 1 2] [--stages 1 2]

trains `runs/<profile>/seed-<n>/stage1` and `stage2` (a finished run of the recipe is only read), writes the figures
that matter to benchmarks/results/stage<n>-seeds-<profile>.json and, from those of `tiny`, the tables of the README and
of docs/results.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import yaml
from readme import write_sections

from lite.cli import main as cli
from lite.runs import read_metrics
from lite.train.run_folder import check_settings

ROOT = Path(__file__).parent.parent
FIGURES = ("auc", "recall@1", "recall@5", "ndcg@5")
STAGE2_FIGURES = ("format", "ndcg@5", "source_f1", "exact_match", "f1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--stages", type=int, nargs="+", choices=[1, 2], default=[1, 2])
    arguments = parser.parse_args()
    for stage in arguments.stages:
        pick = {1: extract, 2: extract_stage2}[stage]
        runs = [run_of(arguments.profile, seed, stage, pick) for seed in arguments.seeds]
        path = ROOT / "benchmarks" / "results" / f"stage{stage}-seeds-{arguments.profile}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(runs, indent=1) + "\n")
    write_sections()


def run_of(profile: str, seed: int, stage: int, pick) -> dict:
    """Train, unless the report is there; the figures of the report, and the seconds of the training steps."""
    parent = ROOT / "runs" / profile / f"seed-{seed}"
    folder = parent / f"stage{stage}"
    recipe = ROOT / "recipes" / profile / f"stage{stage}.yaml"
    if (folder / "report.json").exists():
        wanted = yaml.safe_load(recipe.read_text()) | {"seed": seed}
        check_settings(folder, yaml.safe_load((folder / "config.yaml").read_text()), wanted)
    else:
        command = ["train", f"stage{stage}", "--config", str(recipe), "--seed", str(seed), "--output_dir", str(folder)]
        if stage == 2:
            command += ["--stage1_adapter", str(parent / "stage1" / "adapter")]
        if cli.main(command):
            raise SystemExit(1)
    report = json.loads((folder / "report.json").read_text())
    seconds = sum(row["step_time"] for row in read_metrics(folder / "metrics.jsonl"))
    return pick(report) | {"training_seconds": round(seconds)}


def extract(report: dict) -> dict:
    """The figures of the stage 1 tables."""

    def figures(part: dict) -> dict:
        systems = ("base", "trained", "difference", "bm25", "over_bm25", "chance")
        return {system: {figure: part[system][figure] for figure in FIGURES} for system in systems}

    return {
        "seed": report["seed"],
        "adapter_hash": report["adapter_hash"],
        "questions": report["questions"],
        "own_pools": figures(report),
        "hard_pools": figures(report["hard_pools"]),
        "by_kind": {kind: figures(part) | {"questions": part["questions"]} for kind, part in report["by_kind"].items()},
        "filter": report["filter"],
        "filter_on_dev": report["filter_on_dev"],
        "filter_on_test": report["filter_on_test"],
    }


def extract_stage2(report: dict) -> dict:
    """The figures of the stage 2 tables."""

    def figures(part: dict) -> dict:
        return {figure: part[figure] for figure in STAGE2_FIGURES}

    return {
        "seed": report["seed"],
        "adapter_hash": report["adapter_hash"],
        "stage1_hash": report["stage1_hash"],
        "questions": report["questions"],
        "full": report["full"],
        "baseline": report["baseline"],
        "systems": {name: figures(part) for name, part in report["systems"].items()},
        "difference": figures(report["difference"]),
        "against": {name: figures(part) for name, part in report["against"].items()},
        "by_kind": {
            kind: {"questions": part["questions"]} | {name: figures(part[name]) for name in report["systems"]}
            for kind, part in report["by_kind"].items()
        },
        "evidence": report["evidence"],
        "format_failures": report["format_failures"],
    }


if __name__ == "__main__":
    main()
