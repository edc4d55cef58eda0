"""The recipes: settings that explain themselves, and shell that does what its comments say. Nothing is installed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.state import AcceleratorState

from lite.cli.main import main
from lite.models.shapes import shape_of

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes"
QWEN = sorted(RECIPES.glob("qwen*/stage1.yaml"))
QWEN_STAGE2 = sorted(RECIPES.glob("qwen*/stage2.yaml"))
# A value needs a comment unless it says all itself: what, where to, and what TRL's own --help explains as well.
PLAIN = {
    *("model_name_or_path", "data", "output_dir", "report_to", "seed", "bf16"),
    *("lora_alpha", "lr_scheduler_type", "warmup_steps", "temperature"),
    *("logging_steps", "save_total_limit", "log_completions"),
}


def value_lines(path):
    """(field, comment) of every line that sets a value."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return [(line.split(":")[0], line.partition(" # ")[2].strip()) for line in lines]


@pytest.mark.parametrize("path", QWEN + QWEN_STAGE2, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_value_has_a_comment_or_is_plain(path):
    assert [name for name, comment in value_lines(path) if name not in PLAIN and len(comment) < 8] == []
    assert {name for name, _ in value_lines(path)} >= PLAIN


def test_qwen_profiles_set_the_same_fields_in_the_same_order():
    for recipes in (QWEN, QWEN_STAGE2):
        assert len(recipes) == 4
        assert len({tuple(name for name, _ in value_lines(path)) for path in recipes}) == 1


@pytest.mark.parametrize("path", QWEN_STAGE2, ids=lambda path: path.parent.name)
def test_stage2_fits_its_stage1_and_its_comments(path):
    text, recipe = path.read_text(), yaml.safe_load(path.read_text())
    stage1 = yaml.safe_load((path.parent / "stage1.yaml").read_text())
    for shared in ("model_name_or_path", "max_pixels", "lora_r", "data"):
        assert recipe[shared] == stage1[shared]
    assert Path(recipe["output_dir"]).parent == Path(stage1["output_dir"]).parent
    batch = recipe["per_device_train_batch_size"] * recipe["gradient_accumulation_steps"]
    asked, each = map(int, re.search(r"(\d+) questions, (\d+) answers each", text).groups())
    assert asked == recipe["max_steps"] * batch / recipe["num_generations"]
    assert each == recipe["num_generations"]
    assert int(re.search(r"about (\d+) tokens of a text", text)[1]) == recipe["document_chars"] // 4
    assert len(recipe["reward_weights"]) == 4


@pytest.mark.parametrize("path", QWEN, ids=lambda path: path.parent.name)
def test_numbers_in_comments_follow_from_the_values(path):
    text, recipe = path.read_text(), yaml.safe_load(path.read_text())
    batch = recipe["per_device_train_batch_size"] * recipe["gradient_accumulation_steps"]
    judged, each = map(int, re.search(r"(\d+) judged pairs, (\d+) times each", text).groups())
    assert judged == recipe["max_steps"] * batch / recipe["num_generations"]
    assert each == recipe["num_generations"]

    shape = shape_of(recipe["model_name_or_path"])
    adapter = shape.adapter(recipe["lora_r"])
    megabytes, rank = map(int, re.search(r"\((\d+) MB at (\d+)\)", text).groups())
    assert rank == recipe["lora_r"]
    assert megabytes == pytest.approx(adapter * 4 / 1e6, abs=1)

    assert int(re.search(r"(\d+) tokens per image", text)[1]) == recipe["max_pixels"] // 32**2
    family, _, size = path.parent.name.rpartition("-")
    assert f"{family.replace('qwen', 'Qwen').replace('-vl', '-VL')}-{size.upper()}" in text.splitlines()[0]


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.sh")), ids=lambda path: path.name)
def test_shell_parses_and_says_what_it_is(path):
    subprocess.run(["bash", "-n", path], check=True)
    lines = path.read_text().splitlines()
    assert lines[lines[0].startswith("#!")].startswith("# ")


@pytest.mark.parametrize("path", sorted(ROOT.glob("requirements*.txt")), ids=lambda path: path.name)
def test_requirements_are_exact_versions_and_name_no_place(path):
    lines = [line for line in path.read_text().splitlines() if line and not line.lstrip().startswith("#")]
    assert len(lines) > 20
    pinned = re.compile(r"[a-z0-9._-]+(\[[a-z,]+\])?==[^\s;]+( ;.*| --hash.*)?$")
    assert [line for line in lines if not pinned.match(line)] == []
    places = re.compile(r"https?://|file:|--?(extra-)?index|--find-links|(^|\s)/|\.\./|/(home|root|work|tmp|Users)/")
    assert [line for line in path.read_text().splitlines() if places.search(line)] == []


def executable(path, script):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)


