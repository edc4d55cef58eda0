"""What StageTrainer mends in TRL, each beside the stock trainer that still fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import random_qwen
import torch
from datasets import Dataset
from peft import get_peft_model
from peft.tuners.lora import LoraLayer
from PIL import Image
from trl import GRPOTrainer

from lite.config.model import ModelConfig
from lite.config.runs import StageConfig
from lite.models.adapters import adapter_hash, base_fingerprint, load_adapter, save_adapter
from lite.models.inputs import vision_tokens
from lite.models.loading import load_model, lora_config
from lite.schema import LiteError
from lite.train.run_folder import last_checkpoint
from lite.train.trainer import StageTrainer
from lite.train.trl_fixes import release

COLOURS = ("red", "green", "blue", "white")


def rows(images_per_prompt: list[int]) -> Dataset:
    """Prompts with the given numbers of images between their texts."""
    images = [[Image.new("RGB", (64, 48), colour) for colour in COLOURS[:count]] for count in images_per_prompt]

    def prompt(count: int) -> list[dict]:
        parts = [part for i in range(count) for part in ({"type": "text", "text": f"[{i}] "}, {"type": "image"})]
        return [{"role": "user", "content": [*parts, {"type": "text", "text": f"How many of {count}?"}]}]

    # A transform, as in train.py: a plain dataset would fill the parts' missing keys with None
    data = Dataset.from_dict({"row": range(len(images))})
    return data.with_transform(
        lambda batch: {
            "prompt": [prompt(images_per_prompt[i]) for i in batch["row"]],
            "images": [images[i] for i in batch["row"]],
        }
    )


def length_reward(completions: list[list[dict]], **_: object) -> list[float]:
    """Differs within a group, so that there is something to learn."""
    return [float(len(completion[0]["content"])) for completion in completions]


def settings(folder: Path, **changes: object) -> StageConfig:
    defaults = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 6,
        "max_steps": 1,
        "learning_rate": 1e-3,
        "save_strategy": "no",
        "report_to": "none",
        "bf16": False,
        "use_cpu": True,
        "logging_steps": 1,
        "shuffle_dataset": False,
    }
    return StageConfig(**(defaults | changes))


def stage1_model(folder: Path, name: str = "stage1"):
    model, processor = load_model(ModelConfig(model_name_or_path=str(folder)))
    return get_peft_model(model, lora_config(ModelConfig(), model), adapter_name=name), processor


def trainer(
    folder: Path, run: Path, data: Dataset, cls: type = StageTrainer, loaded: tuple | None = None, **changes: object
) -> GRPOTrainer:
    model, processor = loaded or stage1_model(folder)
    config = settings(run, generation_kwargs={"suppress_tokens": vision_tokens(model, processor)}, **changes)
    return cls(model=model, reward_funcs=[length_reward], args=config, train_dataset=data, processing_class=processor)


@pytest.mark.parametrize("images_per_prompt", [[0, 0], [1, 0], [4, 2], [0, 3]], ids=str)
def test_every_lora_tensor_gets_a_gradient_with_checkpointing_and_mixed_images(
    random_folder: Path, tmp_path: Path, images_per_prompt: list[int]
) -> None:
    stage = trainer(random_folder, tmp_path, rows(images_per_prompt), gradient_checkpointing=True, max_steps=2)
    trained = {name: weight for name, weight in stage.model.named_parameters() if weight.requires_grad}
    before = {name: weight.detach().clone() for name, weight in trained.items()}
    stage.train()
    assert len(trained) == 2 * 7 * stage.model.config.text_config.num_hidden_layers
    assert all("stage1" in name for name in trained)
    unchanged = [name for name, weight in trained.items() if torch.equal(weight, before[name])]
    assert unchanged == []
    assert torch.isfinite(torch.stack([weight.abs().max() for weight in trained.values()])).all()


def test_stock_trl_still_crashes_on_a_batch_with_and_without_images(random_folder: Path, tmp_path: Path) -> None:
    # When this fails, StageTrainer._tokenize_prompts can go.
    stock = trainer(random_folder, tmp_path, rows([1, 0]), cls=GRPOTrainer)
    with pytest.raises(Exception, match="NoneType"):
        stock.train()


def test_adapter_stays_in_fp32_where_stock_trl_rounds_it_to_bf16(random_folder: Path, tmp_path: Path) -> None:
    def dtypes(cls: type) -> set[torch.dtype]:
        model = trainer(random_folder, tmp_path, rows([0, 0]), cls=cls).model
        return {weight.dtype for weight in model.parameters() if weight.requires_grad}

    assert dtypes(StageTrainer) == {torch.float32}
    assert dtypes(GRPOTrainer) == {torch.bfloat16}


def test_groups_that_teach_nothing_are_counted_where_stock_trl_sees_none(random_folder: Path, tmp_path: Path) -> None:
    # When the second assertion fails, `_calculate_rewards` can go.
    def first_group_alone(completions: list[list[dict]], **_: object) -> list[float]:
        return [1.0, 0.0, 0.0, 1.0, *[0.5] * (len(completions) - 4)]

    stage = trainer(
        random_folder, tmp_path, rows([0, 0]), multi_objective_aggregation="normalize_then_sum", max_steps=1,
    )  # fmt: skip
    stage.reward_funcs = [first_group_alone]
    stage.train()
    logged = stage.state.log_history[0]
    assert logged["equal_groups"] == 0.5
    assert logged["frac_reward_zero_std"] == 0


def test_training_starts_from_the_very_weights_that_it_is_given(random_folder: Path, tmp_path: Path) -> None:
    def rounding(cls: type) -> float:
        model, processor = stage1_model(random_folder)
        before = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
        built = trainer(random_folder, tmp_path, rows([0, 0]), cls=cls, loaded=(model, processor)).model
        started = dict(built.named_parameters())
        return max((started[name].detach() - given).abs().max().item() for name, given in before.items())

    assert rounding(StageTrainer) == 0
    assert rounding(GRPOTrainer) > 0  # when this fails, `learning` can go


def test_after_training_the_model_computes_without_the_autocast_of_accelerate(
    random_folder: Path, tmp_path: Path
) -> None:
    stage = trainer(random_folder, tmp_path / "run", rows([1, 0]), max_steps=1, bf16=True, use_cpu=True)
    stage.train()
    ids = torch.arange(20, 32)[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        trained = stage.model(**inputs).logits
        release(stage)
        plain = stage.model(**inputs).logits
        assert not torch.equal(plain, trained)
        assert torch.equal(plain, type(stage.model).forward(stage.model, **inputs).logits)


def test_kl_to_the_base_starts_at_zero_and_grows_where_stock_trl_refuses_the_name(
    random_folder: Path, tmp_path: Path
) -> None:
    stage = trainer(random_folder, tmp_path, rows([1, 0, 1, 0]), beta=0.1, max_steps=3, learning_rate=1e-2)
    stage.train()
    divergence = [row["kl"] for row in stage.state.log_history if "kl" in row]
    assert divergence[0] == pytest.approx(0, abs=1e-6)
    assert divergence[-1] > 1e-5
    with pytest.raises(KeyError, match="default"):
        trainer(random_folder, tmp_path, rows([0, 0]), cls=GRPOTrainer, beta=0.1)


def test_what_merged_weights_round_differently_is_corrected_and_logged(tmp_path: Path) -> None:
    def logged(weights: str) -> dict[str, float]:
        base = random_qwen.random_model(random_qwen.config_of("tiny"), "cpu")
        model = get_peft_model(base, lora_config(ModelConfig(), base), adapter_name="stage1")
        stage = StageTrainer(
            model=model,
            reward_funcs=[length_reward],
            args=settings(tmp_path, sampling_weights=weights, max_completion_length=12),
            train_dataset=rows([1, 0]),
            processing_class=random_qwen.random_processor(4096),
        )
        stage.train()
        assert all(torch.isfinite(weight).all() for weight in model.parameters() if weight.requires_grad)
        assert not any("forward" in vars(module) for module in model.modules() if isinstance(module, LoraLayer))
        return stage.state.log_history[0]

    merged, packed = logged("merged"), logged("packed")
    assert 0 < merged["sampling/sampling_logp_difference/mean"] < 0.05
    assert merged["sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=0.2)
    assert not any("importance_sampling" in name for name in packed)


def test_resumed_run_ends_with_the_adapter_of_an_unbroken_one(random_folder: Path, tmp_path: Path) -> None:
    def hash_after(run: Path, resume: str | None) -> str:
        stage = trainer(random_folder, run, rows([1, 0, 2, 0]), max_steps=4, save_strategy="steps", save_steps=2)
        stage.train(resume_from_checkpoint=resume)
        save_adapter(stage.model, "stage1", run / "adapter", {"base": "random"})
        return adapter_hash(run / "adapter")

    unbroken = hash_after(tmp_path / "run", None)
    assert hash_after(tmp_path / "run", str(tmp_path / "run" / "checkpoint-2")) == unbroken


def test_checkpoint_that_cannot_be_written_leaves_the_previous_one(
    random_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = trainer(random_folder, tmp_path, rows([0, 0]), max_steps=2, save_strategy="steps", save_steps=1)
    write = StageTrainer._save_optimizer_and_scheduler

    def fill_the_disk(self, output_dir: str) -> None:
        if output_dir.endswith("checkpoint-2"):
            raise OSError(28, "No space left on device")
        write(self, output_dir)

    monkeypatch.setattr(StageTrainer, "_save_optimizer_and_scheduler", fill_the_disk)
    with pytest.raises(LiteError, match=r"checkpoint-2 .*No space left.*checkpoint-1 is intact.*same command again"):
        stage.train()
    assert last_checkpoint(tmp_path).name == "checkpoint-1"
    assert not (tmp_path / "checkpoint-2").exists()


def test_unfinished_checkpoints_are_passed_over(tmp_path: Path) -> None:
    for step, state in ((2, json.dumps({})), (10, json.dumps({})), (12, '{"global_st'), (14, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path).name == "checkpoint-10"
    assert last_checkpoint(tmp_path / "nowhere") is None


def test_adapter_of_another_base_is_refused(random_folder: Path, tmp_path: Path) -> None:
    model, _ = stage1_model(random_folder)
    card = {"base": "random", "base_fingerprint": base_fingerprint(model), "document_chars": 100, "max_pixels": None}
    save_adapter(model, "stage1", tmp_path / "adapter", card)
    base, _ = load_model(ModelConfig(model_name_or_path=str(random_folder)))
    loaded = load_adapter(base, tmp_path / "adapter", "stage1")
    assert "stage1" in loaded.peft_config
    other, _ = load_model(ModelConfig())
    with pytest.raises(LiteError, match="trained on random"):
        load_adapter(other, tmp_path / "adapter", "stage1")
    with pytest.raises(LiteError, match="no adapter made by lite"):
        load_adapter(other, tmp_path, "stage1")


def test_fingerprint_is_of_the_weights_not_of_their_precision_or_adapters(random_folder: Path) -> None:
    quantised, _ = load_model(ModelConfig(model_name_or_path=str(random_folder)))
    full, _ = load_model(ModelConfig(model_name_or_path=str(random_folder), load_in_4bit=False))
    with_adapter, _ = stage1_model(random_folder)
    other, _ = load_model(ModelConfig())
    assert base_fingerprint(quantised) == base_fingerprint(full) == base_fingerprint(with_adapter)
    assert base_fingerprint(other) != base_fingerprint(full)
