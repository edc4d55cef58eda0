"""The stage 1 command from settings to report, and what happens when something is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from accelerate import Accelerator
from PIL import Image
from rich.console import Console

from lite.cli import main as cli
from lite.config.model import ModelConfig
from lite.data import flags
from lite.data.pools import Pair
from lite.models import shared_prompt
from lite.models.inputs import encode
from lite.models.loading import load_model
from lite.runs import read_card, read_metrics
from lite.schema import Document, Example, LiteError
from lite.stages.prompts import stage1_prompt
from lite.train import run_folder
from lite.train import stage1 as train_module
from lite.train.rows import check_images, drop_long, pair_prompts, prompt_lengths
from lite.train.run_folder import claim_folder

QUICK = [
    "train", "stage1", "--config", "recipes/tiny/stage1.yaml", "--limit", "8", "--max_steps", "4", "--save_steps", "1",
    "--per_device_train_batch_size", "8", "--num_generations", "4", "--report_to", "none",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run on the embedded model."""
    folder = tmp_path_factory.mktemp("runs") / "tiny" / "stage1"
    assert cli.main([*QUICK, "--output_dir", str(folder)]) == 0
    return folder


def test_run_folder_holds_what_is_promised(finished_run: Path) -> None:
    report = json.loads((finished_run / "report.json").read_text())
    for system in ("base", "trained", "difference"):
        assert set(report[system]["auc"]) == {"value", "low", "high"}
        assert set(report["hard_pools"][system]["recall@5"]) == {"value", "low", "high"}
    assert report["trained"]["auc"]["low"] <= report["trained"]["auc"]["value"] <= report["trained"]["auc"]["high"]
    assert (finished_run / "report.md").read_text().count("| auc |") == 2
    assert "## How the training went\n\nNo sign of a collapse was seen." in (finished_run / "report.md").read_text()
    assert "commonest_excess" in read_metrics(finished_run / "metrics.jsonl")[0]
    for plot in ("reward.png", "roc.png", "scores.png"):
        assert Image.open(finished_run / plot).size[0] > 300
    assert [row["step"] for row in read_metrics(finished_run / "metrics.jsonl")] == [1, 2, 3, 4]
    assert yaml.safe_load((finished_run / "config.yaml").read_text())["max_steps"] == 4
    completions = pd.read_parquet(finished_run / "completions" / "completions_00004.parquet")
    assert {"prompt", "completion", "label", "format", "expected", "format_failure", "advantage"} <= set(completions)
    assert len(completions) == 8


def test_adapter_card_says_how_to_use_it(finished_run: Path) -> None:
    card = read_card(finished_run / "adapter")
    report = json.loads((finished_run / "report.json").read_text())
    assert card["hash"] == report["adapter_hash"]
    assert card["threshold"] == report["filter"]["threshold"]
    assert card["document_chars"] == 140
    assert 1 <= card["max_kept"] <= 18


def test_same_command_again_reports_again_and_trains_nothing(finished_run: Path) -> None:
    before = (finished_run / "report.json").read_text()
    assert cli.main([*QUICK, "--output_dir", str(finished_run)]) == 0
    assert (finished_run / "report.json").read_text() == before
    assert len(read_metrics(finished_run / "metrics.jsonl")) == 4


