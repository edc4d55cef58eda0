"""One GRPO step of stock TRL against ours: seconds by phase, peak memory, and how near the limit by FLOPs we come.

Both trainers start from the same random Qwen3-VL (6 layers, fp32) with the same adapter and prompt, and every
repetition runs both in turn in one process. On a CPU the seconds are the process's own, so that a busy machine does not
count. A step is preprocessing, sampling, reward, reference log-probs (as in stage 1), policy log-probs and backward
with gradient checkpointing, for one group. A prompt holds one image of 64 tokens per 100 tokens. The gradients of the
two are compared in every case.

    python benchmarks/grpo_step.py [--quick | --full] [--repetitions 3]

writes benchmarks/results/grpo-step-<device>.json and .png. `--quick` takes a minute, `--full` (P up to 3,000, every
combination with C and G) hours on one core; where there is a GPU it is the one to run.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import platform
import tempfile
from itertools import product
from pathlib import Path

import matplotlib
import numpy as np
import torch
import transformers
import trl
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from phases import Phases
from PIL import Image
from readme import write_sections
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig, AutoProcessor, Qwen3VLForConditionalGeneration
from trl import GRPOConfig, GRPOTrainer

from lite.config.runs import StageConfig
from lite.models.inputs import vision_tokens
from lite.models.layers import lora_targets
from lite.runs import TINY
from lite.train.trainer import StageTrainer

matplotlib.use("Agg")
import matplotlib.pyplot as plt

RESULTS = Path(__file__).parent / "results"
TOKENS_PER_IMAGE, TEXT = 64, "which of these flags has a red field and three white stripes "
LAYERS, HIDDEN, VISION_LAYERS = 6, 256, 4
PHASES = ("sample", "reference", "policy", "backward", "other")  # other: preprocessing, rewards, buffers
QUICK = [(300, 64, 8), (800, 64, 8)]
COMMITTED = [*QUICK, (1600, 64, 8), (800, 1, 8), (800, 32, 8), (800, 256, 8), (800, 64, 4), (800, 64, 16)]
FULL = list(product((300, 800, 1600, 3000), (1, 32, 64, 256), (4, 8, 16)))


def random_model():
    """A Qwen3-VL that is small, but whose layers and not its overheads take the time."""
    processor = AutoProcessor.from_pretrained(TINY)
    processor.tokenizer.padding_side = "left"
    processor.image_processor.size = {"shortest_edge": 128 * 128, "longest_edge": 128 * 128}
    config = AutoConfig.from_pretrained(TINY)
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = HIDDEN, 4 * HIDDEN, LAYERS
    text.num_attention_heads, text.num_key_value_heads, text.max_position_embeddings = 8, 4, 16384
    vision.depth, vision.hidden_size, vision.intermediate_size, vision.out_hidden_size = VISION_LAYERS, 96, 384, HIDDEN
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(config)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    model.generation_config.eos_token_id = text.eos_token_id
    model.generation_config.pad_token_id = text.pad_token_id
    return model, processor


def prompt_row(processor, length: int) -> dict:
    """A prompt of about `length` tokens."""
    pixels = np.random.default_rng(0).integers(0, 255, (length // 100, 128, 128, 3), dtype=np.uint8)
    words = (TEXT * length).split(" ")
    count = length - len(pixels) * (TOKENS_PER_IMAGE + 2) - 10
    text = processor.tokenizer.decode(processor.tokenizer(" ".join(words[:length]))["input_ids"][:count])
    parts = [*({"type": "image"} for _ in pixels), {"type": "text", "text": text}]
    return {"prompt": [{"role": "user", "content": parts}], "images": [Image.fromarray(image) for image in pixels]}


def reward(completion_ids: list[list[int]], **_: object) -> list[float]:
    return [float(sum(ids) % 7) for ids in completion_ids]


class Timed:
    """A trainer whose phases are timed."""

    def __init__(self, kind: str, completion: int, group: int):
        model, processor = random_model()
        lora = LoraConfig(r=8, lora_alpha=16, target_modules=lora_targets(model))
        settings = {
            "output_dir": tempfile.mkdtemp(),
            "per_device_train_batch_size": group,
            "num_generations": group,
            "max_completion_length": completion,
            "generation_kwargs": {"suppress_tokens": vision_tokens(model, processor), "min_new_tokens": completion},
            "beta": 0.04,
            "bf16": False,
            "use_cpu": not torch.cuda.is_available(),
            "gradient_checkpointing": True,
            "report_to": "none",
        }
        self.trainer = (GRPOTrainer if kind == "stock" else StageTrainer)(
            model=get_peft_model(model, lora),
            reward_funcs=[reward],
            args=(GRPOConfig if kind == "stock" else StageConfig)(**settings),
            train_dataset=Dataset.from_list([{"prompt": "unused"}] * group),
            processing_class=processor,
        )
        if kind == "lite":
            self.trainer._compared = True  # with TRL, once per run
        self.trainer.current_gradient_accumulation_steps = 1
        # `train()` would switch it on
        self.trainer.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.phases = Phases()
        log_probs = lambda: "policy" if torch.is_grad_enabled() else "reference"  # noqa: E731
        self.phases.wrap(self.trainer, "_generate_single_turn", lambda: "sample")
        self.phases.wrap(self.trainer, "_get_per_token_logps_and_entropies", log_probs)
        self.phases.wrap(self.trainer.accelerator, "backward", lambda: "backward")

    def step(self, row: dict, group: int, seed: int) -> dict:
        """Seconds by phase, growth of the peak memory in MiB, and the gradients."""
        trainer = self.trainer
        trainer._step, trainer._buffered_inputs = 0, None
        trainer.model.zero_grad()
        trainer.model.train()
        torch.manual_seed(seed)
        self.phases.restart_clock()
        before = start_of_peak()
        with self.phases.phase("other"):
            trainer.training_step(trainer.model, [row] * group, None)
        gradients = [weight.grad.flatten() for weight in trainer.model.parameters() if weight.grad is not None]
        return {
            "seconds": {name: self.phases.seconds[name] for name in PHASES},
            "memory": peak() - before,
            "gradient": torch.cat(gradients).cpu(),
        }


def start_of_peak() -> float:
    """Forget the peak so far; the memory in use, MiB."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # else what the other trainer freed would count as in use
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def peak() -> float:
    """Peak memory since `start_of_peak`, MiB."""
    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else resident("VmHWM")


def resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def limits(model, images: int, prompt: int, completion: int, group: int) -> dict[str, float]:
    """By how much FLOPs fall at best, for the policy's log-probs and for their backward.

    With N weights in the layers, a token costs 2 N and a query-key pair 4 HIDDEN per layer. Backward recomputes the
    forward (checkpointing) and derives activations only (the weights are frozen, the adapter is small); it does not
    enter the vision tower. A completion's last token is a target and no input, also in the limit of stock TRL.
    """
    base = model.get_base_model()
    weights = sum(
        weight.numel() for name, weight in base.named_parameters() if ".layers." in name and "lora" not in name
    )
    tower = sum(weight.numel() for name, weight in base.named_parameters() if ".blocks." in name)
    patches = TOKENS_PER_IMAGE * 4
    vision = images * (2 * patches * tower + 4 * VISION_LAYERS * 96 * patches**2)
    pairs = 4 * LAYERS * HIDDEN
    inputs = completion - 1
    once = 2 * weights * (prompt + group * inputs) + pairs * (prompt**2 / 2 + group * inputs * (prompt + inputs / 2))
    repeated = group * (2 * weights * (prompt + inputs) + pairs * (prompt + inputs) ** 2 / 2)
    head = 2 * base.lm_head.weight.numel() * group * completion
    return {
        "policy": (repeated + group * vision + head) / (once + vision + head),
        "backward": (repeated * 2 + head) / (once * 2 + head),
    }


