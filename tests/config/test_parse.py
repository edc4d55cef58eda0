"""The settings parser and the command line around it."""

import dataclasses
import os
from pathlib import Path

import pytest
import yaml
from accelerate.state import AcceleratorState
from trl import GRPOConfig

from lite.cli.main import main
from lite.config.model import ModelConfig
from lite.config.parse import parse
from lite.config.runs import Stage1Config, Stage2Config
from lite.schema import LiteError

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*/stage?.yaml"))
OF_TRL = {field.name for field in dataclasses.fields(GRPOConfig)}
OURS = [field.name for field in dataclasses.fields(Stage1Config) if field.name not in OF_TRL]
OURS += [field.name for field in dataclasses.fields(ModelConfig)]


@pytest.fixture(autouse=True)
def own_device(monkeypatch, tmp_path):
    """`use_cpu` binds accelerate's process-wide state to the CPU; tests that need a GPU come after these."""
    monkeypatch.chdir(tmp_path)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def settings(tmp_path):
    """Writes a settings file and returns the arguments that name it."""

    def write(text):
        path = tmp_path / "settings.yaml"
        path.write_text(text if isinstance(text, str) else yaml.safe_dump(text))
        return ["--config", str(path), "--use_cpu", "true"]

    return write


def read(arguments, config_class=Stage1Config):
    return parse(config_class, "train stage1", arguments)


def refusal(arguments):
    with pytest.raises(LiteError) as raised:
        read(arguments)
    return str(raised.value)


def status(arguments):
    """The exit status, returned or raised. Without Unsloth, which would patch trl for every later test."""
    if arguments[:2] == ["train", "stage1"]:
        arguments = ["train", "stage1", "--backend", "transformers", *arguments[2:]]
    try:
        return main(arguments)
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_recipe_says_what_is_read(path):
    config_class = {"stage1": Stage1Config, "stage2": Stage2Config}[path.stem]
    config, model_config = read(["--config", str(path), "--use_cpu", "true"], config_class)
    for name, value in yaml.safe_load(path.read_text()).items():
        source = model_config if name in {field.name for field in dataclasses.fields(ModelConfig)} else config
        expected = [value] if name == "report_to" else value
        assert getattr(source, name) == expected, name
    assert config.generation_batch_size % config.num_generations == 0
    assert config.output_dir == f"runs/{path.parent.name}/{path.stem}"


def test_command_line_wins_over_the_file_and_the_file_over_the_default(settings):
    arguments = settings({"max_steps": 7, "lora_r": 4, "hard_share": 0.25})
    config, model_config = read([*arguments, "--max_steps", "9", "--lora_alpha=5"])
    assert (config.max_steps, config.hard_share) == (9, 0.25)
    assert (model_config.lora_r, model_config.lora_alpha) == (4, 5)
    config, model_config = read(settings({}))
    assert (config.hard_share, model_config.lora_r) == (0.6, 16)


def test_dashes_and_no_prefixes_are_read_as_by_trl(settings):
    config, model_config = read([*settings({}), "--no_load_in_4bit", "--hard-share", "0.5"])
    assert (config.hard_share, model_config.load_in_4bit) == (0.5, False)


def test_numbers_that_yaml_reads_as_text_are_numbers(settings):
    assert read(settings("learning_rate: 1e-5"))[0].learning_rate == 1e-5


def test_unknown_field_in_the_file_is_named_with_a_suggestion(settings):
    message = refusal(settings({"lora_rank": 3, "max_stepz": 3}))
    assert "settings.yaml: unknown field 'lora_rank'" in message
    message = refusal(settings({"max_stepz": 3}))
    assert "'max_stepz' — did you mean max_steps?" in message


def test_unknown_argument_is_named_with_a_suggestion(settings):
    message = refusal([*settings({}), "--max_stepz", "3"])
    assert "Unknown argument --max_stepz — did you mean max_steps?" in message
    assert "xyzzy." in refusal([*settings({}), "--xyzzy=3"])
    assert "--max_step " in refusal([*settings({}), "--max_step", "3"])  # argparse would take it for max_steps
    assert "stray" in refusal([*settings({}), "stray"])


def test_unreadable_file_is_named(tmp_path):
    assert "gone.yaml" in refusal(["--config", "gone.yaml"])
    assert str(tmp_path) in refusal(["--config", str(tmp_path)])
    assert "--config needs a file" in refusal(["--config"])


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "3"])
def test_file_that_is_no_mapping_is_named(settings, text):
    assert "settings.yaml must hold `field: value` lines" in refusal(settings(text))


@pytest.mark.parametrize("text", ["a: [1,", "a: b: c", "\tmax_steps: 3", "max_steps: 'three"])
def test_file_that_is_no_yaml_is_named(settings, text):
    assert "settings.yaml is not YAML" in refusal(settings(text))


