"""What pretrained.py found, as Markdown for docs/training.md: what was trained and gained, and what was not."""

from __future__ import annotations

from tables import STAGE2_FIGURES, interval, markdown, span

STAGE1_NAMES = {"auc": "AUC", "recall@5": "recall@5", "hit@1": "hit@1", "ndcg@5": "nDCG@5"}
ANSWERED = STAGE2_FIGURES | {"f1": "answer F1"}
NOTHING = "No pretrained model has been trained to the end yet: `python benchmarks/pretrained.py` does, in hours."


def section(found: dict) -> str:
    """Both stages, as far as they were trained.

    Args:
        found: What benchmarks/results/pretrained.json holds; empty where there is no such file.
    """
    parts = [
        table(found[stage])
        for stage, table in (("stage1", stage1), ("stage2", stage2))
        if found.get(stage, {}).get("seeds")
    ]
    if not parts:
        return NOTHING
    missing = [] if len(parts) == 2 else ["Stage 2 has not been trained on it."]
    return "\n\n".join(
        [f"{found['model']}, trained on one CPU core by `python benchmarks/pretrained.py`.", *parts, *missing]
    )


def stage1(found: dict) -> str:
    """Every system's figures, the seeds as a range, and the paired gains of each seed."""
    seeds = [run["seed"] for run in found["seeds"]]
    systems = found["systems"]
    others = {"base": "untouched model", "bm25": "BM25", "cross-encoder": "cross-encoder (MS MARCO, MiniLM-L-12)"}
    rows = [
        (label, *(f"{systems[name][figure]['value']:.3f}" for figure in STAGE1_NAMES))
        for name, label in others.items()
        if name in systems
    ]
    for form, label in (("seed {}", "after stage 1"), ("seed {} + bm25", "after stage 1, fused with BM25")):
        of_seeds = [systems[form.format(seed)] for seed in seeds]
        rows.append((label, *(span(part[figure]["value"] for part in of_seeds) for figure in STAGE1_NAMES)))
    gains = []
    for minus, label in (
        ("seed {} - base", "after stage 1 minus untouched"),
        ("seed {} - bm25", "after stage 1 minus BM25"),
        ("seed {} + bm25 - bm25", "fused minus BM25"),
    ):
        for seed in seeds:
            difference = found["differences"][minus.format(seed)]
            gains.append((label, seed, *(interval(difference[figure]) for figure in STAGE1_NAMES)))
    about, runs = found["about"], found["seeds"]
    return "\n\n".join(
        [
            f"**Stage 1**, {_seeds(seeds)}: {about['data']}; {about['questions']} test questions with "
            f"{about['documents']} documents each, half of them hard; {span((run['steps'] for run in runs), '.0f')} "
            "steps. Figures are means over each question's own.",
            markdown(["", *STAGE1_NAMES.values()], rows),
            markdown(["paired difference", "seed", *STAGE1_NAMES.values()], gains),
        ]
    )


def stage2(found: dict) -> str:
    """Every system's figures, the seeds as a range, and what GRPO added to what it began with."""
    runs = found["seeds"]
    seeds = [run["seed"] for run in runs]
    systems = [
        (name, *(span(run["systems"][name][figure]["value"] for run in runs) for figure in ANSWERED))
        for name in runs[0]["systems"]
    ]
    imitated = [run["imitation"]["systems"]["stage 1 + cold start"] for run in runs]
    control = ("imitation for as many completions", *(span(part[f]["value"] for part in imitated) for f in ANSWERED))
    gains = [
        (run["seed"], *(interval(run["against"]["stage 1 + cold start"][figure]) for figure in ANSWERED))
        for run in runs
    ]
    return "\n\n".join(
        [
            f"**Stage 2**, {_seeds(seeds)}: {found['about']['data']}; {found['about']['questions']} test questions.",
            markdown(["", *ANSWERED.values()], [*systems, control]),
            "After GRPO minus after the cold start, paired:",
            markdown(["seed", *ANSWERED.values()], gains),
        ]
    )


def _seeds(seeds: list[int]) -> str:
    return f"seed {seeds[0]} alone" if len(seeds) == 1 else f"{len(seeds)} seeds"