class Copy:
    """A copy of the recipes in a folder of their own, where nvidia-smi, uv and lite are ours."""

    def __init__(self, folder):
        self.root, self.bin, self.calls = folder / "repo", folder / "bin", folder / "calls"
        shutil.copytree(RECIPES, self.root / "recipes")
        for name in ("pyproject.toml", "requirements.txt", "requirements-gpu.txt"):
            shutil.copy(ROOT / name, self.root)
        self.gpu(None)
        environment = "mkdir -p .venv/bin; cp {bin}/lite {bin}/python .venv/bin"
        executable(self.bin / "lite", 'echo "lite $*"')
        own = f'PYTHONPATH={ROOT} exec {sys.executable} "$@"'  # what the recipes ask the package itself
        executable(self.bin / "python", f'case "$*" in "-m lite."*) {own} ;; *) echo "python $*" ;; esac')
        executable(
            self.bin / "uv",
            f'echo "$*" >> {self.calls}\nif [ "$1" = venv ]; then {environment.format(bin=self.bin)}; fi',
        )

    def gpu(self, answer, code=0):
        code = 9 if answer is None else code
        executable(self.bin / "nvidia-smi", f"printf '%s\\n' '{answer or ''}'; exit {code}")

    def bash(self, script, cwd=None, **environment):
        settings = {"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(self.root), **environment}
        return subprocess.run(
            ["bash", "-c", script], cwd=cwd or self.root, env=settings, capture_output=True, text=True, timeout=30
        )

    def installs(self):
        """The calls of uv since the last time."""
        calls = self.calls.read_text().splitlines() if self.calls.exists() else []
        self.calls.unlink(missing_ok=True)
        return calls

    def profile(self, **environment):
        done = self.bash('set -euo pipefail; source recipes/profile.sh; echo "$PROFILE"', **environment)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        said, profile = done.stdout.splitlines()
        assert profile in said
        assert (self.root / "recipes" / profile / "stage1.yaml").exists()
        return profile


@pytest.fixture
def copy(tmp_path):
    return Copy(tmp_path)


@pytest.mark.parametrize(
    ("answer", "profile"),
    [
        ("24564", "qwen3-vl-4b"),
        ("81559", "qwen3-vl-4b"),
        ("22528", "qwen3-vl-4b"),
        ("16376", "qwen3-vl-2b"),
        ("12288", "qwen3-vl-2b"),
        ("11264", "qwen3-vl-2b"),
        ("8188", "qwen3-vl-2b"),
        ("6144", "tiny"),
        ("24564\n8192", "qwen3-vl-4b"),
        (None, "tiny"),
    ],
)
def test_profile_fits_the_first_gpu(copy, answer, profile):
    copy.gpu(answer)
    assert copy.profile() == profile
    assert copy.profile(PROFILE="") == profile


@pytest.mark.parametrize("answer", ["No devices were found", "[N/A]"])
def test_profile_is_tiny_where_the_memory_is_no_number(copy, answer):
    copy.gpu(answer)
    assert copy.profile() == "tiny"
    assert "MiB" not in copy.bash("source recipes/profile.sh").stdout


def test_profile_that_is_asked_for_wins(copy):
    copy.gpu("8192")
    assert copy.profile(PROFILE="qwen3-vl-8b") == "qwen3-vl-8b"
    copy.gpu("24564")
    assert copy.profile(PROFILE="tiny") == "tiny"


def test_unknown_profile_ends_with_the_known_ones(copy):
    done = copy.bash("source recipes/profile.sh; echo went on", PROFILE="qwen9")
    assert done.returncode == 1
    assert "went on" not in done.stdout
    assert "recipes/qwen9" in done.stderr
    for path in RECIPES.glob("*/stage1.yaml"):
        assert path.parent.name in done.stderr
    assert copy.bash("source recipes/profile.sh", PROFILE="accelerate").returncode == 1


SETUP = "source recipes/setup.sh; command -v python; echo threads ${OMP_NUM_THREADS:-free}"


def test_setup_installs_once(copy):
    first = copy.bash(SETUP)
    assert first.returncode == 0, first.stderr
    python = copy.root / ".venv/bin/python"
    assert first.stdout.splitlines()[-2:] == [str(python), "threads 1"]
    venv, packages, ours = copy.installs()
    assert venv.startswith("venv ")
    assert f"--compile-bytecode --python {python} --requirement requirements.txt" in packages
    assert "--no-deps --editable ." in ours

    second = copy.bash(SETUP)
    assert second.stdout.splitlines() == [str(python), "threads 1"]
    assert second.stderr == ""
    assert copy.installs() == []


@pytest.mark.parametrize("name", ["requirements.txt", "pyproject.toml"])
def test_setup_installs_again_when_a_requirement_changes(copy, name):
    copy.bash(SETUP)
    copy.installs()
    with (copy.root / name).open("a") as file:
        file.write("# changed\n")
    copy.bash(SETUP)
    assert [call.split()[0] for call in copy.installs()] == ["pip", "pip"]
    assert len(list((copy.root / ".venv").glob(".mmrag-lite-*"))) == 1
    copy.bash(SETUP)
    assert copy.installs() == []


def test_setup_tries_again_after_a_failed_install(copy):
    uv = copy.bin / "uv"
    works = uv.read_text()
    uv.write_text(works + "[ $1 != pip ]\n")
    assert copy.bash(SETUP).returncode != 0
    uv.write_text(works)
    copy.installs()
    assert copy.bash(SETUP).returncode == 0
    assert len(copy.installs()) == 2


def test_setup_uses_the_active_environment(copy, tmp_path):
    active = tmp_path / "active"
    executable(active / "bin/python", "")
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        done = copy.bash(SETUP, **{variable: str(active)})
        assert done.stdout.splitlines()[-2] == str(active / "bin/python")
        assert not (copy.root / ".venv").exists()
    calls = copy.installs()
    assert len(calls) == 2
    assert all(f"--python {active}/bin/python" in call for call in calls)


@pytest.mark.parametrize("where", ["active", ".venv"])
def test_setup_names_an_environment_that_is_too_new_before_it_downloads(copy, tmp_path, where):
    environment = tmp_path / "active" if where == "active" else copy.root / ".venv"
    executable(environment / "bin/python", 'if [ "$1" = --version ]; then echo Python 3.13.0; else exit 1; fi')
    done = copy.bash(SETUP, **({"VIRTUAL_ENV": str(environment)} if where == "active" else {}))
    assert done.returncode == 1
    assert f"Python 3.11 or 3.12 is needed; {environment} has Python 3.13.0" in done.stderr
    assert copy.installs() == []


def test_setup_leaves_condas_own_environment_alone(copy, tmp_path):
    executable(tmp_path / "conda/bin/python", "")
    done = copy.bash(SETUP, CONDA_PREFIX=str(tmp_path / "conda"), CONDA_DEFAULT_ENV="base")
    assert done.stdout.splitlines()[-2] == str(copy.root / ".venv/bin/python")


def test_setup_adds_the_gpu_packages_where_there_is_a_gpu(copy):
    copy.gpu("24564")
    done = copy.bash(SETUP)
    assert done.stdout.splitlines()[-1] == "threads free"
    assert any("--requirement requirements-gpu.txt" in call for call in copy.installs())


def test_setup_fails_each_time_while_the_driver_is_too_old(copy, tmp_path):
    copy.gpu("24564")
    active = tmp_path / "active"
    executable(active / "bin/python", 'case "$2" in *torch*) exit 1 ;; esac')
    for _ in range(2):
        done = copy.bash(SETUP, VIRTUAL_ENV=str(active))
        assert done.returncode == 1
        assert "CUDA 13 needs 580 or newer" in done.stderr
        assert "UV_TORCH_BACKEND=cu126" in done.stderr
        assert copy.installs()
    done = copy.bash(SETUP, VIRTUAL_ENV=str(active), CUDA_VISIBLE_DEVICES="")  # as the message says
    assert done.returncode == 0
    assert any("--requirement requirements.txt" in call for call in copy.installs())
    executable(active / "bin/python", "")
    assert copy.bash(SETUP, VIRTUAL_ENV=str(active)).returncode == 0


def test_setup_names_the_python_that_is_too_old(copy):
    (copy.bin / "uv").unlink()
    if shutil.which("uv", path="/usr/bin:/bin"):
        pytest.skip("uv is among the system's programs and brings its own Python")
    executable(copy.bin / "python3.11", 'if [ "$1" = --version ]; then echo Python 3.9.1; else exit 1; fi')
    done = copy.bash(SETUP)
    assert done.returncode == 1
    assert "Python 3.11 or 3.12 is needed" in done.stderr
    assert "3.9.1" in done.stderr


def test_stage_takes_profile_and_overrides_from_anywhere(copy, tmp_path):
    copy.gpu("12288")
    done = copy.bash(f"bash {copy.root}/recipes/stage1.sh --max_steps 3 --output_dir 'my runs'", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = "lite train stage1 --config recipes/qwen3-vl-2b/stage1.yaml --max_steps 3 --output_dir my runs"
    assert done.stdout.splitlines()[-1] == expected
    assert copy.bash("bash recipes/stage1.sh", PROFILE="qwen9").returncode == 1


def test_accelerate_starts_both_stages_on_all_gpus_or_on_those_asked_for(copy):
    executable(copy.bin / "accelerate", 'echo "accelerate $*"')

    def called(stage, **environment):
        done = copy.bash(f"bash recipes/{stage}.sh --seed 3", PROFILE="tiny", **environment)
        return done, [line for line in done.stdout.splitlines() if line.startswith("accelerate ")]

    start = "accelerate launch --config_file recipes/accelerate/{} --module lite.cli train"
    stages = [f"{stage} --config recipes/tiny/{stage}.yaml" for stage in ("stage1", "stage2")]
    cpu = start.format("cpu2.yaml")
    assert called("stage1", ACCELERATE="cpu2")[1] == [f"{cpu} {stages[0]} --seed 3"]
    assert called("stage2", ACCELERATE="cpu2")[1] == [f"{cpu} {stages[0]}", f"{cpu} {stages[1]} --seed 3"]
    executable(copy.bin / "nvidia-smi", "echo 24564; echo 24564; echo 24564")
    three = start.format("multi_gpu.yaml --num_processes 3")
    assert called("stage1", ACCELERATE="multi_gpu")[1] == [f"{three} {stages[0]} --seed 3"]
    two = start.format("zero2.yaml --num_processes 2")
    assert called("stage1", ACCELERATE="zero2", PROCESSES="2")[1] == [f"{two} {stages[0]} --seed 3"]
    (copy.root / "mine.yaml").write_text("")
    own = start.format("x").replace("recipes/accelerate/x", "mine.yaml")
    assert called("stage1", ACCELERATE="mine.yaml")[1] == [f"{own} {stages[0]} --seed 3"]
    (copy.bin / "nvidia-smi").unlink()
    done, started = called("stage1", ACCELERATE="multi_gpu")
    assert (done.returncode, started) == (1, [])
    assert "multi_gpu needs at least two GPUs; nvidia-smi lists 0." in done.stderr
    copy.gpu("24564")
    for environment, message in (
        ({"ACCELERATE": "multi_gpu"}, "at least two GPUs"),
        ({"ACCELERATE": "nowhere"}, "Known: cpu2 multi_gpu one_gpu zero2"),
    ):
        done, started = called("stage1", **environment)
        assert (done.returncode, started) == (1, [])
        assert message in done.stderr


def test_stage2_trains_stage1_first_where_it_is_missing(copy):
    def called(*arguments):
        done = copy.bash(f"bash recipes/stage2.sh {' '.join(arguments)}", PROFILE="tiny")
        assert done.returncode == 0, done.stderr
        return [line for line in done.stdout.splitlines() if line.startswith("lite ")]

    stage1, stage2 = (f"lite train {stage} --config recipes/tiny/{stage}.yaml" for stage in ("stage1", "stage2"))
    assert called("--seed", "3") == [stage1, f"{stage2} --seed 3"]
    assert called("--dry_run", "true") == [f"{stage2} --dry_run true"]
    assert called("--stage1_adapter", "x") == [f"{stage2} --stage1_adapter x"]
    (copy.root / "runs" / "tiny" / "stage1").mkdir(parents=True)
    (copy.root / "runs" / "tiny" / "stage1" / "report.json").write_text("{}")
    assert called() == [stage2]
    away = "--output_dir runs/mine/stage2"
    assert called(away) == [f"{stage2} --stage1_adapter runs/tiny/stage1/adapter {away}"]


def test_stage2_is_stacked_on_the_stage1_of_its_own_data(copy):
    arguments = "--data jsonl:a.jsonl --output_dir=runs/mine/stage2"
    (copy.root / "runs" / "tiny" / "stage1").mkdir(parents=True)
    (copy.root / "runs" / "tiny" / "stage1" / "report.json").write_text("{}")  # of other data
    done = copy.bash(f"bash recipes/stage2.sh {arguments}", PROFILE="tiny")
    assert done.returncode == 1
    assert "recipes/stage1.sh --data … --output_dir runs/mine/stage1" in done.stderr
    (copy.root / "runs" / "mine" / "stage1").mkdir(parents=True)
    (copy.root / "runs" / "mine" / "stage1" / "report.json").write_text("{}")
    done = copy.bash(f"bash recipes/stage2.sh {arguments}", PROFILE="tiny")
    command = f"lite train stage2 --config recipes/tiny/stage2.yaml {arguments}"
    assert done.stdout.splitlines()[-1] == command
    (copy.root / "runs" / "mine" / "stage1" / "report.json").unlink()
    for others in (arguments, "--output_dir runs/mine/stage2"):
        done = copy.bash(f"bash recipes/stage2.sh {others}", PROFILE="tiny")
        assert done.returncode == 1
        assert "runs/mine/stage1 was stopped before its end" in done.stderr
    for fresh in ("--adapter_mode fresh", "--adapter_mode=fresh"):
        done = copy.bash(f"bash recipes/stage2.sh {arguments} {fresh}", PROFILE="tiny")
        assert done.stdout.splitlines()[-1] == f"{command} {fresh}"


def test_tests_are_the_fast_ones_unless_asked(copy):
    def called(*arguments):
        return copy.bash(f"bash recipes/test.sh {' '.join(arguments)}").stdout.splitlines()[-1]

    assert called().endswith("-m not slow")
    assert called("-x").endswith("-m not slow -x")
    assert "not slow" not in called("--slow", "-x")
    assert called("--slow", "-x").endswith(" -x")


@pytest.fixture
def dry_run(tmp_path, monkeypatch, capsys):
    """Runs a profile dry, in an empty folder; returns (exit status, output, errors)."""
    monkeypatch.chdir(tmp_path)

    def run(profile, *arguments, stage="stage1"):
        config = str(RECIPES / profile / f"{stage}.yaml")
        # not Unsloth: it would patch trl for every later test
        fixed = ["--config", config, "--dry_run", "true", "--limit", "12", "--backend", "transformers"]
        status = main(["train", stage, *fixed, *arguments])
        return status, *capsys.readouterr()

    yield run
    AcceleratorState._reset_state(reset_partial_state=True)  # see test_settings.py
    assert list(tmp_path.iterdir()) == []


def test_dry_run_of_tiny_estimates_and_leaves_nothing_behind(dry_run):
    status, out, _ = dry_run("tiny")
    assert status == 0
    assert re.search(r"Estimated GPU memory.*4-bit weights.*peak\s+│ \d+\.\d\d", out, re.DOTALL)
    assert "Fits" in out
    assert re.search(r"Prompt tokens\s+p50 \d+, p95 \d+, max \d+", out)
    assert re.search(r"\d+ pairs of a question and a document", out)
    assert "16 prompts × 8 generations" in out


@pytest.mark.parametrize("profile", ["tiny", *(path.parent.name for path in QWEN_STAGE2)])
def test_stage2_of_every_profile_is_estimated_to_fit_with_room(dry_run, profile):
    status, out, _ = dry_run(profile, "--use_cpu", "true", stage="stage2")
    assert status == 0
    documents = "8" if profile == "tiny" else "[4-6]"
    assert re.search(rf"(12|36) prompts of a question with up to {documents} documents; 0 left out", out)
    assert float(re.search(r"Fits a 24 GiB card.*: ([\d.]+) GiB to spare", out)[1]) > 4


def test_dry_run_of_a_qwen_profile_estimates_without_the_hub(dry_run):
    status, out, _ = dry_run("qwen3-vl-4b", "--use_cpu", "true", "--max_prompt_tokens", "600")
    assert status == 0
    assert "Fits" in out
    assert "8 prompts × 8 generations" in out


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="is about machines without a GPU")
def test_dry_run_of_a_qwen_profile_needs_no_gpu(dry_run):
    status, out, _ = dry_run("qwen3-vl-4b")
    assert status == 0
    assert "Fits" in out


def test_an_editable_install_is_found_from_the_folder_above_a_clone_of_its_name(tmp_path):
    clone = tmp_path / "lite"
    clone.mkdir()
    shutil.copytree(ROOT / "lite", clone / "lite", ignore=shutil.ignore_patterns("__pycache__", "images", "weights"))
    (clone / "library").mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, clone)
    code = "import setuptools.build_meta as backend; print(backend.build_editable('..'))"
    built = subprocess.run([sys.executable, "-c", code], cwd=clone, capture_output=True, text=True, check=True)
    site = tmp_path / "site"
    shutil.unpack_archive(tmp_path / built.stdout.splitlines()[-1], site, "zip")
    code = f"import site; site.addsitedir({str(site)!r}); import lite, lite.library; print(lite.library.__file__)"
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, env=bare, capture_output=True, text=True)
    assert done.stdout.strip() == str(clone / "lite" / "library" / "__init__.py"), done.stderr


