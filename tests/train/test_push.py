"""Adapters go to the hub and come back: nothing of this machine in them, and the same answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hub_stand_in import TOKEN, Hub, hub
from huggingface_hub import constants

from lite.cli import main as cli
from lite.data import flags
from lite.data.pools import Corpus
from lite.models.hub import fetch_adapters
from lite.rag import Rag
from lite.runs import SHIPPED, STAGE1, STAGE2, find_adapters, read_card, write_card
from lite.schema import LiteError
from lite.train.model_card import model_card

FIGURE = {"value": 0.75, "low": 0.5, "high": 0.9}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped adapters as a run of somebody's, with paths of their machine in its cards and settings."""
    parent = tmp_path_factory.mktemp("runs") / "mine"
    for stage in (STAGE1, STAGE2):
        shutil.copytree(SHIPPED / stage, parent / stage / "adapter")
        card = read_card(parent / stage / "adapter")
        write_card(parent / stage / "adapter", card | {"data": "webqa:/home/somebody/webqa,flags"})
        (parent / stage / "config.yaml").write_text("output_dir: /home/somebody/runs\nseed: 7\nmax_steps: 9\n")
    report = {
        "systems": {"base": {"f1": FIGURE | {"value": 0.25}}, "stage 1 + stage 2": {"f1": FIGURE, "new": FIGURE}},
        "full": "stage 1 + stage 2", "reported_on": "9 questions of test",
    }  # fmt: skip
    (parent / STAGE2 / "report.json").write_text(json.dumps(report))
    return parent / STAGE2


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub on this machine, for this process."""
    with hub() as (address, held):
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield held


def test_a_dry_run_writes_what_would_be_uploaded(run: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "shared"
    arguments = ["push", "somebody/flags", "--run", str(run), "--dry_run", "--output_dir", str(out)]
    assert cli.main(arguments) == 0
    assert "not uploaded" in capsys.readouterr().out
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    one = {"README.md", "adapter_config.json", "adapter_model.safetensors", "lite.json"}
    assert files == one | {f"{stage}/{file}" for stage in (STAGE1, STAGE2) for file in one}
    for path in out.rglob("*"):
        if path.is_file():
            assert b"/home/" not in path.read_bytes(), path
            assert str(tmp_path).encode() not in path.read_bytes(), path
    card = (out / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata["license"] == "apache-2.0"
    expected = [
        "| f1 | 0.250 | 0.750 | 0.500 to 0.900 |", "| new | – | 0.750 |", "9 questions of test", "| seed | 7 |",
        "knows only flags", "--adapters somebody/flags", "| data | webqa,flags |", "<rank>[i] > [j]</rank>",
    ]  # fmt: skip
    for text in expected:
        assert text in card
    assert "Not for use alone" in (out / STAGE2 / "README.md").read_text()
    assert "Not for use alone" not in (out / STAGE1 / "README.md").read_text()
    assert cli.main(arguments) == 1
    assert "not empty" in capsys.readouterr().err


def test_the_card_of_a_model_of_the_hub_says_how_to_load_it(run: Path) -> None:
    card = read_card(run / "adapter") | {"base": "Qwen/Qwen3-VL-4B-Instruct", "joined": [STAGE1, STAGE2], "rank": 48}
    text = model_card(run, card, merged=False, repo="somebody/papers")
    assert yaml.safe_load(text.split("---")[1])["base_model"] == "Qwen/Qwen3-VL-4B-Instruct"
    assert 'PeftModel.from_pretrained(model, "somebody/papers")' in text
    assert "vllm serve Qwen/Qwen3-VL-4B-Instruct --enable-lora --max-lora-rank 64 --lora-modules" in text
    assert "knows only flags" not in text
    (run / "report.json").rename(run / "report.kept")
    try:
        assert "nothing was measured" in model_card(run, card, merged=False)
    finally:
        (run / "report.kept").rename(run / "report.json")


def test_what_was_pushed_is_found_and_answers_alike(run: Path, server: type[Hub], tmp_path: Path, capsys) -> None:
    assert cli.main(["push", "somebody/flags", "--run", str(run), "--private"]) == 0
    assert "somebody/flags" in capsys.readouterr().out
    assert server.private == {"somebody/flags": True}
    held = server.repositories["somebody/flags"]
    assert {
        "README.md",
        "adapter_model.safetensors",
        "stage2/lite.json",
        "stage1/adapter_model.safetensors",
    } <= held.keys()
    held["stage2/evil.py"] = held["stage2/pytorch_model.bin"] = b"never downloaded"
    folder = fetch_adapters("somebody/flags")
    assert folder.is_relative_to(tmp_path / "cache")
    assert not list(folder.rglob("evil.py")) + list(folder.rglob("*.bin"))
    assert find_adapters(folder) == (folder / STAGE1, folder / STAGE2)
    question = "What is the capital of Andorra?"
    documents = Corpus(flags.load_candidates("test")).nearest(question, 20)
    assert Rag.load(folder).ask(question, documents).raw == Rag.load("tiny").ask(question, documents).raw
    arguments = ["ask", question, "--data", "flags", "--adapters", "somebody/flags", "--limit", "3"]
    assert cli.main(arguments) in (0, 3, 4)
    server.repositories.clear()
    with pytest.raises(LiteError, match="no adapters somebody/other on"):
        fetch_adapters("somebody/other")


def test_weights_that_were_changed_are_refused(run: Path, server: type[Hub]) -> None:
    assert cli.main(["push", "somebody/flags", "--run", str(run)]) == 0
    held = server.repositories["somebody/flags"]
    data = bytearray(held["stage2/adapter_model.safetensors"])
    data[-1] ^= 1
    held["stage2/adapter_model.safetensors"] = bytes(data)
    with pytest.raises(LiteError, match="are not those that its"):
        Rag.load(fetch_adapters("somebody/flags"))


def test_who_may_not_write_is_told_to_log_in(run: Path, server: type[Hub], monkeypatch, capsys) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    assert cli.main(["push", "somebody/flags", "--run", str(run)]) == 1
    assert "hf auth login" in capsys.readouterr().err


@pytest.mark.parametrize("repo", ["flags", "a/b/c", "some body/x", "../x"])
def test_an_id_that_is_none_is_refused_before_any_work(repo: str, run: Path, capsys) -> None:
    assert cli.main(["push", repo, "--run", str(run)]) == 1
    assert "ORGANISATION/NAME" in capsys.readouterr().err


def test_a_base_that_others_lack_must_be_named(run: Path, tmp_path: Path, capsys) -> None:
    local = tmp_path / "copy" / STAGE2
    shutil.copytree(run.parent, local.parent)
    write_card(local / "adapter", read_card(local / "adapter") | {"base": str(tmp_path)})
    assert cli.main(["push", "somebody/x", "--run", str(local)]) == 1
    assert "--base ID" in capsys.readouterr().err


def test_what_is_no_pushed_folder_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(LiteError, match="`lite push` makes such ones"):
        fetch_adapters(str(tmp_path))
    assert fetch_adapters(str(SHIPPED)) == SHIPPED
