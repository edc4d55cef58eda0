from __future__ import annotations

import io

import pytest
from rich.console import Console
from transformers import TrainerControl, TrainerState, TrainingArguments

from lite import callbacks
from lite.callbacks import ProgressLine


def test_without_a_terminal_a_line_says_how_far_it_is_and_how_long_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    console = Console(file=io.StringIO())
    line, state = ProgressLine(console), TrainerState(max_steps=200, global_step=20)  # goes on from step 20
    now = iter([100.0, 130.0, 130.0, 130.0])
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: next(now, 130.0))
    call = (TrainingArguments(), state, TrainerControl())
    line.on_train_begin(*call)
    state.global_step = 30
    line.on_log(*call, logs={"reward": 0.5, "num_tokens": 900, "learning_rate": 1e-5})
    line.on_train_end(*call)
    said = console.file.getvalue()
    assert said.startswith("training: step 30/200, 0:08:30 left  reward 0.500")  # 3 s a step
