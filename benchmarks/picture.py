"""The picture of docs/results.md: one test question, its documents with P(relevant) before and after training.

    python benchmarks/picture.py [--adapter runs/tiny/stage1/adapter] [--question ff-0003]

writes benchmarks/results/filter.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from lite.config.model import ModelConfig
from lite.data import flags
from lite.data.pools import Corpus, hard_pool
from lite.models.adapters import load_adapter
from lite.models.loading import load_model
from lite.runs import read_card
from lite.stages.filter import score

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SHOWN = 12
OUT = Path(__file__).parent / "results" / "filter.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--adapter", type=Path, default=Path("runs/tiny/stage1/adapter"))
    parser.add_argument("--question", default="ff-0003", help="id of a test question")
    arguments = parser.parse_args()
    card = read_card(arguments.adapter)
    base, processor = load_model(ModelConfig(model_name_or_path=card["base"], max_pixels=card["max_pixels"]))
    model = load_adapter(base, arguments.adapter, "stage1")
    example = next(example for example in flags.load_examples("test") if example.id == arguments.question)
    pool = hard_pool(example, Corpus(flags.load_candidates("test")))
    pairs = [(example.question, document) for document in pool.documents]
    trained = score(model, processor, pairs, card["document_chars"])
    with model.disable_adapter():
        before = score(model, processor, pairs, card["document_chars"])

    order = np.argsort(-trained, kind="stable")[:SHOWN][::-1]
    figure, axes = plt.subplots(figsize=(9, 5.2))
    rows = np.arange(len(order))
    axes.barh(rows + 0.2, trained[order], 0.4, color="#2a6f97", label="trained")
    axes.barh(rows - 0.2, before[order], 0.4, color="#c9ccd1", label="base")
    axes.axvline(card["threshold"], color="black", linestyle="--", linewidth=1, label="threshold tuned on dev")
    documents = [pool.documents[i] for i in order]
    labels = axes.set_yticks(rows, [f"{document.title}       " for document in documents])
    for row, document, label in zip(rows, documents, labels, strict=True):
        if document.id in example.relevant:
            label.label1.set_fontweight("bold")
        if document.image is not None:
            thumbnail = OffsetImage(np.asarray(document.load_image()), zoom=0.055)
            axes.add_artist(AnnotationBbox(thumbnail, (-0.03, row), frameon=False, box_alignment=(0.5, 0.5)))
    axes.set(xlim=(-0.06, 1.02), xlabel="P(relevant)")
    axes.set_title(f"{example.question}\n{SHOWN} best of {len(pairs)} documents; bold: relevant", fontsize=11)
    axes.legend(loc="lower right")
    figure.tight_layout()
    OUT.parent.mkdir(exist_ok=True)
    figure.savefig(OUT, dpi=110)


if __name__ == "__main__":
    main()
