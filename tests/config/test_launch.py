"""Two processes train what one trains: for real, on the CPU, through `accelerate launch`."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import two_processes
from accelerate.commands.config.config_args import load_config_from_file
from hypothesis import given
from hypothesis import strategies as st

from lite.cli import main as cli
from lite.config.launch import for_processes, share_of_batch
from lite.config.runs import Stage2Config, StageConfig
from lite.runs import read_card, read_metrics
from lite.train.stage2_rows import draw_pools

ROOT = Path(__file__).parents[2]
RECIPE = str(ROOT / "recipes" / "tiny" / "stage1.yaml")
LAUNCH = [
    sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(ROOT / "recipes/accelerate/cpu2.yaml"),
]  # fmt: skip
TOLERANCE = 1e-5


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}


# --------------------------------------------------------------------------------------------------- steps and resume


@pytest.fixture(scope="module")
def one(random_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """What one process does, and the folder for both."""
    out = tmp_path_factory.mktemp("processes")
    results = two_processes.steps(random_folder, out / "alone")
    results["saved"] = two_processes.train(random_folder, out / "one", **two_processes.SAVED)
    return out, results


@pytest.fixture(scope="module")
def two(one: tuple[Path, dict], random_folder: Path) -> list[dict]:
    """What each of two processes does with the same data."""
    out, _ = one
    script = str(ROOT / "tests" / "two_processes.py")
    done = subprocess.run(
        [*LAUNCH, script, str(random_folder), str(out)], capture_output=True, text=True, env=environment(), timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(out / f"rank{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("case", two_processes.CASES)
def test_two_processes_give_the_loss_and_the_gradients_of_one(
    case: str, one: tuple[Path, dict], two: list[dict]
) -> None:
    alone = one[1][case]
    for rank in two:
        assert rank[case]["losses"][0] == pytest.approx(alone["losses"][0], abs=TOLERANCE)
        assert rank[case]["rewards"] == pytest.approx(alone["rewards"])
        gradients = rank[case]["gradients"][0]
        assert gradients.keys() == alone["gradients"][0].keys()
        assert all("stage2" in name for name in gradients)
        for name, gradient in alone["gradients"][0].items():
            assert torch.allclose(gradients[name], gradient, rtol=0, atol=TOLERANCE), name
    assert max(gradient.abs().max() for gradient in alone["gradients"][0].values()) > 100 * TOLERANCE


@pytest.mark.parametrize("case", two_processes.CASES)
def test_adapters_are_equal_on_both_after_every_step(case: str, two: list[dict]) -> None:
    first, second = (rank[case]["weights"] for rank in two)
    assert len(first) == len(second) == 2
    for ours, theirs in zip(first, second, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    moved = {name for name in first[0] if not torch.equal(first[0][name], first[1][name])}
    assert moved == {name for name in first[0] if "stage2" in name}  # stage 1 is frozen on both


def test_processes_share_the_prompts_in_whole_groups_and_repeat_none(one: tuple[Path, dict], two: list[dict]) -> None:
    for case in two_processes.CASES:
        for ours, theirs, alone in zip(two[0][case]["rows"], two[1][case]["rows"], one[1][case]["rows"], strict=True):
            assert ours + theirs == alone
            assert not set(ours) & set(theirs)
            assert all(ours.count(row) == two_processes.GROUP for row in ours)


def test_resumed_by_two_ends_with_the_adapter_of_an_unbroken_run_of_two(two: list[dict]) -> None:
    for rank in two:
        assert rank["resumed"]["rows"] == rank["unbroken"]["rows"][2:]
        unbroken, resumed = rank["unbroken"]["weights"][-1], rank["resumed"]["weights"][-1]
        assert all(torch.equal(resumed[name], unbroken[name]) for name in unbroken)


def test_resumed_by_two_goes_on_with_the_prompts_that_one_would_have_taken(
    one: tuple[Path, dict], two: list[dict]
) -> None:
    alone, resumed = one[1]["saved"], [rank["resumed from one"] for rank in two]
    assert [a + b for a, b in zip(*(rank["rows"] for rank in resumed), strict=True)] == alone["rows"][2:]
    assert resumed[0]["losses"][2:] == pytest.approx(alone["losses"][2:], abs=1e-4)


def test_resumed_by_one_goes_on_with_the_prompts_that_two_would_have_taken(
    one: tuple[Path, dict], two: list[dict], random_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = one[0] / "saved" / "checkpoint-2"
    resumed = two_processes.train(random_folder, one[0] / "saved", checkpoint, **two_processes.SAVED)
    whole = [a + b for a, b in zip(*(rank["unbroken"]["rows"] for rank in two), strict=True)]
    assert resumed["rows"] == whole[2:]
    assert "another number of processes" in caplog.text


def test_one_process_says_why_all_stop(two: list[dict]) -> None:
    assert sorted(rank["first to fail"] for rank in two) == [False, True]


# ------------------------------------------------------------------------------------------------------------- settings


@given(
    per_device=st.integers(1, 64), accumulation=st.integers(1, 16), count=st.integers(2, 16), group=st.integers(2, 8)
)
def test_shares_are_the_whole_batch_in_whole_groups(per_device: int, accumulation: int, count: int, group: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", str(count))
        try:
            rows, steps, _ = share_of_batch(per_device, accumulation, None, None, group)
        except ValueError as error:
            remedy = int(str(error).split("gradient_accumulation_steps to ")[1].split(",")[0])
            rows, steps, _ = share_of_batch(per_device, remedy, None, None, group)
            accumulation = remedy
        assert rows * steps * count == per_device * accumulation
        assert rows * steps % group == 0
        assert rows <= per_device


def test_one_process_takes_one_of_several_gpus(tmp_path: Path) -> None:
    config = StageConfig(output_dir=str(tmp_path), per_device_train_batch_size=8, use_cpu=True, bf16=False)
    config._n_gpu = 2  # what transformers counts where nobody hid the others
    assert config.train_batch_size == 16  # and what most prompts would be lost by
    assert for_processes(config).train_batch_size == 8
    assert config.train_batch_size == 16, "the settings that were given stay as they are"


def test_processes_draw_the_prompts_of_the_whole_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for count in (1, 2, 4):
        for module in ("config.launch", "train.stage2_rows"):
            monkeypatch.setattr(f"lite.{module}.processes", lambda count=count: count)
        config = Stage2Config(
            output_dir=str(tmp_path), max_steps=20, per_device_train_batch_size=8, gradient_accumulation_steps=4,
            num_generations=8, use_cpu=True, bf16=False,
        )  # fmt: skip
        drawn.append([pool.example.id for pool in draw_pools(config, random.Random(0))])
    assert len(drawn[0]) == 20 * 8 * 4 // 8
    assert drawn[0] == drawn[1] == drawn[2]


def settings(*changes: str) -> int:
    return cli.main(["train", "stage1", "--config", RECIPE, "--dry_run", "true", "--limit", "2", *changes])


def test_groups_that_cannot_be_divided_name_the_number_to_change(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("lite.config.launch.processes", lambda: 3)
    monkeypatch.setattr("lite.config.launch.first_to_fail", lambda: True)
    assert settings() == 1
    said = capsys.readouterr().err
    assert "3 processes cannot take whole groups" in said
    assert "Set gradient_accumulation_steps to 3, or start fewer processes" in said


@pytest.mark.parametrize(
    "asked",
    [
        {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
        {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": "zero3.json"},
        {"ACCELERATE_USE_FSDP": "true"},
    ],
    ids=["zero-3", "zero-3 by file", "fsdp"],
)
def test_a_quantised_base_is_not_divided(
    asked: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("zero3.json").write_text(json.dumps({"zero_optimization": {"stage": 3}}))
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    assert settings() == 1
    assert "a 4-bit base cannot be divided" in capsys.readouterr().err


def test_zero2_without_deepspeed_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    monkeypatch.setattr("lite.config.launch.find_spec", lambda name: None)
    assert settings() == 1
    assert "pip install 'mmrag-lite[deepspeed]'" in capsys.readouterr().err


def test_distribution_is_no_matter_of_the_runs_settings(capsys: pytest.CaptureFixture) -> None:
    assert settings("--deepspeed", "zero2.json") == 1
    assert "recipes/accelerate/" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["one_gpu", "multi_gpu", "zero2", "cpu2"])
def test_files_for_accelerate_are_read(name: str) -> None:
    file = load_config_from_file(str(ROOT / "recipes" / "accelerate" / f"{name}.yaml"))
    assert file.num_processes == (1 if name == "one_gpu" else 2)
    assert file.deepspeed_config.get("zero_stage") == (2 if name == "zero2" else None)


# -------------------------------------------------------------------------------------------------------- the recipes


def launch(*arguments: str) -> subprocess.CompletedProcess:
    command = [*LAUNCH, "--module", "lite.cli", "train", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=500)


@pytest.mark.slow
def test_both_stages_in_two_processes_have_one_writer(tmp_path: Path) -> None:
    small = ["--limit", "6", "--num_generations", "4", "--report_to", "none", "--report_questions", "4"]
    stage1 = [
        "stage1", "--config", RECIPE, *small, "--per_device_train_batch_size", "16", "--max_steps", "2",
        "--save_steps", "1", "--output_dir", str(tmp_path / "stage1"),
    ]  # fmt: skip
    done = launch(*stage1)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("report.md") == 1
    assert done.stdout.count("training: step 2/2, 0:00:00 left") == 1
    assert [row["step"] for row in read_metrics(tmp_path / "stage1" / "metrics.jsonl")] == [1, 2]
    assert len(pd.read_parquet(tmp_path / "stage1" / "completions" / "completions_00001.parquet")) == 16
    assert (tmp_path / "stage1" / "checkpoint-2" / "rng_state_1.pth").exists()
    assert cli.main(["train", *stage1]) == 0  # one process finds the run of two, finished
    stage2 = [
        "stage2", "--config", RECIPE.replace("stage1", "stage2"), *small, "--per_device_train_batch_size", "8",
        "--max_steps", "2", "--max_completion_length", "16", "--cold_start_steps", "2", "--cold_start_batch_size", "4",
        "--stage1_adapter", str(tmp_path / "stage1" / "adapter"), "--output_dir", str(tmp_path / "stage2"),
    ]  # fmt: skip
    done = launch(*stage2)
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "stage2"
    assert done.stdout.count("report.md") == done.stdout.count("Cold start:") == 1
    assert len(pd.read_parquet(run / "completions" / "completions_00002.parquet")) == 8
    assert read_card(run / "adapter")["stage1_hash"] == read_card(tmp_path / "stage1" / "adapter")["hash"]
    again = launch(*stage1, "--seed", "7")
    assert again.returncode != 0
    assert again.stderr.count("lite: ") == 1
    assert "seed: 0 in the folder, 7 now" in again.stderr
