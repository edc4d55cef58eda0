"""What `lite.models.merged` saves a CPU: the embedded model and the shipped stack, as they are and merged.

Three things that it is for: sampling a batch of stage 2's GRPO (8 prompts of 8 completions, 64 tokens), answering one
question over six documents, and scoring all documents of a question. Every repetition runs both in turn in one process;
seconds are the process's own, so that a busy machine counts little. Whether both say the same is part of the result.

    OMP_NUM_THREADS=1 python benchmarks/merged.py [--repetitions 5]

writes benchmarks/results/merged.json and prints a table.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import bitsandbytes
import peft
import torch
from readme import write_sections
from rich.console import Console
from rich.table import Table
from transformers import GenerationConfig

from lite.config.model import ModelConfig
from lite.data import flags
from lite.models import merged as merging
from lite.models import shared_prompt
from lite.models.adapters import active, load_stack
from lite.models.inputs import encode, vision_tokens
from lite.models.loading import load_model
from lite.models.merged import merged
from lite.runs import SHIPPED, STAGE1, STAGE2
from lite.stages.answer import Listing, say
from lite.stages.filter import score
from lite.stages.prompts import stage2_prompt

CHARS, DOCUMENTS, PROMPTS, GROUP, TOKENS = 140, 6, 8, 8, 64
RESULT = Path(__file__).parent / "results" / "merged.json"
AT_MOST = merging.MERGED_AT_MOST


def tasks(model, processor) -> dict[str, Callable[[], object]]:
    """What is measured, by name; each returns what it said."""
    examples = flags.load_examples("dev")[:PROMPTS]
    shown = [example.documents[:DOCUMENTS] for example in examples]
    prompts = [stage2_prompt(e.question, documents, CHARS) for e, documents in zip(examples, shown, strict=True)]
    inputs = encode(processor, prompts, [document for documents in shown for document in documents])
    encoded = (encode(processor, [prompt], documents) for prompt, documents in zip(prompts, shown, strict=True))
    vision = [shared_prompt.of_images(of_prompt) for of_prompt in encoded]
    settings = GenerationConfig(
        do_sample=True,
        top_k=0,
        max_new_tokens=TOKENS,
        min_new_tokens=TOKENS,
        suppress_tokens=vision_tokens(model, processor),
        eos_token_id=processor.tokenizer.eos_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
    )
    asked = Listing(examples[0].question, shown[0], tuple(range(1, DOCUMENTS + 1)))
    pairs = [(examples[0].question, document) for document in examples[0].documents]

    def sample() -> list:
        torch.manual_seed(0)
        with torch.no_grad(), shared_prompt.attending(model), merged(model):
            ids, mask = inputs["input_ids"], inputs["attention_mask"]
            return shared_prompt.generate(model, ids, mask, vision, GROUP, settings).tolist()

    return {
        f"sample {PROMPTS * GROUP} completions of {TOKENS} tokens": sample,
        f"answer one question over {DOCUMENTS} documents": lambda: say(model, processor, [asked], CHARS, 176),
        f"score {len(pairs)} documents": lambda: score(model, processor, pairs, CHARS).round(4).tolist(),
    }


def measure(task: Callable[[], object], repetitions: int) -> dict:
    """Median seconds of both, the median ratio within a repetition, and whether both said the same."""
    seconds: dict[int, list[float]] = {0: [], AT_MOST: []}
    said = {}
    for _ in range(repetitions + 1):  # the first is the warm-up
        for limit, taken in seconds.items():
            merging.MERGED_AT_MOST = limit
            start = time.process_time()
            said[limit] = task()
            taken.append(time.process_time() - start)
    pairs = zip(seconds[0][1:], seconds[AT_MOST][1:], strict=True)
    return {
        "as_they_are_s": round(statistics.median(seconds[0][1:]), 3),
        "merged_s": round(statistics.median(seconds[AT_MOST][1:]), 3),
        "times_as_fast": round(statistics.median(a / b for a, b in pairs), 2),
        "same": said[0] == said[AT_MOST],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=5)
    repetitions = parser.parse_args().repetitions
    model, processor = load_model(ModelConfig())
    model = load_stack(model, SHIPPED / STAGE1, SHIPPED / STAGE2)
    with active(model, [STAGE1, STAGE2]):
        measured = {name: measure(task, repetitions) for name, task in tasks(model, processor).items()}
    result = {
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "peft": peft.__version__,
            "bitsandbytes": bitsandbytes.__version__,
        },
        "repetitions": repetitions,
        "tasks": measured,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    table = Table("", "as they are, s", "merged, s", "times as fast", "same output")
    for name, figures in measured.items():
        table.add_row(name, *(str(value) for value in figures.values()))
    Console().print(table)
    write_sections()


if __name__ == "__main__":
    main()
