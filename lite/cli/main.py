"""The command line: `lite train stage1 --config recipes/tiny/stage1.yaml [--any_field value]`."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from lite import __version__

USAGE = """\
usage: lite COMMAND …

Explainable multimodal retrieval-augmented generation, trained on one 24 GB GPU.

commands:
  train stage1   train the point-wise relevance filter and report on it
  train stage2   train ranking and answering with a reasoning chain on top of it, and report on it
  evaluate       answer the questions of a split; with --ablate, the table of variants
  export         write a run's adapters as one ordinary PEFT adapter, or merged into the model
  push           share a run's adapters on the Hugging Face hub, with a model card
  index          read a folder of your own files into a library
  search         find documents in it
  ask            answer a question from it, ranked, explained and cited
  demo           the same in the browser, and what happens on the way
  serve          the same for other programs: OpenAI's API over a library, and a reranker
  mcp            the same for assistants and editors that speak the Model Context Protocol
  data           inspect, validate or cut a data set
  metrics        the official figures of a WebQA or MultimodalQA submission

`lite COMMAND --help` tells more. First steps: `lite demo`, `lite index FOLDER`, or bash recipes/stage1.sh
"""


STOPPED = 130  # exit status after Ctrl-C
# What to do where the GPU's memory ran out, by whether the command has a recipe's settings.
OUT_OF_MEMORY = {
    True: (
        "outside of training",
        "Lower per_device_eval_batch_size (it changes no result), then max_pixels; what was trained is kept.",
    ),
    False: (
        "while the documents were read or the question answered",
        "Close what else runs on the GPU (nvidia-smi lists it), or name a smaller model, such as --model laptop.",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit status: 0, 1 for a problem that the user can fix, 2 for wrong usage.

    130 after Ctrl-C; `lite ask` and `lite search` have more.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"lite {__version__}")
        return 0
    commands = {
        ("train", "stage1"): _train_stage1,
        ("train", "stage2"): _train_stage2,
        ("evaluate",): _evaluate,
        ("export",): _export,
        ("push",): _push,
        ("index",): _index,
        ("search",): _search,
        ("ask",): _ask,
        ("demo",): _demo,
        ("serve",): _serve,
        ("mcp",): _mcp,
        ("data",): _data,
        ("metrics",): _metrics,
    }
    for name, command in commands.items():
        if tuple(arguments[: len(name)]) == name:
            return _guarded(command, arguments[len(name) :])
    if arguments[0] == "train" and (len(arguments) == 1 or arguments[1] in ("-h", "--help")):
        print(
            "usage: lite train stage1|stage2 --profile NAME|--config FILE [--any_field value]\n\n"
            "`lite train stage1 --help` and `lite train stage2 --help` list the fields."
        )
        return 0 if len(arguments) > 1 else 2
    return _guarded(partial(_unknown, commands), arguments)


def _unknown(commands: Iterable[tuple[str, ...]], arguments: list[str]) -> int:
    from lite.terminal import printable

    words = [" ".join(name) for name in commands]
    near = get_close_matches(arguments[0], words, 1) or get_close_matches(" ".join(arguments[:2]), words, 1)
    guess = f" Did you mean {near[0]}?" if near else ""
    said = " ".join(arguments[: 2 if arguments[0] == "train" else 1])
    print(f"lite: there is no command {printable(said)}.{guess}\n\n{USAGE}", file=sys.stderr, end="")
    return 2


def _guarded(command, arguments: list[str]) -> int:
    """Run a command; what the user can fix becomes one message instead of a traceback."""
    if sys.version_info < (3, 11):  # noqa: UP036 (run from a clone, whatever pyproject.toml says)
        found = f"{sys.executable} is Python {sys.version.split()[0]}"
        print(f"lite: Python 3.11 or 3.12 is needed, and {found}.", file=sys.stderr)
        return 1
    try:
        return _run(command, arguments)
    except ModuleNotFoundError as error:
        if (error.name or "lite").partition(".")[0] == "lite":
            raise
        print(f"lite: {not_installed(error.name)}", file=sys.stderr)
        return 1


def not_installed(package: str) -> str:
    """One sentence with the two ways on, for a Python that lacks what lite needs."""
    root = Path(__file__).parents[2]
    found = root / ".venv" / "bin" / "activate"
    activate = f"source {found}" if found.exists() else "source .venv/bin/activate"
    install = f"bash {root / 'recipes/setup.sh'}" if (root / "recipes").is_dir() else "pip install mmrag-lite"
    python = f"{sys.executable} (Python {sys.version_info.major}.{sys.version_info.minor})"
    return f"{package} is not installed for {python}. Activate lite's environment: {activate}. Or install it: {install}"


def _run(command, arguments: list[str]) -> int:
    from lite.config.launch import first_to_fail, is_main
    from lite.schema import LiteError
    from lite.terminal import LogFormatter, printable

    logging.basicConfig(level=logging.WARNING if is_main() else logging.ERROR)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(LogFormatter("%(levelname)s %(message)s"))
    for noise in (FutureWarning, DeprecationWarning, UserWarning):
        warnings.simplefilter("ignore", noise)
    for library in ("bitsandbytes", "huggingface_hub", "transformers"):
        logging.getLogger(library).setLevel(logging.ERROR)
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

    try:
        return command(arguments) or 0
    except LiteError as error:
        if first_to_fail():
            print(f"lite: {printable(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if is_main():
            print("lite: Stopped. The same command goes on from what was finished.", file=sys.stderr)
        return STOPPED
    except Exception as error:
        if not first_to_fail():
            return 1  # follows from what another process has said
        import torch

        from lite.schema import first_line

        # Training catches its own, see lite.train.loop; what is left scores, answers and reports.
        if not isinstance(error, torch.OutOfMemoryError):
            raise
        what, advice = OUT_OF_MEMORY[command in (_train_stage1, _train_stage2, _evaluate, _export)]
        print(f"lite: The GPU's memory ran out {what}: {first_line(error)} {advice}", file=sys.stderr)
        return 1


def _index(arguments: list[str]) -> int:
    from lite.cli.library import index

    return index(arguments)


def _search(arguments: list[str]) -> int:
    from lite.cli.library import search

    return search(arguments)


def _ask(arguments: list[str]) -> int:
    from lite.cli.ask import ask

    return ask(arguments)


def _demo(arguments: list[str]) -> int:
    from lite.demo.server import demo

    return demo(arguments)


def _serve(arguments: list[str]) -> int:
    from lite.cli.serve import serve

    return serve(arguments)


def _mcp(arguments: list[str]) -> int:
    from lite.cli.serve import mcp

    return mcp(arguments)


def _data(arguments: list[str]) -> int:
    from lite.cli.data import data

    return data(arguments)


def _metrics(arguments: list[str]) -> int:
    from lite.cli.metrics import metrics

    return metrics(arguments)


def _train_stage1(arguments: list[str]) -> None:
    from lite.config.launch import is_main, leave
    from lite.config.parse import parse
    from lite.config.recipes import with_recipe
    from lite.config.runs import Stage1Config
    from lite.console import Console
    from lite.train.dry_run import dry_run_stage1
    from lite.train.stage1 import train_stage1

    arguments = _without_gpu(with_recipe(arguments, "stage1"))
    config, model_config = parse(Stage1Config, "train stage1", arguments)
    (dry_run_stage1 if config.dry_run else train_stage1)(config, model_config, Console(quiet=not is_main()))
    leave()


def _train_stage2(arguments: list[str]) -> None:
    from lite.config.launch import is_main, leave
    from lite.config.parse import parse
    from lite.config.recipes import with_recipe
    from lite.config.runs import Stage2Config
    from lite.console import Console
    from lite.train.dry_run import dry_run_stage2
    from lite.train.stage2 import train_stage2

    arguments = _without_gpu(with_recipe(arguments, "stage2"))
    config, model_config = parse(Stage2Config, "train stage2", arguments)
    (dry_run_stage2 if config.dry_run else train_stage2)(config, model_config, Console(quiet=not is_main()))
    leave()


def _without_gpu(arguments: list[str]) -> list[str]:
    """A dry run on a machine without a GPU: else bf16 would be refused, and nothing is computed."""
    import torch

    return (
        [*arguments, "--use_cpu", "true"] if "--dry_run" in arguments and not torch.cuda.is_available() else arguments
    )


def _evaluate(arguments: list[str]) -> None:
    from lite.config.evaluate import parse_evaluate
    from lite.config.recipes import with_recipe
    from lite.console import Console

    config, recipe, model_config = parse_evaluate(with_recipe(arguments, "stage2"))
    if config.ablate:
        from lite.train.ablation import ablate

        ablate(config, recipe, model_config, Console())
    else:
        from lite.evaluate.run import evaluate

        evaluate(config, model_config, Console())


def _export(arguments: list[str]) -> None:
    from pathlib import Path

    from lite.terminal import ArgumentParser, printable

    parser = ArgumentParser(prog="lite export", description="Write a run's adapters as one.")
    parser.add_argument("--run", type=Path, required=True, help="A run folder, such as runs/tiny/stage2.")
    parser.add_argument("--output_dir", type=Path, required=True, help="A new folder.")
    parser.add_argument(
        "--merge", action="store_true", help="Write a whole 16-bit model in place of an adapter; needs its memory."
    )
    options = parser.parse_args(arguments)

    from lite.train.export import export

    print(f"Written: {printable(str(export(options.run, options.output_dir, options.merge)))}")


def _push(arguments: list[str]) -> None:
    from lite.cli.push import push

    push(arguments)


if __name__ == "__main__":
    sys.exit(main())
