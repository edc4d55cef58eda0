"""Short trainings whose steps are written down: by pytest as one process, by `accelerate launch` as two.

python tests/two_processes.py MODEL_FOLDER OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from datasets import Dataset
from PIL import Image
from transformers import TrainerCallback

from lite.config.launch import first_to_fail
from lite.config.model import ModelConfig
from lite.config.runs import StageConfig
from lite.models.adapters import activate, add_adapter
from lite.models.inputs import vision_tokens
from lite.models.loading import load_model, lora_config
from lite.runs import STAGE1, STAGE2
from lite.train.trainer import StageTrainer

GROUP, PROMPTS, ROWS = 4, 4, 20  # prompts of a step, rows of the data
# What differs between the runs that are compared.
CASES = {
    "plain": {"per_device_train_batch_size": 16},
    "accumulated": {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "beta": 0.0},
    "checkpointed": {"per_device_train_batch_size": 16, "gradient_checkpointing": True},
}


def data() -> Dataset:
    """Every first prompt of four is so long that its process forwards its prompts in two passes, the other in one."""

    def to_rows(batch: dict[str, list]) -> dict[str, list]:
        images = [[Image.new("RGB", (64, 48), "red")] * (row % 3) for row in batch["row"]]
        prompts = []
        for row, shown in zip(batch["row"], images, strict=True):
            text = f"Row {row}. " + "The flag is red. " * (150 if row % PROMPTS == 0 else row % 5)
            prompts.append(
                [{"role": "user", "content": [{"type": "image"}] * len(shown) + [{"type": "text", "text": text}]}]
            )
        return {"prompt": prompts, "images": images, "row": batch["row"]}

    return Dataset.from_dict({"row": range(ROWS)}).with_transform(to_rows)


class Forced(StageTrainer):
    """Says the same whatever the number of processes: what follows from the prompt and the place in its group."""

    def _generate_single_turn(self, prompt_ids, images, *args, **kwargs):
        said = []
        for place, ids in enumerate(prompt_ids):
            random = torch.Generator().manual_seed(sum(ids) * GROUP + place % GROUP)
            length = int(torch.randint(2, 7, (1,), generator=random))
            said.append(torch.randint(20, 200, (length,), generator=random).tolist())
        return said, None


class Record(TrainerCallback):
    """Gradients and weights of the adapters at every step, and the rows that this process was given."""

    def __init__(self):
        self.gradients, self.weights, self.rows = [], [], []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad})

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.weights.append({n: p.detach().clone() for n, p in model.named_parameters() if "lora_" in n})

    def reward(self, completions, row, **_):
        self.rows.append(row)
        return [float(len(completion[0]["content"])) for completion in completions]


def train(model_folder: Path, out: Path, resume: Path | None = None, cls: type = Forced, **changes: object) -> dict:
    """One run: stage 2 on a frozen stage 1, with a KL term. Returns what `Record` saw, and the losses."""
    torch.manual_seed(0)
    base, processor = load_model(ModelConfig(model_name_or_path=str(model_folder)))
    lora = lora_config(ModelConfig(), base)
    model = add_adapter(add_adapter(base, lora, STAGE1), lora, STAGE2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape) * 0.02
    activate(model, [STAGE1, STAGE2], trainable=STAGE2)
    defaults = {
        "output_dir": str(out), "num_generations": GROUP, "max_completion_length": 6, "max_steps": 2, "beta": 0.1,
        "learning_rate": 1e-3, "save_strategy": "no", "report_to": "none", "bf16": False, "use_cpu": True,
        "logging_steps": 1, "gradient_checkpointing": False,
    }  # fmt: skip
    config = StageConfig(**(defaults | changes), generation_kwargs={"suppress_tokens": vision_tokens(base, processor)})
    record = Record()
    trainer = cls(
        model=model, reward_funcs=[record.reward], args=config, train_dataset=data(), processing_class=processor,
        callbacks=[record], reference=[STAGE1],
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    logs = [log for log in trainer.state.log_history if "reward" in log]
    return {
        "gradients": record.gradients, "weights": record.weights, "rows": record.rows,
        "losses": [log["loss"] for log in logs], "rewards": [log["reward"] for log in logs],
    }  # fmt: skip


def steps(model_folder: Path, out: Path) -> dict[str, dict]:
    """All cases."""
    return {name: train(model_folder, out / name, **case) for name, case in CASES.items()}


SAVED = {"per_device_train_batch_size": 16, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}


def main(model_folder: Path, out: Path) -> None:
    results = steps(model_folder, out)
    # Sampled, not forced: the random numbers of both processes go on where they were.
    results["unbroken"] = train(model_folder, out / "saved", cls=StageTrainer, **SAVED)
    results["resumed"] = train(model_folder, out / "saved", out / "saved" / "checkpoint-2", StageTrainer, **SAVED)
    results["resumed from one"] = train(model_folder, out / "one", out / "one" / "checkpoint-2", **SAVED)
    rank = torch.distributed.get_rank()
    results["first to fail"] = first_to_fail()
    torch.save(results, out / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