@pytest.mark.parametrize(("profile", "like"), [("qwen3.5-4b", "qwen3-vl-4b"), ("smolvlm2-500m", "qwen3-vl-2b")])
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_profile_differs_only_as_its_header_says(profile, like, stage):
    text = (RECIPES / profile / f"{stage}.yaml").read_text()
    assert f"# Differs:  from ../{like} in the model" in text
    own, other = (yaml.safe_load((RECIPES / name / f"{stage}.yaml").read_text()) for name in (profile, like))
    differs = {name for name in own.keys() | other.keys() if own.get(name) != other.get(name)}
    model = {"model_name_or_path", "load_in_4bit", "output_dir"}
    machine = {"bf16", "use_cpu", "dataloader_pin_memory", "optim", "per_device_eval_batch_size"}
    prompts = {"document_chars", "max_documents", "max_prompt_tokens", "max_steps", "max_completion_length"}
    steps = {"learning_rate", "cold_start_steps"}
    assert differs <= (model if profile == "qwen3.5-4b" else model | machine | prompts | steps)
    assert {"model_name_or_path", "output_dir"} <= differs
    assert [
        name
        for name, comment in value_lines(RECIPES / profile / f"{stage}.yaml")
        if name not in PLAIN and len(comment) < 8
    ] == []