def measure(prompt: int, completion: int, group: int, repetitions: int) -> dict:
    """One case of the grid. Seconds are minima over the repetitions, memory the maximum."""
    trainers = {kind: Timed(kind, completion, group) for kind in ("stock", "lite")}
    row = prompt_row(trainers["lite"].trainer.processing_class, prompt)
    steps: dict[str, list[dict]] = {"stock": [], "lite": []}
    difference = 0.0
    for seed in range(repetitions):
        for kind, timed in trainers.items():
            steps[kind].append(timed.step(row, group, seed))
        expected, ours = (steps[kind][-1].pop("gradient") for kind in ("stock", "lite"))
        difference = max(difference, float((ours - expected).norm() / expected.norm()))
    seconds = {
        kind: {phase: min(step["seconds"][phase] for step in taken) for phase in PHASES}
        | {"step": min(sum(step["seconds"].values()) for step in taken)}
        for kind, taken in steps.items()
    }
    ratio = {phase: seconds["stock"][phase] / seconds["lite"][phase] for phase in seconds["stock"]}
    limit = limits(trainers["lite"].trainer.model, len(row["images"]), prompt, completion, group)
    return {
        "prompt": prompt,
        "completion": completion,
        "group": group,
        "seconds": seconds,
        "ratio": ratio,
        "memory_mib": {kind: max(step["memory"] for step in taken) for kind, taken in steps.items()},
        "flop_limit": limit,
        "share_of_limit": {phase: ratio[phase] / limit[phase] for phase in limit},
        "gradient_difference": difference,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    grid = parser.add_mutually_exclusive_group()
    grid.add_argument("--quick", action="store_true")
    grid.add_argument("--full", action="store_true")
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    cuda = torch.cuda.is_available()
    result = {
        "device": torch.cuda.get_device_name() if cuda else f"CPU, threads: {torch.get_num_threads()}",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "trl": trl.__version__,
        },
        "repetitions": arguments.repetitions,
        "cases": [],
    }
    name = "grpo-step-quick" if arguments.quick else "grpo-step"
    path = RESULTS / f"{name}-{'gpu' if cuda else 'cpu'}.json"
    for case in QUICK if arguments.quick else FULL if arguments.full else COMMITTED:
        result["cases"].append(measure(*case, arguments.repetitions))
        path.write_text(json.dumps(result, indent=2) + "\n")
        show(result)
    plot(result, path.with_suffix(".png"))
    write_sections()


def show(result: dict) -> None:
    table = Table(title=f"One GRPO step, stock TRL / lite, on {result['device']}")
    for column in ("P", "C", "G", "step, s", "ratio", *PHASES, "memory, MiB", "share of limit", "gradients differ by"):
        table.add_column(column)
    for case in result["cases"]:
        stock, ours = case["seconds"]["stock"]["step"], case["seconds"]["lite"]["step"]
        share = case["share_of_limit"]
        table.add_row(
            str(case["prompt"]), str(case["completion"]), str(case["group"]), f"{stock:.1f} / {ours:.1f}",
            f"{case['ratio']['step']:.2f}×", *(f"{case['ratio'][phase]:.1f}×" for phase in PHASES),
            f"{case['memory_mib']['stock']:.0f} / {case['memory_mib']['lite']:.0f}",
            f"{share['policy']:.0%}, {share['backward']:.0%}", f"{case['gradient_difference']:.0e}",
        )  # fmt: skip
    Console(width=160).print(table)


def plot(result: dict, path: Path) -> None:
    """Time and memory over the length of the prompt, C = 64 and G = 8."""
    cases = [case for case in result["cases"] if (case["completion"], case["group"]) == (64, 8)]
    figure, (time_axes, memory_axes) = plt.subplots(1, 2, figsize=(9, 3.6))
    for kind, colour in (("stock", "#c9732b"), ("lite", "#2a6f97")):
        label = "TRL" if kind == "stock" else "lite"
        prompts = [case["prompt"] for case in cases]
        time_axes.plot(prompts, [case["seconds"][kind]["step"] for case in cases], "o-", color=colour, label=label)
        memory_axes.plot(prompts, [case["memory_mib"][kind] for case in cases], "o-", color=colour, label=label)
    time_axes.set(xlabel="prompt tokens", ylabel="seconds a step", ylim=0)
    memory_axes.set(xlabel="prompt tokens", ylabel="peak memory over the model, MiB", ylim=0)
    for case in cases:
        time_axes.annotate(
            f"{case['ratio']['step']:.1f}×", (case["prompt"], case["seconds"]["lite"]["step"]),
            textcoords="offset points", xytext=(0, 6), ha="center",
        )  # fmt: skip
    time_axes.legend(frameon=False)
    figure.suptitle(f"One GRPO step, 8 completions of 64 tokens, {result['device']}", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
