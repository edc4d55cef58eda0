"""What the best conceivable point-wise filter reaches on the bundled test questions.

    python benchmarks/ceiling.py          (writes benchmarks/results/ceiling-flags.json)

A point-wise judge sees one document. Given perfect knowledge it still cannot tell whose flag is meant by "the flag of
the country whose capital is …", nor which country's flag is described: for such a question every document of the right
kind and topic is equally likely. This oracle scores named documents 1, possible ones 0.5 and others 0, and breaks ties
at random; the mean over many tie-breaks is the ceiling for a trained filter.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from readme import write_sections

from lite.data import flags
from lite.data.pools import Corpus, hard_pool
from lite.metrics.ranking import Judged, summarise
from lite.schema import Document, Example

DRAWS = 50
FIGURES = ("auc", "recall@1", "recall@5", "ndcg@5")
OUT = Path(__file__).parent / "results" / "ceiling-flags.json"


def topic(document: Document) -> str:
    """`image`, `capital`, `geo` or `background`."""
    return "image" if document.kind == "image" else document.id.split(":")[2]


def oracle(example: Example, document: Document) -> float:
    """1 where the question's names decide for the document, 0.5 where it is possible, 0 where it is not."""
    named = {
        "text+image": document.kind != "image",  # the capital or peak is named, the flag is not
        "image+text": False,  # a flag is described, nothing is named
    }.get(example.category, True)
    if named and document.id in example.relevant:
        return 1.0
    possible = {"text+image": {"image"}, "image+text": {"image", "capital"}}.get(example.category, set())
    return 0.5 if topic(document) in possible else 0.0


def main() -> None:
    corpus = Corpus(flags.load_candidates("test"))
    own = flags.load_examples("test")
    result = {}
    for name, examples in (("own_pools", own), ("hard_pools", [hard_pool(example, corpus) for example in own])):
        draws = []
        for seed in range(DRAWS):
            noise = np.random.default_rng(seed)
            questions = [
                Judged(
                    np.array([oracle(example, d) + 0.001 * noise.random() for d in example.documents]),
                    np.array([d.id in example.relevant for d in example.documents]),
                )
                for example in examples
            ]
            draws.append({figure: part["value"] for figure, part in summarise(questions, resamples=2).items()})
        result[name] = {figure: round(float(np.mean([draw[figure] for draw in draws])), 4) for figure in FIGURES}
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    write_sections()


if __name__ == "__main__":
    main()
