"""The ablation: variants of a recipe, and which finished runs may stand in one table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from lite.config.evaluate import EvaluateConfig, of_recipe
from lite.config.model import ModelConfig
from lite.config.runs import Stage2Config
from lite.runs import SHIPPED, read_card
from lite.schema import LiteError
from lite.train.ablation import ABLATIONS, ablate, ablation_runs, variant
from lite.train.auto_fit import auto_fit
from lite.train.run_folder import resolved_settings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_variants_of_an_ablation_have_the_recipes_settings_and_not_what_was_derived_from_them() -> None:
    config = Stage2Config(
        output_dir="runs/stage2", stage1_adapter="runs/stage1/adapter", per_device_train_batch_size=8,
        gradient_accumulation_steps=4, num_generations=8, use_cpu=True, bf16=False,
    )  # fmt: skip
    assert config.steps_per_generation == 4  # derived by TRL
    same = variant(config, {}, Path(config.output_dir), config.stage1_adapter)
    left_out = variant(config, {"without_reward": "answer"}, Path("runs/other"), config.stage1_adapter)
    of_recipe = resolved_settings(config, ModelConfig())
    assert {key for key, value in resolved_settings(same, ModelConfig()).items() if value != of_recipe[key]} == set()
    differing = {key for key, value in resolved_settings(left_out, ModelConfig()).items() if value != of_recipe[key]}
    assert differing == {"output_dir", "reward_weights", "logging_dir"} & differing
    assert left_out.reward_weights[2] == 0


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """What an ablation finds where all its runs are there: their settings and reports."""
    config, recipe = ablation_config()
    for name, folder in ablation_runs(config)[1].items():
        changes = ABLATIONS.get(name, {})
        folder.mkdir(parents=True)
        settings = resolved_settings(variant(recipe, changes, folder, "elsewhere/adapter"), ModelConfig())
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        below = None if changes.get("adapter_mode") == "fresh" else "a" * 64
        (folder / "report.json").write_text(json.dumps({"stage1_hash": below}))
    return tmp_path / "runs"


def ablation_config(**changes: object) -> tuple[EvaluateConfig, Stage2Config]:
    named = {"output_dir": "runs/stage2", "stage1_adapter": "runs/stage1/adapter"}
    recipe = Stage2Config(**named, use_cpu=True, bf16=False, **changes)
    return of_recipe(EvaluateConfig(), recipe), recipe


def run_ablation() -> None:
    ablate(*ablation_config(), ModelConfig(), Console())


def test_runs_of_other_settings_are_not_put_into_one_table(finished: Path) -> None:
    path = finished / "ablation" / "no-answer-reward" / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"temperature": 3.3}))
    with pytest.raises(LiteError, match=r"no-answer-reward holds a run with other settings:\n  temperature: 3.3 in"):
        run_ablation()


def test_runs_on_another_stage_1_are_not_put_into_one_table(finished: Path) -> None:
    (finished / "ablation" / "no-ranking-reward" / "report.json").write_text(json.dumps({"stage1_hash": "b" * 64}))
    with pytest.raises(LiteError, match=r"(?s)different stage 1 adapters:.*no-ranking-reward: bbbbbbbbbbbb\n"):
        run_ablation()


def test_runs_on_another_stage_1_are_told_before_what_is_missing_is_trained(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lite.train.ablation.train_stage2", lambda *_: pytest.fail("trained"))
    (finished / "ablation" / "no-answer-reward" / "report.json").unlink()
    (finished / "stage1" / "adapter").mkdir(parents=True)
    card = read_card(SHIPPED / "stage1") | {"hash": "c" * 64}
    (finished / "stage1" / "adapter" / "lite.json").write_text(json.dumps(card))
    with pytest.raises(LiteError, match=r"(?s)different stage 1 adapters:.*stage1/adapter: cccccccccccc\n"):
        run_ablation()


def test_runs_that_were_fitted_to_the_card_are_taken_as_they_are(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lite.train.auto_fit.card_gib", lambda: 6.5)
    config, recipe = ablation_config(auto_fit=True)
    asked = ModelConfig(model_name_or_path="Qwen/Qwen3-VL-4B-Instruct", max_pixels=512 * 512)
    for name, folder in ablation_runs(config)[1].items():
        settings = variant(recipe, ABLATIONS.get(name, {}), folder, "elsewhere/adapter")
        (folder / "config.yaml").unlink()
        settings, model, changed = auto_fit(settings, asked, 2, Console(quiet=True))
        assert {"num_generations", "max_documents"} & set(changed)
        written = resolved_settings(settings, model) | {"auto_fitted": changed}
        (folder / "config.yaml").write_text(yaml.safe_dump(written))
    monkeypatch.setattr("lite.train.auto_fit.card_gib", lambda: 80.0)
    monkeypatch.setattr("lite.train.ablation.train_stage2", lambda *_: pytest.fail("trained"))

    def compared(*_: object) -> None:
        raise LiteError("all are there")

    monkeypatch.setattr("lite.train.ablation.load_report_questions", compared)
    with pytest.raises(LiteError, match="all are there"):
        ablate(config, recipe, asked, Console())
    assert asked.max_pixels == 512 * 512
