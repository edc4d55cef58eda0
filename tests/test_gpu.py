"""What must hold of the stacked trainer whatever loads the model: transformers (on a CPU, too) or Unsloth (on a GPU).

Unsloth rewrites trainers and model classes when it is imported, so these tests want a process of their own:
`python -m pytest -m gpu tests/test_gpu.py`. Where they pass with `unsloth`, `backend: auto` may choose it.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import GenerationConfig

from lite.config.model import ModelConfig
from lite.config.runs import StageConfig
from lite.models import shared_prompt
from lite.models.adapters import activate, add_adapter, base_fingerprint, load_adapter, save_adapter
from lite.models.inputs import encode, vision_tokens
from lite.models.loading import load_model, lora_config
from lite.runs import STAGE1, STAGE2
from lite.schema import Document
from lite.stages.filter import answer_tokens, evaluating, score
from lite.stages.prompts import stage1_prompt
from lite.train.trainer import StageTrainer

CUDA = torch.cuda.is_available()
TOLERANCE = 0.05 if CUDA else 1e-3  # bf16 on a GPU, fp32 on a CPU


def on_gpu(backend: str, *needs: str):
    missing = (
        "no CUDA device"
        if not CUDA
        else next((f"{name} is not installed" for name in needs if not find_spec(name)), "")
    )
    return pytest.param(backend, marks=[pytest.mark.gpu, pytest.mark.skipif(bool(missing), reason=missing)])


BACKENDS = [on_gpu("transformers") if CUDA else "transformers", on_gpu("unsloth", "unsloth")]
each_backend = pytest.mark.parametrize("backend", BACKENDS)


def stacked(folder: Path, backend: str):
    """(model, processor): stage 1 does something and is frozen, stage 2 is new and learns."""
    base, processor = load_model(ModelConfig(model_name_or_path=str(folder), backend=backend))
    model = add_adapter(base, lora_config(ModelConfig(), base), STAGE1)
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.copy_(torch.randn(weight.shape, generator=generator) * 0.05)
    model = add_adapter(model, lora_config(ModelConfig(), model), STAGE2)
    activate(model, [STAGE1, STAGE2], trainable=STAGE2)
    return model, processor


def weights(model, adapter: str) -> dict[str, torch.Tensor]:
    return {name: weight.detach().cpu().clone() for name, weight in model.named_parameters() if f".{adapter}." in name}


def rows(images_per_prompt: list[int]) -> Dataset:
    images = [[Image.effect_noise((64, 48), 90).convert("RGB") for _ in range(count)] for count in images_per_prompt]

    def prompt(row: int) -> list[dict]:
        parts = [{"type": "image"} for _ in images[row]]
        return [{"role": "user", "content": [*parts, {"type": "text", "text": f"Which of {row} is it? " * (row + 1)}]}]

    data = Dataset.from_dict({"row": range(len(images))})
    return data.with_transform(
        lambda batch: {"prompt": [prompt(i) for i in batch["row"]], "images": [images[i] for i in batch["row"]]}
    )


def reward(completion_ids: list[list[int]], **_: object) -> list[float]:
    return [float(sum(ids) % 7) for ids in completion_ids]


def trainer(model, processor, run: Path, reference=(STAGE1,), **changes: object) -> StageTrainer:
    defaults = {
        "output_dir": str(run),
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 6,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "beta": 0.1,
        "save_strategy": "no",
        "report_to": "none",
        "bf16": CUDA,
        "use_cpu": not CUDA,
        "logging_steps": 1,
        "generation_kwargs": {"suppress_tokens": vision_tokens(model, processor)},
    }
    return StageTrainer(
        model=model,
        reward_funcs=[reward],
        args=StageConfig(**defaults | changes),
        train_dataset=rows([1, 0, 2, 0]),
        processing_class=processor,
        reference=reference,
    )


@each_backend
def test_stage1_stays_as_it_is_and_stage2_learns_on_a_mixed_batch(
    random_folder: Path, tmp_path: Path, backend: str
) -> None:
    model, processor = stacked(random_folder, backend)
    before = {name: weights(model, name) for name in (STAGE1, STAGE2)}
    stage = trainer(model, processor, tmp_path)
    assert stage.shares_prompts
    stage.train()
    after = weights(model, STAGE1)
    assert all(torch.equal(weight, after[name]) for name, weight in before[STAGE1].items())
    after = weights(model, STAGE2)
    unchanged = [name for name, weight in before[STAGE2].items() if torch.equal(weight, after[name])]
    assert unchanged == []
    assert all(torch.isfinite(weight).all() for weight in after.values())
    assert {weight.dtype for weight in after.values()} == {torch.float32}


@each_backend
def test_reference_is_base_and_stage1(random_folder: Path, tmp_path: Path, backend: str) -> None:
    def first_divergence(reference: tuple[str, ...]) -> float:
        model, processor = stacked(random_folder, backend)
        stage = trainer(model, processor, tmp_path, reference, max_steps=1)
        stage.train()
        return next(row["kl"] for row in stage.state.log_history if "kl" in row)

    from_stage1, from_base = first_divergence((STAGE1,)), first_divergence(())
    assert abs(from_stage1) < TOLERANCE * from_base


@each_backend
def test_resumed_and_saved(random_folder: Path, tmp_path: Path, backend: str) -> None:
    def run(resume: str | None, steps: int):
        model, processor = stacked(random_folder, backend)
        stage = trainer(model, processor, tmp_path / "run", max_steps=steps, save_strategy="steps", save_steps=2)
        stage.train(resume_from_checkpoint=resume)
        assert stage.state.global_step == steps
        return model

    first = run(None, 2)
    resumed = run(str(tmp_path / "run" / "checkpoint-2"), 3)
    assert all(torch.equal(weight, weights(first, STAGE1)[name]) for name, weight in weights(resumed, STAGE1).items())
    before, after = weights(first, STAGE2), weights(resumed, STAGE2)
    # one more step at a learning rate of 1e-3: near, and not the same
    assert all((weight - before[name]).abs().max() < 2e-3 for name, weight in after.items())
    assert any(not torch.equal(weight, before[name]) for name, weight in after.items())

    card = {"base": "random", "base_fingerprint": base_fingerprint(resumed), "document_chars": 100, "max_pixels": None}
    save_adapter(resumed, STAGE2, tmp_path / "adapter", card)
    base, _ = load_model(ModelConfig(model_name_or_path=str(random_folder), backend=backend))
    loaded = weights(load_adapter(base, tmp_path / "adapter", STAGE2), STAGE2)
    assert all(torch.equal(loaded[name].float(), weight) for name, weight in after.items())


@each_backend
def test_shared_prompt_has_the_gradients_of_a_repeated_one(random_folder: Path, tmp_path: Path, backend: str) -> None:
    model, processor = stacked(random_folder, backend)
    stage = trainer(model, processor, tmp_path, gradient_checkpointing=False)
    stage.accelerator.prepare_model(model)
    row = rows([1])[0]
    text = processor.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[text], images=row["images"], return_tensors="pt").to(model.device)
    group, length = 4, 12
    generator = torch.Generator().manual_seed(1)
    completions = torch.randint(100, 1000, (group, length), generator=generator).to(model.device)
    ids = torch.cat([inputs["input_ids"].repeat(group, 1), completions], 1)
    pixels, grid = inputs["pixel_values"], inputs["image_grid_thw"]

    def gradient(log_probs: torch.Tensor) -> torch.Tensor:
        model.zero_grad()
        (log_probs.float() * torch.linspace(-1, 1, length, device=model.device)).sum().backward()
        return torch.cat([weight.grad.flatten().float() for weight in model.parameters() if weight.grad is not None])

    model.eval()
    vision = [{"pixel_values": pixels, "image_grid_thw": grid}]
    ours, _ = shared_prompt.group_log_probs(
        model, ids, torch.ones_like(ids), length, group, vision, partial(stage._log_softmax, entropy=False)
    )
    expected, _, _ = stage._full_logits_logps(
        model, ids, torch.ones_like(ids), length, pixel_values=pixels.repeat(group, 1),
        image_grid_thw=grid.repeat(group, 1), num_images=[1] * group,
        mm_token_type_ids=(ids == model.config.image_token_id).int(),
    )  # fmt: skip
    assert (ours - expected).abs().mean() < TOLERANCE
    ours, expected = gradient(ours), gradient(expected)
    assert (ours - expected).norm() < 2 * TOLERANCE * expected.norm()


@each_backend
def test_greedy_tokens_of_a_shared_prompt_are_the_models_best(random_folder: Path, backend: str) -> None:
    model, processor = stacked(random_folder, backend)
    shared_prompt.prepare(model)
    row = rows([2])[0]
    text = processor.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[text], images=row["images"], return_tensors="pt").to(model.device)
    config = GenerationConfig(max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=2)
    vision = [{name: inputs[name] for name in ("pixel_values", "image_grid_thw")}]
    with evaluating(model), torch.no_grad():
        tokens = shared_prompt.generate(model, inputs["input_ids"], inputs["attention_mask"], vision, 2, config)
        assert torch.equal(tokens[0], tokens[1])
        whole = torch.cat([inputs["input_ids"], tokens[:1].clone()], 1)
        logits = model(
            input_ids=whole, attention_mask=torch.ones_like(whole), pixel_values=inputs["pixel_values"],
            image_grid_thw=inputs["image_grid_thw"], mm_token_type_ids=(whole == model.config.image_token_id).int(),
        ).logits.float()  # fmt: skip
    logits = logits[0, inputs["input_ids"].shape[1] - 1 : -1]
    chosen = logits.gather(1, tokens[0][:, None])[:, 0]
    assert (logits.amax(1) - chosen).max() < TOLERANCE * logits.std()


@each_backend
def test_scores_are_those_of_one_forward_pass_per_pair(random_folder: Path, backend: str) -> None:
    model, processor = stacked(random_folder, backend)
    image = Image.effect_noise((64, 48), 90).convert("RGB")
    documents = [Document("t", "text", "Niger", "Western Africa."), Document("i", "image", "Flag", image=lambda: image)]
    pairs = [("Where is Niger?", document) for document in documents]
    ours = score(model, processor, pairs, 200)
    yes, no = answer_tokens(processor)
    for (question, document), value in zip(pairs, ours, strict=True):
        inputs = encode(processor, [stage1_prompt(question, document, 200)], [document]).to(model.device)
        with evaluating(model), torch.no_grad():
            logits = model(**inputs).logits[0, -1].double()
        assert value == pytest.approx(torch.sigmoid(logits[yes] - logits[no]).item(), abs=TOLERANCE)
