"""The command line: `lite train stage1 --config recipes/tiny/stage1.yaml [--any_field value]`."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence

USAGE = """\
usage: lite COMMAND …

Explainable multimodal retrieval-augmented generation, trained on one 24 GB GPU.

commands:
  train stage1   train the point-wise relevance filter and report on it

`lite COMMAND --help` tells more. First steps: bash recipes/stage1.sh
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit status: 0, 1 for a problem that the user can mend, 2 for wrong usage."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    if arguments[:2] == ["train", "stage1"]:
        return _guarded(_train_stage1, arguments[2:])
    if arguments[0] == "train" and (len(arguments) == 1 or arguments[1] in ("-h", "--help")):
        print(
            "usage: lite train stage1 --config FILE [--any_field value]\n\n`lite train stage1 --help` lists the fields."
        )
        return 0 if len(arguments) > 1 else 2
    print(f"lite: unknown command: {' '.join(arguments)}\n\n{USAGE}", file=sys.stderr, end="")
    return 2


def _guarded(command, arguments: list[str]) -> int:
    """Run a command; a LiteError becomes one message instead of a traceback."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    for noise in (FutureWarning, DeprecationWarning, UserWarning):
        warnings.simplefilter("ignore", noise)
    for library in ("bitsandbytes", "huggingface_hub", "transformers"):
        logging.getLogger(library).setLevel(logging.ERROR)
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    if _unsloth_wanted(arguments):
        import unsloth  # noqa: F401  must come before transformers and trl, which it patches

    from lite.schema import LiteError

    try:
        command(arguments)
    except LiteError as error:
        print(f"lite: {error}", file=sys.stderr)
        return 1
    return 0


def _unsloth_wanted(arguments: list[str]) -> bool:
    from importlib.util import find_spec

    if "transformers" in arguments or not find_spec("unsloth"):  # `--backend transformers`
        return False
    import torch

    return torch.cuda.is_available()


def _train_stage1(arguments: list[str]) -> None:
    import torch
    from rich.console import Console

    from lite.dry_run import dry_run_stage1
    from lite.settings import parse
    from lite.train import Stage1Config, train_stage1

    if "--dry_run" in arguments and not torch.cuda.is_available():
        arguments = [*arguments, "--use_cpu", "true"]  # else bf16 would be refused, and nothing is computed
    config, model_config = parse(Stage1Config, "stage1", arguments)
    console = Console()
    (dry_run_stage1 if config.dry_run else train_stage1)(config, model_config, console)


if __name__ == "__main__":
    sys.exit(main())
