"""One cell of `benchmarks/gpu.py`, in a process of its own: a training run of a few steps, or stage 1 scoring.

A process per cell keeps one cell's crash, fragments and patches (Unsloth's) away from the next. The result is one JSON
object on the file `--out`; whatever goes wrong is in it.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import logging
import sys
import tempfile
import traceback
from contextlib import nullcontext
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # where the package is not installed

GIB = 2**30
WARM_UP_STEPS = 1
SCORED_QUESTIONS, SCORED_DOCUMENTS, SCORED_TEXT_TOKENS = 4, 32, 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--profile", required=True, help="A folder of recipes/.")
    parser.add_argument("--stage", type=int, required=True, choices=[1, 2])
    parser.add_argument("--system", required=True, choices=["lite", "trl", "lite on unsloth", "unsloth", "score"])
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON; wins over the recipe.")
    parser.add_argument("--steps", type=int, default=2, help="Timed steps, behind one that warms up.")
    parser.add_argument("--cap_gib", type=float, default=24)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="A tiny shape in place of the recipe's model.")
    parser.add_argument("--real", action="store_true", help="The recipe's own weights in place of random ones.")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if arguments.system == "unsloth":
        import unsloth  # noqa: F401  must patch trl before anything imports it
    arguments.out.write_text(json.dumps(Cell(arguments).run(), indent=2) + "\n")


def recipe(profile: str, stage: int, changes: dict) -> dict:
    """The settings of a recipe, with changes."""
    path = ROOT / "recipes" / profile / f"stage{stage}.yaml"
    return yaml.safe_load(path.read_text()) | changes


def reward(completion_ids: list[list[int]], **_: object) -> list[float]:
    """Differs within a group, so that there is a gradient."""
    return [float(sum(ids) % 7) for ids in completion_ids]


class Cell:
    """What is measured, and with which settings."""

    def __init__(self, arguments: argparse.Namespace):
        import torch
        from phases import CudaMemory, Phases, TensorMemory
        from random_qwen import config_of

        from lite.config.model import ModelConfig
        from lite.models.shapes import shape_of_config

        self.arguments = arguments
        self.settings = recipe(arguments.profile, arguments.stage, arguments.settings)
        fields = {field.name for field in dataclasses.fields(ModelConfig)}
        self.model_config = ModelConfig(**{key: value for key, value in self.settings.items() if key in fields})
        self.shaped = config_of("tiny" if arguments.tiny else self.model_config.model_name_or_path)
        self.shape = shape_of_config(self.shaped)
        self.images = self.settings.get("max_documents", 1)
        self.cuda = arguments.device == "cuda"
        self.context_gib = cap_memory(arguments.cap_gib) if self.cuda else 0.0
        self.memory = CudaMemory() if self.cuda else TensorMemory()
        self.phases = Phases(self.memory)
        self.out_of_memory = torch.OutOfMemoryError

    def run(self) -> dict:
        """The cell's result. An error is a result, too."""
        result = {"settings": self.described()}
        try:
            with nullcontext() if self.cuda else self.memory, self.phases.phase("other"):
                result |= self.score() if self.arguments.system == "score" else self.train()
            result |= {"status": "measured"}
        except self.out_of_memory:
            result |= {"status": "out of memory", "phase": self.phases.failed}
        except Exception as error:  # the next cell goes on; the reason is in the file
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}"
            result |= {"status": "failed", "phase": self.phases.failed, "reason": reason[:500]}
        return result | self.peaks()

    def described(self) -> dict:
        """The settings that memory and time depend on."""
        names = (
            "max_pixels max_documents max_prompt_tokens max_completion_length num_generations lora_r beta optim "
            "per_device_train_batch_size gradient_accumulation_steps gradient_checkpointing per_device_eval_batch_size"
        )
        weights = self.model_config.model_name_or_path if self.arguments.real else "random"
        return {name: self.settings[name] for name in names.split() if name in self.settings} | {"weights": weights}

    def peaks(self) -> dict:
        """GiB by phase, in all, and as reserved by the allocator."""
        by_phase = {name: peak / GIB for name, peak in self.phases.peaks.items()}
        return {
            "peak_gib": by_phase | {"all": max(by_phase.values(), default=0.0)},
            "reserved_gib": self.memory.reserved / GIB if self.cuda else None,
            "context_gib": self.context_gib,
        }

    # ---------------------------------------------------------------------------------------------------- the models

    def load(self):
        """(model, processor) through transformers."""
        from random_qwen import random_model, random_processor

        from lite.models.loading import load_model

        with self.phases.phase("load"):
            if self.arguments.real:
                return load_model(dataclasses.replace(self.model_config, backend="transformers"))
            model = random_model(self.shaped, self.arguments.device, self.model_config.load_in_4bit)
            return model, random_processor(self.model_config.max_pixels)

    def checkpoint(self) -> str:
        """What Unsloth can load: the recipe's weights, or a folder of random ones in 16 bits."""
        from random_qwen import random_model, random_processor

        if self.arguments.real:
            return self.model_config.model_name_or_path
        folder = tempfile.mkdtemp()
        with self.phases.phase("checkpoint"):
            random_model(self.shaped, self.arguments.device, load_in_4bit=False).save_pretrained(folder)
            random_processor(self.model_config.max_pixels).save_pretrained(folder)
            gc.collect()
            if self.cuda:
                import torch

                torch.cuda.empty_cache()
        self.phases.peaks.clear()  # the 16-bit model is no part of what is measured
        if self.cuda:
            self.memory.reserved = 0
        return folder

    def stacked(self, base):
        """(model, adapters of the KL reference) as `lite.train.stage1` and `lite.train.stage2` build them."""
        from lite.models.adapters import activate, add_adapter
        from lite.models.loading import lora_config
        from lite.runs import STAGE1, STAGE2

        model = add_adapter(base, lora_config(self.model_config, base), STAGE1)
        if self.arguments.stage == 1:
            return model, []
        model = add_adapter(model, lora_config(self.model_config, model), STAGE2)
        activate(model, [STAGE1, STAGE2], trainable=STAGE2)
        return model, [STAGE1]

    # ------------------------------------------------------------------------------------------------------ training

    def trainer(self):
        """(trainer, its processor) of the cell's system."""
        system = self.arguments.system
        if system == "lite":
            base, processor = self.load()
            return self.lite_trainer(base, processor), processor
        if system == "lite on unsloth":
            from lite.models.loading import load_with_unsloth
            from lite.train.trainer import StageTrainer  # noqa: F401  TRL's own trainer, before Unsloth rewrites it

            folder = self.checkpoint()
            with self.phases.phase("load"):
                base, processor = load_with_unsloth(folder, self.model_config)
            return self.lite_trainer(base, processor), processor
        if system == "trl":
            from peft import get_peft_model

            from lite.models.loading import lora_config

            base, processor = self.load()
            return self.stock_trainer(get_peft_model(base, lora_config(self.model_config, base)), processor), processor
        from unsloth import FastVisionModel

        folder = self.checkpoint()
        with self.phases.phase("load"):
            model, processor = FastVisionModel.from_pretrained(
                folder, load_in_4bit=self.model_config.load_in_4bit, max_seq_length=self.settings["max_prompt_tokens"]
            )
        model = FastVisionModel.get_peft_model(
            model,
            r=self.model_config.lora_r,
            lora_alpha=self.model_config.lora_alpha,
            lora_dropout=self.model_config.lora_dropout,
            finetune_vision_layers=False,
        )
        return self.stock_trainer(model, processor), processor

    def lite_trainer(self, base, processor):
        from lite.config.runs import StageConfig
        from lite.train.trainer import StageTrainer

        model, reference = self.stacked(base)
        trainer = StageTrainer(
            model=model,
            reward_funcs=[reward],
            args=self.configure(StageConfig, base, processor),
            train_dataset=self.rows(processor),
            processing_class=processor,
            reference=reference,
        )
        return trainer

    def stock_trainer(self, model, processor):
        from trl import GRPOConfig, GRPOTrainer

        return GRPOTrainer(
            model=model,
            reward_funcs=[reward],
            args=self.configure(GRPOConfig, model, processor),
            train_dataset=self.rows(processor),
            processing_class=processor,
        )

    def configure(self, config_class, model, processor):
        """The recipe's settings of TRL. Every completion has the full length: the worst case, and the same for all."""
        from lite.models.inputs import vision_tokens

        known = {field.name for field in dataclasses.fields(config_class)}
        left_out = {"reward_weights", "output_dir", "report_to", "log_completions", "save_steps", "save_total_limit"}
        chosen = {key: value for key, value in self.settings.items() if key in known - left_out}
        return config_class(
            **chosen
            | {
                "output_dir": tempfile.mkdtemp(),
                "max_steps": WARM_UP_STEPS + self.arguments.steps,
                "save_strategy": "no",
                "report_to": "none",
                "disable_tqdm": True,
                "use_cpu": not self.cuda,
                "dataloader_pin_memory": self.cuda,
                "generation_kwargs": {
                    "suppress_tokens": vision_tokens(model, processor),
                    "min_new_tokens": self.settings["max_completion_length"],
                },
            }
        )

    def rows(self, processor):
        """Random prompts of the longest length that the recipe lets through, with all the images that fit a prompt."""
        from datasets import Dataset
        from random_qwen import random_row

        a_step = self.settings["per_device_train_batch_size"] * self.settings["gradient_accumulation_steps"]
        count = a_step // self.settings["num_generations"] * (WARM_UP_STEPS + self.arguments.steps)
        tokens, pixels = self.settings["max_prompt_tokens"], self.model_config.max_pixels

        def draw(batch: dict) -> dict:
            drawn = {seed: random_row(processor, tokens, self.images, pixels, seed) for seed in set(batch["seed"])}
            return {key: [drawn[seed][key] for seed in batch["seed"]] for key in ("prompt", "images")}

        return Dataset.from_dict({"seed": range(count)}).with_transform(draw)

    def train(self) -> dict:
        """A few steps of the cell's trainer: seconds of a step by phase, tokens, and the estimate beside the peak."""
        import torch
        from transformers import TrainerCallback

        from lite.config.runs import StageConfig
        from lite.models.memory import run_estimate

        trainer, _ = self.trainer()
        phases = self.phases
        operations = count_first(trainer)
        phases.wrap(trainer, "_generate_single_turn", lambda: "generate")
        phases.wrap(trainer, "_get_per_token_logps_and_entropies", lambda: "log-probs")
        phases.wrap(trainer, "compute_loss", lambda: "log-probs")
        phases.wrap(trainer.accelerator, "backward", lambda: "backward")

        class Watch(TrainerCallback):
            def on_train_begin(self, args, state, control, optimizer=None, **_):
                phases.wrap(optimizer, "step", lambda: "optimiser")

            def on_step_end(self, args, state, control, **_):
                if state.global_step == WARM_UP_STEPS:
                    phases.restart_clock()

        trainer.add_callback(Watch())
        trainer.train()
        phases._account()
        steps = self.arguments.steps
        seconds = {name: value / steps for name, value in phases.seconds.items()} if steps else {}
        if not all(torch.isfinite(weight).all() for weight in trainer.model.parameters() if weight.requires_grad):
            raise ArithmeticError("The trained weights are not finite.")
        completions = trainer.args.per_device_train_batch_size * trainer.args.gradient_accumulation_steps
        generated = completions * self.settings["max_completion_length"]
        result = {"operations_per_position": round(operations[0] / self.settings["max_completion_length"])}
        result |= {"seconds": seconds | ({"step": sum(seconds.values())} if steps else {})}
        if steps:
            result["generated_tokens_per_second"] = generated / seconds["generate"]
        if self.arguments.system == "lite":
            settings = self.configure(StageConfig, trainer.model, trainer.processing_class)
            estimate = run_estimate(
                self.shape, settings, self.model_config, self.settings["max_prompt_tokens"], self.images,
                adapters=self.arguments.stage,
            )  # fmt: skip
            result["estimate"] = estimate
            # Without the context, which the allocator does not count and a CPU does not have.
            measured, expected = max(phases.peaks.values()) / GIB, estimate["peak"] - estimate["CUDA context"]
            result["estimate_error"] = expected / measured - 1
        return result

    # ------------------------------------------------------------------------------------------------------- scoring

    def score(self) -> dict:
        """Pairs per second of stage 1: half of the documents are images, half texts."""
        from random_qwen import noise, random_text

        from lite.schema import Document
        from lite.stages.filter import score

        base, processor = self.load()
        model, _ = self.stacked(base)
        text_tokens = min(SCORED_TEXT_TOKENS, self.settings["max_prompt_tokens"] // 2)

        def document(seed: int) -> Document:
            if seed % 2:
                image = noise(self.model_config.max_pixels, seed)
                return Document(str(seed), "image", random_text(processor, 8, seed), image=lambda: image)
            return Document(
                str(seed), "text", random_text(processor, 8, seed), random_text(processor, text_tokens, seed)
            )

        questions = [random_text(processor, 20, seed) for seed in range(SCORED_QUESTIONS)]
        pairs = [
            (question, document(SCORED_DOCUMENTS * i + j))
            for i, question in enumerate(questions)
            for j in range(SCORED_DOCUMENTS)
        ]
        batch = self.settings["per_device_eval_batch_size"]
        whole = 10**6  # characters: nothing is cut
        with self.phases.phase("warm-up"):
            score(model, processor, pairs[:batch], whole, batch)
        with self.phases.phase("score"):
            scores = score(model, processor, pairs, whole, batch)
        if not 0 < scores.min() <= scores.max() < 1:
            raise ArithmeticError(f"Scores are no probabilities: {scores.min()} to {scores.max()}.")
        return {"pairs_per_second": len(pairs) / self.phases.seconds["score"]}


def count_first(trainer) -> list[int]:
    """Count the operations that the host launches in the trainer's first generation, prompts included. Filled then."""
    from decoding import Count

    generate, counted = trainer._generate_single_turn, []

    def counting(*args, **kwargs):
        if counted:
            return generate(*args, **kwargs)
        with Count() as count:
            result = generate(*args, **kwargs)
        counted.append(count.operations.total())
        return result

    trainer._generate_single_turn = counting
    return counted


def cap_memory(cap_gib: float) -> float:
    """Leave this process no more of the GPU than a card of `cap_gib` would. Returns what the context takes, in GiB."""
    import torch

    torch.zeros(1, device="cuda")
    free, total = torch.cuda.mem_get_info()
    context = max(0, total - free - torch.cuda.memory_reserved())
    torch.cuda.set_per_process_memory_fraction(min(1.0, (cap_gib * GIB - context) / total))
    return context / GIB


if __name__ == "__main__":
    main()
