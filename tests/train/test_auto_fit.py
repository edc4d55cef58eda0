"""auto_fit: fits cards of any size by the estimate, in the stated order, and a resumed run keeps what it chose."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rich.console import Console

from lite.config.model import ModelConfig
from lite.config.parse import parse
from lite.config.runs import Stage1Config, Stage2Config
from lite.models.memory import USABLE, run_estimate
from lite.models.shapes import shape_of
from lite.schema import LiteError
from lite.train import auto_fit as module
from lite.train.auto_fit import FIELDS, STEPS, auto_fit, fit, read, write
from lite.train.run_folder import claim_folder, resolved_settings

RECIPES = Path(__file__).parents[2] / "recipes"


def configs(profile: str = "qwen3-vl-4b", stage: int = 2, *more: str) -> tuple[Stage2Config, ModelConfig]:
    path = RECIPES / profile / f"stage{stage}.yaml"
    return parse(Stage1Config if stage == 1 else Stage2Config, "test", ["--config", str(path), "--use_cpu=true", *more])


def peak(config: Stage2Config, model_config: ModelConfig) -> float:
    shape = shape_of(model_config.model_name_or_path)
    return run_estimate(shape, config, model_config, config.max_prompt_tokens, config.max_documents, 2)["peak"]


def fitted(gib: float, profile: str = "qwen3-vl-4b") -> dict[str, int]:
    config, model_config = configs(profile)
    return fit(shape_of(model_config.model_name_or_path), config, model_config, 2, gib)


def test_nothing_is_lowered_where_the_recipe_fits() -> None:
    config, model_config = configs()
    assert fitted(24.0) == read(config, model_config)


@hypothesis_settings(deadline=None, max_examples=12)
@given(gib=st.floats(8, 24), profile=st.sampled_from(["qwen3-vl-2b", "qwen3-vl-4b", "qwen3-vl-8b"]))
def test_what_is_chosen_fits_and_trl_accepts_it(gib: float, profile: str) -> None:
    config, model_config = configs(profile)
    shape = shape_of(model_config.model_name_or_path)
    if gib < {"qwen3-vl-2b": 5, "qwen3-vl-4b": 7.5, "qwen3-vl-8b": 12}[profile]:
        gib = 12.0
    chosen = fit(shape, config, model_config, 2, gib)
    asked = read(config, model_config)
    config, model_config = write(config, model_config, chosen)
    assert peak(config, model_config) <= USABLE * gib
    # raises where generations, batches and steps do not fit together
    kept = ("per_device_train_batch_size", "gradient_accumulation_steps", "steps_per_generation", "num_generations")
    again, _ = configs(profile, 2, *(f"--{name}={chosen[name]}" for name in kept))
    assert again.generation_batch_size == chosen["generation_batch_size"]
    assert again.gradient_accumulation_steps % again.steps_per_generation == 0
    assert all(chosen[name] <= asked[name] for name in ("num_generations", "max_pixels", "max_documents"))


def test_order_is_the_stated_one() -> None:
    """From card to smaller card: a later setting is untouched until the earlier ones have nothing left to give."""
    asked = read(*configs())
    levels = []
    for gib in [step / 4 for step in range(60, 20, -1)]:
        try:
            chosen = fitted(gib)
        except LiteError:
            break
        changed = {name for name in FIELDS if chosen.get(name) != asked.get(name)}
        order = ["num_generations", "max_pixels", "max_documents"]
        levels.append(
            max([1 + order.index(name) for name in changed if name in order], default=0 if not changed else 0.5)
        )
        if "max_documents" in changed:
            assert chosen["max_pixels"] == module.FEWEST_PIXELS
        if "max_pixels" in changed:
            assert chosen["num_generations"] == module.FEWEST_GENERATIONS
        if "num_generations" in changed:
            assert chosen["per_device_train_batch_size"] <= 2 or chosen["steps_per_generation"] == 1
    assert levels == sorted(levels)
    assert set(levels) == {0, 0.5, 1, 2, 3}


def test_lossless_steps_keep_the_completions_of_a_step() -> None:
    asked = read(*configs())
    per_step = asked["per_device_train_batch_size"] * asked["gradient_accumulation_steps"]
    for step in STEPS[:2]:
        chosen = step(asked)
        assert chosen["per_device_train_batch_size"] * chosen["gradient_accumulation_steps"] == per_step
        assert chosen["num_generations"] == asked["num_generations"]


def test_card_that_is_too_small_is_an_error_that_says_so() -> None:
    with pytest.raises(LiteError, match=r"takes .* GiB with everything at its least, and of the card's 3 GiB 92%"):
        fitted(3.0)


def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gib: float | None, *more: str) -> tuple:
    """What `train_stage2` does with auto_fit before it trains, on a card of `gib`."""
    monkeypatch.setattr(module, "card_gib", lambda: gib)
    config, model_config = configs("qwen3-vl-4b", 2, "--auto_fit=true", f"--output_dir={tmp_path}", *more)
    console = Console(record=True, width=200)
    config, model_config, changed = auto_fit(config, model_config, 2, console)
    settings = resolved_settings(config, model_config) | {"base_fingerprint": "x", "auto_fitted": changed}
    claim_folder(tmp_path, settings, config.overwrite)
    return settings, changed, console.export_text()


def test_run_folder_records_what_was_changed_and_is_resumed_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, changed, said = run_folder(tmp_path, monkeypatch, 6.5)
    assert changed["num_generations"] == [8, 4]
    assert "num_generations 8 → 4" in said
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["num_generations"] == 4
    again, _, _ = run_folder(tmp_path, monkeypatch, 6.5)
    assert again == settings
    # on another card, too, the run goes on as it began
    larger, _, _ = run_folder(tmp_path, monkeypatch, 24.0)
    assert larger == settings
    # other wishes are another run
    with pytest.raises(LiteError, match="max_documents: 6 in the folder, 3 now"):
        run_folder(tmp_path, monkeypatch, 24.0, "--max_documents=3")
    started_anew, changed, _ = run_folder(tmp_path, monkeypatch, 24.0, "--overwrite=true")
    assert changed == {}
    assert started_anew["num_generations"] == 8


def test_without_a_gpu_nothing_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, changed, said = run_folder(tmp_path, monkeypatch, None)
    assert changed == {}
    assert "there is no GPU here" in said


def test_run_folders_of_before_auto_fit_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, _, _ = run_folder(tmp_path, monkeypatch, 24.0)
    old = {name: value for name, value in settings.items() if not name.startswith("auto_fit")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(old))
    run_folder(tmp_path, monkeypatch, 24.0)


def test_stage1_has_no_documents_to_lower() -> None:
    config, model_config = configs("qwen3-vl-8b", 1)
    chosen = fit(shape_of(model_config.model_name_or_path), config, model_config, 1, 10.0)
    assert "max_documents" not in chosen
