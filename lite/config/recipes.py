"""The recipes that come with lite: `--profile tiny` in place of `--config recipes/tiny/stage1.yaml`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lite.schema import LiteError

RECIPES = Path(__file__).parents[1] / "recipes"


def with_recipe(arguments: Sequence[str], stage: str) -> list[str]:
    """The arguments with `--config FILE` in place of `--profile NAME`.

    Raises:
        LiteError: There is no such profile, or a file is given, too.
    """
    arguments = [part for a in arguments for part in (a.split("=", 1) if a.startswith("--profile=") else [a])]
    if "--profile" not in arguments:
        return arguments
    place = arguments.index("--profile")
    name = "".join(arguments[place + 1 : place + 2])
    known = sorted(path.parent.name for path in RECIPES.glob(f"*/{stage}.yaml"))
    if name not in known:
        raise LiteError(f"There is no profile {name!r}. Profiles: {', '.join(known)}; or give a file with --config.")
    if any(argument.partition("=")[0] == "--config" for argument in arguments):
        raise LiteError("Give either --profile or --config.")
    return [*arguments[:place], "--config", str(RECIPES / name / f"{stage}.yaml"), *arguments[place + 2 :]]
