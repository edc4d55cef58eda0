"""Stage 1 with several seeds: does training improve the filter each time?

    python benchmarks/seeds.py [--profile tiny] [--seeds 0 1 2]

trains `runs/<profile>/seed-<n>/stage1` (a finished run is only reported again), writes the figures that matter to
benchmarks/results/stage1-seeds-<profile>.json and the table between the `results` marks of the README.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from lite import cli

ROOT = Path(__file__).parent.parent
FIGURES = ("auc", "recall@1", "recall@5", "ndcg@5")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    reports = [report_of(arguments.profile, seed) for seed in arguments.seeds]
    path = ROOT / "benchmarks" / "results" / f"stage1-seeds-{arguments.profile}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps([extract(report) for report in reports], indent=1) + "\n")
    readme = ROOT / "README.md"
    section = f"<!-- results -->\n{table([extract(report) for report in reports])}\n<!-- /results -->"
    readme.write_text(re.sub(r"<!-- results -->.*<!-- /results -->", lambda _: section, readme.read_text(), flags=re.S))
    print(section)


def report_of(profile: str, seed: int) -> dict:
    """Train, unless the report is there."""
    folder = ROOT / "runs" / profile / f"seed-{seed}" / "stage1"
    if not (folder / "report.json").exists():
        recipe = ROOT / "recipes" / profile / "stage1.yaml"
        command = ["train", "stage1", "--config", str(recipe), "--seed", str(seed), "--output_dir", str(folder)]
        if cli.main(command):
            raise SystemExit(1)
    return json.loads((folder / "report.json").read_text())


def extract(report: dict) -> dict:
    """The figures of the README's table and of the two-hop remark."""

    def figures(part: dict) -> dict:
        systems = ("base", "trained", "difference", "bm25", "chance")
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


def table(runs: list[dict]) -> str:
    """Markdown: a row per pool, figure and seed."""
    lines = ["| pools | figure | seed | chance | BM25 | base | trained | trained - base (95 %) |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for pools, name in (("own_pools", "the data's own (17–18)"), ("hard_pools", "hard (30)")):
        for figure in ("auc", "recall@5"):
            for run in runs:
                part = run[pools]
                cells = [f"{part[system][figure]['value']:.3f}" for system in ("chance", "bm25", "base", "trained")]
                gain = part["difference"][figure]
                cells.append(f"{gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})")
                shown = figure.replace("auc", "AUC")
                lines.append(f"| {name} | {shown} | {run['seed']} | " + " | ".join(cells) + " |")
    verdicts = []
    for pools, name in (("own_pools", "own"), ("hard_pools", "hard")):
        for figure in ("auc", "recall@5"):
            better = sum(run[pools]["difference"][figure]["low"] > 0 for run in runs)
            worse = sum(run[pools]["difference"][figure]["high"] < 0 for run in runs)
            against = f", below 0 with {worse}" if worse else ""
            verdicts.append(
                f"{name} pools, {figure.replace('auc', 'AUC')}: with {better} of {len(runs)} seeds{against}"
            )
    one, two = "one document", "two documents"
    mean = {
        kind: {
            system: sum(run["by_kind"][kind][system]["recall@5"]["value"] for run in runs) / len(runs)
            for system in ("bm25", "base", "trained")
        }
        for kind in (one, two)
    }
    sentences = [
        f"recall@5 over questions on {kind}: BM25 {m['bm25']:.3f}, base {m['base']:.3f}, trained {m['trained']:.3f}"
        for kind, m in mean.items()
    ]
    return "\n".join(
        [
            *lines,
            "",
            f"The interval of the difference lies above 0 in: {'; '.join(verdicts)}.",
            "",
            f"Mean over the seeds, own pools: {'; '.join(sentences)}.",
        ]
    )


if __name__ == "__main__":
    main()
