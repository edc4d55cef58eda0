"""P(relevant) of 32 documents of a question: one `generate` per document (as RagVL does) against lite's `score`.

Both use the same model, prompts and documents; every repetition runs all variants in turn in one process, and the
ratios are taken within a repetition, so that a noisy machine hurts both alike. Peak memory is measured in a process of
its own per variant. The largest difference between the two ways' scores is part of the result.

    python benchmarks/scoring.py [--model tiny] [--documents 32] [--repetitions 5]

writes benchmarks/results/scoring-<model>-<device>.json and prints a table.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from readme import write_sections
from rich.console import Console
from rich.table import Table

from lite.config.model import ModelConfig
from lite.data import flags
from lite.data.pools import Corpus, hard_pool
from lite.models.inputs import encode
from lite.models.loading import load_model
from lite.schema import Document
from lite.stages.filter import answer_tokens, evaluating, score
from lite.stages.prompts import stage1_prompt
from lite.train.callbacks import peak_memory_gib

CHARS = 140
RESULTS = Path(__file__).parent / "results"
Pairs = list[tuple[str, Document]]


def one_generate_per_document(model, processor, pairs: Pairs) -> np.ndarray:
    """The published way: generate one token, read the two words' probabilities off its logits."""
    yes, no = answer_tokens(processor)
    scores = []
    with evaluating(model):
        for question, document in pairs:
            inputs = encode(processor, [stage1_prompt(question, document, CHARS)], [document]).to(model.device)
            output = model.generate(
                **inputs, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
            )
            scores.append(torch.softmax(output.logits[0][0, [yes, no]].double(), 0)[0].item())
    return np.array(scores)


def one_forward_per_document(model, processor, pairs: Pairs) -> np.ndarray:
    """Ours without batching, to tell the gains apart."""
    return score(model, processor, pairs, CHARS, batch_size=1)


def batched(model, processor, pairs: Pairs) -> np.ndarray:
    """One padded batch: nothing is shared."""
    yes, no = answer_tokens(processor)
    prompts = [stage1_prompt(question, document, CHARS) for question, document in pairs]
    inputs = encode(processor, prompts, [document for _, document in pairs]).to(model.device)
    with evaluating(model), torch.inference_mode():
        logits = model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1].double()
    return torch.sigmoid(logits[:, yes] - logits[:, no]).cpu().numpy()


def shared(model, processor, pairs: Pairs) -> np.ndarray:
    """Ours: instruction and question once, then the documents one behind the other."""
    return score(model, processor, pairs, CHARS, batch_size=32)


VARIANTS: dict[str, Callable] = {
    "one generate per document": one_generate_per_document,
    "one forward per document": one_forward_per_document,
    "batched forward": batched,
    "shared question (lite)": shared,
}


def questions(documents: int) -> dict[str, Pairs]:
    """One question's hard pool per case, cut to text documents, to images, or mixed as it comes."""
    corpus = Corpus(flags.load_candidates("test"))
    examples = flags.load_examples("test")
    pool = hard_pool(examples[2], corpus, len(corpus.documents)).documents
    of_kind = {
        "text": [document for document in pool if document.image is None],
        "image": [document for document in pool if document.image is not None],
        "mixed": list(pool),
    }
    return {kind: [(examples[2].question, document) for document in docs[:documents]] for kind, docs in of_kind.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="tiny", help="tiny, a hub id or a folder")
    parser.add_argument("--documents", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--memory_of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    model, processor = load_model(ModelConfig(model_name_or_path=arguments.model))
    cases = questions(arguments.documents)
    if arguments.memory_of:
        # Only the growth over the loaded model counts: importing torch takes more than this model does.
        before = peak_memory_gib()
        VARIANTS[arguments.memory_of](model, processor, cases["mixed"])
        print(peak_memory_gib() - before)
        return

    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    result = {
        "model": arguments.model,
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU, threads: {torch.get_num_threads()}",
        "versions": versions,
        "documents": arguments.documents,
        "repetitions": arguments.repetitions,
        "memory_over_model_gib": {name: memory_of(name, arguments) for name in VARIANTS},
        "cases": {case: measure(model, processor, pairs, arguments.repetitions) for case, pairs in cases.items()},
    }
    device = "gpu" if torch.cuda.is_available() else "cpu"
    path = RESULTS / f"scoring-{Path(arguments.model).name}-{device}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    show(result)
    write_sections()


def memory_of(variant: str, arguments: argparse.Namespace) -> float:
    """Growth of the peak memory in a fresh process, GiB."""
    command = [sys.executable, __file__, "--model", arguments.model, "--documents", str(arguments.documents)]
    output = subprocess.run([*command, "--memory_of", variant], capture_output=True, text=True, check=True).stdout
    return float(output.split()[-1])


def measure(model, processor, pairs: Pairs, repetitions: int) -> dict:
    """Pairs per second (median), the ratio to the first variant within each repetition, and the largest difference."""
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    scores = {}
    for _ in range(repetitions + 1):  # the first is the warm-up
        for name, run in VARIANTS.items():
            start = time.perf_counter()
            scores[name] = run(model, processor, pairs)
            seconds[name].append(time.perf_counter() - start)
    reference = next(iter(VARIANTS))
    return {
        name: {
            "pairs_per_second": len(pairs) / statistics.median(taken[1:]),
            "speedup": statistics.median(a / b for a, b in zip(seconds[reference][1:], taken[1:], strict=True)),
            "largest_score_difference": float(np.abs(scores[name] - scores[reference]).max()),
        }
        for name, taken in seconds.items()
    }


def show(result: dict) -> None:
    table = Table(title=f"{result['documents']} documents of a question, {result['model']} on {result['device']}")
    for column in ("", "way", "pairs/s", "speed-up", "largest ΔP", "memory over model, GiB"):
        table.add_column(column)
    for case, ways in result["cases"].items():
        for name, figures in ways.items():
            memory = f"{result['memory_over_model_gib'][name]:.2f}" if case == "mixed" else ""
            table.add_row(
                case, name, f"{figures['pairs_per_second']:.0f}", f"{figures['speedup']:.2f}×",
                f"{figures['largest_score_difference']:.1e}", memory,
            )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
