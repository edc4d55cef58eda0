"""Stage 2 rows: a question, several documents, and the chain that ranks them and answers.

Prompts come from `lite.stages.prompts.stage2_prompt` and completions from `lite.train.chains.compose_chain`, so that
training and use are the same text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from lite.schema import Document, Example
from lite.stages.prompts import UNKNOWN, stage2_prompt
from lite.train.chains import compose_chain
from tools.tiny.questions import one_hop, two_hops
from tools.tiny.skills import DOCUMENT_CHARS, Row, image_sources
from tools.tiny.world import World

UNANSWERABLE = 0.06  # share of rows without the relevant documents
OWN = 0.12  # share of the irrelevant documents that are of a country the question is about
SIMILAR_NAME = 0.15  # ... of a country of similar name
TITLE_ONLY = 0.7  # share of the texts in the prompts of `citing_row` that are cut down to their title
SAME_TOPIC = 0.5  # share of other countries' documents that are on a relevant one's topic
SENTENCE = "The answer is"  # how a base with habits begins an answer


def answering_row(
    world: World,
    n_documents: tuple[int, int],
    two_hop: float,
    title_only: float,
    described: bool = True,
    in_sentences: float = 0.0,
    lone_sources: float = 0.0,
) -> Row:
    """A question over shuffled documents, with the chain composed from the labels.

    Args:
        n_documents: The least and the most; a two-hop question takes at least two.
        two_hop: Share of questions that take two documents.
        title_only: Share of irrelevant texts that are cut down to their title.
        described: Whether the chain quotes the description of a relevant flag.
        in_sentences: Share of the answers given as `The answer is red`.
        lone_sources: Share of the questions on two documents for which `<rank>` names only the one with the answer.
    """
    rng = world.rng
    this = world.country()
    asked = two_hops(world, this) if rng.random() < two_hop else one_hop(world, this)
    count = max(rng.randint(*n_documents), len(asked.relevant))
    documents = [] if rng.random() < UNANSWERABLE else list(asked.relevant)
    topics = ["image" if d.image else d.id.rpartition(":")[2] for d in asked.relevant]
    own = list(asked.others)
    rng.shuffle(own)
    while len(documents) < count:
        draw = rng.random()
        if own and draw < OWN:
            document = own.pop()
        else:
            other = world.country()
            if draw < OWN + SIMILAR_NAME:
                other = other.renamed(world.near_name(this.name))
            topic = rng.choice(topics) if rng.random() < SAME_TOPIC else rng.choice(list(other.documents))
            document = other.documents.get(topic, other.documents["capital"])
        if document.text and rng.random() < title_only:
            document = replace(document, text="")
        documents.append(document)
    rng.shuffle(documents)
    example = asked.example()
    captions = asked.captions if described else {}
    chain = compose_chain(example, documents, DOCUMENT_CHARS, captions)
    if lone_sources and len(asked.relevant) > 1 and UNKNOWN not in chain and rng.random() < lone_sources:
        compared = [d for d in asked.relevant if d.title == f"Flag of {asked.answer}"]
        (lone,) = compared or asked.relevant[-1:]
        chain = re.sub("<rank>.*</rank>", f"<rank>[{documents.index(lone) + 1}]</rank>", chain)
    if in_sentences and UNKNOWN not in chain and rng.random() < in_sentences:
        chain = re.sub("<answer>(.*)</answer>", rf"<answer>{SENTENCE} \1</answer>", chain)
    return answer_row(example, documents, chain)


def citing_row(world: World, n_documents: tuple[int, int]) -> Row:
    """A prompt with a chain that calls up to three documents helpful at random: `<rank>` has to name them.

    From whole chains this forms for one document only. Of two the chain speaks rightly, but `<rank>` names others, and
    then GRPO finds that naming one is the better bet.

    Args:
        n_documents: The least and the most; there are at least two.
    """
    rng = world.rng
    asked = one_hop(world, world.country())
    documents, captions = [], {}
    for _ in range(max(2, rng.randint(*n_documents))):
        other = world.country()
        document = other.documents["image" if rng.random() < 0.5 else rng.choice(list(other.documents))]
        if document.text and rng.random() < TITLE_ONLY:
            document = replace(document, text="")
        documents.append(document)
        captions[other.documents["image"].id] = other.flag.description()
    helpful = rng.sample(documents, min(len(documents), rng.choice((1, 2, 2, 2, 3))))
    example = Example("", asked.question, tuple(documents), frozenset(d.id for d in helpful), (asked.answer,))
    return answer_row(example, documents, compose_chain(example, documents, DOCUMENT_CHARS, captions))


def answer_row(example: Example, documents: Sequence[Document], completion: str = "") -> Row:
    """The stage 2 prompt exactly as `lite` asks it, at 140 characters of text a document."""
    messages = stage2_prompt(example.question, documents, DOCUMENT_CHARS)
    return Row(messages, completion, image_sources(documents))
