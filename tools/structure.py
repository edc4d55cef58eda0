"""The structure of the package in figures: `python -m tools.structure [FOLDER]`, by default `lite`.

Counts modules per room, arrows (imports between modules, those for type checking and inside functions too), floors (the
longest chain of imports), circles, and names the longest modules and functions. `tests/test_structure.py` keeps them
within bounds.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path


def module_name(path: Path, root: Path) -> str:
    """`lite/data/pools.py` is `lite.data.pools`, `lite/data/__init__.py` is `lite.data`."""
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(root: Path) -> dict[str, set[str]]:
    """The modules of the package, each with those of the package that it imports anywhere in its text.

    `from lite import Rag` counts as an import of `lite` itself, which is lazy, and is left out.
    """
    trees = {module_name(path, root): ast.parse(path.read_text()) for path in sorted(root.rglob("*.py"))}
    found: dict[str, set[str]] = {}
    for module, tree in trees.items():
        named = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                named |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        known = named & set(trees)
        # `from lite.models import memory` names the package as well; only the module is meant
        packages = {name for name in known if any(other.startswith(f"{name}.") for other in known)}
        found[module] = known - packages - {module, root.name}
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one circle of imports, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def floors(graph: dict[str, set[str]]) -> int:
    """Modules in the longest chain of imports, where there is no circle."""
    height: dict[str, int] = {}
    for module in TopologicalSorter(graph).static_order():
        height[module] = 1 + max((height[below] for below in graph[module]), default=0)
    return max(height.values(), default=0)


def room(module: str) -> str:
    """`lite.data.pools` lies in `data`, `lite.schema` is a room of its own."""
    return [*module.split("."), "__init__"][1]


def functions(root: Path) -> dict[str, int]:
    """Lines of every function and method without its docstring, by `path:name`."""
    return {
        f"{path.relative_to(root.parent)}:{node.name}": node.end_lineno - node.lineno + 1 - _docstring_lines(node)
        for path in sorted(root.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def _docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    return first.end_lineno - first.lineno + 1 if ast.get_docstring(node, clean=False) is not None else 0


def lines(root: Path) -> dict[str, int]:
    """Lines of every module, by path."""
    return {
        str(path.relative_to(root.parent)): len(path.read_text().splitlines()) for path in sorted(root.rglob("*.py"))
    }


def main(root: Path) -> None:
    graph = imports(root)
    rooms = Counter(room(module) for module in graph)
    arrows = [(module, below) for module, named in graph.items() for below in named]
    between = {(room(module), room(below)) for module, below in arrows} - {(name, name) for name in rooms}
    found = circle(graph)
    print(f"{len(graph)} modules in {len(rooms)} rooms: {', '.join(f'{n} {c}' for n, c in sorted(rooms.items()))}")
    print(f"{len(arrows)} arrows between modules, {len(between)} between rooms")
    print(f"circle: {' → '.join(found)}" if found else f"{floors(graph)} floors, no circle")
    for title, sizes in (("modules", lines(root)), ("functions", functions(root))):
        longest = sorted(sizes.items(), key=lambda item: -item[1])[:5]
        print(f"longest {title}: " + ", ".join(f"{name} {count}" for name, count in longest))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "lite").absolute())
