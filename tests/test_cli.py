from __future__ import annotations

import pytest

from lite import cli


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["indx", "folder"], "there is no command indx. Did you mean index?"),
        (["trian", "stage1"], "there is no command trian. Did you mean train stage1?"),
        (["xyzzy"], "there is no command xyzzy."),
    ],
)
def test_a_command_that_does_not_exist(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(arguments) == 2
    first, *rest = capsys.readouterr().err.splitlines()
    assert first == f"lite: {message}"
    assert "commands:" in rest


def test_stopped_by_hand_without_a_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lite.settings.parse", stopped)
    assert cli.main(["evaluate", "--config", "any.yaml"]) == cli.STOPPED
    assert capsys.readouterr().err == "lite: Stopped. The same command goes on from what was finished.\n"
