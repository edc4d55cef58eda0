"""Results as Markdown, for the README and docs/: every function takes what a program of this folder wrote as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Cells = Iterable[object]

STAGE1_FIGURES = {"auc": "AUC", "recall@1": "recall@1", "recall@5": "recall@5", "ndcg@5": "nDCG@5"}
STAGE2_FIGURES = {"format": "format", "ndcg@5": "nDCG@5", "source_f1": "source F1", "exact_match": "exact match"}
SIZES = (8, 12, 16, 24, 32, 48, 80)  # GB of graphics cards
USABLE = 0.92  # see lite.models.memory
OTHERS = {"qwen3.5-4b": "Qwen3.5-4B in 16 bits"}
POOLS = {"own_pools": "own (17–18 documents)", "hard_pools": "hard (30 documents)"}


def markdown(headings: Sequence[str], rows: Iterable[Cells]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def span(values: Iterable[float], form: str = ".3f") -> str:
    """`0.942 to 0.964`, or one number where all are alike."""
    values = list(values)
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def interval(figure: dict, form: str = "+.3f") -> str:
    """`+0.242 (+0.204 to +0.276)`."""
    value, low, high = (format(figure[name], form) for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


# ----------------------------------------------------------------------------------------------------------- the README


def headline(stage1: list[dict], stage2: list[dict]) -> str:
    """Both stages in one table: the range over the seeds, and whether each seed gains."""

    def row(what: str, before: list[dict], after: list[dict], gains: list[dict], figure: str) -> Cells:
        gain = [found[figure] for found in gains]
        above = sum(found["low"] > 0 for found in gain)
        values = (span(part[figure]["value"] for part in parts) for parts in (before, after))
        return (what, *values, span((found["value"] for found in gain), "+.3f"), f"{above} of {len(gain)}")

    own = [run["own_pools"] for run in stage1]
    filtering = {
        "auc": "filter: scores of relevant and irrelevant documents kept apart (AUC)",
        "recall@5": "filter: relevant documents among its first five (recall@5)",
    }
    answering = {
        "format": "output can be read by the program (format)",
        "ndcg@5": "order of the documents (nDCG@5)",
        "source_f1": "cited sources are the right ones (F1)",
        "exact_match": "answer is right, to the letter (exact match)",
    }
    before, full = stage2[0]["baseline"], stage2[0]["full"]
    systems = {name: [run["systems"][name] for run in stage2] for name in (before, full)}
    rows = [
        *(
            row(what, [p["base"] for p in own], [p["trained"] for p in own], [p["difference"] for p in own], figure)
            for figure, what in filtering.items()
        ),
        *(
            row(what, systems[before], systems[full], [run["difference"] for run in stage2], figure)
            for figure, what in answering.items()
        ),
    ]
    bm25 = own[0]["bm25"]
    return "\n\n".join(
        [
            markdown(["0 to 1, higher is better", "before", "after", "gain", "seeds that gain"], rows),
            f"{stage1[0]['questions']['test']} questions about countries that training never saw; "
            f"{len(stage1)} trainings from scratch; a seed gains where its 95 % interval lies above 0. Keyword search "
            f"(BM25) alone reaches AUC {bm25['auc']['value']:.3f} and recall@5 {bm25['recall@5']['value']:.3f}.",
        ]
    )


def expectations(
    stage1: list[dict], stage2: list[dict], memory: dict, measured: dict | None, steps: dict, thresholds: dict
) -> str:
    """What a machine can train: memory and time, each measured, estimated or not known.

    Args:
        stage1, stage2: The seeds of the tiny profile.
        memory: The estimates of `memory.json`.
        measured: Of a GPU, see `gpu.py`.
        steps: Optimiser steps of each recipe, by profile and stage.
        thresholds: MiB of a GPU from which on the recipes choose a profile, by profile.
    """

    def minutes(runs: list[dict]) -> str:
        return span((run["training_seconds"] / 60 for run in runs), ".0f")

    rows = [
        (
            "no GPU", "`tiny`", "embedded, 1.5 million parameters; knows only flags, for trying everything", "–",
            f"on one CPU core: stage 1 {minutes(stage1)} minutes, stage 2 {minutes(stage2)}; reports come on top",
        )
    ]  # fmt: skip
    cells = measured["cells"] if measured else {}
    for profile, estimates in memory.items():
        found = [cells.get(f"{profile}:{stage}:lite", {}) for stage in (1, 2)]
        if all(cell.get("status") == "measured" for cell in found):
            peaks = " / ".join(f"{cell['peak_gib']['all']:.1f}" for cell in found) + " GiB, measured"
            seconds = [cell["seconds"]["step"] * steps[profile][stage] for cell, stage in zip(found, "12", strict=True)]
            time = (
                f"at most {seconds[0] / 60:.0f} minutes and {seconds[1] / 3600:.0f} hours at the pace of an "
                f"{measured['card'].split()[1]}, with the longest prompts and answers that the recipe allows"
            )
        else:
            peaks = " / ".join(f"{estimates[stage]:.1f}" for stage in "12") + " GiB, estimated"
            time = "not measured"
        name = OTHERS.get(profile, f"Qwen3-VL-{profile[-2:].upper()} in 4 bits")
        size = next(size for size in SIZES if max(estimates.values()) <= USABLE * size)
        machine = f"GPU of {size} GB; by name: `PROFILE={profile}`"
        if profile in thresholds:
            machine = f"GPU of {next(size for size in SIZES if 1024 * size >= thresholds[profile])} GB"
        rows.append((machine, f"`{profile}`", name, peaks, time))
    headings = ["machine", "profile", "model", "memory, stage 1 / stage 2", "training, stage 1 and stage 2"]
    return markdown(headings, rows)


# --------------------------------------------------------------------------------------------------------- docs/results


def stage1(runs: list[dict]) -> str:
    """A row per pool, figure and seed."""
    rows = []
    for pools, name in POOLS.items():
        for figure in ("auc", "recall@5"):
            for run in runs:
                part = run[pools]
                values = (f"{part[system][figure]['value']:.3f}" for system in ("chance", "bm25", "base", "trained"))
                gain = interval(part["difference"][figure])
                rows.append((name, STAGE1_FIGURES[figure], run["seed"], *values, gain))
    headings = ["pools", "figure", "seed", "chance", "BM25", "base", "trained", "trained − base (95 %)"]

    def verdicts(difference: str) -> Iterable[Cells]:
        for pools, name in POOLS.items():
            for figure, shown in STAGE1_FIGURES.items():
                parts = [run[pools][difference][figure] for run in runs]
                above, below = sum(p["low"] > 0 for p in parts), sum(p["high"] < 0 for p in parts)
                yield name, shown, above, len(runs) - above - below, below

    against = {"difference": "base", "over_bm25": "BM25"}
    by_kind = markdown(
        ["recall@5, own pools, mean over the seeds", "BM25", "base", "trained"],
        [
            (
                f"questions on {kind}",
                *(
                    f"{mean(run['by_kind'][kind][system]['recall@5']['value'] for run in runs):.3f}"
                    for system in ("bm25", "base", "trained")
                ),
            )
            for kind in ("one document", "two documents")
        ],
    )
    kept, removed = (
        span((100 * run["filter_on_test"][name] for run in runs), ".0f") for name in ("recall_kept", "share_filtered")
    )
    thresholds = span((run["filter"]["threshold"] for run in runs), ".4f")
    return "\n\n".join(
        [
            markdown(headings, rows),
            *(
                f"Trained against {name}, number of seeds whose 95 % interval of the difference lies above 0, includes "
                "0, lies below 0:\n\n"
                + markdown(["pools", "figure", "above", "includes 0", "below"], verdicts(difference))
                for difference, name in against.items()
            ),
            by_kind,
            f"With the tuned threshold ({thresholds}) the filter removes {removed} % of the test documents and keeps "
            f"{kept} % of the relevant ones.",
        ]
    )


def ceiling(result: dict) -> str:
    """What a filter that sees one document at a time could reach."""
    figures = "auc", "recall@5"
    return markdown(
        ["pools", *(STAGE1_FIGURES[figure] for figure in figures)],
        [(name, *(f"{result[pools][figure]:.3f}" for figure in figures)) for pools, name in POOLS.items()],
    )


def stage2(runs: list[dict]) -> str:
    """A row per system and seed, then what the full system gains."""
    shown = STAGE2_FIGURES | {"f1": "F1"}
    rows = []
    for run in runs:
        for name, part in run["systems"].items():
            one = run["by_kind"]["one document"][name]["exact_match"]["value"]
            two = run["by_kind"]["two or more documents"][name]["exact_match"]["value"]
            rows.append(
                (run["seed"], name, *(f"{part[figure]['value']:.3f}" for figure in shown), f"{one:.3f}", f"{two:.3f}")
            )
    headings = ["seed", "system", *shown.values(), "exact match, one document", "exact match, two"]
    gains = markdown(
        ["seed", *(STAGE2_FIGURES[figure] for figure in STAGE2_FIGURES)],
        [(run["seed"], *(interval(run["difference"][figure]) for figure in STAGE2_FIGURES)) for run in runs],
    )
    evidence = markdown(
        ["seed", "answers", "changed without the cited documents", "changed without as many others"],
        [
            (
                run["seed"], run["evidence"]["questions"],
                *(f"{run['evidence'][f'changed_without_{what}']['value']:.0%}" for what in ("cited", "uncited")),
            )
            for run in runs
        ],
    )  # fmt: skip
    return "\n\n".join(
        [
            markdown(headings, rows),
            f"{runs[0]['full']} minus {runs[0]['baseline']}, with 95 % paired intervals:",
            gains,
            "Evidence test: does the answer change when documents are taken away?",
            evidence,
        ]
    )


def passed_on(result: dict) -> str:
    """What of the relevant documents reaches the prompt: a row per kind of question, means over the seeds; exact match
    over the questions of all seeds."""
    runs = list(result.values())
    kinds = [run["kinds"] for run in runs]
    sizes = list(kinds[0]["all"]["complete"])
    rows = []
    for kind in kinds[0]:
        parts = [found[kind] for found in kinds]
        cells = [f"{mean(part['complete'][size] for part in parts):.2f}" for size in sizes]
        for seen in ("seen_whole", "seen_in_part"):
            count = sum(part[seen]["questions"] for part in parts)
            right = sum(part[seen]["right"] for part in parts)
            cells.append(f"{right / count:.2f} of {count}" if count else "none")
        rows.append((kind, parts[0]["questions"], *cells))
    headings = [
        "kind", "questions", *(f"all its documents among {size}" for size in sizes), "exact match, all seen",
        "exact match, not all seen",
    ]  # fmt: skip
    best = next(name for name in kinds[0]["all"] if name.startswith("best_"))
    bounds = [f"{size} documents {mean(found['all'][best][size] for found in kinds):.3f}" for size in sizes]
    cited, habits = [], []
    for system in runs[0]["citing_two"]:
        parts = [run["citing_two"][system] for run in runs]
        cited.append(f"{system} {sum(p['citing'] for p in parts)} of {sum(p['prompts'] for p in parts)}")
    for system, first in runs[0]["sentences"].items():
        share, exact, bare = (mean(run["sentences"][system][name] for run in runs) for name in first)
        habits.append((system, f"{share:.0%}", f"{exact:.3f}", f"{bare:.3f}"))
    return "\n\n".join(
        [
            markdown(headings, rows),
            f"The best nDCG@{best.partition('@')[2]} that any order of what stage 1 passes on could reach: "
            f"{', '.join(bounds)}.",
            f"Prompts with both documents of a question on two whose outputs cite two or more: {', '.join(cited)}.",
            "Answers that come in a sentence, and what exact match is with and without that sentence, means over the "
            "seeds:",
            markdown(["system", "in a sentence", "exact match", "exact match without the sentence"], habits),
        ]
    )


def ablation(result: dict) -> str:
    """The full system minus every variant."""
    rows = [
        (name, *(interval(part[figure]) for figure in STAGE2_FIGURES))
        for name, part in result["against"].items()
        if name not in ("base", result["baseline"])
    ]
    return markdown(["full system minus", *STAGE2_FIGURES.values()], rows)
