"""What the embedded model is taught: one function for each skill, which draws a training row.

Every row is a prompt, the wanted completion and the images of the prompt. Stage 1 rows go through
`lite.stages.prompts.stage1_prompt` and the processor's chat template, so that training and use are the same text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from transformers import ProcessorMixin

from lite.schema import Document
from lite.stages.prompts import HELPS, NO, YES, caption_prompt, clip, stage1_prompt
from tools.tiny.drawing import BANDS, SYMBOLS
from tools.tiny.questions import one_hop
from tools.tiny.world import Country, World

DOCUMENT_CHARS = 140  # of a text in a prompt: about 50 tokens, and the facts asked for stand at its beginning or end
LABEL_NOISE = 0.05  # share of flipped relevance labels, which keeps probabilities away from 0 and 1
UNDECIDED = 0.5  # chance of Yes where names do not decide
RIGHT = 0.45  # share of stage 1 rows with a document that the names point to
RIGHT_COUNTRY = 0.18  # ... with another document of the right country
SIMILAR_NAME = 0.15  # ... with one of a country of similar name; the rest: of any other country
SAME_TOPIC = 0.6  # share of other countries' documents that are of the right one's topic
DESCRIBE = "Describe the flag."
UNTITLED = 0.5  # share of the rows with several flags that number them without a title
LOOPING = 0.3  # share of the names in the others that repeat syllables

ImageSource = Callable[[], Image.Image]


@dataclass(frozen=True)
class Row:
    """One training or probe prompt.

    Args:
        messages: A conversation, as the chat template takes it.
        completion: What the assistant should say.
        images: Openers of the prompt's images, in order.
    """

    messages: list[dict]
    completion: str
    images: tuple[ImageSource, ...] = ()


# ------------------------------------------------------------------------------------------------------------ stage 1


@dataclass(frozen=True)
class Pair:
    """A question, a document, and how likely the label is Yes: 1 and 0 where names decide, .5 where they do not."""

    question: str
    document: Document
    chance_of_yes: float


def relevance_row(question: str, document: Document, word: str = "") -> Row:
    """The stage 1 prompt exactly as `lite` asks it, at 140 characters of text."""
    return Row(stage1_prompt(question, document, DOCUMENT_CHARS), word, image_sources([document]))


def image_sources(documents: Sequence[Document]) -> tuple[ImageSource, ...]:
    """Openers of the documents' images. Many made-up documents share a flag; its own opener lets `Batcher` know it."""
    return tuple(d.image if callable(d.image) else d.load_image for d in documents if d.image is not None)


def matching_row(world: World, title_only: float) -> Row:
    """Does the document speak of what the question names?

    Args:
        title_only: Share of texts cut down to their title: cheaper, and the name is in it.
    """
    rng = world.rng
    pair = made_up_pair(world)
    document = pair.document
    if document.text and rng.random() < title_only:
        document = replace(document, text="")
    yes = rng.random() < pair.chance_of_yes
    if rng.random() < LABEL_NOISE:
        yes = not yes
    return relevance_row(pair.question, document, YES if yes else NO)


def made_up_pair(world: World) -> Pair:
    """A question about a made-up country, with a document of it, of another one, or of one with a similar name.

    Yes where the document speaks of what the question names, No where it speaks of something else. For a document of
    the right country that is not about what was asked the label is drawn: which kind of document answers a question is
    left for GRPO to learn. So are questions that name no country, but its capital or peak, or describe its flag.
    """
    rng = world.rng
    this = world.country()
    question, by_name = made_up_question(world, this)
    kind = rng.random()
    if kind < RIGHT:
        return Pair(question, rng.choice(by_name), 1.0)
    if kind < RIGHT + RIGHT_COUNTRY:
        rest = [d for d in this.documents.values() if all(d is not wanted for wanted in by_name)]
        return Pair(question, rng.choice(rest), UNDECIDED)
    other = world.country()
    if kind < RIGHT + RIGHT_COUNTRY + SIMILAR_NAME:
        other = other.renamed(world.near_name(this.name))
    topic = next((topic for topic, d in this.documents.items() if d is by_name[0]), "")
    if topic in other.documents and rng.random() < SAME_TOPIC:
        document = other.documents[topic]
    else:
        document = other.documents[rng.choice(list(other.documents))]
    return Pair(question, document, 0.0)


