"""The folder of a run: locked by one process, never mixed with other settings, resumed from its last checkpoint."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import shutil
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from accelerate import PartialState
from filelock import FileLock, Timeout

from lite.config.launch import is_main
from lite.config.model import ModelConfig
from lite.config.runs import RunConfig
from lite.files import UNFINISHED, write_text
from lite.runs import read_settings
from lite.schema import LiteError

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger(__name__)

Config = TypeVar("Config", bound=RunConfig)

# Settings that may change when a run is resumed; all others decide the result.
FREE_SETTINGS = {
    "report_to", "logging_dir", "save_total_limit", "overwrite", "dry_run", "output_dir", "run_name", "auto_fit",
    "auto_fitted", "disable_tqdm",  # disable_tqdm follows from the logging level
    "stage1_adapter",  # its place may change; its hash may not
}  # fmt: skip

# What runs of versions did that had no such setting yet: they can be resumed.
ADDED_SETTINGS = {"first_word_credit": 0.0, "sampling_weights": "packed", "quotes": False}


def alone(train: Callable[[Config, ModelConfig, Console], Path]) -> Callable[[Config, ModelConfig, Console], Path]:
    """Refuse to start while another process trains in the same `output_dir`."""

    @wraps(train)
    def guarded(config: Config, model_config: ModelConfig, console: Console) -> Path:
        folder = Path(config.output_dir)
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside the folder, which `overwrite` removes. The system releases it however the process ends.
        lock = FileLock(folder.parent / f".{folder.name}.lock")
        try:
            if is_main():
                lock.acquire(timeout=0)
        except Timeout as error:
            raise LiteError(
                f"Another process is training in {folder}. Wait for it or stop it; the same command then continues "
                "from there. Or give another --output_dir."
            ) from error
        except (OSError, NotImplementedError) as error:  # no permission, or a file system without locks
            logger.warning("%s cannot be locked (%s): make sure that nothing else trains there.", folder, error)
        try:
            return train(config, model_config, console)
        finally:
            lock.release()

    return guarded


def resolved_settings(config: RunConfig, model_config: ModelConfig) -> dict[str, Any]:
    """Every setting of the run as plain values, however many processes share its batch."""
    fields = {**config.to_dict(), **config.of_recipe, **dataclasses.asdict(model_config)}
    return yaml.safe_load(yaml.safe_dump({key: _plain(value) for key, value in sorted(fields.items())}))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def claim_together(folder: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """`claim_folder` in the main process, while the others wait."""
    if is_main():
        claim_folder(folder, settings, overwrite)
    PartialState().wait_for_everyone()


def claim_folder(folder: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Write `config.yaml`, unless the folder already holds a run with other settings, or something else."""
    path = folder / "config.yaml"
    before = read_settings(path) if path.exists() else None
    ours = isinstance(before, dict) and "base_fingerprint" in before
    if folder.exists() and not ours and any(file.suffix != UNFINISHED for file in folder.iterdir()):
        raise LiteError(f"{folder} is not empty and is not a run folder made by lite. Give another --output_dir.")
    if overwrite and folder.exists():
        shutil.rmtree(folder)
    if path.exists():
        check_settings(folder, before, settings)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, yaml.safe_dump(settings))


def check_settings(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on in a run folder whose settings decide another result."""
    before = ADDED_SETTINGS | before
    changed = [key for key in now if key not in FREE_SETTINGS and before.get(key) != now[key]]
    if changed:
        listed = "\n".join(f"  {key}: {before.get(key)!r} in the folder, {now[key]!r} now" for key in changed)
        raise LiteError(
            f"{folder} holds a run with other settings:\n{listed}\n"
            "Give another --output_dir, or --overwrite true to throw that run away."
        )


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run. The trainer's state is written last, so it tells a complete one."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=_step, reverse=True):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text())
        except (OSError, ValueError):
            logger.warning("Leaving out %s: it was not written to the end.", checkpoint)
            continue
        return checkpoint
    return None


def how_to_go_on(folder: Path) -> str:
    """How to continue a stopped run, in a sentence."""
    survivor = last_checkpoint(folder)
    return f"Run the same command again: it continues from {survivor.name if survivor else 'the start'}."


def is_finished(checkpoint: Path) -> bool:
    """Whether the checkpoint is the last one of its run."""
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    return state["global_step"] >= state["max_steps"]


def _step(checkpoint: Path) -> int:
    match = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    return int(match.group(1)) if match else -1
