"""P(relevant) without generation equals what generation would show."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from lite.datasets import flags
from lite.prompts import stage1_prompt
from lite.schema import Document
from lite.scoring import answer_tokens, encode, score

CHARS = 140


def some_pairs(count: int) -> list[tuple[str, Document]]:
    """Questions with text and image documents mixed."""
    examples = flags.load_examples("dev")[:3]
    return [(example.question, document) for example in examples for document in example.documents][:count]


def test_equals_the_first_step_of_generate(random_model) -> None:
    model, processor = random_model
    yes, no = answer_tokens(processor)
    pairs = some_pairs(6)
    expected = []
    for question, document in pairs:
        inputs = encode(processor, [stage1_prompt(question, document, CHARS)], [document])
        output = model.eval().generate(
            **inputs, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        expected.append(torch.softmax(output.logits[0][0, [yes, no]].double(), 0)[0].item())
    scores = score(model, processor, pairs, CHARS, batch_size=6)
    assert np.std(expected) > 1e-4
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_batch_size_and_order_do_not_matter(random_model) -> None:
    model, processor = random_model
    pairs = some_pairs(24)
    one = score(model, processor, pairs, CHARS, batch_size=5)
    shuffled = np.random.default_rng(0).permutation(len(pairs))
    other = score(model, processor, [pairs[i] for i in shuffled], CHARS, batch_size=24)
    np.testing.assert_allclose(other, one[shuffled], atol=1e-5)


def test_image_counts(random_model) -> None:
    model, processor = random_model
    colours = [Document(c, "image", "Flag", image=lambda c=c: Image.new("RGB", (64, 48), c)) for c in ("red", "blue")]
    red, blue = score(model, processor, [("What color is it?", document) for document in colours], CHARS)
    assert red != blue


def test_leaves_the_mode_of_the_model_and_reports_progress(random_model) -> None:
    model, processor = random_model
    model.train()
    done: list[int] = []
    score(model, processor, some_pairs(7), CHARS, batch_size=3, progress=done.append)
    assert model.training
    assert done == [3, 3, 1]


def test_no_pairs_no_scores(random_model) -> None:
    assert score(*random_model, [], CHARS).shape == (0,)
