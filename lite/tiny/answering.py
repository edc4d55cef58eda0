"""Stage 2 rows: a question, several documents, and the chain that ranks them and answers.

Prompts come from `lite.prompts.stage2_prompt` and completions from `lite.chains.compose_chain`, so that training and
use are the same text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lite.chains import compose_chain
from lite.prompts import stage2_prompt
from lite.schema import Document, Example
from lite.tiny.questions import one_hop, two_hops
from lite.tiny.skills import DOCUMENT_CHARS, Row, image_sources
from lite.tiny.world import World

UNANSWERABLE = 0.06  # share of rows without the relevant documents
OWN = 0.12  # share of the irrelevant documents that are of a country the question is about
SIMILAR_NAME = 0.15  # ... of a country of similar name
SAME_TOPIC = 0.5  # share of other countries' documents that are on a relevant one's topic


def answering_row(
    world: World, n_documents: tuple[int, int], two_hop: float, title_only: float, described: bool = True
) -> Row:
    """A question over shuffled documents, with the chain composed from the labels.

    Args:
        n_documents: The least and the most; a two-hop question takes at least two.
        two_hop: Share of questions that take two documents.
        title_only: Share of irrelevant texts that are cut down to their title.
        described: Whether the chain quotes the description of a relevant flag.
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
    return answer_row(example, documents, compose_chain(example, documents, DOCUMENT_CHARS, captions))


def answer_row(example: Example, documents: Sequence[Document], completion: str = "") -> Row:
    """The stage 2 prompt exactly as `lite` asks it, at 140 characters of text a document."""
    messages = stage2_prompt(example.question, documents, DOCUMENT_CHARS)
    return Row(messages, completion, image_sources(documents))
