"""The prompts that stage 2 trains on: what stage 1 would let through, with everything relevant among it."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from peft import PeftModel
from rich.console import Console
from transformers import ProcessorMixin

from lite.config.launch import processes
from lite.config.runs import Stage2Config
from lite.data.pools import CONFUSABLE, SAMPLE, Corpus, draw_negative, relevant_documents
from lite.data.problems import Problems
from lite.data.sources import load_training_sets, own_cautions, without_unreadable
from lite.evaluate.scores import stage1_scores
from lite.metrics.answers import normalise
from lite.models.inputs import joined
from lite.runs import read_card
from lite.schema import Document, Example, LiteError
from lite.stages.answer import Listing, arrange, select
from lite.stages.prompts import clip
from lite.train.chains import compose_chain

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One training prompt and what is known of its answer."""

    listing: Listing
    example: Example

    def relevant(self) -> list[int]:
        """Numbers of the relevant documents in the prompt."""
        return [n for n, d in enumerate(self.listing.documents, start=1) if d.id in self.example.relevant]


def training_rows(
    model: PeftModel, processor: ProcessorMixin, config: Stage2Config, stage1: Path | None, console: Console
) -> list[Row]:
    """Prompts for each training question: its relevant documents and those that stage 1 would let through too.

    Twice as many irrelevant documents as fit are drawn, hard and random ones mixed as in stage 1, and scored; the best
    of them fill the prompt. A share of the prompts loses its relevant documents, so that `none` is learnt.
    """
    rng = random.Random(config.seed)
    drawn = draw_pools(config, rng)
    if stage1 is None:
        scores, threshold, max_kept = [pool.lexical() for pool in drawn], -np.inf, config.max_documents
    else:
        state = PartialState()
        card = read_card(stage1)
        threshold, max_kept = card["threshold"], card["max_kept"]
        examples = [replace(pool.example, documents=pool.documents) for pool in drawn]
        # Each process scores its share; all of them must see the same scores, or they would train on different rows.
        mine = range(int(state.process_index), len(examples), state.num_processes)
        found = stage1_scores(
            model, processor, [examples[i] for i in mine], card, config.per_device_eval_batch_size, console
        )
        scored = dict(gather_object(list(zip(mine, found, strict=False))))
        scores = [scored[i] for i in range(len(examples))]
    return fill(drawn, scores, threshold, max_kept, config, rng)


def unscored_rows(config: Stage2Config) -> list[Row]:
    """Rows as long as those of a run, for a dry run that loads no model: BM25 stands in for stage 1."""
    rng = random.Random(config.seed)
    drawn = draw_pools(config, rng)
    return fill(drawn, [pool.lexical() for pool in drawn], -np.inf, 2 * config.max_documents, config, rng)


@dataclass(frozen=True)
class Pool:
    """Documents that a prompt is filled from, the relevant ones first."""

    example: Example
    documents: tuple[Document, ...]
    corpus: Corpus

    def lexical(self) -> np.ndarray:
        """BM25 of each document, `[documents]`."""
        of_corpus = self.corpus.bm25_scores(self.example.question)
        return np.array([of_corpus[self.corpus.position[document.id]] for document in self.documents])


def draw_pools(config: Stage2Config, rng: random.Random) -> list[Pool]:
    """Pools for the training questions of every data set, as many as the run can use: scoring them takes time."""
    problems = Problems(config.skip_broken)
    asked: list[tuple[Example, Corpus, bool]] = []
    for examples, documents, mined in load_training_sets(config.data, config.limit, problems):
        if config.skip_broken:
            examples = without_unreadable(examples, problems)
        answered = [example for example in examples if example.answers]
        if len(answered) < len(examples):
            logger.warning("%d questions have no answer and are left out.", len(examples) - len(answered))
        corpus = Corpus(documents)
        balanced = balance_yes_no(answered, random.Random(config.seed))
        asked += [(example, corpus, mined) for example in balanced * config.prompts_per_question]
    if problems.messages:
        logger.warning(problems.summary())
    for line in own_cautions(config.data, config.limit, config.skip_broken):
        logger.warning(line)
    if not asked:
        raise LiteError("There is no question with an answer to train on. Check --data and --limit.")
    completions = config.per_device_train_batch_size * config.gradient_accumulation_steps * processes()
    prompts_per_step = completions / config.num_generations
    usable = max(math.ceil(config.max_steps * prompts_per_step), config.cold_start_steps * config.cold_start_batch_size)
    if 0 < usable < len(asked) and config.max_steps > 0:
        asked = random.Random(config.seed).sample(asked, usable)
    return [
        Pool(replace(example, documents=()), tuple(draw_pool(example, corpus, config, rng, mined)), corpus)
        for example, corpus, mined in asked
    ]


