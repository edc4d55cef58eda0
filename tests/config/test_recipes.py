"""Recipes by name, also where there is no clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lite.config.recipes import RECIPES, with_recipe
from lite.schema import LiteError

ROOT = Path(__file__).parents[2]


def test_a_profile_names_a_recipe() -> None:
    found = with_recipe(["--max_steps", "3", "--profile", "tiny", "--seed", "1"], "stage2")
    assert found == ["--max_steps", "3", "--config", str(RECIPES / "tiny" / "stage2.yaml"), "--seed", "1"]
    assert with_recipe(["--profile=tiny"], "stage1") == ["--config", str(RECIPES / "tiny" / "stage1.yaml")]
    assert with_recipe(["--seed", "1"], "stage1") == ["--seed", "1"]
    assert Path(found[3]).samefile(ROOT / "recipes" / "tiny" / "stage2.yaml")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--profile", "tinny"], "no profile 'tinny'. Profiles: .*tiny"), (["--profile"], "no profile ''"),
        (["--profile", "../tiny"], "no profile"), (["--profile", "tiny", "--config=x.yaml"], "either"),
    ],
)  # fmt: skip
def test_other_names_are_refused(arguments: list[str], why: str) -> None:
    with pytest.raises(LiteError, match=why):
        with_recipe(arguments, "stage1")


@pytest.mark.slow
def test_a_wheel_trains_without_a_clone(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("lite", "recipes"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    code = "from setuptools.build_meta import build_wheel; build_wheel('..')"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    held = {str(path.relative_to(tmp_path / "site")) for path in (tmp_path / "site").rglob("*") if path.is_file()}
    tracked = subprocess.run(["git", "ls-files", "lite"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert {name for name in tracked if (ROOT / name).is_file()} <= held
    shutil.rmtree(source)
    empty = tmp_path / "empty"
    empty.mkdir()
    arguments = ["train", "stage1", "--profile", "tiny", "--max_steps", "1", "--limit", "8", "--report_to", "none"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "lite", *arguments], cwd=empty, env=environment, check=True, timeout=500)
    assert (empty / "runs" / "tiny" / "stage1" / "adapter" / "adapter_model.safetensors").exists()
