from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import lite
from lite.cli import main as cli

ROOT = Path(lite.__file__).parents[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["indx", "folder"], "there is no command indx. Did you mean index?"),
        (["trian", "stage1"], "there is no command trian. Did you mean train stage1?"),
        (["train", "stage9"], "there is no command train stage9. Did you mean train stage2?"),
        (["stage1"], "there is no command stage1. Did you mean train stage1?"),
        (["xyzzy"], "there is no command xyzzy."),
    ],
)
def test_a_command_that_does_not_exist(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(arguments) == 2
    first, *rest = capsys.readouterr().err.splitlines()
    assert first == f"lite: {message}"
    assert "commands:" in rest


@pytest.mark.parametrize("arguments", [[], ["train"]])
def test_half_a_command_shows_the_usage(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    assert cli.main(arguments) == 2
    assert capsys.readouterr().out.startswith("usage: lite")


def test_version(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"lite {lite.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["app.py"],
        ["-m", "lite", "search", "x"],
        ["-m", "lite.cli", "train", "stage1", "--help"],
        ["-m", "lite", "xyzzy"],
    ],
)
def test_without_the_packages_one_sentence_says_the_two_ways_on(arguments: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-S", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("lite: ")
    assert done.stderr.count("\n") == 1
    for part in (f"is not installed for {sys.executable}", ".venv/bin/activate", f"bash {ROOT}/recipes/setup.sh"):
        assert part in done.stderr


def test_a_module_of_its_own_that_is_missing_is_no_matter_of_installing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lite.cli.metrics", None)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["metrics"])


def test_stopped_by_hand_without_a_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lite.config.parse.parse", stopped)
    assert cli.main(["evaluate", "--config", "any.yaml"]) == cli.STOPPED
    assert capsys.readouterr().err == "lite: Stopped. The same command goes on from what was finished.\n"


@pytest.mark.parametrize(
    ("arguments", "advice", "not_this"),
    [
        (["ask", "What?"], "nvidia-smi lists it), or name a smaller model", "per_device"),
        (["evaluate"], "Lower per_device_eval_batch_size", "nvidia-smi"),
    ],
)
def test_memory_that_runs_out_is_told_with_advice_for_the_command(
    arguments: list[str], advice: str, not_this: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    import torch

    def full(_: list[str]) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    monkeypatch.setattr("lite.cli.ask.ask", full)
    monkeypatch.setattr("lite.config.evaluate.parse_evaluate", full)
    assert cli.main(arguments) == 1
    said = capsys.readouterr().err
    assert "memory ran out" in said
    assert advice in said
    assert not_this not in said