def made_up_question(world: World, this: Country) -> tuple[str, list[Document]]:
    """A question in the words of the corpus, and the documents that its names point to."""
    rng, documents = world.rng, this.documents
    the = "the " if rng.random() < 0.1 else ""
    place = f"{the}{this.name}"
    symbol = rng.choice(list(SYMBOLS.values()))
    band = rng.choice(rng.choice(list(BANDS.values())))
    draw = rng.random()
    if draw < 0.25:
        return f"What is the capital of {place}?", [documents["capital"]]
    if draw < 0.45 and this.peak:
        return f"What is the highest point in {place}?", [documents["geo"]]
    if draw < 0.6:
        return f"What color is the {band} band of the flag of {place}?", [documents["image"]]
    if draw < 0.74:
        return f"Are the bands on the flag of {place} horizontal or vertical?", [documents["image"]]
    if draw < 0.9:
        return f"Does the flag of {place} show {symbol}?", [documents["image"]]
    other = world.country()
    two = [this, other] if rng.random() < 0.5 else [other, this]
    question = f"Which flag shows {symbol}: the flag of {two[0].name} or the flag of {two[1].name}?"
    return question, [two[0].documents["image"], two[1].documents["image"]]


# ------------------------------------------------------------------------------------------- looking, reading, copying


def describing_row(world: World) -> Row:
    """A flag, and what is on it in words."""
    flag = world.rng.choice(world.flags)
    return describe_prompt(flag.open, f" {flag.description()}")


def describe_prompt(image: ImageSource, completion: str = "") -> Row:
    """The prompt that asks for a flag's bands."""
    return Row(caption_prompt(DESCRIBE), completion, (image,))


def reading_row(world: World) -> Row:
    """One document, a question that it answers, and the answer."""
    asked = one_hop(world, world.country())
    [document] = asked.relevant
    return read_prompt(document, asked.question, f" {asked.answer}")


def picking_row(world: World, n_flags: tuple[int, int]) -> Row:
    """Numbered flags, one of which is to be described, in the words of a stage 2 chain.

    A chain must find the image that belongs to a number. From whole chains this does not form: few of their tokens
    depend on it. Half of the rows leave out the titles, and the number alone leads to the image.

    Args:
        n_flags: The least and the most.
    """
    rng = world.rng
    untitled = rng.random() < UNTITLED
    content: list[dict] = []
    chains, flags = [], []
    for number in range(1, rng.randint(*n_flags) + 1):
        name = (world.names.looping if rng.random() < LOOPING else world.names.name)(rng)
        heading = f"[{number}]" if untitled else f"[{number}] Flag of {name}"
        flag = rng.choice(world.flags)
        flags.append(flag.open)
        content += [{"type": "text", "text": f"{heading}\n"}, {"type": "image"}, {"type": "text", "text": "\n"}]
        chains.append(f" {heading} {HELPS}: {flag.description()}.")
    wanted = rng.randrange(len(chains))
    content.append({"type": "text", "text": f"Describe [{wanted + 1}]."})
    return Row([{"role": "user", "content": content}], chains[wanted], tuple(flags))


def read_prompt(document: Document, question: str, completion: str = "") -> Row:
    """The prompt that asks for an answer from one document."""
    content: list[dict] = [{"type": "text", "text": f" [1] {document.title}\n"}]
    if document.image is not None:
        content.append({"type": "image"})
    ending = f"{clip(document.text, DOCUMENT_CHARS)}\nQuestion: {question}\nAnswer."
    content.append({"type": "text", "text": ending})
    return Row([{"role": "user", "content": content}], completion, image_sources([document]))


