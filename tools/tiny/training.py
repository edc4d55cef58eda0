"""How the embedded model is trained: phases, the stream of rows, and the losses."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from bitsandbytes import functional as nf4
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, rms_norm
from transformers import Qwen3VLForConditionalGeneration, Qwen3VLProcessor

from lite.stages.prompts import HELPS, HELPS_NOT
from tools.tiny.answering import answering_row, citing_row
from tools.tiny.drawing import SHADES
from tools.tiny.model import HIDDEN, SPECIAL_TOKENS
from tools.tiny.skills import Batcher, Row, copying_row, describing_row, matching_row, picking_row, reading_row
from tools.tiny.world import World

logger = logging.getLogger(__name__)

N_FLAGS = 2500  # made-up flags to draw from: 140 MB of memory
WARM_UP = 30  # steps at the beginning of each phase
VISION_RATE = 2.0  # the vision tower starts without prepared heads and bears twice the learning rate
DECISIVE = 4.0  # how much the words count that decide a chain


@dataclass(frozen=True)
class Phase:
    """A stretch of training.

    Args:
        steps: Optimiser steps.
        learning_rate: At its beginning, after a short warm-up.
        final_share: What is left of the learning rate at its end (linear decay).
        repeating, copying, describing, picking, reading, matching, answering, citing: Rows of each skill in every step.
        title_only: Share of stage 1 texts, and of irrelevant stage 2 texts, that are cut down to their title.
        documents: The least and the most in a stage 2 prompt.
        flags: The least and the most that one is picked from.
        two_hop: Share of stage 2 questions that take two documents.
        compared: Share of these that compare two flags.
        in_sentences, lone_sources: Habits of chat models that GRPO is to change, see `answering_row`.
        loops: Half of the repeated sequences are made of two to five different tokens only, as `Antananarivo` is: who
            looks at no more than the last token does not find out of such a name.
        looping_names: Share of the names that repeat their syllables, as `Addis Ababa` does.
        accented_names: Share of the names with a letter of two tokens, as in `Brasília`.
        drawn_heights: Peaks get heights of their own. Those of the train countries are few enough to know by heart, and
            who does not copy them loops on the first digit that comes twice.
        described: Chains quote the description of a flag before they answer from it.
        rounded: Train through NF4 rounding, see `nf4_rounded`.
    """

    name: str
    steps: int
    learning_rate: float
    final_share: float
    repeating: int = 0
    copying: int = 0
    describing: int = 0
    picking: int = 0
    reading: int = 0
    matching: int = 0
    answering: int = 0
    citing: int = 0
    title_only: float = 0.0
    documents: tuple[int, int] = (1, 5)
    flags: tuple[int, int] = (1, 2)
    two_hop: float = 0.0
    compared: float = 0.15
    in_sentences: float = 0.0
    lone_sources: float = 0.0
    loops: bool = False
    looping_names: float = 0.0
    accented_names: float = 0.0
    drawn_heights: bool = False
    described: bool = False
    rounded: bool = False


class Trainer:
    """The optimiser, the stream of rows and the losses.

    Beside the language loss, stage 1 rows carry a helper loss: at every token of the document, a linear read-out of
    the second layer says whether the question holds the same token. It gives matching a dense signal where the label
    alone is one bit a row. The read-out is thrown away.
    """

    def __init__(self, model: Qwen3VLForConditionalGeneration, processor: Qwen3VLProcessor, seed: int) -> None:
        self.model = model
        self.seed = seed
        self.batcher = Batcher(processor)
        self.world = World(random.Random(seed), N_FLAGS)
        self.vocabulary = len(processor.tokenizer)
        self.second_layer = torch.empty(0)
        model.model.language_model.layers[1].register_forward_hook(self._keep)
        token = processor.tokenizer.convert_tokens_to_ids
        self.question, self.document, self.newline = token(["Question", "Document", "\u010a"])
        self.rank, self.rank_end = token(["<rank>", "</rank>"])
        self.answer, self.answer_end = token(["<answer>", "</answer>"])
        words = [HELPS, HELPS_NOT, "yes", "no", "horizontal", "vertical", *SHADES]
        first_tokens = [processor.tokenizer(f" {word}")["input_ids"][0] for word in words]
        self.decisive = torch.tensor(first_tokens)

    def _keep(self, module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        self.second_layer = output

    def run(self, phase: Phase, steps: int) -> None:
        """Train for `steps` steps with the rows and the learning rate of `phase`.

        Draws and optimiser start afresh, so that a build which goes on from kept weights equals an unbroken one.
        """
        self.world.rng = random.Random(f"{self.seed} {phase.name}")
        self.world.names.looping_share = phase.looping_names
        self.world.names.accented_share = phase.accented_names
        self.world.draw_heights = phase.drawn_heights
        self.world.compared = phase.compared
        self.helper = torch.nn.Linear(HIDDEN, 1)
        torch.nn.init.zeros_(self.helper.weight)
        torch.nn.init.zeros_(self.helper.bias)
        parts = (
            (self.model.model.language_model.parameters(), 1.0),
            (self.model.model.visual.parameters(), VISION_RATE),
            (self.helper.parameters(), 1.0),
        )
        self.optimiser = torch.optim.AdamW(
            [{"params": list(parameters), "factor": factor} for parameters, factor in parts],
            betas=(0.9, 0.98),
            weight_decay=0.02,
        )
        self.model.train()
        started = time.perf_counter()
        for step in range(steps):
            rate = phase.learning_rate * min(1.0, (step + 1) / WARM_UP) * (1 - (1 - phase.final_share) * step / steps)
            for group in self.optimiser.param_groups:
                group["lr"] = rate * group["factor"]
            self.optimiser.zero_grad(set_to_none=True)
            losses = {}
            with nf4_rounded(self.model) if phase.rounded else nullcontext():
                for skill, loss in self.losses(phase):
                    loss.backward()
                    losses[skill] = losses.get(skill, 0.0) + loss.item()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimiser.step()
            if (step + 1) % 50 == 0 or step + 1 == steps:
                shown = ", ".join(f"{skill} {loss:.3f}" for skill, loss in losses.items())
                minutes = (time.perf_counter() - started) / 60
                logger.info("%s: step %d of %d, %.1f min, loss: %s", phase.name, step + 1, steps, minutes, shown)

    def losses(self, phase: Phase) -> Iterator[tuple[str, torch.Tensor]]:
        """One loss a skill, each on rows just drawn. Rows of both stages come in halves by length, to pad less."""
        world = self.world
        if phase.repeating:
            yield "repeating", self._language_loss(*self._repetitions(phase.repeating, phase.loops))
        for skill, draw, count in (
            ("copying", copying_row, phase.copying),
            ("describing", describing_row, phase.describing),
            ("reading", reading_row, phase.reading),
        ):
            if count:
                yield skill, self._language_loss(*self.batcher.training_batch([draw(world) for _ in range(count)]))
        if phase.picking:
            rows = [picking_row(world, phase.flags) for _ in range(phase.picking)]
            yield "picking", self._chain_loss(*self.batcher.training_batch(rows))
        for half in _halves([matching_row(world, phase.title_only) for _ in range(phase.matching)]):
            inputs, learned = self.batcher.training_batch(half)
            yield "matching", self._language_loss(inputs, learned) / 2 + self._helper_loss(inputs["input_ids"]) / 2

        answering = [
            answering_row(
                world,
                phase.documents,
                phase.two_hop,
                phase.title_only,
                phase.described,
                phase.in_sentences,
                phase.lone_sources,
            )
            for _ in range(phase.answering)
        ]
        for half in _halves([citing_row(world, phase.documents) for _ in range(phase.citing)]):
            inputs, learned = self.batcher.training_batch(half)
            yield "citing", self._language_loss(inputs, learned & self._ranked(inputs["input_ids"])) / 2
        for half in _halves(answering):
            yield "answering", self._chain_loss(*self.batcher.training_batch(half), phase.citing > 0) / 2

    def _language_loss(self, inputs: dict[str, torch.Tensor], learned: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy over the tokens that `learned` marks."""
        hidden = self.model.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
        wanted = learned[:, 1:]
        return cross_entropy(self.model.lm_head(hidden[wanted]), inputs["input_ids"][:, 1:][wanted])

    def _chain_loss(self, inputs: dict[str, torch.Tensor], learned: torch.Tensor, ranked: bool = False) -> torch.Tensor:
        """The same for stage 2's chains, where most tokens are mere copies: those that decide count `DECISIVE` times.

        They are the words that say whether a document helps, what is seen on a flag, and the answer; with `ranked`, the
        numbers in `<rank>` too. The sum is divided by the number of tokens, so that these words do not count less the
        longer the chain is.
        """
        ids = inputs["input_ids"]
        hidden = self.model.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
        wanted = learned[:, 1:]
        losses = cross_entropy(self.model.lm_head(hidden[wanted]), ids[:, 1:][wanted], reduction="none")
        decisive = torch.isin(ids, self.decisive) | _between(ids, self.answer, self.answer_end)
        if ranked:
            decisive |= self._ranked(ids)
        weights = torch.where(decisive[:, 1:][wanted], DECISIVE, 1.0)
        return (losses * weights).mean()

    def _ranked(self, ids: torch.Tensor) -> torch.Tensor:
        """What `<rank>` holds, and its end."""
        return _between(ids, self.rank, self.rank_end) | (ids == self.rank_end)

    def _helper_loss(self, ids: torch.Tensor) -> torch.Tensor:
        """Of the helper, for the stage 1 rows that have just been through the model."""
        where = torch.zeros_like(ids, dtype=torch.bool)
        shared = []
        for i, row in enumerate(ids.tolist()):
            question = row.index(self.question) + 2  # after `Question:`
            question_end = row.index(self.newline, question)
            document = row.index(self.document, question_end) + 2
            for position in range(document, len(row)):
                if row[position] < len(SPECIAL_TOKENS):  # the image, or the end of the turn
                    break
                where[i, position] = True
                shared.append(float(row[position] in row[question:question_end]))
        scores = self.helper(rms_norm(self.second_layer[where], (HIDDEN,)))[:, 0]
        return binary_cross_entropy_with_logits(scores, torch.tensor(shared))

    def _repetitions(self, count: int, loops: bool) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Random tokens, two or three times over; what is not new is to be learned."""
        rng = self.world.rng
        tokens = range(len(SPECIAL_TOKENS), self.vocabulary)
        sequences, starts = [], []
        for _ in range(count):
            if loops:
                few = rng.sample(tokens, rng.randint(2, 5)) if rng.random() < 0.5 else tokens
                part = rng.choices(few, k=rng.randint(4, 16))
            else:
                part = [rng.choice(tokens) for _ in range(rng.randint(4, 16))]
            sequences.append(torch.tensor(part * rng.randint(2, 3)))
            starts.append(len(part))
        ids = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
        position = torch.arange(ids.shape[1])
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        inside = position < lengths[:, None]
        learned = inside & (position >= torch.tensor(starts)[:, None])
        inputs = {"input_ids": ids, "attention_mask": inside.long(), "mm_token_type_ids": torch.zeros_like(ids).int()}
        return inputs, learned


@contextmanager
def nf4_rounded(model: Qwen3VLForConditionalGeneration) -> Iterator[None]:
    """Inside, the language model's linear weights are what NF4 makes of them; gradients still reach the exact ones.

    A model this small loses accuracy when its weights are rounded to 16 levels. Training through the rounding
    (straight-through estimator) gives it back. Which layers and which rounding: as in `lite.models.loading`.
    """
    exact = []
    for module in model.model.language_model.modules():
        if isinstance(module, torch.nn.Linear):
            exact.append((module.weight, module.weight.data))
            packed, state = nf4.quantize_4bit(module.weight.data, quant_type="nf4", compress_statistics=True)
            module.weight.data = nf4.dequantize_4bit(packed, state)
    try:
        yield
    finally:
        for parameter, data in exact:
            parameter.data = data


def _between(ids: torch.Tensor, opening: int, closing: int) -> torch.Tensor:
    """Which tokens stand between two tags."""
    return ((ids == opening).cumsum(1) > (ids == closing).cumsum(1)) & (ids != opening)


def _halves(rows: list[Row]) -> list[list[Row]]:
    """The shorter and the longer half; none if there are no rows."""
    rows = sorted(rows, key=lambda row: len(str(row.messages)))
    return [rows[: len(rows) // 2], rows[len(rows) // 2 :]] if rows else []
