"""The embedded model: what ships, and the script that makes it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
from functools import partial

import bitsandbytes as bnb
import pytest
import torch
from bitsandbytes import functional as nf4

from lite.config.model import ModelConfig
from lite.data.flags import country, load_corpus, load_examples
from lite.models.loading import load_model
from lite.runs import TINY
from lite.stages.prompts import DISMISSAL, NO, UNKNOWN, YES, parse_stage1, parse_stage2
from lite.train.rewards import discussion
from tools.tiny import build as tiny_build
from tools.tiny.answering import answering_row, citing_row
from tools.tiny.drawing import BANDS, SHADES, SYMBOLS
from tools.tiny.model import build_model, build_processor, tokenizer_corpus
from tools.tiny.probe import Figure, probe, read_probe
from tools.tiny.questions import flag_question
from tools.tiny.skills import Batcher, picking_row, relevance_row
from tools.tiny.training import nf4_rounded
from tools.tiny.world import ACCENTED, World, train_countries, train_documents

TINY_STEPS = 0.001  # one step of each phase


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in a build: sums are taken in the same order, and two small threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base():
    return load_model(ModelConfig())


@pytest.fixture(scope="module")
def unseen():
    return {country(i) for split in ("dev", "test") for e in load_examples(split) for i in e.relevant}


def test_ships_small_and_loads_in_nf4(base):
    model, processor = base
    assert sum(file.stat().st_size for file in TINY.rglob("*") if file.is_file()) < 8_000_000
    quantised = {name: m for name, m in model.named_modules() if isinstance(m, bnb.nn.Linear4bit)}
    assert not [name for name in quantised if "visual" in name or "lm_head" in name]
    assert len(quantised) == 7 * model.config.text_config.num_hidden_layers
    assert {module.weight.quant_type for module in quantised.values()} == {"nf4"}
    assert all(module.in_features % 64 == 0 for module in quantised.values())
    assert processor.tokenizer.padding_side == "left"


@pytest.mark.parametrize("word", [YES, NO])
def test_each_answer_is_one_token(base, word):
    _, processor = base
    assert len(processor.tokenizer(word, add_special_tokens=False)["input_ids"]) == 1


def test_answers_stage_1_prompts_in_the_wanted_form(base):
    model, processor = base
    [example] = [e for e in load_examples("dev") if e.category == "image"][:1]
    rows = [relevance_row(example.question, document) for document in example.documents[:8]]
    tokens = model.generate(**Batcher(processor).prompt_batch(rows), max_new_tokens=4, do_sample=False)
    for completion in processor.batch_decode(tokens[:, -4:], skip_special_tokens=True):
        word, reason = parse_stage1(completion.rpartition("assistant\n")[2])
        assert word in (YES, NO), reason


def test_committed_probe_meets_its_bounds():
    report = json.loads((TINY / "probe.json").read_text(encoding="utf-8"))
    figures = {figure.skill: figure for figure in read_probe(TINY / "probe.json")}
    assert {skill: figure.required for skill, figure in figures.items() if figure.required} == {
        "name matching": 0.95,
        "band colours": 0.9,
        "copying": 0.8,
    }
    assert all(figure.passed and figure.chance < 0.6 for figure in figures.values())
    assert report["sha256"] == hashlib.sha256((TINY / "model.safetensors").read_bytes()).hexdigest()


def test_a_sample_of_the_probe_agrees_with_the_committed_figures(base):
    committed = {figure.skill: figure.figure for figure in read_probe(TINY / "probe.json")}
    for figure in probe(*base, every=3):
        assert figure.figure == pytest.approx(committed[figure.skill], abs=0.15), figure


def test_nothing_of_the_unseen_countries_is_trained_on(unseen):
    assert not unseen & set(train_countries())
    assert {country(i) for i in train_documents()} == set(train_countries())
    lines = {line.strip() for text in tokenizer_corpus() for line in text.splitlines()}
    hidden = [document for i, document in load_corpus().items() if country(i) in unseen]
    assert lines.isdisjoint(document.title for document in hidden)
    assert lines.isdisjoint(document.text for document in hidden if document.text)
    assert lines.isdisjoint(e.question for split in ("dev", "test") for e in load_examples(split))


def test_the_tokenizer_is_the_one_that_the_script_makes():
    made = build_processor().tokenizer
    assert made.get_vocab() == load_model(ModelConfig())[1].tokenizer.get_vocab()


def test_batches_are_what_the_processor_makes(base):
    _, processor = base
    corpus = load_corpus()
    flag, text = corpus["img:fr"], corpus["txt:fr:capital"]
    rows = [relevance_row("What is the capital of France?", document) for document in (flag, text)]
    prompts = [processor.apply_chat_template(row.messages, add_generation_prompt=True, tokenize=False) for row in rows]
    expected = processor(text=prompts, images=[flag.load_image()], padding=True, return_tensors="pt")
    batch = Batcher(processor).prompt_batch(rows)
    assert set(batch) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(batch[name], tensor), name


def test_training_rounds_weights_as_loading_does(base):
    loaded, _ = base
    model = build_model(build_processor(), seed=0)
    exact = model.model.language_model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        exact.copy_(torch.randn(exact.shape))
    before = exact.detach().clone()
    with nf4_rounded(model):
        rounded = exact.detach().clone()
    assert torch.equal(exact, before)
    layer = bnb.nn.Linear4bit(128, 384, bias=False, quant_type="nf4", compress_statistics=True)
    layer.weight = bnb.nn.Params4bit(before, requires_grad=False, quant_type="nf4", compress_statistics=True)
    layer = layer.to("cpu")
    assert torch.equal(nf4.dequantize_4bit(layer.weight.data, layer.weight.quant_state), rounded)
    assert loaded.model.language_model.layers[0].mlp.up_proj.weight.quant_state.nested


def test_a_made_up_flag_shows_what_its_description_says():
    flags = [flag for flag in World(random.Random(1), 40).flags if flag.orientation != "plain" and not flag.symbol]
    assert flags
    for flag in flags:
        bands = BANDS[flag.orientation, len(flag.colors)]
        width, height = flag.image.size
        for i, color in enumerate(flag.colors):
            along, across = (i + 0.15) / len(bands), 0.95  # away from the disc that some flags have in the middle
            x, y = (across, along) if flag.orientation == "horizontal" else (along, across)
            pixel = flag.image.getpixel((int(x * width), int(y * height)))
            shades = SHADES[color]
            assert any(max(abs(p - s) for p, s in zip(pixel, shade, strict=True)) <= 12 for shade in shades)


def test_made_up_questions_have_the_answer_that_the_flag_shows():
    rng = random.Random(0)
    for flag in World(rng, 200).flags:
        question, answer = flag_question(rng, flag, "Nowhere")
        if question.startswith("Does"):
            assert (answer == "yes") == bool(flag.symbol and f"{SYMBOLS[flag.symbol]}?" in question)
        elif question.startswith("Are"):
            assert answer == flag.orientation
        else:
            bands = BANDS[flag.orientation, len(flag.colors)]
            assert flag.colors[bands.index(question.split()[4])] == answer


@pytest.mark.parametrize("seed", range(20))
def test_of_several_flags_the_numbered_one_is_described(seed):
    world = World(random.Random(seed), 40)
    row = picking_row(world, (1, 6))
    *listed, request = row.messages[0]["content"]
    number = int(re.fullmatch(r"Describe \[(\d)\]\.", request["text"]).group(1))
    headings = [part["text"].strip() for part in listed if part.get("text", "").strip()]
    assert len(row.images) == len(headings) == sum(part["type"] == "image" for part in listed)
    [flag] = {flag for flag in world.flags if flag.open == row.images[number - 1]}
    assert row.completion == f" {headings[number - 1]} helps: {flag.description()}."


def test_looping_names_repeat_their_syllables():
    names = World(random.Random(0), 1).names
    drawn = [names.looping(random.Random(seed)).lower().replace(" ", "") for seed in range(200)]
    assert sum(re.search(r"(..+)\1|(..+).*\2", name) is not None for name in drawn) > 150


def test_accented_names_hold_a_letter_of_two_tokens(base):
    names = World(random.Random(0), 1).names
    names.accented_share = 0.5
    drawn = [names.name(random.Random(seed)) for seed in range(200)]
    assert 60 < sum(any(letter in name for letter in ACCENTED) for name in drawn) < 120
    assert not any(name[0] in ACCENTED for name in drawn)
    assert all(len(base[1].tokenizer(letter, add_special_tokens=False)["input_ids"]) == 2 for letter in ACCENTED)


def test_drawn_heights_are_not_those_of_the_train_countries():
    def heights(drawn: bool) -> list[str]:
        world = World(random.Random(0), 1)
        world.draw_heights = drawn
        countries = [c for c in (world.country() for _ in range(400)) if c.peak and "geo" in c.documents]
        found = [re.search(rf"{re.escape(c.peak)} ([\d,.]+) m\b", c.documents["geo"].text) for c in countries]
        return [match[1] for match in found if match]

    borrowed, drawn = set(heights(False)), heights(True)
    assert len(drawn) > 150
    assert sum(height in borrowed for height in drawn) < 10
    assert all(0 < int(height.replace(",", "")) < 9000 for height in drawn)
    assert sum(re.search(r"(\d).*\1", height) is not None for height in drawn) > 60


def test_citing_rows_rank_what_their_chain_calls_helpful():
    world = World(random.Random(0), 40)
    numbers = []
    for _ in range(60):
        row = citing_row(world, (1, 8))
        text = "".join(part.get("text", "") for part in row.messages[0]["content"])
        output = parse_stage2(row.completion, len(re.findall(r"^\[(\d)\] ", text, flags=re.MULTILINE)))
        assert not output.failure
        said = discussion(output.reasoning)
        assert len(said) >= 2
        assert output.ranking == tuple(number for number in said if not DISMISSAL.search(said[number]))
        numbers.append(len(output.ranking))
    assert set(numbers) == {1, 2, 3}


def test_stage_2_rows_are_well_formed_and_end_in_the_answer():
    world = World(random.Random(0), 40)
    for _ in range(60):
        row = answering_row(world, (1, 5), two_hop=0.5, title_only=0.5)
        text = "".join(part.get("text", "") for part in row.messages[0]["content"])
        numbers = re.findall(r"^\[(\d)\] ", text, flags=re.MULTILINE)
        output = parse_stage2(row.completion, len(numbers))
        assert not output.failure
        assert output.ranking or output.answer == UNKNOWN
        assert len(row.images) == sum(part["type"] == "image" for part in row.messages[0]["content"])


def test_rows_with_habits_answer_in_sentences_and_name_lone_sources():
    world = World(random.Random(0), 40)
    sentences = lone = 0
    for _ in range(200):
        row = answering_row(world, (2, 5), 1.0, 0.5, in_sentences=0.5, lone_sources=0.65)
        output = parse_stage2(row.completion, 5)
        assert not output.failure
        said = discussion(output.reasoning)
        helpful = {number for number in said if not DISMISSAL.search(said[number])}
        assert set(output.ranking) <= helpful
        if output.answer == UNKNOWN:
            continue
        sentences += output.answer.startswith("The answer is ")
        if len(output.ranking) < len(helpful):
            lone += 1
            prompt = "".join(part.get("text", "") for part in row.messages[0]["content"])
            city_state = f"Flag of {output.answer.removeprefix('The answer is ')}" in prompt
            about_flag = city_state or "What is the capital of the country whose flag" not in prompt
            (number,) = output.ranking
            assert ("Flag of" in said[number].split(" helps")[0]) == about_flag
    assert 70 < sentences < 120
    assert 90 < lone < 150


def test_the_tokenizer_gives_back_a_chain_and_reads_names_alike_everywhere(base):
    tokenizer = base[1].tokenizer
    chain = "<think>[1] Riga: capital and government helps: Riga. </think>\n<rank>[1]</rank>\n<answer>Riga</answer>"
    tokens = tokenizer(chain, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(tokens) == chain
    name = tokenizer(" Riga", add_special_tokens=False)["input_ids"]
    opened, closed = (tokens.index(tokenizer.convert_tokens_to_ids(tag)) for tag in ("<answer>", "</answer>"))
    assert tokens[opened + 1 : closed] == name


def test_a_build_that_goes_on_equals_an_unbroken_one(tmp_path):
    unbroken, _ = tiny_build.train(seed=3, steps_scale=TINY_STEPS, keep=tmp_path)
    for kept in sorted(tmp_path.iterdir())[3:]:
        kept.unlink()
    resumed, _ = tiny_build.train(seed=3, steps_scale=TINY_STEPS, keep=tmp_path)
    for name, tensor in unbroken.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_the_same_seed_gives_the_same_weights():
    first, _ = tiny_build.train(seed=3, steps_scale=TINY_STEPS)
    second, _ = tiny_build.train(seed=3, steps_scale=TINY_STEPS)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_a_base_that_fails_its_probe_is_not_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tiny_build, "probe", partial(probe, splits=("dev",), every=30))
    out = tmp_path / "weights"
    assert tiny_build.main(["--out", str(out), "--steps_scale", str(TINY_STEPS)]) == 1
    assert "FAILED" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_base_that_passes_replaces_the_old_one(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny_build, "probe", lambda model, processor: [Figure("name matching", 1.0, 1, 0.5, 0.95)])
    out = tmp_path / "weights"
    out.mkdir()
    (out / "old").touch()
    assert tiny_build.main(["--out", str(out), "--steps_scale", str(TINY_STEPS)]) == 0
    assert not (out / "old").exists()
    assert read_probe(out / "probe.json")[0].passed
    load_model(ModelConfig(model_name_or_path=str(out)))


@pytest.mark.slow
@pytest.mark.skipif("LITE_REBUILD" not in os.environ, reason="set LITE_REBUILD=1 for the full build: over two hours")
def test_the_script_makes_weights_as_good_as_the_committed_ones(tmp_path):
    """Not the same bits: sums differ in the last ones between torch versions and kinds of CPU."""
    built = {figure.skill: figure.figure for figure in tiny_build.build(tmp_path / "weights", seed=0)}
    for committed in read_probe(TINY / "probe.json"):
        assert built[committed.skill] >= committed.figure - 0.1, committed.skill
