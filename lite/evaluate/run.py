"""`lite evaluate`: the whole pipeline over a split, its official submission file, and the ablation table."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console

from lite.config.launch import processes
from lite.config.model import ModelConfig
from lite.data import multimodalqa, webqa
from lite.data.problems import Problems
from lite.data.sources import load_examples, parse_spec, split_mix, without_unreadable
from lite.evaluate.engine import Answer, transformers_engine, usable_cards
from lite.evaluate.stage1 import reported_on
from lite.evaluate.stage2 import markdown, predictions_path, read_predictions, report_systems, terminal_table
from lite.files import read_json, write_text
from lite.runs import find_adapters, read_card, read_settings, stage1_of
from lite.schema import Example, LiteError, Trace
from lite.stages.answer import FULL, STAGE1_BASE
from lite.train.auto_fit import auto_fit
from lite.train.stage1 import check_settings, resolved_settings
from lite.train.stage2 import REWARDS, Stage2Config, load_test_examples, train_stage2

logger = logging.getLogger(__name__)

SUBMISSIONS = {"webqa": webqa.submission, "multimodalqa": multimodalqa.submission}
# What each ablation changes in the recipe; see `ablate`.
ABLATIONS = {
    "no stage 1": {"adapter_mode": "fresh"},
    "no ranking reward": {"without_reward": "ranking"},
    "no answer reward": {"without_reward": "answer"},
    "continued, not stacked": {"adapter_mode": "continue"},
}


@dataclass
class EvaluateConfig(Stage2Config):
    """The settings of an evaluation: those of stage 2's recipe, and which questions."""

    split: str = field(default="test", metadata={"help": "Which questions: `train`, `dev` (or `val`) or `test`."})
    stage2_adapter: str | None = field(
        default=None,
        metadata={"help": "Folder of stage 2's adapter. By default the profile's run, else the one that is shipped."},
    )
    results: str | None = field(
        default=None, metadata={"help": "Where to write. By default evaluation-<data>-<split> beside the run."}
    )
    ablate: bool = field(
        default=False,
        metadata={"help": "Train the variants of the recipe that are missing and put all of them in one table."},
    )
    engine: str = field(
        default="transformers",
        metadata={
            "help": "What answers: `transformers` in this process, `vllm` (needs an NVIDIA GPU, --exported, the extra "
            "vllm), or `ray`, `ray+vllm`: either, in every worker of a Ray cluster (the extra ray).",
            "choices": ["transformers", "vllm", "ray", "ray+vllm"],
        },
    )
    exported: str | None = field(
        default=None, metadata={"help": "With vllm: the folder that `lite export` wrote of the stage 2 run."}
    )
    workers: int | None = field(
        default=None, metadata={"help": "With ray: how many. By default one per GPU, or per CPU core without GPUs."}
    )
    partition_questions: int = field(
        default=64, metadata={"help": "With ray: questions per Parquet file, and what a lost worker has to redo."}
    )


def evaluate(config: EvaluateConfig, model_config: ModelConfig, console: Console) -> Path:
    """Answer every question of a split; a stopped evaluation continues where it was. Returns the folder of results.

    Writes a trace per question (`predictions.jsonl`, with ray `predictions/*.parquet`), `submission.json` for the two
    benchmarks, `report.json` and `report.md`. Questions that `skip_broken` leaves out are in none of them.

    Raises:
        LiteError: Data or adapters need the user.
    """
    if processes() > 1:
        raise LiteError("accelerate launch is for training. Spread an evaluation with --engine ray.")
    stage1, stage2 = adapters_of(config, model_config)
    console.print(f"Adapters: {stage1}, {stage2}", soft_wrap=True)
    names = [parse_spec(spec)[0] for spec in split_mix(config.data)]
    name = names[0] if len(names) == 1 else "mix"
    folder = Path(config.results or Path(config.output_dir).parent / f"evaluation-{name}-{config.split}")
    folder.mkdir(parents=True, exist_ok=True)
    problems = Problems(config.skip_broken)
    examples = load_examples(config.data, config.split, config.limit, problems)
    if config.skip_broken:
        examples = without_unreadable(examples, problems)
    if problems.messages:
        logger.warning(problems.summary())
    if not examples:
        raise LiteError(
            f"{config.data} has no question{' left' * bool(problems.messages)} in its split {config.split}."
        )
    start = engine_of(config, model_config, stage1, stage2)
    claim_predictions(folder, config, examples, stage1, stage2)
    if config.engine.startswith("ray"):
        from lite.evaluate.on_ray import answer_on_ray

        traces = answer_on_ray(
            start, examples, folder / "predictions", config.partition_questions, config.workers, console
        )
    else:
        traces = start()(examples, folder / "predictions.jsonl", console)
    if name in SUBMISSIONS:
        write_submission(folder / "submission.json", name, examples, traces)
    labelled = [i for i, example in enumerate(examples) if example.relevant and example.answers]
    if labelled:
        report = report_systems([examples[i] for i in labelled], {FULL: [[traces[i] for i in labelled]]}, FULL, FULL)
        report |= {"data": config.data, "split": config.split, "full": FULL, "baseline": FULL}
        write_text(folder / "report.json", json.dumps(report, indent=2) + "\n")
        notes = [f"Data: {config.data}, split {config.split}, {len(labelled)} labelled questions. Adapter {stage2}."]
        if set(names) & set(SUBMISSIONS) and config.split in ("dev", "val", "validation"):
            notes += [
                "",
                "Where stage 1 was trained on this data, its threshold was tuned on half of these questions.",
            ]
        write_text(folder / "report.md", markdown(report, "Evaluation", notes))
        console.print(terminal_table(report, f"{config.data}, {config.split}: {len(labelled)} questions"))
    console.print(f"Results: {folder}", soft_wrap=True)
    return folder


