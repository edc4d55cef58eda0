"""P(relevant) without generation equals what generation would show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lite.data import flags
from lite.models import families, shared_prompt
from lite.models.inputs import encode
from lite.schema import Document, LiteError
from lite.stages.filter import answer_tokens, score
from lite.stages.prompts import stage1_prompt

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
    assert sum(done) == 7
    assert max(done) == 3


def images_and_texts(question: str) -> list[tuple[str, Document]]:
    colours = ("red", "blue", "white")
    pictures = [Document(c, "image", f"Flag {c}", image=lambda c=c: Image.new("RGB", (64, 48), c)) for c in colours]
    texts = [Document(c, "text", "Flag", text=f"The flag is {c}. " * i) for i, c in enumerate(colours, start=1)]
    return [(question, document) for document in (*pictures, *texts)]


def test_shared_question_scores_as_an_unknown_model_family_is_scored(
    random_model, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several questions, one of them with one document, and prompts that differ from the first image on
    pairs = [*images_and_texts("Which flag is red?"), *images_and_texts("Is it blue?"), *some_pairs(1)]
    shared = score(*random_model, pairs, CHARS, batch_size=4)
    attention = random_model[0].config.text_config._attn_implementation
    assert attention == "sdpa"  # as before
    monkeypatch.setattr(families, "FAMILIES", ())
    np.testing.assert_allclose(shared, score(*random_model, pairs, CHARS, batch_size=4), atol=1e-5)
    assert np.std(shared) > 1e-5


def test_question_is_computed_once_for_its_documents(random_model, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = random_model
    pairs = images_and_texts("Which of these flags has a red field and three white stripes on it? " * 3)
    seen = []
    forward = model.forward
    monkeypatch.setattr(
        model, "forward", lambda **inputs: (seen.append(inputs["input_ids"].numel()), forward(**inputs))[1]
    )
    score(model, processor, pairs, CHARS)
    lengths = [
        int(encode(processor, [stage1_prompt(*pair, CHARS)], [pair[1]])["attention_mask"].sum()) for pair in pairs
    ]
    opening = stage1_prompt(pairs[0][0], Document("", "text", ""), CHARS)
    shared = len(processor.tokenizer(opening[0]["content"][0]["text"].split("Document")[0])["input_ids"])
    assert shared > 60
    assert len(seen) == 1
    assert seen[0] <= sum(lengths) - (len(pairs) - 1) * shared


def test_model_with_an_attention_of_its_own_is_refused(random_model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_prompt, "prepare", lambda model: None)
    with pytest.raises(LiteError, match="backend: transformers"):
        score(*random_model, some_pairs(3), CHARS)


def test_no_pairs_no_scores(random_model) -> None:
    assert score(*random_model, [], CHARS).shape == (0,)
