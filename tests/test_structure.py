"""The rooms: imports point down, there is no circle, and modules and functions keep a readable length."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import lite
from tools.structure import circle, floors, functions, imports, lines, room

ROOT = Path(lite.__file__).parent
# From the bottom up; a module imports from its own room and from rooms below, never beside or above.
FLOORS = [
    {"schema", "__init__"},
    {"files", "terminal", "console", "hub", "startup", "web"},
    {"runs", "ray", "metrics", "config"},
    {"models", "library"},
    {"stages", "data"},
    {"rag", "evaluate"},
    {"train", "demo", "serve"},
    {"cli"},
    {"__main__"},
]
BESIDE = {("config", "runs"), ("console", "terminal")}
MODULE_LINES, FUNCTION_LINES = 360, 65
LEVEL = {name: level for level, rooms in enumerate(FLOORS) for name in rooms}


def test_every_room_has_its_floor() -> None:
    assert {room(module) for module in imports(ROOT)} == set(LEVEL)


def test_imports_point_down() -> None:
    upward = [
        f"{module} imports {below}"
        for module, named in imports(ROOT).items()
        for below in sorted(named)
        if room(module) != room(below)
        and LEVEL[room(below)] >= LEVEL[room(module)]
        and (room(module), room(below)) not in BESIDE
    ]
    assert upward == []


def test_no_circle_not_even_for_type_checking() -> None:
    assert circle(imports(ROOT)) == []


def test_a_circle_and_floors_are_seen() -> None:
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}
    assert floors({"a": {"b"}, "b": {"c"}, "c": set()}) == 3


def test_answering_and_evaluating_import_nothing_of_training() -> None:
    graph = imports(ROOT)
    for module, named in graph.items():
        if room(module) in ("rag", "stages", "models", "library", "demo", "serve", "evaluate"):
            assert not {below for below in named if room(below) == "train"}, module


def test_modules_and_functions_are_of_a_readable_length() -> None:
    assert {path: count for path, count in lines(ROOT).items() if count > MODULE_LINES} == {}
    assert {name: count for name, count in functions(ROOT).items() if count > FUNCTION_LINES} == {}


def test_the_front_door_opens_every_name_and_imports_late() -> None:
    program = "import sys, lite; print(sorted({'torch', 'PIL', 'numpy', 'yaml', 'lancedb'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    for name in lite.__all__:
        assert getattr(lite, name) is not None
    assert set(lite.__all__) <= set(dir(lite))
    with pytest.raises(AttributeError, match="no attribute 'Ragg'"):
        _ = lite.Ragg
    with pytest.raises(ImportError):
        exec("from lite import nothing_of_this_name")


# Declared although no line imports them: another package loads them, or wants them named.
LOADED_BY_OTHERS = {
    "num2words": "transformers' processor of SmolVLM",
    "spacy-lookups-data": "spaCy's tables of lemmas",
    "tensorboard": "report_to: tensorboard, the default of the recipes",
    "torchvision": "transformers' image processors",
}
PACKAGE_OF = {
    "PIL": "pillow", "Stemmer": "pystemmer", "markdown_it": "markdown-it-py", "pillow_heif": "pillow-heif",
    "yaml": "pyyaml",
}  # fmt: skip


def packages(requirements: list[str]) -> set[str]:
    """Their names, as they are imported or installed, in one spelling."""
    return {re.split(r"[<>=\[~; ]", requirement)[0].lower().replace("_", "-") for requirement in requirements}


def test_imported_packages_are_declared_and_declared_ones_are_imported() -> None:
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
    optional = [name for extra in project["optional-dependencies"].values() for name in extra]
    found = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                found.add(node.module.split(".")[0])
    imported = packages([PACKAGE_OF.get(name, name) for name in found - set(sys.stdlib_module_names) - {"lite"}])
    assert imported - packages([*project["dependencies"], *optional]) == set()
    assert packages(project["dependencies"]) - imported == set(LOADED_BY_OTHERS)
