"""What a command can leave out of the libraries that it imports, since starting takes longer than answering."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from typing import Any


@contextmanager
def slim_imports() -> Iterator[None]:
    """Inside, transformers and bitsandbytes import less: for commands that only ask a model.

    transformers imports scikit-learn, and with it SciPy and pandas, for one threshold of assisted generation.
    bitsandbytes hands four functions to `torch.compile`, which imports all of torch's compiler; they are fallbacks for
    devices without kernels of its own, and do the same uncompiled. Together they are a quarter of the time. Remove when
    the libraries import them where they are used.
    """
    import torch
    import transformers.utils

    found, compiled = transformers.utils.is_sklearn_available, torch.compile
    transformers.utils.is_sklearn_available = lambda: False
    torch.compile = _uncompiled
    try:
        yield
    finally:
        transformers.utils.is_sklearn_available, torch.compile = found, compiled


def _uncompiled(function: Callable | None = None, **_: Any) -> Callable:
    return function if function is not None else lambda function: function


def import_late(package: str) -> None:
    """Run a package's `__init__` when something of its own is asked for, not when a module in it is imported.

    For lancedb, which imports the client of a REST server, hundreds of classes, to name some of its models: a third of
    its start-up. Remove when it imports that client where it is used.
    """
    spec = find_spec(package) if package not in sys.modules else None
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)

    def run_and_get(name: str) -> Any:
        del module.__getattr__
        spec.loader.exec_module(module)
        return getattr(module, name)

    module.__getattr__ = run_and_get
    sys.modules[package] = module
