"""`lite evaluate`: the whole pipeline over a split, and its official submission file."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from lite.config.evaluate import EvaluateConfig
from lite.config.launch import processes
from lite.config.model import ModelConfig
from lite.data import multimodalqa, webqa
from lite.data.problems import Problems
from lite.data.sources import load_examples, parse_spec, split_mix, without_unreadable
from lite.evaluate.answers import read_predictions
from lite.evaluate.engine import Answer, transformers_engine, usable_cards
from lite.evaluate.figures import report_systems
from lite.evaluate.report import answers_markdown, answers_table
from lite.files import read_json, write_text
from lite.models.hub import fetch_adapters
from lite.runs import find_adapters, read_card, stage1_of
from lite.schema import Example, LiteError, Trace
from lite.stages.answer import FULL

logger = logging.getLogger(__name__)

SUBMISSIONS = {"webqa": webqa.submission, "multimodalqa": multimodalqa.submission}


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
    folder = Path(config.output_dir or Path(config.run).parent / f"evaluation-{name}-{config.split}")
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
        asked, said = [examples[i] for i in labelled], [traces[i] for i in labelled]
        write_report(folder, config, set(names), asked, said, stage2, console)
    console.print(f"Results: {folder}", soft_wrap=True)
    return folder


def write_report(
    folder: Path,
    config: EvaluateConfig,
    names: set[str],
    examples: Sequence[Example],
    traces: Sequence[Trace],
    stage2: Path,
    console: Console,
) -> None:
    """Write `report.json` and `report.md` on labelled questions of the data sets `names`, and print the table."""
    report = report_systems(examples, {FULL: [traces]}, FULL, FULL)
    report |= {"data": config.data, "split": config.split, "full": FULL, "baseline": FULL}
    write_text(folder / "report.json", json.dumps(report, indent=2) + "\n")
    notes = [f"Data: {config.data}, split {config.split}, {len(examples)} labelled questions. Adapter {stage2}."]
    if names & set(SUBMISSIONS) and config.split in ("dev", "val", "validation"):
        notes += ["", "Where stage 1 was trained on this data, its threshold was tuned on half of these questions."]
    write_text(folder / "report.md", answers_markdown(report, "Evaluation", notes))
    console.print(answers_table(report, f"{config.data}, {config.split}: {len(examples)} questions"))


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
        if config.adapters is not None:
            return find_adapters(fetch_adapters(config.adapters))
        shipped = model_config.model_name_or_path == "tiny"
        return find_adapters(config.run, config.stage1_adapter, config.stage2_adapter, shipped)
    if config.exported is None:
        raise LiteError(
            "vLLM takes both stages as one adapter. Write it with `lite export --run RUN --output_dir FOLDER`, and "
            "give --exported FOLDER."
        )
    return stage1_below(config), Path(config.exported)


def stage1_below(config: EvaluateConfig) -> Path:
    """The stage 1 adapter that is named, or the one that the run in `output_dir` is stacked on."""
    return Path(config.stage1_adapter or stage1_of(Path(config.run) / "adapter"))


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
            f"{folder} holds predictions of other adapters or data. Give another --output_dir, or --overwrite true."
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
