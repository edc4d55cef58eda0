"""Vectors of documents and questions, by any sentence-transformers model: for text, or for text and images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from lite.hub import give_up_early
from lite.library.images import open_image
from lite.schema import LiteError, first_line

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PICTURES = 32  # that are decoded at once: each takes 5 MB


def embedding_size(model: str) -> int:
    """How many numbers a vector has."""
    return _load(model).get_embedding_dimension()


def embed_query(model: str, query: str) -> list[float]:
    """The vector of a question, of length 1."""
    return _load(model).encode_query(query, normalize_embeddings=True, show_progress_bar=False).tolist()


def embed_rows(model: str, rows: Sequence[dict]) -> list[list[float]]:
    """One vector of length 1 per row: of its `image` where it has one that the model sees, else of its
    `title` and `text`."""
    encoder = _load(model)
    sees = encoder.supports("image")
    pictures = [i for i, row in enumerate(rows) if row["image"] and sees]
    texts = [i for i, row in enumerate(rows) if not (row["image"] and sees)]
    vectors: list[list[float]] = [[] for _ in rows]

    def embed(chosen: Sequence[int], inputs: list) -> None:
        found = encoder.encode_document(inputs, normalize_embeddings=True, show_progress_bar=False)
        for i, vector in zip(chosen, found.tolist(), strict=True):
            vectors[i] = vector

    if texts:  # all at once: those of similar length are put together
        embed(texts, [f"{rows[i]['title']}\n{rows[i]['text']}" for i in texts])
    for start in range(0, len(pictures), PICTURES):
        chosen = pictures[start : start + PICTURES]
        embed(chosen, [open_image(rows[i]["image"]) for i in chosen])
    return vectors


@cache
def _load(model: str) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer  # with torch: seconds that a search by words does not wait

    give_up_early(model)
    try:
        return SentenceTransformer(model)
    except (OSError, ValueError) as error:
        raise LiteError(
            f"Cannot load the embedding {model}: {first_line(error)} Give a hub id or a folder of a "
            "sentence-transformers model, or --embedding none."
        ) from error
