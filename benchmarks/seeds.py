"""Both stages with several seeds: does training improve the result each time?

    python benchmarks/seeds.py [--profile tiny] [--seeds 0 1 2] [--stages 1 2]

trains `runs/<profile>/seed-<n>/stage1` and `stage2` (a finished run of the recipe is only read), writes the figures
that matter to benchmarks/results/stage<n>-seeds-<profile>.json and the tables between the `stage 1` and `stage 2` marks
of the README.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import yaml
from readme import write_section

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
    parts = {1: (extract, table), 2: (extract_stage2, table_stage2)}
    for stage in arguments.stages:
        pick, tabulate = parts[stage]
        runs = [run_of(arguments.profile, seed, stage, pick) for seed in arguments.seeds]
        path = ROOT / "benchmarks" / "results" / f"stage{stage}-seeds-{arguments.profile}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(runs, indent=1) + "\n")
        write_section(f"stage {stage}", tabulate(runs))


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
    """The figures of the README's table and of the two-hop remark."""

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

    def verdicts(difference: str) -> str:
        found = []
        for pools, name in (("own_pools", "own"), ("hard_pools", "hard")):
            for figure in FIGURES:
                better = sum(run[pools][difference][figure]["low"] > 0 for run in runs)
                worse = sum(run[pools][difference][figure]["high"] < 0 for run in runs)
                against = f", below 0 with {worse}" if worse else ""
                found.append(f"{name} pools, {figure.replace('auc', 'AUC')}: {better} of {len(runs)} seeds{against}")
        return "; ".join(found)

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
            f"The interval of trained - base lies above 0 with: {verdicts('difference')}.",
            "",
            f"That of trained - BM25 lies above 0 with: {verdicts('over_bm25')}.",
            "",
            f"Mean over the seeds, own pools: {'; '.join(sentences)}.",
        ]
    )


def extract_stage2(report: dict) -> dict:
    """The figures of the README's stage 2 table."""

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


def table_stage2(runs: list[dict]) -> str:
    """Markdown: a row per system and seed, then what the full system gains."""
    lines = ["| seed | system | format | nDCG@5 | source F1 | exact match | F1 | exact match, one document |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for run in runs:
        for name, part in run["systems"].items():
            cells = [f"{part[figure]['value']:.3f}" for figure in STAGE2_FIGURES]
            cells.append(f"{run['by_kind']['one document'][name]['exact_match']['value']:.3f}")
            lines.append(f"| {run['seed']} | {name} | " + " | ".join(cells) + " |")
    gains = []
    for run in runs:
        shown = []
        for figure, name in (("ndcg@5", "nDCG@5"), ("source_f1", "source F1"), ("exact_match", "exact match")):
            gain = run["difference"][figure]
            shown.append(f"{name} {gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})")
        gains.append(f"seed {run['seed']}: {', '.join(shown)}")
    evidence = []
    for run in runs:
        cited, uncited = (run["evidence"][f"changed_without_{what}"]["value"] for what in ("cited", "uncited"))
        evidence.append(f"{cited:.0%} against {uncited:.0%}")
    return "\n".join(
        [
            *lines,
            "",
            f"{runs[0]['full']} minus {runs[0]['baseline']}, 95 % paired intervals: {'; '.join(gains)}.",
            "",
            "Evidence test, share of answers that change without the cited documents against without as many uncited "
            f"ones, by seed: {'; '.join(evidence)}.",
        ]
    )


if __name__ == "__main__":
    main()
