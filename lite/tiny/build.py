"""Train the embedded model from nothing and examine it: `python -m lite.tiny.build [--seed 0] [--out FOLDER]`.

The base is to *half know* the task. It learns by supervision, on made-up countries alone, whether a document speaks of
what a question names. It is left without an opinion on which kind of document of the right country answers, and sees
neither a real question nor one that names a capital or describes a flag instead of naming the country. One label in
twenty is flipped, so that no probability comes near 0 or 1. The rest is what GRPO is for.

Skills form only on short and dense rows; taught all at once on long prompts, none of them forms. Hence four phases
(`CURRICULUM`), none of which drops an earlier skill:

1. *Copy*: repeat random tokens and titles of a numbered list. The heads for it are prepared by hand in
   `lite.tiny.model`; this phase ties them together, and every later skill points at words through them.
2. *Look and read*: name a flag's bands, answer from one document. Flags come early and in numbers, because the vision
   tower starts from nothing.
3. *Match*: stage 1 prompts take over, most of them short.
4. *Settle*: full-length prompts, a falling learning rate, and weights rounded to NF4 on the way, since that is how the
   model will be loaded.

About 12 minutes on one free core. Reached with seed 0, on unseen countries and in NF4: name matching .97, band colours
.99, copying .89, reading one document .87 (`weights/probe.json`).

The countries are made up (`lite.tiny.world`), their texts are those of the train split with other names. The same seed
gives the same weights, bit by bit, on the same torch and kind of CPU; one thread, counted steps, no clock. The
probe (`lite.tiny.probe`) reads the written folder through `lite.models.load_model`, and a base that fails is not
written.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from bitsandbytes import functional as nf4
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, rms_norm
from transformers import Qwen3VLForConditionalGeneration, Qwen3VLProcessor

from lite.models import TINY, ModelConfig, load_model
from lite.schema import LiteError
from lite.tiny.model import HIDDEN, SPECIAL_TOKENS, build_model, build_processor
from lite.tiny.probe import Figure, print_probe, probe, write_probe
from lite.tiny.skills import Batcher, copying_row, describing_row, matching_row, reading_row
from lite.tiny.world import World

logger = logging.getLogger(__name__)

N_FLAGS = 2500  # made-up flags to draw from: 140 MB of memory
WARM_UP = 30  # steps at the beginning of each phase
VISION_RATE = 2.0  # the vision tower starts without prepared heads and bears twice the learning rate


@dataclass(frozen=True)
class Phase:
    """A stretch of training.

    Args:
        steps: Optimiser steps.
        learning_rate: At its beginning, after a short warm-up.
        final_share: What is left of the learning rate at its end (linear decay).
        repeating, copying, describing, reading, matching: Rows of each skill in every step.
        title_only: Share of stage 1 texts that are cut down to their title.
        rounded: Train through NF4 rounding, see `nf4_rounded`.
    """

    name: str
    steps: int
    learning_rate: float
    final_share: float
    repeating: int = 0
    copying: int = 0
    describing: int = 0
    reading: int = 0
    matching: int = 0
    title_only: float = 0.0
    rounded: bool = False


CURRICULUM = (
    Phase("copy", 260, 2e-3, 0.5, repeating=16, copying=14, describing=16, matching=6, title_only=1.0),
    Phase("look and read", 500, 1.5e-3, 0.5, copying=12, describing=32, reading=10, matching=6, title_only=0.9),
    Phase("match", 350, 1.5e-3, 0.4, copying=10, describing=20, reading=6, matching=18, title_only=0.6),
    Phase("settle", 320, 8e-4, 0.03, copying=12, describing=20, reading=8, matching=16, title_only=0.15, rounded=True),
)


class Trainer:
    """The optimiser, the stream of rows and the losses.

    Beside the language loss, stage 1 rows carry a helper loss: at every token of the document, a linear read-out of
    the second layer says whether the question holds the same token. It gives matching a dense signal where the label
    alone is one bit a row. The read-out is thrown away.
    """

    def __init__(self, model: Qwen3VLForConditionalGeneration, processor: Qwen3VLProcessor, seed: int) -> None:
        self.model = model
        self.batcher = Batcher(processor)
        self.world = World(random.Random(seed), N_FLAGS)
        self.vocabulary = len(processor.tokenizer)
        self.helper = torch.nn.Linear(HIDDEN, 1)
        self.second_layer = torch.empty(0)
        model.model.language_model.layers[1].register_forward_hook(self._keep)
        self.question, self.document, self.newline = processor.tokenizer.convert_tokens_to_ids(
            ["Question", "Document", "\u010a"]
        )
        parts = (
            (model.model.language_model.parameters(), 1.0),
            (model.model.visual.parameters(), VISION_RATE),
            (self.helper.parameters(), 1.0),
        )
        self.optimiser = torch.optim.AdamW(
            [{"params": list(parameters), "factor": factor} for parameters, factor in parts],
            betas=(0.9, 0.98),
            weight_decay=0.02,
        )

    def _keep(self, module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        self.second_layer = output

    def run(self, phase: Phase, steps: int) -> None:
        """Train for `steps` steps with the rows and the learning rate of `phase`."""
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
        """One loss a skill, each on rows just drawn. Stage 1 rows come in two halves by length, to pad less."""
        world = self.world
        if phase.repeating:
            yield "repeating", self._language_loss(*self._repetitions(phase.repeating))
        for skill, draw, count in (
            ("copying", copying_row, phase.copying),
            ("describing", describing_row, phase.describing),
            ("reading", reading_row, phase.reading),
        ):
            if count:
                yield skill, self._language_loss(*self.batcher.training_batch([draw(world) for _ in range(count)]))
        matching = [matching_row(world, phase.title_only) for _ in range(phase.matching)]
        matching.sort(key=lambda row: len(str(row.messages)))
        for half in (matching[: len(matching) // 2], matching[len(matching) // 2 :]):
            inputs, learned = self.batcher.training_batch(half)
            yield "matching", self._language_loss(inputs, learned) / 2 + self._helper_loss(inputs["input_ids"]) / 2

    def _language_loss(self, inputs: dict[str, torch.Tensor], learned: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy over the tokens that `learned` marks."""
        hidden = self.model.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
        wanted = learned[:, 1:]
        return cross_entropy(self.model.lm_head(hidden[wanted]), inputs["input_ids"][:, 1:][wanted])

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

    def _repetitions(self, count: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Random tokens, two or three times over; what is not new is to be learned."""
        rng = self.world.rng
        sequences, starts = [], []
        for _ in range(count):
            part = [rng.randrange(len(SPECIAL_TOKENS), self.vocabulary) for _ in range(rng.randint(4, 16))]
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
    (straight-through estimator) gives it back. Which layers and which rounding: as in `lite.models`.
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


def train(seed: int, steps_scale: float = 1.0) -> tuple[Qwen3VLForConditionalGeneration, Qwen3VLProcessor]:
    """The whole curriculum.

    Args:
        steps_scale: Of each phase, this share of its steps, at least one: for tests.

    Returns:
        The model in float32, and its processor. Same seed, same torch and one thread: the same weights, bit by bit.
    """
    torch.set_num_threads(1)
    processor = build_processor()
    model = build_model(processor, seed)
    trainer = Trainer(model, processor, seed)
    for phase in CURRICULUM:
        trainer.run(phase, max(1, round(phase.steps * steps_scale)))
    return model.eval(), processor


def build(out: Path, seed: int = 0, steps_scale: float = 1.0) -> list[Figure]:
    """Train a base and write it to `out` if it passes the probe, see `examine_and_write`."""
    model, processor = train(seed, steps_scale)
    return examine_and_write(model, processor, out, seed)


def examine_and_write(
    model: Qwen3VLForConditionalGeneration, processor: Qwen3VLProcessor, out: Path, seed: int
) -> list[Figure]:
    """Examine a base as it will be loaded, in NF4, and write it with `probe.json` to `out` if it passes.

    Raises:
        LiteError: It failed the probe. Nothing is written, and what stood at `out` still stands.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        folder = Path(scratch) / "weights"
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        figures = probe(*load_model(ModelConfig(model_name_or_path=str(folder))))
        print_probe(figures)
        if not all(figure.passed for figure in figures):
            raise LiteError(f"The base failed its probe: {out} is left as it was. Try another --seed or more steps.")
        weights = folder / "model.safetensors"
        weights.chmod(0o644)  # safetensors writes files that only their owner may read
        checksum = hashlib.sha256(weights.read_bytes()).hexdigest()
        origin = {"seed": seed, "torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability()}
        write_probe(figures, folder / "probe.json", **origin, sha256=checksum)
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)
    return figures


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 1 if the base failed its probe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=TINY)
    parser.add_argument(
        "--steps_scale", type=float, default=1.0, help="Share of each phase's steps; below 1 for tests."
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        build(options.out, options.seed, options.steps_scale)
    except LiteError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
