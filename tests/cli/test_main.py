from __future__ import annotations

import pytest

import lite
from lite.cli import main as cli


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


def test_stopped_by_hand_without_a_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lite.config.parse.parse", stopped)
    assert cli.main(["evaluate", "--config", "any.yaml"]) == cli.STOPPED
    assert capsys.readouterr().err == "lite: Stopped. The same command goes on from what was finished.\n"