@pytest.mark.parametrize(
    "text",
    ["a: !!python/object/apply:os.system ['touch owned']", "[" * 5000 + "]" * 5000, "a: &a [*a, *b]", "\u0000"],
)
def test_file_that_would_build_more_than_values_is_refused(settings, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "settings.yaml is not YAML" in refusal(settings(text))
    assert not (tmp_path / "owned").exists()


def test_a_recipe_sets_no_environment_variable(settings, monkeypatch):
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    assert "cannot set environment variables" in refusal(settings({"env": {"LD_PRELOAD": "/tmp/evil.so"}}))
    assert "cannot set environment variables" in refusal(settings({"env": None}))
    assert "LD_PRELOAD" not in os.environ


@pytest.mark.parametrize(
    ("field", "value"),
    [("output_dir", {"a": 1}), ("data", 5), ("max_steps", [1]), ("model_name_or_path", ["tiny"]),
     ("learning_rate", None), ("report_to", {"a": 1}), ("limit", {})],
)  # fmt: skip
def test_value_of_another_kind_is_named(settings, field, value):
    assert f"settings.yaml: {field} is " in refusal(settings({field: value}))


def test_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    assert "image.png" in refusal(["--config", str(tmp_path / "image.png")])


def test_file_may_follow_an_equals_sign(settings):
    _, path, *rest = settings({"max_steps": 7})
    assert read([f"--config={path}", *rest])[0].max_steps == 7


def test_batch_that_groups_do_not_divide_is_refused_with_both_numbers(settings):
    message = refusal(settings({"per_device_train_batch_size": 6, "num_generations": 4}))
    assert "generation_batch_size (6)" in message
    assert "num_generations (4)" in message


def test_checkpoint_between_two_generations_is_refused_as_resume_would_differ(settings):
    batches = {"per_device_train_batch_size": 4, "num_generations": 4, "gradient_accumulation_steps": 2}
    twice = batches | {"steps_per_generation": 4}
    assert "multiple of 2" in refusal(settings(twice | {"save_steps": 25}))
    assert "multiple of 3" in refusal(settings(batches | {"num_iterations": 3, "save_steps": 20}))
    share = {"max_steps": 100, "save_steps": 0.05}
    assert "multiple of 2" in refusal(settings(twice | share))
    finer = twice | share | {"max_steps": 120}
    for fits in (twice | {"save_steps": 20}, batches | {"save_steps": 25}, batches | share, finer):
        read(settings(fits))
    read(settings(twice | {"save_steps": 25, "save_strategy": "no"}))


def test_scaling_that_the_aggregation_of_stage_2_does_not_look_at_is_refused(settings):
    with pytest.raises(LiteError, match=r"scale_rewards is none.*sum_then_normalize"):
        read(settings({"scale_rewards": "none"}), Stage2Config)
    asked = {"scale_rewards": "none", "multi_objective_aggregation": "sum_then_normalize"}
    assert read(settings(asked), Stage2Config)[0].multi_objective_aggregation == "sum_then_normalize"
    assert read(settings({}), Stage2Config)[0].multi_objective_aggregation == "normalize_then_sum"


@pytest.mark.parametrize("arguments", [["--max_steps", "many"], ["--backend", "vllm"]])
def test_value_of_a_wrong_type_is_wrong_usage(settings, arguments, capsys):
    assert status(["train", "stage1", *settings({}), *arguments]) == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["train", "--help"], ["train", "-h"]])
def test_help_leads_to_the_commands(arguments, capsys):
    assert status(arguments) == 0
    assert "train stage1" in capsys.readouterr().out


def test_help_of_a_command_lists_our_fields_with_their_meaning(capsys):
    assert status(["train", "stage1", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for name in [*OURS, "learning_rate", "num_generations", "output_dir"]:
        assert f"--{name}" in out
    for field in [*dataclasses.fields(Stage1Config), *dataclasses.fields(ModelConfig)]:
        if field.name in OURS:
            assert field.metadata["help"] in out


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_help_lists_what_recipes_set(capsys, stage):
    status(["train", stage, "--help"])
    out = capsys.readouterr().out
    recipe_fields = {name for path in RECIPES if path.stem == stage for name in yaml.safe_load(path.read_text())}
    assert recipe_fields
    assert {name for name in recipe_fields if f"--{name}" not in out} == set()


def test_all_of_trls_fields_are_listed_on_request(capsys):
    assert status(["train", "stage1", "--help_all"]) == 0
    assert "--vllm_mode" in capsys.readouterr().out


def test_what_the_user_can_mend_is_one_message_and_status_one(settings, capsys):
    assert status(["train", "stage1", *settings({"max_stepz": 3})]) == 1
    error = capsys.readouterr().err
    assert error.startswith("lite: ")
    assert "max_stepz" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("changes", [{}, {"load_in_4bit": False, "shared_prompt": False}])
def test_sampling_with_vllm_is_refused(settings, changes):
    with pytest.raises(LiteError, match="lite samples by itself"):
        parse(Stage1Config, "train stage1", settings({"use_vllm": True} | changes))