def copying_row(world: World) -> Row:
    """A list of made-up titles, one of which is to be repeated."""
    rng = world.rng
    forms = ("Flag of {}", "{}: capital and government", "{}: geography", "{}: background")
    names = [world.names.name(rng) for _ in range(rng.randint(2, 5))]
    if rng.random() < 0.4:  # two documents of one country: the name alone does not tell where to go on
        names[0] = names[-1]
    rng.shuffle(names)
    titles = [rng.choice(forms).format(name) for name in names]
    return copy_prompt(titles, rng.randrange(len(titles)))


def copy_prompt(titles: Sequence[str], wanted: int) -> Row:
    """The prompt that asks for one title of a numbered list, with the completion."""
    listed = "\n".join(f" [{i}] {title}" for i, title in enumerate(titles, start=1))
    text = f"{listed}\nRepeat the title of [{wanted + 1}]."
    return Row([{"role": "user", "content": text}], f" [{wanted + 1}] {titles[wanted]}")


# ------------------------------------------------------------------------------------------------------------ batches


class Batcher:
    """Turns rows into model inputs, as the processor would, but resizing every image only once."""

    def __init__(self, processor: ProcessorMixin) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self._pixels: dict[ImageSource, dict[str, torch.Tensor]] = {}

    def prompt_ids(self, row: Row) -> list[int]:
        """Token ids of the prompt, an image placeholder repeated for each of its tokens."""
        text = self.processor.apply_chat_template(row.messages, add_generation_prompt=True, tokenize=False)
        token = self.processor.image_token
        for source in row.images:
            grid = self.pixels(source)["image_grid_thw"][0]
            count = int(grid.prod()) // self.processor.image_processor.merge_size**2
            text = text.replace(token, "<image>" * count, 1)
        return self.tokenizer(text.replace("<image>", token), add_special_tokens=False)["input_ids"]

    def pixels(self, source: ImageSource) -> dict[str, torch.Tensor]:
        """`pixel_values` and `image_grid_thw` of one image."""
        if source not in self._pixels:
            self._pixels[source] = self.processor.image_processor(images=[source()], return_tensors="pt")
        return self._pixels[source]

    def training_batch(self, rows: Sequence[Row]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Right-padded inputs, and which tokens are to be learned: the completions and their `<|im_end|>`."""
        prompts = [self.prompt_ids(row) for row in rows]
        completions = [
            self.tokenizer(f"{row.completion}<|im_end|>", add_special_tokens=False)["input_ids"] for row in rows
        ]
        sequences = [p + c for p, c in zip(prompts, completions, strict=True)]
        inputs = self._inputs(sequences, rows, left=False)
        learned = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
        for i, (prompt, sequence) in enumerate(zip(prompts, sequences, strict=True)):
            learned[i, len(prompt) : len(sequence)] = True
        return inputs, learned

    def prompt_batch(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Left-padded prompts, for scoring and generation."""
        return self._inputs([self.prompt_ids(row) for row in rows], rows, left=True)

    def _inputs(self, sequences: list[list[int]], rows: Sequence[Row], left: bool) -> dict[str, torch.Tensor]:
        longest = max(map(len, sequences))
        ids = torch.full((len(sequences), longest), self.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for i, sequence in enumerate(sequences):
            where = slice(longest - len(sequence), longest) if left else slice(0, len(sequence))
            ids[i, where] = torch.tensor(sequence)
            mask[i, where] = 1
        inputs = {"input_ids": ids, "attention_mask": mask}
        inputs["mm_token_type_ids"] = (ids == self.processor.image_token_id).int()
        pixels = [self.pixels(source) for row in rows for source in row.images]
        if pixels:
            inputs["pixel_values"] = torch.cat([p["pixel_values"] for p in pixels])
            inputs["image_grid_thw"] = torch.cat([p["image_grid_thw"] for p in pixels])
        return inputs
