"""YAML and command line into dataclasses, by TRL's parser: `--config FILE`, and `--field value` wins over the file."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from rich.padding import Padding
from rich.text import Text
from trl import GRPOConfig, TrlParser

from lite.config.launch import check_launch
from lite.config.model import ModelConfig
from lite.console import Console
from lite.files import read_yaml
from lite.schema import LiteError

# The fields of TRL that a recipe sets; all others are listed by --help_all.
COMMON_FIELDS = (
    "output_dir max_steps num_train_epochs per_device_train_batch_size gradient_accumulation_steps num_generations "
    "max_completion_length learning_rate lr_scheduler_type warmup_steps beta temperature top_k loss_type "
    "scale_rewards multi_objective_aggregation reward_weights gradient_checkpointing optim bf16 seed logging_steps "
    "save_steps save_total_limit report_to per_device_eval_batch_size log_completions use_cpu dataloader_pin_memory"
).split()


def parse(config_class: type[GRPOConfig], command: str, arguments: Sequence[str]) -> tuple[GRPOConfig, ModelConfig]:
    """Read the settings of a run.

    Raises:
        LiteError: An unknown field, a wrong value or an unreadable file; the message names it.
        SystemExit: After `--help`, or where argparse refuses a value's type.
    """
    parser = TrlParser((config_class, ModelConfig), usage=f"lite {command} --config FILE [--any_field value]")
    arguments = [part for a in arguments for part in (a.split("=", 1) if a.startswith("--config=") else [a])]
    arguments = merge_repeated(arguments, "--data")
    if "--help_all" in arguments:
        parser.print_help()
        raise SystemExit(0)
    if "--help" in arguments or "-h" in arguments:
        print_help(help_sections(config_class), command)
        raise SystemExit(0)
    known = typing.get_type_hints(config_class) | typing.get_type_hints(ModelConfig)
    if "--config" in arguments:
        check_file(arguments, known)
    check_names(arguments, known, command)
    check_launch(_load_in_4bit(arguments))
    try:
        config, model_config = parser.parse_args_and_config(arguments)
    except (ValueError, TypeError) as error:
        remedy = (
            " Change one of them: per_device_train_batch_size × gradient_accumulation_steps must be a multiple of "
            "num_generations."
            if "generation_batch_size" in str(error)
            else ""
        )
        raise LiteError(f"The settings do not fit together: {error}{remedy}") from error
    check_rollouts(config)
    return config, model_config


def check_names(arguments: Sequence[str], known: Collection[str], command: str) -> None:
    """Refuse an argument that no field is named like."""
    for argument in arguments:
        name = argument.removeprefix("--").split("=")[0].replace("-", "_").removeprefix("no_")
        if argument.startswith("--") and name not in {*known, "config"}:
            raise LiteError(f"Unknown argument --{name}{suggestion(name, known)} `lite {command} --help` lists them.")


def check_rollouts(config: GRPOConfig) -> None:
    """Refuse TRL's `use_vllm`, which cannot work here.

    Raises:
        LiteError: It is asked for.
    """
    if config.use_vllm:
        raise LiteError(
            "use_vllm: lite samples by itself. TRL would merge the adapters into the weights to hand them to vLLM, "
            "which 4-bit weights do not survive, and compute each prompt once per completion. Leave it out; "
            "--sampling_weights auto may sample faster."
        )


def _load_in_4bit(arguments: list[str]) -> bool:
    """Read by itself: the settings of a run do not parse where the launcher asks for what cannot work."""
    return TrlParser((ModelConfig,)).parse_args_and_config(arguments, return_remaining_strings=True)[0].load_in_4bit


def merge_repeated(arguments: Sequence[str], name: str) -> list[str]:
    """`--data a --data b` to `--data a,b`, in the first one's place; argparse would keep the last alone."""
    merged: list[str] = []
    place = None
    remaining = iter([part for a in arguments for part in (a.split("=", 1) if a.startswith(f"{name}=") else [a])])
    for argument in remaining:
        value = next(remaining, None) if argument == name else None
        if value is None:
            merged.append(argument)
        elif place is None:
            merged += [name, value]
            place = len(merged) - 1
        else:
            merged[place] += f",{value}"
    return merged


def check_file(arguments: list[str], known: dict[str, object]) -> None:
    """The configuration file exists, is YAML and sets nothing but fields that lite knows."""
    position = arguments.index("--config") + 1
    if position == len(arguments):
        raise LiteError("--config needs a file, such as recipes/tiny/stage1.yaml.")
    path = Path(arguments[position])
    if not path.exists():
        raise LiteError(f"Cannot read the settings in {path}: it does not exist. See recipes/*/ for ready ones.")
    settings = read_yaml(path)
    if not isinstance(settings, dict):
        raise LiteError(f"{path} must hold `field: value` lines.")
    if "env" in settings:  # TRL would set them, LD_PRELOAD included: a recipe may come from anybody
        raise LiteError(f"{path}: a recipe cannot set environment variables (env). Set them in the shell instead.")
    for name in settings:
        if name not in known:
            raise LiteError(f"{path}: unknown field {name!r}{suggestion(str(name), known)}")
        if not fits(settings[name], known[name]):
            found = f"{settings[name]!r:.100}"
            raise LiteError(f"{path}: {name} is {found}, which is no value of it. `--help` says what it takes.")


def fits(value: object, hint: object) -> bool:
    """Whether a value of a YAML file can become a field of this type. A text can: argparse reads it."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    kinds = {typing.get_origin(kind) or kind for kind in kinds}
    if isinstance(value, list | dict) or value is None:
        return type(value) in kinds or typing.Any in kinds
    return isinstance(value, str | bool) or not kinds <= {str, type(None)}


def suggestion(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" — did you mean {close[0]}?" if close else "."


def help_sections(config_class: type[GRPOConfig]) -> dict[str, Sequence[dataclasses.Field]]:
    """The fields of a run by title: those of the stage, of the model, and those of TRL that recipes set."""
    of_trl = {f.name for f in dataclasses.fields(GRPOConfig)}
    every = dataclasses.fields(config_class)
    return {
        "This stage": [f for f in every if f.name not in of_trl or f.name == "num_completions_to_print"],
        "Model and adapter": dataclasses.fields(ModelConfig),
        "Of TRL's GRPOConfig, what recipes set (--help_all lists the rest)": [
            f for f in every if f.name in COMMON_FIELDS
        ],
    }


def print_help(sections: Mapping[str, Sequence[dataclasses.Field]], command: str) -> None:
    """What each field means."""
    console = Console()
    console.print(f"usage: lite {command} --config FILE [--any_field value]\n", markup=False)
    console.print(
        "Runs, or continues, what FILE describes; `--profile tiny` takes the recipe of that name. "
        "recipes/*/ holds ready files with a comment on every value. A field "
        "on the command line wins over the file.\n"
    )
    for title, fields in sections.items():
        console.print(f"{title}:", style="bold")
        for field in fields:
            default = "" if field.default in (dataclasses.MISSING, None) else f" [{field.default}]"
            help_text = " ".join(str(field.metadata.get("help", "")).split())
            console.print(f"  --{field.name}{default}", markup=False, highlight=False)
            if help_text:
                console.print(Padding(Text(help_text), (0, 0, 0, 6)))
        console.print()
