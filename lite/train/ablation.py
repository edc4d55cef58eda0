"""What each part of stage 2 brings: the recipe and its variants, trained where they are missing, in one table."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from rich.console import Console

from lite.config.evaluate import EvaluateConfig
from lite.config.launch import processes
from lite.config.model import ModelConfig
from lite.config.runs import Stage2Config
from lite.evaluate.answers import predictions_path, read_predictions
from lite.evaluate.figures import report_systems, reported_on
from lite.evaluate.report import answers_markdown, answers_table
from lite.evaluate.run import stage1_below
from lite.files import read_json, write_text
from lite.runs import read_card, read_settings
from lite.schema import LiteError, Trace
from lite.stages.answer import FULL, STAGE1_BASE
from lite.train.auto_fit import auto_fit
from lite.train.rows import load_report_questions
from lite.train.run_folder import check_settings, resolved_settings
from lite.train.stage2 import REWARDS, train_stage2

# What each ablation changes in the recipe; see `ablate`.
ABLATIONS = {
    "no stage 1": {"adapter_mode": "fresh"},
    "no ranking reward": {"without_reward": "ranking"},
    "no answer reward": {"without_reward": "answer"},
    "continued, not stacked": {"adapter_mode": "continue"},
}


def ablate(config: EvaluateConfig, recipe: Stage2Config, model_config: ModelConfig, console: Console) -> Path:
    """Train what is missing of the recipe and its variants, and put all systems in one table. Returns its folder.

    Every variant is a run of its own, `ablation/<variant>/` beside the recipe's, from the same stage 1, seed and steps.

    Raises:
        LiteError: Data or adapters need the user, or this is one of several processes.
    """
    if processes() > 1:
        raise LiteError("--ablate trains one variant after the other in one process: start it without accelerate.")
    table, runs = ablation_runs(config)
    stage1 = stage1_below(config)
    settings = {name: variant(recipe, ABLATIONS.get(name, {}), folder, str(stage1)) for name, folder in runs.items()}
    missing = [name for name, folder in runs.items() if not (folder / "report.json").exists()]
    finished = {name: folder for name, folder in runs.items() if name not in missing}
    for name, folder in finished.items():
        # as the run did: what it chose is recorded there
        fitted, fitted_model, _ = auto_fit(settings[name], model_config, 2, Console(quiet=True))
        before = read_settings(folder / "config.yaml")
        check_settings(folder, before, resolved_settings(fitted, fitted_model))
        console.print(f"{name}: {folder} is finished.", soft_wrap=True)
    below = {folder: report_of(folder)["stage1_hash"] for folder in finished.values()}
    if missing and stage1.exists():
        below[stage1] = read_card(stage1)["hash"]
    check_same_stage1(below)
    for name in missing:
        console.rule(name)
        train_stage2(settings[name], model_config, console)
    write_table(table, runs, recipe, console)
    return table


def check_same_stage1(below: dict[Path, str | None]) -> None:
    """Refuse runs that are stacked on different adapters, given the hash of each one's stage 1."""
    if len({found for found in below.values() if found}) > 1:
        listed = "\n".join(f"  {folder}: {found[:12]}" for folder, found in below.items() if found)
        raise LiteError(
            f"These runs are stacked on different stage 1 adapters:\n{listed}\nRemove those that are out of date and "
            "start again: what is missing is trained."
        )


def write_table(table: Path, runs: dict[str, Path], recipe: Stage2Config, console: Console) -> None:
    """Compare the predictions of finished runs, question by question, in `report.json` and `report.md` of `table`."""
    reports = {name: report_of(folder) for name, folder in runs.items()}
    _, examples, _ = load_report_questions(recipe)
    systems: dict[str, list[list[Trace]]] = {}
    for name, report in reports.items():
        wanted = report["systems"] if name == FULL else [report["full"]]
        for system in wanted:
            orders = [read_predictions(predictions_path(runs[name], system, i)) for i in range(recipe.report_orders)]
            systems[system if name == FULL else name] = [[found[e.id] for e in examples] for found in orders]
    report = report_systems(examples, systems, FULL, STAGE1_BASE)
    report |= {
        "data": recipe.data, "seed": recipe.seed, "full": FULL, "baseline": STAGE1_BASE,
        "evidence": reports[FULL]["evidence"], "runs": {name: r["adapter_hash"] for name, r in reports.items()},
    }  # fmt: skip
    write_text(table / "report.json", json.dumps(report, indent=2) + "\n")
    notes = [
        f"Data: {recipe.data}, {reported_on(examples)}, seed {recipe.seed}. Each variant is trained from the "
        "same stage 1 with the same steps; `no stage 1` has neither its adapter nor its filter. A reward that is left "
        "out is left out of GRPO only: a cold start imitates chains that rank and answer.",
    ]
    write_text(table / "report.md", answers_markdown(report, "Ablation", notes))
    console.print(answers_table(report, reported_on(examples)))
    console.print(f"Table: {table / 'report.md'}", soft_wrap=True)


def ablation_runs(config: EvaluateConfig) -> tuple[Path, dict[str, Path]]:
    """The folder of the table, and that of each run in it by its name."""
    table = Path(config.output_dir or Path(config.run).parent / "ablation")
    slugs = {name: name.replace(" ", "-").replace(",", "") for name in ABLATIONS}
    return table, {FULL: Path(config.run)} | {name: table / slug for name, slug in slugs.items()}


def report_of(run: Path) -> dict:
    """`report.json` of a finished run."""
    return read_json(run / "report.json")


def variant(recipe: Stage2Config, changes: dict[str, str], folder: Path, stage1: str) -> Stage2Config:
    """The recipe's settings with some changed, as a run of its own."""
    fields = {f.name: getattr(recipe, f.name) for f in dataclasses.fields(Stage2Config) if f.init}
    # as the recipe has them, not as they were derived from it; overwriting is for predictions here, not for runs
    fields |= recipe.of_recipe | {"generation_batch_size": None, "overwrite": False}
    fields |= {"output_dir": str(folder), "stage1_adapter": stage1}
    if "adapter_mode" in changes:
        fields["adapter_mode"] = changes["adapter_mode"]
    if "without_reward" in changes:
        left_out = [reward.__name__ for reward in REWARDS].index(changes["without_reward"])
        weights = list(recipe.reward_weights or [1.0] * len(REWARDS))
        fields["reward_weights"] = [0.0 if i == left_out else weight for i, weight in enumerate(weights)]
    return Stage2Config(**fields)
