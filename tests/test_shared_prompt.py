"""A prompt computed once per group gives what TRL gives that computes it once per completion."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import get_peft_model
from PIL import Image

from lite.models import ModelConfig, load_model, lora_config, vision_tokens
from lite.trainer import StageConfig, StageTrainer

COLOURS = ("red", "green", "blue", "white")


def rows(images_per_prompt: list[int]) -> Dataset:
    """Prompts of different lengths, with the given numbers of images of different sizes between their texts."""
    images = [
        [Image.new("RGB", (64 + 32 * i, 48), colour) for i, colour in enumerate(COLOURS[:count])]
        for count in images_per_prompt
    ]

    def prompt(row: int) -> list[dict]:
        count = images_per_prompt[row]
        parts = [part for i in range(count) for part in ({"type": "text", "text": f"[{i}] "}, {"type": "image"})]
        return [{"role": "user", "content": [*parts, {"type": "text", "text": "How many of them? " * (row + 1)}]}]

    data = Dataset.from_dict({"row": range(len(images))})
    return data.with_transform(
        lambda batch: {"prompt": [prompt(i) for i in batch["row"]], "images": [images[i] for i in batch["row"]]}
    )


def length_reward(completions: list[list[dict]], **_: object) -> list[float]:
    """Differs within a group, so that there is something to learn."""
    return [float(sum(map(ord, completion[0]["content"])) % 7) for completion in completions]


def trainer(folder: Path, run: Path, data: Dataset, shared: bool, quantised: bool = False, **changes) -> StageTrainer:
    base, processor = load_model(ModelConfig(model_name_or_path=str(folder), load_in_4bit=quantised))
    torch.manual_seed(1)
    lora = lora_config(ModelConfig())
    lora.init_lora_weights = False  # B is not zero: gradients reach A, and the policy is not the reference
    model = get_peft_model(base, lora, adapter_name="stage1")
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.mul_(0.3)
    settings = {
        "output_dir": str(run),
        "shared_prompt": shared,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 6,
        "max_steps": 2,
        "learning_rate": 1e-2,
        "optim": "sgd",
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1e9,
        "save_strategy": "no",
        "report_to": "none",
        "bf16": False,
        "use_cpu": True,
        "logging_steps": 1,
        "gradient_checkpointing": False,
        "generation_kwargs": {"suppress_tokens": vision_tokens(base)},
    }
    return StageTrainer(
        model=model,
        reward_funcs=[length_reward],
        args=StageConfig(**(settings | changes)),
        train_dataset=data,
        processing_class=processor,
    )


def trained(stage: StageTrainer) -> tuple[torch.Tensor, list[dict], list[torch.Tensor]]:
    """(change of all trained weights, logged metrics, completions) of a run."""
    seen = []
    score = stage._generate_and_score_completions

    def listen(inputs):
        batch = score(inputs)
        seen.append(batch["completion_ids"] * batch["completion_mask"])
        return batch

    stage._generate_and_score_completions = listen
    weights = [weight for weight in stage.model.parameters() if weight.requires_grad]
    before = [weight.detach().clone() for weight in weights]
    stage.train()
    change = torch.cat([(weight - old).detach().flatten() for weight, old in zip(weights, before, strict=True)])
    return change, [row for row in stage.state.log_history if "loss" in row], seen


@pytest.mark.parametrize(
    ("images_per_prompt", "changes"),
    [
        ([2, 1, 3, 2], {}),
        ([0, 0, 0, 0], {"beta": 0.1}),
        ([2, 0, 0, 1], {"beta": 0.1, "gradient_checkpointing": True}),
        ([1, 0, 2, 0], {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}),
        ([1, 0, 2, 0], {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "max_steps": 3}),
        ([1, 0, 2, 0], {"num_iterations": 2, "max_steps": 4, "beta": 0.1}),
        ([0, 2, 1, 0], {"quantised": True, "num_generations": 8, "max_completion_length": 1}),
    ],
    ids=str,
)
def test_training_is_that_of_trl(
    random_folder: Path, tmp_path: Path, images_per_prompt: list[int], changes: dict
) -> None:
    data = rows(images_per_prompt)
    expected, metrics, tokens = trained(trainer(random_folder, tmp_path / "stock", data, shared=False, **changes))
    change, ours, our_tokens = trained(trainer(random_folder, tmp_path / "shared", data, shared=True, **changes))
    assert expected.norm() > 1e-6
    assert len(tokens) == len(our_tokens)
    assert all(torch.equal(a, b) for a, b in zip(tokens, our_tokens, strict=True))
    assert (change - expected).norm() <= 1e-4 * expected.norm()
    same = ("loss", "reward", "entropy", "kl", "completions/mean_length", "num_tokens", "grad_norm")
    for row, our_row in zip(metrics, ours, strict=True):
        for key in set(same) & set(row):
            assert our_row[key] == pytest.approx(row[key], rel=1e-3, abs=1e-5), key