def engine_of(config: EvaluateConfig, model_config: ModelConfig, stage1: Path, stage2: Path) -> Callable[[], Answer]:
    """What starts the engine, here or in a worker elsewhere."""
    if config.engine in ("transformers", "ray"):
        usable_cards(stage1, stage2)
        return partial(transformers_engine, model_config, stage1, stage2, config.per_device_eval_batch_size)
    from lite.evaluate.vllm import exported_cards, vllm_engine

    exported_cards(stage1, stage2)
    return partial(
        vllm_engine, model_config, stage1, stage2, config.max_prompt_tokens, config.per_device_eval_batch_size
    )


def adapters_of(config: EvaluateConfig, model_config: ModelConfig) -> tuple[Path, Path]:
    """Stage 1's adapter and stage 2's, or with vllm what `lite export` made of both."""
    if not config.engine.endswith("vllm"):
        shipped = model_config.model_name_or_path == "tiny"
        return find_adapters(config.output_dir, config.stage1_adapter, config.stage2_adapter, shipped)
    if config.exported is None:
        raise LiteError(
            "vLLM takes both stages as one adapter. Write it with `lite export --run RUN --output_dir FOLDER`, and "
            "give --exported FOLDER."
        )
    return stage1_below(config), Path(config.exported)


def stage1_below(config: EvaluateConfig) -> Path:
    """The stage 1 adapter that is named, or the one that the run in `output_dir` is stacked on."""
    return Path(config.stage1_adapter or stage1_of(Path(config.output_dir) / "adapter"))


def claim_predictions(
    folder: Path, config: EvaluateConfig, examples: Sequence[Example], stage1: Path, stage2: Path
) -> None:
    """Refuse to continue predictions that other adapters or other data made, or these before they were edited.

    Ray's partitions carry a digest of their examples instead.
    """
    now = {
        "data": config.data, "split": config.split, "stage1_hash": read_card(stage1)["hash"],
        "stage2_hash": read_card(stage2)["hash"],
    }  # fmt: skip
    path = folder / "evaluation.json"
    if config.overwrite:
        (folder / "predictions.jsonl").unlink(missing_ok=True)
        shutil.rmtree(folder / "predictions", ignore_errors=True)
    elif path.exists() and read_json(path) != now:
        raise LiteError(
            f"{folder} holds predictions of other adapters or data. Give another --results, or --overwrite true."
        )
    write_text(path, json.dumps(now, indent=2) + "\n")
    predictions = folder / "predictions.jsonl"
    found = read_predictions(predictions)
    for example in examples:
        old = found.get(example.id)
        if old and (old.question != example.question or set(old.retrieved) != {d.id for d in example.documents}):
            raise LiteError(
                f"{predictions} answers another {example.id}: {old.question!r} over {len(old.retrieved)} documents, "
                f"now {example.question!r} over {len(example.documents)}. The data have changed since: move the file "
                "away, or answer anew with --overwrite true."
            )


def write_submission(path: Path, name: str, examples: Sequence[Example], traces: Sequence[Trace]) -> None:
    """The file that the benchmark's own evaluator reads."""
    submission = SUBMISSIONS[name]
    rows = [submission(example, t.answer, t.cited) for example, t in zip(examples, traces, strict=True)]
    entries = {key: value for row in rows for key, value in row.items()}
    write_text(path, json.dumps(entries, ensure_ascii=False, indent=1))


# ------------------------------------------------------------------------------------------------------------ ablation