def test_other_settings_in_the_same_folder_are_refused(finished_run: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main([*QUICK, "--output_dir", str(finished_run), "--learning_rate", "1e-3"]) == 1
    message = capsys.readouterr().err
    assert "learning_rate: 0.0005 in the folder, 0.001 now" in message
    assert "--overwrite true" in message
    assert (finished_run / "report.json").exists()


def test_run_folder_of_another_base_is_refused(
    finished_run: Path, random_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    assert cli.main([*QUICK, "--output_dir", str(finished_run), "--model_name_or_path", str(random_folder)]) == 1
    assert "base_fingerprint" in capsys.readouterr().err


def test_folder_that_is_no_run_is_never_touched(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert cli.main([*QUICK, "--output_dir", str(tmp_path), "--overwrite", "true"]) == 1
    assert "is not a run folder made by lite" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_overwrite_throws_a_run_away_and_starts_anew(tmp_path: Path) -> None:
    settings = {"base_fingerprint": "a", "max_steps": 1}
    claim_folder(tmp_path / "run", settings, overwrite=False)
    (tmp_path / "run" / "checkpoint-1").mkdir()
    claim_folder(tmp_path / "run", settings, overwrite=False)
    assert (tmp_path / "run" / "checkpoint-1").exists()
    claim_folder(tmp_path / "run", {**settings, "max_steps": 2}, overwrite=True)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_a_run_of_a_version_without_a_setting_goes_on_with_its_default_only(tmp_path: Path) -> None:
    before = {"base_fingerprint": "a", "max_steps": 1}
    claim_folder(tmp_path / "run", before, overwrite=False)
    claim_folder(tmp_path / "run", before | {"first_word_credit": 0.0}, overwrite=False)
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(before))
    with pytest.raises(LiteError, match=r"first_word_credit: 0.0 in the folder, 0.3 now"):
        claim_folder(tmp_path / "run", before | {"first_word_credit": 0.3}, overwrite=False)


def test_two_processes_never_train_in_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    hold = "from filelock import FileLock; lock = FileLock('.run.lock'); lock.acquire(); print(); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-uc", hold], cwd=tmp_path, **pipes) as another:
        another.stdout.readline()
        assert cli.main([*QUICK, "--output_dir", str(tmp_path / "run")]) == 1
        another.communicate(b"\n")
    assert f"Another process is training in {tmp_path / 'run'}." in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_locked_is_trained_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def without_locks(*_: object, **__: object) -> None:
        raise NotImplementedError("no locks here")

    monkeypatch.setattr(run_folder.FileLock, "acquire", without_locks)
    training = run_folder.alone(lambda config, model_config, console: Path(config.output_dir))
    config = SimpleNamespace(output_dir=str(tmp_path / "run"))
    assert training(config, ModelConfig(), Console()) == tmp_path / "run"
    assert "cannot be locked" in caplog.text


def test_dry_run_estimates_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main([*QUICK, "--output_dir", str(tmp_path / "run"), "--dry_run", "true"]) == 0
    shown = capsys.readouterr().out
    assert "Fits" in shown
    assert "Prompt tokens   p50" in shown
    assert not (tmp_path / "run").exists()


