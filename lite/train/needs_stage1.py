"""For recipes/stage2.sh: which stage 1 a stage 2 run will be stacked on, without importing what training needs.

    python -m lite.train.needs_stage1 --config recipes/tiny/stage2.yaml [the arguments of `lite train stage2`]

Prints nothing where a finished stage 1 lies beside the run, else where the profile's is or will be: `beside FOLDER` or,
for a run elsewhere, `profile FOLDER`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

REPORT = "report.json"  # of a finished run


def stage1_run(arguments: list[str]) -> str:
    """What is printed, see above.

    Raises:
        SystemExit: The one beside it was stopped, or the data are others than the recipe's: with what to do.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path, required=True)
    for name in ("output_dir", "stage1_adapter", "adapter_mode", "data", "dry_run"):
        parser.add_argument(f"--{name}", f"--{name.replace('_', '-')}", nargs="?", const="true")
    parser.add_argument("--help", "-h", "--help_all", action="store_true", dest="help")
    given, _ = parser.parse_known_args(arguments)
    if given.help or given.dry_run or given.stage1_adapter or given.adapter_mode == "fresh":
        return ""
    own = Path(yaml.safe_load(given.config.read_text())["output_dir"]).parent / "stage1"
    beside = Path(given.output_dir).parent / "stage1" if given.output_dir else own
    if (beside / REPORT).exists():
        return ""
    if beside != own and beside.exists():
        sys.exit(
            f"{beside} was stopped before its end. Finish it first, by the command that began it: "
            f"bash recipes/stage1.sh … --output_dir {beside}"
        )
    if given.data:
        sys.exit(
            f"{beside} holds no finished stage 1. Train it on the same data first: bash recipes/stage1.sh --data … "
            f"--output_dir {beside} (or name another one: --stage1_adapter …)"
        )
    return f"{'beside' if beside == own else 'profile'} {own}"


if __name__ == "__main__":
    print(stage1_run(sys.argv[1:]))
