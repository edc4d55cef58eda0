"""The table of GPU measurements in docs/gpu.md: from `benchmarks/results/gpu-*.json`, and from nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

PROFILES = ("qwen3-vl-2b", "qwen3-vl-4b", "qwen3-vl-8b")
PHASES = ("load", "generate", "log-probs", "backward", "optimiser")
OTHERS = {"trl": "stock TRL", "lite on unsloth": "on Unsloth", "unsloth": "Unsloth's own"}
NOT_MEASURED = "not measured"


def read_results(folder: Path) -> list[dict]:
    """The measurements on cards; a trial on a CPU or with a tiny shape is none."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("gpu-*.json"))]
    return [result for result in results if result["card"] != "CPU" and not result["tiny"]]


def markdown(results: list[dict]) -> str:
    """A table per result file."""
    nothing = "No card has been measured yet: `python benchmarks/gpu.py` on one fills this in."
    return "\n\n".join(map(table, results)) or nothing


def table(result: dict) -> str:
    """One card's measurements, with a row per recipe and stage, and on what they were made."""
    cells = result["cells"]
    systems = [system for system in OTHERS if any(name.endswith(f":{system}") for name in cells)]
    rows, missing = [], []
    for profile in PROFILES:
        for stage in (1, 2):
            of_row = {system: cells.get(f"{profile}:{stage}:{system}") for system in ("lite", *OTHERS)}
            lite = of_row["lite"]
            if not any(of_row.values()):
                missing.append(f"`{profile}`, {stage}")
                continue
            row = [f"`{profile}`, {stage}", peaks(lite), error(lite), seconds(lite), speed(lite)]
            rows.append([*row, *(ratio(of_row[system], lite) for system in systems)])
    headings = [
        "recipe, stage", f"peak, GiB: {' / '.join(PHASES)}", "estimate off by", f"step, s: {' / '.join(PHASES[1:])}",
        "generated tokens/s", *(f"{OTHERS[system]}: time, peak" for system in systems),
    ]  # fmt: skip
    lines = [f"| {' | '.join(row)} |" for row in (headings, ["---"] * len(headings), *rows)]
    return "\n".join([*(lines if rows else ()), "", *notes(result, missing)])


def failure(cell: dict | None) -> str | None:
    """What a cell says that has no figures."""
    if cell is None:
        return NOT_MEASURED
    if cell["status"] == "measured":
        return None
    if cell["status"] == "out of memory":
        return f"out of memory at {cell['phase']}"
    return f"{NOT_MEASURED} ({cell['status']}: {cell['reason'].splitlines()[0][:80].replace('|', '/')})"


def by_phase(cell: dict, field: str, whole: str, form: str) -> str:
    parts = " / ".join(format(cell[field][phase], form) for phase in PHASES if phase in cell[field])
    return f"**{cell[field][whole]:{form}}**: {parts}"


def peaks(cell: dict | None) -> str:
    return failure(cell) or by_phase(cell, "peak_gib", "all", ".1f")


def seconds(cell: dict | None) -> str:
    return failure(cell) or by_phase(cell, "seconds", "step", ".1f")


def speed(cell: dict | None) -> str:
    return failure(cell) or f"{cell['generated_tokens_per_second']:,.0f}"


def error(cell: dict | None) -> str:
    return failure(cell) or f"{cell['estimate_error']:+.0%}"


def ratio(cell: dict | None, lite: dict | None) -> str:
    """How many times the time and the peak of `lite` another system takes."""
    failed = failure(cell) or failure(lite)
    if failed:
        return failed
    time = cell["seconds"]["step"] / lite["seconds"]["step"]
    return f"{time:.2f}×, {cell['peak_gib']['all'] / lite['peak_gib']['all']:.2f}×"


def notes(result: dict, missing: list[str]) -> list[str]:
    """Scoring, the largest prompts, what is missing, and what it was measured on."""

    def told(name: str, figure: Callable[[dict], str]) -> list[str]:
        cells = {profile: result["cells"].get(f"{profile}:{name}") for profile in PROFILES}
        return [f"`{profile}` {failure(cell) or figure(cell)}" for profile, cell in cells.items() if cell]

    sentences = {
        "Stage 1 scoring, pairs/s": told("1:score", lambda cell: f"{cell['pairs_per_second']:.1f}"),
        "Operations that the host launches per generated position of stage 2": [
            f"`{profile}` {cell['operations_per_position']:,}"
            for profile in PROFILES
            if "operations_per_position" in (cell := result["cells"].get(f"{profile}:2:lite") or {})
        ],
        "Most image documents in a stage 2 prompt that still fit": told(
            "2:largest", lambda cell: ", ".join(map(fit, cell["largest"]))
        ),
        "Not measured yet": missing,
    }
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items() if number)
    return [
        *(f"{name}: {'; '.join(parts)}.\n" for name, parts in sentences.items() if parts),
        f"{result['card']} ({result['card_gib']} GiB, capped at {result['cap_gib']:g} GiB), driver {result['driver']}, "
        f"{'host ' + result['cpu'] + ', ' if 'cpu' in result else ''}"
        f"{result['date']}; {result['weights']} weights, random inputs of the longest length that a recipe lets "
        f"through; {versions}.",
    ]


def fit(entry: dict) -> str:
    side = round(entry["pixels"] ** 0.5)
    at_least = "" if entry["next_does_not_fit"] else "at least "
    return f"{at_least}{entry['documents']} of {side}×{side} with {entry['generations']} generations"
