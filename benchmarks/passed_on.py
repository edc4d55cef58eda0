"""What of the relevant documents reaches stage 2's prompt, what an answer is worth without all, who cites two, and who
answers in a sentence.

    python benchmarks/passed_on.py [--profile tiny] [--seeds 0 1 2]

reads the predictions of the runs that `benchmarks/seeds.py` made, trains nothing, and writes
benchmarks/results/passed-on-<profile>.json and its section of docs/results.md. For prompts of other sizes than
the run's it counts the documents that stage 1 passed on in the order of their scores.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from readme import write_sections

from lite.data import flags
from lite.evaluate.answers import read_predictions
from lite.metrics.answers import exact_match
from lite.metrics.ranking import ndcg
from lite.schema import Example, Trace
from lite.stages.answer import COLD_START, FULL, STAGE1_BASE
from tools.tiny.answering import SENTENCE

ROOT = Path(__file__).parent.parent
SIZES = (4, 6, 8, 10)  # documents in a prompt
CUT = 5
IN_SENTENCE = re.compile(rf"^{SENTENCE}\b", re.IGNORECASE)
SYSTEMS = (STAGE1_BASE, COLD_START, FULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    examples = {example.id: example for example in flags.load_examples("test")}
    result = {}
    for seed in arguments.seeds:
        by_system = {}
        folder = ROOT / "runs" / arguments.profile / f"seed-{seed}" / "stage2" / "predictions"
        if not (folder / f"{FULL}.jsonl").exists():
            raise SystemExit(f"{folder} holds no predictions. Train the seeds first: python benchmarks/seeds.py")
        for system in SYSTEMS:
            path = folder / f"{system}.jsonl"
            if not path.exists():  # a recipe without a cold start
                continue
            by_system[system] = [(examples[name], trace) for name, trace in read_predictions(path).items()]
        answered = by_system[FULL]
        kinds = sorted({example.category for example, _ in answered}, key=lambda kind: ("+" in kind, kind))
        by_kind = {kind: figures([pair for pair in answered if pair[0].category == kind]) for kind in kinds}
        result[f"seed {seed}"] = {
            "kinds": by_kind | {"all": figures(answered)},
            "citing_two": {system: citing_two(pairs) for system, pairs in by_system.items()},
            "sentences": {system: sentences(pairs) for system, pairs in by_system.items()},
        }
    out = ROOT / "benchmarks" / "results" / f"passed-on-{arguments.profile}.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    write_sections()


def figures(answered: Sequence[tuple[Example, Trace]]) -> dict:
    """How often prompts of each size hold every relevant document, the best nDCG they allow, and exact match."""
    passed_on = [([*trace.kept, *trace.dropped], example.relevant) for example, trace in answered]
    shown = {size: [(ids[:size], wanted) for ids, wanted in passed_on] for size in SIZES}
    right = {True: [], False: []}  # by whether the prompt held every relevant document
    for example, trace in answered:
        whole = set(trace.kept) >= example.relevant
        right[whole].append(float(trace.format_ok and exact_match(trace.answer, example.answers)))
    return {
        "questions": len(answered),
        "complete": {
            size: float(np.mean([set(ids) >= wanted for ids, wanted in pairs])) for size, pairs in shown.items()
        },
        f"best_ndcg@{CUT}": {
            size: float(np.mean([best(ids, wanted) for ids, wanted in pairs])) for size, pairs in shown.items()
        },
        "seen_whole": {"questions": len(right[True]), "right": sum(right[True])},
        "seen_in_part": {"questions": len(right[False]), "right": sum(right[False])},
    }


def citing_two(answered: Sequence[tuple[Example, Trace]]) -> dict:
    """Of the prompts that hold both documents of a question on two: how many outputs cite at least two."""
    whole = [trace for example, trace in answered if len(example.relevant) == 2 and set(trace.kept) >= example.relevant]
    return {"prompts": len(whole), "citing": sum(len(trace.cited) >= 2 for trace in whole)}


def sentences(answered: Sequence[tuple[Example, Trace]]) -> dict:
    """Shares of answers: in a sentence, right to the letter, and right once the sentence is taken off."""
    formed = [(trace.answer if trace.format_ok else None, example.answers) for example, trace in answered]
    bare = [(answer and IN_SENTENCE.sub("", answer), accepted) for answer, accepted in formed]

    def right(pairs: list) -> float:
        return float(np.mean([bool(answer) and exact_match(answer, accepted) for answer, accepted in pairs]))

    in_sentence = np.mean([bool(answer and IN_SENTENCE.match(answer)) for answer, _ in formed])
    return {"in_sentence": float(in_sentence), "exact_match": right(formed), "exact_match_bare": right(bare)}


def best(shown: Sequence[str], relevant: Collection[str]) -> float:
    """nDCG of the best order of what is shown."""
    return ndcg(sorted(shown, key=lambda document: document not in relevant), relevant, CUT)


if __name__ == "__main__":
    main()
