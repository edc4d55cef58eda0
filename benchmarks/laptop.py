"""How long a machine without a GPU takes to answer over 20 documents with the laptop model.

SmolVLM2-500M in its published shape, with random weights and SmolLM2's tokenizer, asked as `lite ask` asks: time
depends on shapes, not on weights. What it says is noise, so prompt lookup is off here: a real answer repeats its
documents and takes fewer passes (`lookup` in the result: the embedded model's, which answers).

    OMP_NUM_THREADS=2 python benchmarks/laptop.py [--tokens 64]     (needs tools/assemble_smollm2.py's two packages)

writes benchmarks/results/laptop.json and its section of docs/library.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import torch
from readme import RESULTS, ROOT, write_sections
from transformers import (
    Idefics3ImageProcessor,
    SmolVLMForConditionalGeneration,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from lite.data import flags
from lite.models import lookup
from lite.models.adapters import activate
from lite.models.layers import base_of
from lite.models.published import published
from lite.rag import Rag
from lite.runs import SHIPPED
from lite.schema import Document
from lite.stages.answer import arrange, say

DOCUMENTS, CHARACTERS = 20, 1000
QUESTIONS = 6  # of the embedded model, for the passes that prompt lookup saves


def write_model(folder: Path) -> None:
    """The laptop model's shape with random weights, and a processor with its geometry and its tokenizer."""
    sys.path.insert(0, str(ROOT))
    from tools.assemble_smollm2 import SMOL_TEMPLATE, smollm2

    _, tokenizer = smollm2()
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    names = ["<image>", "<fake_token_around_image>", "<global-img>", *tiles]
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    config = published("SmolVLM2-500M")
    config.image_token_id, config.pad_token_id = tokenizer.convert_tokens_to_ids("<image>"), tokenizer.pad_token_id
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config.text_config, name, getattr(tokenizer, name))
    torch.manual_seed(0)
    model = SmolVLMForConditionalGeneration(config).to(torch.bfloat16)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    SmolVLMProcessor(
        image_processor=Idefics3ImageProcessor(size={"longest_edge": 2048}, max_image_size={"longest_edge": 512}),
        tokenizer=tokenizer, video_processor=SmolVLMVideoProcessor(), image_seq_len=64, chat_template=SMOL_TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip


def passages() -> list[Document]:
    """Texts of one length out of the bundled corpus."""
    text = " ".join(f"{d.title}: {d.text}" for e in flags.load_examples("dev") for d in e.documents if d.text)
    parts = [text[i * CHARACTERS : (i + 1) * CHARACTERS] for i in range(DOCUMENTS)]
    return [Document(str(i), "text", f"Passage {i}", part) for i, part in enumerate(parts)]


def timed(tokens: int) -> dict:
    """Seconds of the wall, and of the processors, until each step of one question is done."""
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        start, used = time.perf_counter(), time.process_time()
        rag = Rag.load(folder)
        result = {"load": {"wall": time.perf_counter() - start, "processors": time.process_time() - used}}
    rag.stage2["max_completion_length"] = tokens
    start, used, seen = time.perf_counter(), time.process_time(), {}
    with patch.object(lookup, "SETTINGS", {}):
        for event in rag.ask_stream("What is the capital of Chad, and which colours has its flag?", passages()):
            if event.name not in seen:
                seen[event.name] = {"wall": time.perf_counter() - start, "processors": time.process_time() - used}
    steps = {"filter": seen["scored"], "first word": seen["reasoning"], "whole answer": seen["done"]}
    return result | steps


def passes(rag: Rag, settings: dict) -> tuple[int, list[str]]:
    """(forward passes of the answers to some questions one by one, what they say)."""
    count = [0]
    hook = base_of(rag.model).register_forward_pre_hook(lambda *_: count.__setitem__(0, count[0] + 1))
    listings = [arrange(e.question, e.documents[:6]) for e in flags.load_examples("test")[:QUESTIONS]]
    with patch.object(lookup, "SETTINGS", settings):
        said = [say(rag.model, rag.processor, [listing], *rag._limits())[0] for listing in listings]
    hook.remove()
    return count[0], said


def looked_up() -> dict:
    """What prompt lookup saves the embedded model, which writes real answers."""
    rag = Rag.load(SHIPPED)
    activate(rag.model, rag.stage2["active"])
    (plain, expected), (fewer, said) = passes(rag, {}), passes(rag, lookup.SETTINGS)
    return {"questions": QUESTIONS, "passes": plain, "with lookup": fewer, "same text": said == expected}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=64, help="Of the answer. [64]")
    options = parser.parse_args()
    before = os.getloadavg()[0]
    result = {
        "model": "SmolVLM2-500M, random weights", "documents": DOCUMENTS, "characters": CHARACTERS,
        "answer_tokens": options.tokens, "threads": torch.get_num_threads(), "seconds": timed(options.tokens),
        "lookup": looked_up(), "load_average": {"before": before, "after": os.getloadavg()[0]},
        "machine": platform.processor() or platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__,
    }  # fmt: skip
    (RESULTS / "laptop.json").write_text(json.dumps(result, indent=2) + "\n")
    write_sections()


if __name__ == "__main__":
    main()
