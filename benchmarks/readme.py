"""The generated parts of README.md and docs/: what stands between `<!-- name -->` and `<!-- /name -->`.

    python benchmarks/readme.py         writes all of them anew, from benchmarks/results and from nothing else

The programs that make results do the same at their end. tests/test_documents.py fails where one is out of date.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import cost_tables
import gpu_table
import pretrained_table
import tables
import yaml

from lite.runs import PROFILES

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def documents() -> list[Path]:
    """The README and the documents that it links to."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def sections() -> dict[str, str]:
    """Every generated section: its name and its text."""
    stage1, stage2 = result("stage1-seeds-tiny"), result("stage2-seeds-tiny")
    memory = result("memory")
    measured = gpu_table.read_results(RESULTS)
    steps = {
        profile: {
            stage: yaml.safe_load((ROOT / "recipes" / profile / f"stage{stage}.yaml").read_text())["max_steps"]
            for stage in "12"
        }
        for profile in memory
    }
    thresholds = {profile: mebibytes for mebibytes, profile in PROFILES.items()}
    return {
        "results": tables.headline(stage1, stage2),
        "expect": tables.expectations(stage1, stage2, memory, measured[0] if measured else None, steps, thresholds),
        "gpu": gpu_table.markdown(measured),
        "memory": cost_tables.memory(memory),
        "grpo step": cost_tables.grpo_step(result("grpo-step-cpu")),
        "laptop": cost_tables.laptop(result("laptop")),
        "merged": cost_tables.merged(result("merged")),
        "decoding": cost_tables.decoding(result("decoding")),
        "stage 1": tables.stage1(stage1),
        "ceiling": tables.ceiling(result("ceiling-flags")),
        "scoring": cost_tables.scoring(result("scoring-tiny-cpu")),
        "stage 2": tables.stage2(stage2),
        "passed on": tables.passed_on(result("passed-on-tiny")),
        "ablation": tables.ablation(result("ablation-tiny")),
        "library": cost_tables.library(result("library")),
        "scale": cost_tables.scale(result("scale")),
        "endurance": cost_tables.endurance(result("endurance") if (RESULTS / "endurance.json").exists() else {}),
        "pretrained": pretrained_table.section(result("pretrained") if (RESULTS / "pretrained.json").exists() else {}),
    }


def result(name: str) -> dict | list:
    return json.loads((RESULTS / f"{name}.json").read_text())


def marks(name: str) -> tuple[str, str]:
    """What stands before and after the section."""
    return f"<!-- {name} -->", f"<!-- /{name} -->"


def home(name: str) -> Path:
    """The document that holds a section."""
    start, end = marks(name)
    holding = [path for path in documents() if start in path.read_text() and end in path.read_text()]
    if len(holding) != 1:
        raise SystemExit(f"{start} … {end} must stand in one document; it stands in {len(holding)}.")
    return holding[0]


def read_section(name: str) -> str:
    """The text of a section as it stands."""
    start, end = marks(name)
    return home(name).read_text().split(start)[1].split(end)[0].strip()


def write_sections() -> None:
    """Bring every section up to date, and show those that change."""
    for name, text in sections().items():
        if read_section(name) == text:
            continue
        start, end = marks(name)
        section = f"{start}\n{text}\n{end}"
        path = home(name)
        path.write_text(re.sub(f"{start}.*{end}", lambda _, new=section: new, path.read_text(), flags=re.DOTALL))
        print(f"{path.relative_to(ROOT)}:\n{section}\n")


if __name__ == "__main__":
    write_sections()