def balance_yes_no(examples: Sequence[Example], rng: random.Random) -> list[Example]:
    """The examples, with some of the less common of `yes` and `no` repeated, so that both are equally frequent.

    Otherwise the model learns to always give the more common answer: on flags (40 % yes) GRPO ended with `no` to every
    question, against its own reasoning. No question is repeated more than three times, to avoid memorisation.
    """
    of = {word: [e for e in examples if [normalise(a) for a in e.answers] == [word]] for word in ("yes", "no")}
    rarer, commoner = sorted(of.values(), key=len)
    again = cycle(rng.sample(rarer, len(rarer)))
    return [*examples, *islice(again, min(len(commoner), 3 * len(rarer)) - len(rarer))]


def fill(
    pools: Sequence[Pool],
    scores: Sequence[np.ndarray],
    threshold: float,
    max_kept: int,
    config: Stage2Config,
    rng: random.Random,
) -> list[Row]:
    """Prompts of everything relevant and the best-scored others that stage 1's filter lets through, shuffled.

    Of `as_filtered_share`, prompts as they will be in use: what the filter lets through and nothing else.
    """
    rows = []
    n = config.max_documents
    for number, (pool, of_pool) in enumerate(zip(pools, scores, strict=True)):
        relevant = [i for i, document in enumerate(pool.documents) if document.id in pool.example.relevant]
        relevant = relevant[:n]
        others = [i for i, document in enumerate(pool.documents) if document.id not in pool.example.relevant]
        through, _ = select(of_pool, threshold, max_kept, len(of_pool))
        passed = [i for i in through if i in others]
        if others and rng.random() < config.unanswerable_share:
            kept = (passed or others)[:n]
        elif rng.random() < config.as_filtered_share and through:
            kept = through[:n]
        else:
            kept = relevant + passed[: n - len(relevant)]
        best_first = [pool.documents[i] for i in sorted(kept, key=lambda i: -of_pool[i])]
        rows.append(Row(arrange(pool.example.question, best_first, config.seed + number, config.quotes), pool.example))
    rng.shuffle(rows)
    return rows


def draw_pool(
    example: Example, corpus: Corpus, config: Stage2Config, rng: random.Random, mined: bool
) -> list[Document]:
    """The relevant documents, and irrelevant ones drawn as in stage 1: twice as many as a prompt takes.

    Args:
        mined: The example's own pool holds its hard negatives; otherwise BM25 neighbours are.
    """
    relevant = relevant_documents(example, corpus)
    own = [document for document in example.documents if document.id in corpus.position]
    hard = own if mined else corpus.confusable(example, CONFUSABLE)
    taken, negatives = set(example.relevant), []
    for _ in range(2 * config.max_documents):
        easy = rng.choices(corpus.documents, k=SAMPLE) if mined else own
        source = hard if rng.random() < config.hard_share else easy
        negative = draw_negative(rng, source, corpus, rng.choice(relevant).kind, taken)
        if negative is None:
            break
        taken.add(negative.id)
        negatives.append(negative)
    return relevant + negatives


def quoting_columns(rows: Sequence[Row], document_chars: int) -> dict[str, list]:
    """What the reward for quotes must know: the question, and each document's title and text as the prompt shows it."""
    return {
        "question": [row.listing.question for row in rows],
        "titles": [[document.title for document in row.listing.documents] for row in rows],
        "texts": [[clip(document.text, document_chars) for document in row.listing.documents] for row in rows],
    }


def prompt_dataset(rows: Sequence[Row], config: Stage2Config, captions: Mapping[str, str] | None = None) -> Dataset:
    """The rows that a trainer draws from. Images are opened when a batch is drawn.

    Args:
        captions: Of images by document id. Given, even if empty, the rows hold composed chains to imitate; else they
            hold the columns of the rewards.
    """

    def to_columns(batch: dict[str, list]) -> dict[str, list]:
        drawn = [rows[i] for i in batch["row"]]
        # A batch holds every row as often as there are completions: open its images once.
        images = {
            i: [d.load_image() for d in rows[i].listing.documents if d.image is not None] for i in set(batch["row"])
        }
        columns = {
            "prompt": [joined(r.listing.prompt(config.document_chars)) for r in drawn],
            "images": [images[i] for i in batch["row"]],
        }
        if captions is not None:
            said = [
                compose_chain(
                    r.example,
                    r.listing.documents,
                    config.document_chars,
                    captions,
                    best_first=r.listing.stage1_order,
                    quotes=config.quotes,
                )
                for r in drawn
            ]
            return columns | {"completion": [[{"role": "assistant", "content": text}] for text in said]}
        return (
            columns
            | {
                "stage1_order": [list(r.listing.stage1_order) for r in drawn],
                "relevant": [r.relevant() for r in drawn],
                "answers": [list(r.example.answers) for r in drawn],
                "metric": [r.example.metric for r in drawn],
                "keywords": [r.example.keywords for r in drawn],
                "category": [r.example.category for r in drawn],
            }
            | (quoting_columns(drawn, config.document_chars) if config.quotes else {})
        )

    return Dataset.from_dict({"row": range(len(rows))}).with_transform(to_columns)