def ablate(config: EvaluateConfig, model_config: ModelConfig, console: Console) -> Path:
    """Train what is missing of the recipe and its variants, and put all systems in one table. Returns its folder.

    Every variant is a run of its own, `ablation/<variant>/` beside the recipe's, from the same stage 1, seed and steps.

    Raises:
        LiteError: Data or adapters need the user, or this is one of several processes.
    """
    if processes() > 1:
        raise LiteError("--ablate trains one variant after the other in one process: start it without accelerate.")
    table, runs = ablation_runs(config)
    stage1 = stage1_below(config)
    settings = {name: variant(config, ABLATIONS.get(name, {}), folder, str(stage1)) for name, folder in runs.items()}
    missing = [name for name, folder in runs.items() if not (folder / "report.json").exists()]
    finished = [name for name in runs if name not in missing]
    for name in finished:
        fitted = copy.copy(model_config)
        auto_fit(settings[name], fitted, 2, Console(quiet=True))  # as the run did: what it chose is recorded there
        before = read_settings(runs[name] / "config.yaml")
        check_settings(runs[name], before, resolved_settings(settings[name], fitted))
        console.print(f"{name}: {runs[name]} is there.", soft_wrap=True)
    below = {runs[name]: report_of(runs[name])["stage1_hash"] for name in finished}
    if missing and stage1.exists():
        below[stage1] = read_card(stage1)["hash"]
    if len({found for found in below.values() if found}) > 1:
        listed = "\n".join(f"  {folder}: {found[:12]}" for folder, found in below.items() if found)
        raise LiteError(
            f"These runs are stacked on different stage 1 adapters:\n{listed}\nRemove those that are out of date and "
            "start again: what is missing is trained."
        )
    for name in missing:
        console.rule(name)
        train_stage2(settings[name], copy.copy(model_config), console)  # each may fit its own to the card
    reports = {name: report_of(folder) for name, folder in runs.items()}
    examples, _ = load_test_examples(config)
    systems: dict[str, list[list[Trace]]] = {}
    for name, report in reports.items():
        wanted = report["systems"] if name == FULL else [report["full"]]
        for system in wanted:
            orders = [read_predictions(predictions_path(runs[name], system, i)) for i in range(config.report_orders)]
            systems[system if name == FULL else name] = [[found[e.id] for e in examples] for found in orders]
    report = report_systems(examples, systems, FULL, STAGE1_BASE)
    report |= {
        "data": config.data, "seed": config.seed, "full": FULL, "baseline": STAGE1_BASE,
        "evidence": reports[FULL]["evidence"], "runs": {name: r["adapter_hash"] for name, r in reports.items()},
    }  # fmt: skip
    write_text(table / "report.json", json.dumps(report, indent=2) + "\n")
    notes = [
        f"Data: {config.data}, {reported_on(examples)}, seed {config.seed}. Each variant is trained from the "
        "same stage 1 with the same steps; `no stage 1` has neither its adapter nor its filter. A reward that is left "
        "out is left out of GRPO only: a cold start imitates chains that rank and answer.",
    ]
    write_text(table / "report.md", markdown(report, "Ablation", notes))
    console.print(terminal_table(report, reported_on(examples)))
    console.print(f"Table: {table / 'report.md'}", soft_wrap=True)
    return table


def ablation_runs(config: EvaluateConfig) -> tuple[Path, dict[str, Path]]:
    """The folder of the table, and that of each run in it by its name."""
    table = Path(config.results or Path(config.output_dir).parent / "ablation")
    slugs = {name: name.replace(" ", "-").replace(",", "") for name in ABLATIONS}
    return table, {FULL: Path(config.output_dir)} | {name: table / slug for name, slug in slugs.items()}


def report_of(run: Path) -> dict:
    """`report.json` of a finished run."""
    return read_json(run / "report.json")


def variant(config: EvaluateConfig, changes: dict[str, str], folder: Path, stage1: str) -> Stage2Config:
    """The recipe's settings with some changed, as a run of its own."""
    fields = {f.name: getattr(config, f.name) for f in dataclasses.fields(Stage2Config) if f.init}
    # as the recipe has them, not as they were derived from it; overwriting is for predictions here, not for runs
    fields |= config.of_recipe | {"generation_batch_size": None, "overwrite": False}
    fields |= {"output_dir": str(folder), "stage1_adapter": stage1}
    if "adapter_mode" in changes:
        fields["adapter_mode"] = changes["adapter_mode"]
    if "without_reward" in changes:
        left_out = [reward.__name__ for reward in REWARDS].index(changes["without_reward"])
        weights = list(config.reward_weights or [1.0] * len(REWARDS))
        fields["reward_weights"] = [0.0 if i == left_out else weight for i, weight in enumerate(weights)]
    return Stage2Config(**fields)
