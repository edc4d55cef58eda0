from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console
from transformers import TrainerControl, TrainerState, TrainingArguments

from lite.train import callbacks
from lite.train.callbacks import ProgressLine, train_to_the_end

SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"


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


def test_the_line_names_what_goes_wrong_while_it_does(caplog: pytest.LogCaptureFixture) -> None:
    console = Console(file=io.StringIO(), width=200)
    logged(ProgressLine(console, highest=1.0), [0.2] * 12 + [1.0] * 20 + [0.2] * 12)
    lines = console.file.getvalue().splitlines()
    named = [i for i, line in enumerate(lines) if line.endswith("! groups alike")]
    assert 12 < named[0] < 32
    assert named[-1] < 40
    assert "groups alike" not in lines[-1]
    assert [record.message.startswith("groups alike: ") for record in caplog.records] == [True]


def logged(line: ProgressLine, equal: list[float]) -> None:
    state = TrainerState(max_steps=200)
    line.on_train_begin(TrainingArguments(), state, TrainerControl())
    for share in equal:
        state.global_step += 1
        logs = {"reward": 0.5, "num_tokens": 900, "learning_rate": 1e-5, "equal_groups": share}
        line.on_log(TrainingArguments(), state, TrainerControl(), logs=logs)


@pytest.mark.parametrize(("equal", "warnings"), [([1.0] * 30, 1), ([0.5] * 30, 0), ([0.2] * 15 + [1.0] * 30, 1)])
def test_a_run_whose_groups_teach_nothing_is_warned_of_once_whenever_it_comes_to_that(
    equal: list[float], warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    logged(ProgressLine(Console(file=io.StringIO()), highest=1.0), equal)
    assert sum("teach nothing" in record.message for record in caplog.records) == warnings


def test_the_terminal_is_given_back_however_the_training_ends() -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    line = ProgressLine(console)

    class Interrupted:
        callback_handler = SimpleNamespace(callbacks=[line])

        def train(self) -> None:
            logged(line, [0.0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_to_the_end(Interrupted())
    assert console.file.getvalue().rindex(SHOW_CURSOR) > console.file.getvalue().rindex(HIDE_CURSOR)
