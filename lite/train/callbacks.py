"""What a training run shows and keeps while it runs."""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lite.files import write_text
from lite.runs import read_metrics
from lite.train.health import signs

logger = logging.getLogger(__name__)

BLOCKS = "▁▂▃▄▅▆▇█"


class MetricsFile(TrainerCallback):
    """Appends every log of the trainer to `metrics.jsonl`. A resumed run first drops what lies after its checkpoint.

    Args:
        path: The file; its folder is made when training begins.
        figure: Logs without this figure (the trainer's closing summary) are left out.
    """

    def __init__(self, path: Path, figure: str = "reward"):
        self.path = path
        self.figure = figure

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        if state.is_world_process_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            kept = [row for row in read_metrics(self.path) if row["step"] <= state.global_step]
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict, **kwargs
    ) -> None:
        if state.is_world_process_zero and self.figure in logs:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": state.global_step, **logs, "peak_memory_gib": peak_memory_gib()}) + "\n")


class ProgressLine(TrainerCallback):
    """One line that says how far the run is and how it goes; without a terminal, a plain line per log.

    Args:
        console: Where to.
        name: Of what is going on.
        figure: The one whose curve is drawn.
        highest: What a perfect completion earns. Given, signs of a collapse are named in the line, and each is warned
            of once.
    """

    def __init__(self, console: Console, name: str = "training", figure: str = "reward", highest: float | None = None):
        self.console = console
        self.name, self.figure, self.highest = name, figure, highest
        self.rows: list[dict] = []
        self.warned: set[str] = set()
        self.progress: Progress | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        self.started, self.first = time.perf_counter(), state.global_step
        self.tokens_before: int | None = None
        self.progress = Progress(
            TextColumn(f"[bold]{self.name}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[status]}"),
            console=self.console,
            disable=not (self.console.is_terminal and state.is_world_process_zero),
        )
        self.progress.start()
        self.task = self.progress.add_task("", total=state.max_steps, completed=state.global_step, status="")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        self.progress.update(self.task, completed=state.global_step)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict, **kwargs
    ) -> None:
        if self.figure not in logs or not state.is_world_process_zero:
            return
        self.rows.append(logs)
        values = [row[self.figure] for row in self.rows]
        if self.tokens_before is None:
            self.tokens_before = logs["num_tokens"]
        elapsed = time.perf_counter() - self.started
        speed = (logs["num_tokens"] - self.tokens_before) / elapsed
        # rich's own column knows the last 30 seconds only: of steps that take longer it would never tell.
        a_step = elapsed / max(1, state.global_step - self.first)
        left = timedelta(seconds=round(a_step * (state.max_steps - state.global_step)))
        status = (
            f"{left} left  {self.figure} {values[-1]:.3f} {sparkline(values)}  "
            f"lr {logs['learning_rate']:.1e}  {speed:,.0f} tok/s  peak {peak_memory_gib():.1f} GiB"
        )
        found = {} if self.highest is None else signs(self.rows, self.highest)
        status += "".join(f"  ! {name}" for name in found)
        self.progress.update(self.task, status=status)
        if self.progress.disable:
            self.console.print(f"{self.name}: step {state.global_step}/{state.max_steps}, {status}", soft_wrap=True)
        for name, text in found.items():
            if name not in self.warned:
                self.warned.add(name)
                logger.warning("%s: %s", name, text)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        self.stop()

    def stop(self) -> None:
        """Give the terminal back: its cursor, and standard output and error."""
        if self.progress and self.progress.live.is_started:
            self.progress.stop()


def train_to_the_end(trainer: Trainer, **kwargs) -> None:
    """`trainer.train` whose progress line ends with it, however it ends: `on_train_end` comes after the last step only.

    Args:
        trainer: With or without a `ProgressLine`.
        kwargs: Of `trainer.train`.
    """
    try:
        trainer.train(**kwargs)
    finally:
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, ProgressLine):
                callback.stop()


def sparkline(values: list[float], width: int = 16) -> str:
    """The curve of the last values in block characters."""
    recent = values[-width:]
    low, high = min(recent), max(recent)
    return "".join(BLOCKS[int((value - low) / (high - low or 1) * (len(BLOCKS) - 1))] for value in recent)


def peak_memory_gib() -> float:
    """Peak memory of this process in GiB: the GPU's where there is one, else the resident set."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
