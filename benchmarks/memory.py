"""The memory that every recipe for a GPU needs by lite's own estimate, with the longest prompts that the recipe allows.

    python benchmarks/memory.py          (seconds; writes benchmarks/results/memory.json and its section of docs/gpu.md)

No GPU and no weights are needed; `benchmarks/gpu.py` compares the estimate with a card. `lite train stage2 --config …
--dry_run true` prints the same estimate for the prompts of your data, which are shorter.
"""

from __future__ import annotations

import json
from pathlib import Path

from gpu_table import PROFILES
from readme import RESULTS, ROOT, write_sections

from lite.config.parse import parse
from lite.config.runs import Stage1Config, Stage2Config
from lite.models.memory import run_estimate
from lite.models.shapes import shape_of


def peak(recipe: Path, stage: int) -> float:
    """GiB at the peak of a run of this recipe."""
    config_class = Stage1Config if stage == 1 else Stage2Config
    arguments = ["--config", str(recipe), "--use_cpu", "true"]  # else bf16 is refused without a GPU
    config, model_config = parse(config_class, f"train stage{stage}", arguments)
    shape = shape_of(model_config.model_name_or_path)
    images = config.max_documents if isinstance(config, Stage2Config) else 1
    return run_estimate(shape, config, model_config, config.max_prompt_tokens, images, adapters=stage)["peak"]


def main() -> None:
    result = {
        profile: {
            str(stage): round(peak(ROOT / "recipes" / profile / f"stage{stage}.yaml", stage), 2) for stage in (1, 2)
        }
        for profile in (*PROFILES, "qwen3.5-4b")
    }
    (RESULTS / "memory.json").write_text(json.dumps(result, indent=2) + "\n")
    write_sections()


if __name__ == "__main__":
    main()