def test_too_few_prompts_for_one_generation_are_no_training(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = [*QUICK, "--output_dir", str(tmp_path / "run"), "--per_device_train_batch_size", "512"]
    assert cli.main(run) == 1
    assert "fewer than the 128 that one generation takes" in capsys.readouterr().err
    assert not (tmp_path / "run" / "adapter").exists()


def broken_pair(image: Path) -> Pair:
    document = Document("img:xx", "image", "Flag of Nowhere", image=image)
    return Pair(Example("q", "What color is it?", (document,), frozenset({"img:xx"})), document, True)


@pytest.mark.parametrize("content", [None, b"", b"<html>not a picture</html>", b"\x89PNG\r\n\x1a\n1234"])
def test_broken_image_ends_the_run_before_it_starts(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "flag.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LiteError, match=r"img:xx.*flag\.png.*(Restore|Replace)"):
        check_images([broken_pair(path).document], Console(quiet=True))


def test_prompt_lengths_are_what_the_model_sees(random_model) -> None:
    _, processor = random_model
    example = flags.load_examples("train")[0]
    pairs = [Pair(example, document, False) for document in example.documents[:6]]
    assert len({pair.document.kind for pair in pairs}) == 2
    expected = [
        encode(processor, [stage1_prompt(example.question, pair.document, 140)], [pair.document])["input_ids"].shape[1]
        for pair in pairs
    ]
    assert prompt_lengths(*pair_prompts(pairs, 140), processor) == expected


def test_prompts_with_images_that_models_refuse_are_counted_as_they_are_shown(random_model, tmp_path: Path) -> None:
    _, processor = random_model
    pairs = []
    for size in ((4, 2000), (900, 3)):
        path = tmp_path / f"{size[0]}.png"
        Image.new("RGB", size).save(path)
        pairs.append(broken_pair(path))
        pairs[-1] = Pair(pairs[-1].example, replace(pairs[-1].document, id=path.stem), True)
    prompts = [stage1_prompt(pair.example.question, pair.document, 140) for pair in pairs]
    shown = [
        encode(processor, [prompt], [pair.document])["input_ids"].shape[1]
        for prompt, pair in zip(prompts, pairs, strict=True)
    ]
    assert prompt_lengths(*pair_prompts(pairs, 140), processor) == shown


def test_long_prompts_are_dropped_with_a_count_and_never_all(random_model, caplog: pytest.LogCaptureFixture) -> None:
    _, processor = random_model
    example = flags.load_examples("train")[0]
    pairs = [Pair(example, document, False) for document in example.documents]
    lengths = prompt_lengths(*pair_prompts(pairs, 140), processor)
    middle = sorted(lengths)[len(lengths) // 2]
    kept = drop_long(pairs, lengths, middle)
    assert len(kept) == sum(length <= middle for length in lengths)
    assert f"{len(pairs) - len(kept)} of {len(pairs)} rows are left out" in caplog.text
    with pytest.raises(LiteError, match=f"the shortest has {min(lengths)}"):
        drop_long(pairs, lengths, 3)


def test_interrupt_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def interrupted(self, *_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_module.StageTrainer, "training_step", interrupted)
    assert cli.main([*QUICK, "--output_dir", str(tmp_path / "run")]) == 1
    assert "Run the same command again: it continues from the start" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "phase", "remedy"),
    [
        ("generate", "in generation", "steps_per_generation"),
        ("group_log_probs", "in the reference's log-probs", "max_completion_length"),
    ],
)
def test_memory_that_runs_out_is_one_message_with_the_phase_and_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, method: str, phase: str, remedy: str
) -> None:
    def full(*_args, **_kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore.")

    monkeypatch.setattr(shared_prompt, method, full)
    folder = tmp_path / "run"
    assert cli.main([*QUICK, "--beta", "0.1", "--output_dir", str(folder)]) == 1
    said = capsys.readouterr().err
    assert f"ran out at step 1, {phase}: CUDA out of memory. Tried to allocate 2.00 GiB. Lower {remedy}" in said
    assert "Traceback" not in said
    assert "Run the same command again: it continues from the start" in said
    assert (folder / "config.yaml").exists()


def test_memory_that_runs_out_in_the_backward_pass_says_so_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    backward, calls = Accelerator.backward, []

    def full(self, loss, **kwargs):
        calls.append(loss)
        if len(calls) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        backward(self, loss, **kwargs)

    monkeypatch.setattr(Accelerator, "backward", full)
    command = [*QUICK, "--save_steps", "1", "--gradient_accumulation_steps", "1", "--output_dir", str(tmp_path / "run")]
    assert cli.main(command) == 1
    said = capsys.readouterr().err
    assert "in the forward and backward pass" in said
    assert "per_device_train_batch_size" in said
    assert "it continues from checkpoint-1" in said


def test_memory_that_runs_out_elsewhere_is_one_message_too(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def full(*_args, **_kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(train_module, "load_pairs", full)
    assert cli.main(QUICK) == 1
    assert (
        "ran out outside of training: CUDA out of memory. Lower per_device_eval_batch_size" in capsys.readouterr().err
    )


def test_killed_run_ends_with_the_adapter_of_an_unbroken_one(finished_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "lite.cli", *QUICK, "--output_dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    deadline = time.monotonic() + 120
    while len(read_metrics(folder / "metrics.jsonl")) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "adapter").exists(), "it was killed too late to show anything"
    assert subprocess.run(command, capture_output=True, env=os.environ).returncode == 0
    assert read_card(folder / "adapter")["hash"] == read_card(finished_run / "adapter")["hash"]
    assert [row["step"] for row in read_metrics(folder / "metrics.jsonl")] == [1, 2, 3, 4]


@pytest.mark.slow
def test_training_improves_the_filter_on_unseen_countries(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    recipe = ["train", "stage1", "--config", "recipes/tiny/stage1.yaml", "--output_dir", str(folder)]
    assert cli.main(recipe) == 0
    report = json.loads((folder / "report.json").read_text())
    assert report["hard_pools"]["difference"]["auc"]["value"] > 0
    assert report["difference"]["auc"]["value"] > 0
    assert report["filter_on_dev"]["recall_kept"] >= 0.98


def test_embedded_model_is_what_the_recipe_loads() -> None:
    model, _ = load_model(ModelConfig())
    assert sum(weight.numel() for weight in model.parameters() if weight.dtype != torch.uint8) < 5e6
