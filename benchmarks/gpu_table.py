"""The README's table of GPU measurements: from `benchmarks/results/gpu-*.json`, and from nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from readme import write_section

PROFILES = ("qwen3-vl-2b", "qwen3-vl-4b", "qwen3-vl-8b")
PHASES = ("load", "generate", "log-probs", "backward", "optimiser")
SYSTEMS = ("lite", "trl", "lite on unsloth", "unsloth")
NOT_MEASURED = "not measured"
SECTION = "gpu"


def write_table(results: Path) -> None:
    """Put the table into the README."""
    write_section(SECTION, markdown(read_results(results)))


def read_results(folder: Path) -> list[dict]:
    """The measurements on cards; a trial on a CPU or with a tiny shape is none."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("gpu-*.json"))]
    return [result for result in results if result["card"] != "CPU" and not result["tiny"]]


def markdown(results: list[dict]) -> str:
    """A table per result file; one without figures where there is none."""
    return "\n\n".join(table(result) for result in results or [{"cells": {}}])


def table(result: dict) -> str:
    """One card's measurements, with a row per recipe and stage, and on what they were made."""
    lines = [
        f"| recipe, stage | peak, GiB: {' / '.join(PHASES)} | estimate off by | step, s: {' / '.join(PHASES[1:])} | "
        "generated tokens/s | stock TRL: time, peak | on Unsloth: time, peak | Unsloth's own: time, peak |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for profile in PROFILES:
        for stage in (1, 2):
            cells = {
                name.split(":")[2]: cell
                for name, cell in result["cells"].items()
                if name.startswith(f"{profile}:{stage}:")
            }
            lite = cells.get("lite")
            row = [f"`{profile}`, {stage}", peaks(lite), error(lite), seconds(lite), speed(lite)]
            row += [ratio(cells.get(system), lite) for system in ("trl", "lite on unsloth", "unsloth")]
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join([*lines, "", *notes(result)])


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


def notes(result: dict) -> list[str]:
    """Scoring, the largest prompts, and what it was measured on."""
    scoring, fitting = [], []
    for profile in PROFILES:
        cell = result["cells"].get(f"{profile}:1:score")
        scoring.append(f"`{profile}` " + (failure(cell) or f"{cell['pairs_per_second']:.1f}"))
        cell = result["cells"].get(f"{profile}:2:largest")
        fitting.append(f"`{profile}` " + (failure(cell) or ", ".join(map(fit, cell["largest"]))))
    lines = [
        f"Stage 1 scoring, pairs/s: {'; '.join(scoring)}.",
        "",
        f"Most image documents in a stage 2 prompt that still fit: {'; '.join(fitting)}.",
    ]
    if "card" not in result:
        return [*lines, "", "No card has been measured yet: `python benchmarks/gpu.py` on one fills this in."]
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items() if number)
    return [
        *lines,
        "",
        f"{result['card']} ({result['card_gib']} GiB, capped at {result['cap_gib']:g} GiB), driver {result['driver']}, "
        f"{result['date']}; {result['weights']} weights, random inputs of the longest length that a recipe lets "
        f"through; {versions}.",
    ]


def fit(entry: dict) -> str:
    side = round(entry["pixels"] ** 0.5)
    at_least = "" if entry["next_does_not_fit"] else "at least "
    return f"{at_least}{entry['documents']} of {side}×{side} with {entry['generations']} generations"
