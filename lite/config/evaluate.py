"""The settings of `lite evaluate`: which run answers which questions, and where the results go."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

from lite.config.model import ModelConfig

if TYPE_CHECKING:
    from lite.config.runs import Stage2Config

OF_RECIPE = "by default as in the recipe"


@dataclass
class EvaluateConfig:
    """An evaluation. Where the recipe of the run has a field of the same name, it gives the default."""

    run: str | None = field(
        default=None, metadata={"help": "The stage 2 run that answers. By default the recipe's output_dir."}
    )
    output_dir: str | None = field(
        default=None, metadata={"help": "Where to write. By default evaluation-<data>-<split> next to the run."}
    )
    split: str = field(default="test", metadata={"help": "Which questions: `train`, `dev` (or `val`) or `test`."})
    data: str | None = field(default=None, metadata={"help": f"The data set, {OF_RECIPE}."})
    limit: int | None = field(default=None, metadata={"help": "Use only the first N questions."})
    skip_broken: bool | None = field(
        default=None, metadata={"help": "Leave out broken lines and images, with a count, instead of stopping."}
    )
    stage1_adapter: str | None = field(
        default=None, metadata={"help": "Folder of stage 1's adapter. By default the one that the run is stacked on."}
    )
    stage2_adapter: str | None = field(
        default=None,
        metadata={
            "help": "Folder of stage 2's adapter. By default the run's; for `tiny` without a run, the shipped one."
        },
    )
    adapters: str | None = field(
        default=None,
        metadata={"help": "Adapters that `lite push` shared, by hub id or folder, in place of the run's."},
    )
    per_device_eval_batch_size: int | None = field(
        default=None, metadata={"help": f"Prompts at once, {OF_RECIPE}. Does not change the result."}
    )
    max_prompt_tokens: int | None = field(
        default=None, metadata={"help": f"With vllm: the longest prompt that is expected, {OF_RECIPE}."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Answer again what output_dir already holds."})
    ablate: bool = field(
        default=False,
        metadata={"help": "Train variants of the recipe, each without one part, and put all of them in one table."},
    )
    engine: str = field(
        default="transformers",
        metadata={
            "help": "What generates: `transformers` in this process, `vllm` (needs an NVIDIA GPU, --exported and the "
            "extra vllm), or `ray`, `ray+vllm`: either, in every worker of a Ray cluster (the extra ray).",
            "choices": ["transformers", "vllm", "ray", "ray+vllm"],
        },
    )
    exported: str | None = field(
        default=None, metadata={"help": "With vllm: the folder that `lite export` wrote of the stage 2 run."}
    )
    workers: int | None = field(
        default=None,
        metadata={"help": "With ray: how many workers. By default one per GPU, or per CPU core without GPUs."},
    )
    partition_questions: int = field(
        default=64, metadata={"help": "With ray: questions per Parquet file, and what is repeated if a worker dies."}
    )


def of_recipe(config: EvaluateConfig, recipe: Stage2Config) -> EvaluateConfig:
    """The settings with the recipe's values where they have none."""
    named = {f.name for f in fields(config) if getattr(config, f.name) is None} - {"output_dir"}
    values = {name: getattr(recipe, name) for name in named if hasattr(recipe, name)}
    return replace(config, **values, run=config.run or recipe.output_dir)


def parse_evaluate(arguments: list[str]) -> tuple[EvaluateConfig, Stage2Config, ModelConfig]:
    """Read the settings of an evaluation and of the recipe that `--config` names.

    What the evaluation does not know goes to the recipe, for the variants that `--ablate` trains.

    Raises:
        LiteError: As for `parse`.
    """
    from transformers import HfArgumentParser

    from lite.config.parse import check_names, merge_repeated, parse, print_help
    from lite.config.runs import Stage2Config

    if "--help" in arguments or "-h" in arguments:
        print_help({"This evaluation": fields(EvaluateConfig), "Model": fields(ModelConfig)}, "evaluate")
        raise SystemExit(0)
    own, shared = {f.name for f in fields(EvaluateConfig)}, {f.name for f in fields(Stage2Config)}
    check_names(arguments, own | shared | {f.name for f in fields(ModelConfig)}, "evaluate")
    parser = HfArgumentParser((EvaluateConfig,), add_help=False, allow_abbrev=False)
    config, rest = parser.parse_args_into_dataclasses(
        merge_repeated(arguments, "--data"), return_remaining_strings=True
    )
    for name in sorted((own & shared) - {"output_dir", "overwrite"}):
        if getattr(config, name) is not None:
            rest += [f"--{name}", str(getattr(config, name))]
    recipe, model_config = parse(Stage2Config, "evaluate", rest)
    return of_recipe(config, recipe), recipe, model_config
